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
            help='"digits", or a folder or zip of images in one folder per class, or of train/ and test/ with these.'
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="A variant such as S/16, to train from scratch; or weights, as predict takes them, to go on from."
        ),
    ] = "auto",
    init: Annotated[
        Literal["auto", "random", "pretrained"] | None,
        typer.Option(help="Fresh weights or known ones of the variant; auto takes known ones if they are at hand."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A built-in recipe, such as augreg+light1 (vitreous list recipes), or a file."),
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
    from vitreous.cli.report import write_report
    from vitreous.training.run import train

    try:
        run = train(data, model, recipe, out, read_settings(settings or []), init=init)
        if run.outcome is not None:
            report = write_report(run.folder, load(run.folder), run.data, run.outcome)
            print(printable(f"report: {report}"))
    except KeyboardInterrupt:
        print("stopped; what the run's folder holds is whole", file=sys.stderr)
        raise typer.Exit(STOPPED) from None
    folder = shlex.quote(str(run.folder))
    print("next:")
    if run.outcome is None:
        print(printable(f"  vitreous train {shlex.quote(data)} --model {folder} --out {folder}-finetuned"))
    else:
        print(printable(f"  vitreous predict {folder} photo.jpg"))
    print(printable(f"  vitreous inspect {folder} --image photo.jpg"))
    print(printable(f"  vitreous export {folder} --to timm --out {folder}-timm"))
