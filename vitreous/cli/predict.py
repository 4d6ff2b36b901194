"""`vitreous predict`."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vitreous.cli.app import FamilyOption, SettingsOption, open_classifier
from vitreous.cli.inputs import find_images, readable, tell_unreadable
from vitreous.support.errors import InputError
from vitreous.support.text import csv_cell, printable

if TYPE_CHECKING:
    from vitreous.classifier import Classifier, Prediction
    from vitreous.data.images import BadImage

HEADER = ("image", "class_name", "probability", "unsure", "second_class_name", "second_probability")
WIDEST = 60  # columns of a table that a name may take before the others move
OTHERS = 2  # classes that a table shows beside the likeliest


def command(
    model: Annotated[str, typer.Argument(help="A run's folder, a weights file of any family, or a name of a hub.")],
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders of them at any depth, patterns such as 'new/*.jpg', or - for names on stdin."
        ),
    ],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
    min_confidence: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Mark images whose likeliest class is less probable as unsure: in a table in place of the class, "
            "in CSV and JSON as a field of its own.",
        ),
    ] = 0.0,
    family: FamilyOption = None,
    settings: SettingsOption = None,
) -> None:
    """Name the classes of images."""
    if as_csv and as_json:
        raise InputError("--csv and --json exclude each other", "give one of them")
    paths = find_images(images)

    from vitreous.support.host import tune_host

    tune_host()
    classifier = open_classifier(model, family, settings)
    faults: list[BadImage] = []
    predictions = readable(classifier.each(paths), faults)
    if as_csv:
        show(csv_lines(predictions, min_confidence))
    elif as_json:
        show(json_lines(predictions, min_confidence))
    else:
        print_table(predictions, paths, classifier, min_confidence)
    tell_unreadable(faults, paths)


# ---- how they are shown


def show(texts: Iterable[str]) -> None:
    """Prints pieces of text as they come."""
    for text in texts:
        print(text, end="", flush=True)


def csv_lines(predictions: "Iterable[Prediction]", min_confidence: float) -> Iterator[str]:
    """A header, then a line for each prediction; the cells are inert in spreadsheets."""
    yield csv_line(HEADER)
    for prediction in predictions:
        second = prediction.top[1] if len(prediction.top) > 1 else ("", None)
        unsure = "unsure" if prediction.probability < min_confidence else ""
        yield csv_line((prediction.image, prediction.class_name, prediction.probability, unsure, *second))


def csv_line(cells: Sequence[object]) -> str:
    """One line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(csv_cell, cells))
    return text.getvalue()


def json_lines(predictions: "Iterable[Prediction]", min_confidence: float) -> Iterator[str]:
    """A JSON list, an element on each line; all ASCII, so that every file name comes through and does nothing."""
    before = "["
    for prediction in predictions:
        told = prediction.to_dict() | {"unsure": prediction.probability < min_confidence}
        yield f"{before}\n{json.dumps(told, allow_nan=False)}"
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def print_table(
    predictions: "Iterable[Prediction]", paths: Sequence[str], classifier: "Classifier", min_confidence: float
) -> None:
    """Prints aligned lines as they come; in color on a terminal."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    names = (*(classifier.class_names or ()), "class", "unsure")
    image_width = min(WIDEST, max(cell_len(printable(path)) for path in paths))
    class_width = min(WIDEST, max(cell_len(printable(name)) for name in names))
    for prediction in predictions:
        unsure = prediction.probability < min_confidence
        shown = "unsure" if unsure else printable(prediction.class_name)
        others = prediction.top[: OTHERS + 1] if unsure else prediction.top[1 : OTHERS + 1]
        line = Text.assemble(
            padded(printable(prediction.image), image_width),
            "  ",
            (padded(shown, class_width), "yellow" if unsure else "bold green"),
            f"  {prediction.probability:6.1%}  ",
            (", ".join(f"{printable(name)} {p:.1%}" for name, p in others), "dim"),
        )
        line.rstrip()
        console.print(line)


def padded(text: str, width: int) -> str:
    """Text filled up to a width in columns of a terminal, of which some characters take two."""
    from rich.cells import cell_len

    return text + " " * (width - cell_len(text))
