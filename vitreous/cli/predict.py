"""`vitreous predict`."""

import csv
import glob
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitreous.cli.app import BAD_INPUT, FamilyOption, SettingsOption, open_classifier
from vitreous.support.errors import InputError
from vitreous.support.text import csv_cell, natural_key, printable

if TYPE_CHECKING:
    from vitreous.classifier import Classifier, Prediction
    from vitreous.data.images import BadImage

STDIN = "-"
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
    if faults:
        print(f"{len(faults):,} of {len(paths):,} images could not be read", file=sys.stderr)
        raise typer.Exit(BAD_INPUT)


# ---- which images


def find_images(arguments: Iterable[str]) -> list[str]:
    """The images that the arguments name, in their order; those below a folder in natural order.

    A name that does not exist and is no pattern is kept: it is told like a broken image, and stops no other.

    Raises:
        InputError: a folder, a pattern or stdin gives no image.
    """
    found: list[str] = []
    for argument in arguments:
        if argument == STDIN:
            lines = (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer)
            here = [path for line in lines if line for path in images_at(line)]
            nothing = InputError("there are no names on stdin", "give one a line, as find and ls do")
        elif not os.path.lexists(argument) and glob.has_magic(argument):
            # Not Path.glob, which takes no absolute pattern.
            matches = sorted(glob.iglob(argument, recursive=True), key=natural_key)  # noqa: PTH207
            here = [path for match in matches for path in images_at(match, chosen=False)]
            nothing = InputError(
                f"no image matches {argument!r}", "a pattern is like 'new/*.jpg'; ** stands for folders"
            )
        else:
            here = list(images_at(argument))
            nothing = InputError(f"there are no images in {argument!r}", "read are JPEG, PNG, WebP, BMP and GIF files")
        if not here:
            raise nothing
        found += here
    return found


def images_at(path: str, chosen: bool = True) -> Iterator[str]:
    """The images below a folder, at any depth; a file itself, whatever its name if it was `chosen` by name."""
    from vitreous.data.images import is_image_name

    if not Path(path).is_dir():
        if chosen or is_image_name(path):
            yield path
        return
    for folder, folders, files in os.walk(path, onerror=fail):
        for name in folders:
            if Path(folder, name).is_symlink():
                print(f"passed over: {printable(f'{folder}/{name}')} is a link to a folder", file=sys.stderr)
        folders[:] = sorted((name for name in folders if not name.startswith((".", "__MACOSX"))), key=natural_key)
        for name in sorted(filter(is_image_name, files), key=natural_key):
            yield f"{folder.rstrip('/')}/{name}"


def fail(error: OSError) -> None:
    """Raises what os.walk would pass over in silence: a folder that cannot be read."""
    raise error


def readable(results: "Iterable[Prediction | BadImage]", faults: "list[BadImage]") -> "Iterator[Prediction]":
    """The predictions alone; an image that cannot be read is told at once, on one line, and added to `faults`."""
    from vitreous.data.images import BadImage

    for result in results:
        if isinstance(result, BadImage):
            print(f"error: {result}", file=sys.stderr)
            faults.append(result)
        else:
            yield result


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
    """Prints aligned lines as they come; in colour on a terminal."""
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
