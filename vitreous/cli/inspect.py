"""`vitreous inspect`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitreous.cli.app import FamilyOption, PartOption, SettingsOption, open_classifier
from vitreous.support.errors import InputError, nearest
from vitreous.support.text import printable

if TYPE_CHECKING:
    from vitreous.classifier import Classifier
    from vitreous.data.decoding.bands import Picture
    from vitreous.inspection.table import Table


def command(
    model: Annotated[
        str,
        typer.Argument(help="A variant such as B/16, a run's folder, a weights file of any family, or a hub name."),
    ],
    image: Annotated[
        Path | None, typer.Option(help="Image to run through the model; adds statistics of each stage.")
    ] = None,
    level: Annotated[
        int,
        typer.Option(
            min=1, help="Depth: 1 the boxes of Figure 1, 2 the blocks, 3 inside the blocks, 4 inside their parts."
        ),
    ] = 3,
    all_blocks: Annotated[
        bool, typer.Option("--all", help="Expand every block, not only the first of equal ones.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="With --image: also write a page that follows the photo through the model."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    family: FamilyOption = None,
    part: PartOption = None,
    settings: SettingsOption = None,
) -> None:
    """Show the inputs and outputs of every stage of a model, from image to class."""
    from vitreous.data.decoding.images import Decoding
    from vitreous.data.decoding.picture import decode_picture
    from vitreous.inspection.table import lay_out
    from vitreous.inspection.trace import inspect
    from vitreous.support.host import tune_host

    tune_host()
    check_page(html, image)
    classifier, fresh = open_model(model, family, part, settings, with_weights=image is not None)
    preprocessing = classifier.preprocessing
    decoding = Decoding(max_value=preprocessing.max_value, channels=preprocessing.channels)
    photo = None if image is None else decode_picture(image, decoding=decoding)
    device = next(classifier.model.parameters()).device
    pixels = [] if photo is None else [preprocessing([photo]).to(device)]
    trace = inspect(classifier.model, *pixels, level=level, values=image is not None)
    if as_json:
        fields = {"name": model, "fresh_weights": fresh, **trace.to_dict()}
        print(json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        table = lay_out(trace, fold=not all_blocks)
        if fresh and image is not None:
            table.notes.append("The weights are random: the values say nothing about a trained model.")
        print_table(table)
    if html is not None and photo is not None:
        write_page(html, classifier, photo, model, fresh)
        print(f"the walk is in {printable(str(html))}", file=sys.stderr if as_json else sys.stdout)


def check_page(html: Path | None, image: Path | None) -> None:
    """Raises InputError if the page cannot be written, before anything is computed."""
    from vitreous.support.files import check_target

    if html is None:
        return
    if image is None:
        raise InputError("--html needs a photo", "add --image photo.jpg")
    check_target(html)
    if not html.parent.is_dir():
        raise InputError(
            f"cannot write {str(html)!r}: there is no folder {str(html.parent)!r}", "create it, or name another"
        )


def write_page(html: Path, classifier: "Classifier", photo: "Picture", name: str, fresh: bool) -> None:
    """Writes the page, atomically."""
    from vitreous.pages.walk import walk_page
    from vitreous.support.files import write_text

    shown = name if fresh else Path(name).name or name  # the last part of a path
    page = walk_page(classifier.model, photo, classifier.preprocessing, classifier.class_names, shown, fresh)
    write_text(html, page)


def open_model(
    model: str, family: str | None, part: str | None, settings: list[str] | None, with_weights: bool
) -> tuple["Classifier", bool]:
    """Opens a model file, or builds a variant; returns also whether it is a variant, whose weights are random.

    A variant built without weights needs no memory, and has only shapes and costs.

    Raises:
        InputError: no such variant or file, patches that do not divide the image, or a family or settings for a
            variant.
    """
    from vitreous.checkpoints.store import StoredModel
    from vitreous.classifier import Classifier
    from vitreous.data.preprocessing import Preprocessing
    from vitreous.inspection.trace import named
    from vitreous.model.variants import NAMES, SIZES, variant

    if Path(model).expanduser().exists() or ":" in model:
        return open_classifier(model, family, part, settings), False
    try:
        config = variant(model)
    except InputError as error:
        size, _, patch = model.partition("/")
        if size in SIZES and patch.isdecimal() and int(patch):
            raise  # any patch size is a variant: the name is valid, the size is not
        hint = f"a variant such as {nearest(model, NAMES) or 'B/16'}; `vitreous list models` shows them all"
        raise InputError(f"{model!r} is neither a file nor a variant", hint) from error
    if family or part is not None or settings:
        cause = f"{model} is a variant: it has no checkpoint family, parts or settings"
        raise InputError(cause, "leave out --family, --part and --set")
    stored = StoredModel(named(model, on_meta=not with_weights), Preprocessing(config.image_size))
    return Classifier(stored), True


def print_table(table: "Table") -> None:
    """Prints the table; on a terminal with bold headings and dim notes."""
    from rich.console import Console
    from rich.text import Text

    from vitreous.inspection.table import styled_lines

    console = Console(highlight=False)
    for line, style in styled_lines(table):
        console.print(Text(line, style), soft_wrap=not console.is_terminal)
