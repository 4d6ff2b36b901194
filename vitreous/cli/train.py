"""`vitreous train`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from vitreous.cli.app import STOPPED, read_settings
from vitreous.support.text import printable


def command(
    data: Annotated[
        str,
        typer.Argument(
            help='A folder or zip of images in one folder per class, perhaps below train/, val/ and test/; or "digits".'
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="Weights to go on from: a run, a file or a name (vitreous list models); or a variant such as S/16, to "
            "train from scratch. Auto takes known weights if they are at hand, else what fits the images."
        ),
    ] = "auto",
    init: Annotated[
        Literal["auto", "random", "pretrained"] | None,
        typer.Option(
            help="Whether to start from fresh weights or from known ones, also of a variant; the recipe's by default."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A built-in recipe, perhaps with options, as augreg+light1 (vitreous list recipes); or a TOML file."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A value of the recipe to change, such as lr=1e-3; repeatable."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/ and the data's name by default.")] = None,
) -> None:
    """Train a model on your images."""
    from vitreous.classifier import load
    from vitreous.pages.report import write_report
    from vitreous.training.run import run_training

    try:
        run = run_training(data, model, recipe, out, read_settings(settings or []), init=init)
        if run.outcome is not None:
            report = write_report(run.folder, load(run.folder), run.data, run.outcome)
            print(printable(f"report: {report}"))
    except KeyboardInterrupt:
        print("stopped; whatever the run has written is whole", file=sys.stderr)
        raise typer.Exit(STOPPED) from None
    folder = shlex.quote(str(run.folder))
    print("next:")
    if run.outcome is None:
        print(printable(f"  vitreous train {shlex.quote(data)} --model {folder} --out {folder}-finetuned"))
    else:
        print(printable(f"  vitreous predict {folder} photo.jpg"))
    print(printable(f"  vitreous inspect {folder} --image photo.jpg"))
    if run.outcome is not None:
        print(printable(f"  vitreous train more-photos/ --model {folder}"))
