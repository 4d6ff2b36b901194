"""`vitreous train`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from vitreous.cli.app import STOPPED, read_settings
from vitreous.support.text import printable


def command(
    data: Annotated[
        str,
        typer.Argument(
            help='"digits", or a folder of images in one folder per class, or of train/ and test/ with these.'
        ),
    ],
    model: Annotated[str, typer.Option(help="A variant such as Ti/8 or S/16; auto fits the images.")] = "auto",
    recipe: Annotated[
        str | None, typer.Option(help="A built-in recipe (vitreous list recipes) or a TOML file.")
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
        run = train(data, model, recipe, out, read_settings(settings or []))
        report = write_report(run.folder, load(run.folder), run.data, run.outcome)
    except KeyboardInterrupt:
        print("stopped; what the run's folder holds is whole", file=sys.stderr)
        raise typer.Exit(STOPPED) from None
    print(printable(f"report: {report}"))
    print(printable(f"next: vitreous predict {shlex.quote(str(run.folder))} photo.jpg"))
