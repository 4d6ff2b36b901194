"""`vitreous train`."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vitreous.cli.app import read_settings
from vitreous.support.errors import REPORTED, InputError
from vitreous.support.text import printable

if TYPE_CHECKING:
    from vitreous.training.run import Run


def command(
    data: Annotated[
        str | None,
        typer.Argument(
            show_default=False,
            help="Images with labels: a folder or archive with a subfolder per class, optionally inside train/, val/ "
            "and test/; a table; or a name such as digits, cifar10 or hf:owner/name (vitreous list sources).",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="Weights to start from: a run, a file or a name (vitreous list models); or a variant such as S/16, to "
            "train from scratch. Auto uses known weights if available, otherwise a model that suits the images."
        ),
    ] = "auto",
    init: Annotated[
        Literal["auto", "random", "pretrained"] | None,
        typer.Option(help="Start from fresh weights, or from known weights of a variant; the recipe's by default."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A built-in recipe, optionally with options, such as augreg+light1; or a TOML file."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe value, such as lr=1e-3; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; by default runs/ and the name of the data.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run that stopped, from its folder; DATA only if that is elsewhere now, --set only to "
            "prolong it (epochs) or to move it (device, parallel, workers, threads, micro_batch).",
        ),
    ] = None,
) -> None:
    """Train a model on your images."""
    from vitreous.classifier import load
    from vitreous.pages.report import write_report
    from vitreous.training.parallel.place import Place
    from vitreous.training.resuming import Finished
    from vitreous.training.run import run_training

    if resume is None and data is None:
        raise InputError("there are no images to train on", "give a folder: vitreous train photos")
    if resume is not None and (model != "auto" or init or recipe or out):
        raise InputError("--model, --init, --recipe and --out cannot be combined with --resume", "leave them out")
    try:
        run = run_training(data, model, recipe, out, read_settings(settings or []), init=init, resume=resume)
    except Finished as finished:
        if not hasattr(finished, REPORTED):
            print(printable(f"{finished.cause}; {finished.hint}"))
        return
    if not Place.here().leads:
        return
    if run.outcome is not None:
        report = write_report(run.folder, load(run.folder), run.data, run.outcome)
        print(printable(f"report: {report}"))
    print("next:")
    for words in next_commands(data or run.data.name, run):
        print(printable(f"  vitreous {shlex.join(words)}"))


def next_commands(data: str, run: "Run") -> list[list[str]]:
    """Commands that use the run, with an image of the data if it is a folder or a table; they run as printed."""
    from vitreous.data.sources.tabular.tables import is_table

    images = os.path.dirname(data) if is_table(data) else data  # noqa: PTH120 (a Path would drop a leading ./)
    data, folder = as_argument(data), as_argument(str(run.folder))
    split = run.data.validation if run.data.test is None else run.data.test
    paths = (as_argument(os.path.join(images, name)) for name in split.names)  # noqa: PTH118 (a Path would drop a leading ./)
    image = next((path for path in paths if path.isprintable() and Path(path).is_file()), None)
    inspect = ["inspect", folder, *(["--image", image] if image is not None else [])]
    if run.outcome is None:
        return [["train", data, "--model", folder, "--out", f"{folder}-finetuned"], inspect]
    if image is None:
        return [inspect]
    return [["predict", folder, image], inspect, ["explain", folder, image, "--out", f"{folder}-explained"]]


def as_argument(path: str) -> str:
    """A path that no command takes for an option."""
    return f"./{path}" if path.startswith("-") else path
