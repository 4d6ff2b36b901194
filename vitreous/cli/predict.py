"""`vitreous predict`."""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vitreous.cli.app import (
    FamilyOption,
    ImagesArgument,
    MaxPixelsOption,
    ModelArgument,
    PartOption,
    SettingsOption,
    open_classifier,
)
from vitreous.cli.inputs import exit_if_unreadable, find_images, print_remarks, readable, reading_with
from vitreous.support.errors import InputError
from vitreous.support.text import csv_cell, printable

if TYPE_CHECKING:
    from vitreous.classifier import Classifier, Prediction
    from vitreous.data.decoding.images import BadImage

HEADER = ("image", "class_name", "probability", "unsure", "second_class_name", "second_probability")
MAX_WIDTH = 60  # of a name in the table; longer ones push the other columns right
RUNNERS_UP = 2  # classes shown after the top one


def command(
    model: ModelArgument,
    images: ImagesArgument,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
    min_confidence: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Mark predictions below this probability as unsure: in the table instead of the class, in CSV and "
            "JSON in a separate field.",
        ),
    ] = 0.0,
    max_pixels: MaxPixelsOption = None,
    family: FamilyOption = None,
    part: PartOption = None,
    settings: SettingsOption = None,
) -> None:
    """Classify images."""
    if as_csv and as_json:
        raise InputError("--csv and --json exclude each other", "give one of them")
    paths = find_images(images)
    classifier = open_classifier(model, family, part, settings)
    bad: list[BadImage] = []
    reading = reading_with(max_pixels)
    predictions = readable(classifier.each(paths, reading=reading), bad)
    if as_csv:
        print_csv(predictions, min_confidence)
    elif as_json:
        print_json(predictions, min_confidence)
    else:
        print_table(predictions, paths, classifier, min_confidence)
    print_remarks(reading)
    exit_if_unreadable(bad, paths)


def print_csv(predictions: "Iterable[Prediction]", min_confidence: float) -> None:
    """Prints a header, then each prediction as soon as it is ready; no spreadsheet runs a cell as a formula."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(HEADER)
    for prediction in predictions:
        second = prediction.top[1] if len(prediction.top) > 1 else ("", None)
        unsure = "unsure" if prediction.probability < min_confidence else ""
        cells = (prediction.image, prediction.class_name, prediction.probability, unsure, *second)
        table.writerow(map(csv_cell, cells))
        sys.stdout.flush()


def print_json(predictions: "Iterable[Prediction]", min_confidence: float) -> None:
    """Prints a list, one element per line; in ASCII, so that any file name round-trips and is inert."""
    separator = "["
    for prediction in predictions:
        row = prediction.to_dict() | {"unsure": prediction.probability < min_confidence}
        print(f"{separator}\n{json.dumps(row, allow_nan=False)}", end="", flush=True)
        separator = ","
    print("[]" if separator == "[" else "\n]")


def print_table(
    predictions: "Iterable[Prediction]", paths: Sequence[str], classifier: "Classifier", min_confidence: float
) -> None:
    """Prints an aligned line for each prediction as soon as it is ready; in color on a terminal."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    names = (*(classifier.class_names or ()), "class", "unsure")
    image_width = min(MAX_WIDTH, max(cell_len(printable(path)) for path in paths))
    class_width = min(MAX_WIDTH, max(cell_len(printable(name)) for name in names))
    for prediction in predictions:
        unsure = prediction.probability < min_confidence
        label = "unsure" if unsure else printable(prediction.class_name)
        others = prediction.top[: RUNNERS_UP + 1] if unsure else prediction.top[1 : RUNNERS_UP + 1]
        line = Text.assemble(
            padded(printable(prediction.image), image_width),
            "  ",
            (padded(label, class_width), "yellow" if unsure else "bold green"),
            f"  {prediction.probability:6.1%}  ",
            (", ".join(f"{printable(name)} {p:.1%}" for name, p in others), "dim"),
        )
        line.rstrip()
        console.print(line)


def padded(text: str, width: int) -> str:
    """The text padded to a width in terminal columns; wide characters take two."""
    from rich.cells import cell_len

    return text + " " * (width - cell_len(text))
