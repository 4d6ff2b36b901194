"""`vitreous explain`."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vitreous.cli.app import (
    IMAGES_HELP,
    FamilyOption,
    MaxPixelsOption,
    ModelArgument,
    PartOption,
    SettingsOption,
    open_classifier,
)
from vitreous.cli.inputs import check_unused, exit_if_unreadable, find_images, read_inputs
from vitreous.support.errors import InputError, unknown
from vitreous.support.text import printable

if TYPE_CHECKING:
    from vitreous.classifier import Classifier
    from vitreous.data.decoding.images import BadImage
    from vitreous.explain.analyses import Options, Results
    from vitreous.explain.attention_maps import Query
    from vitreous.model.vit import VisionTransformer

NAMES = ("attention", "rollout", "gradient", "relevance", "distance", "positions", "filters", "patches")
MOST_AT_ONCE = 64  # images
FILE_KINDS = ("png", "svg", "npz", "csv")

ImagesArgument = Annotated[list[str] | None, typer.Argument(help=IMAGES_HELP)]
OutOption = Annotated[Path, typer.Option(help="A new or empty folder for figures and numbers.")]
OnlyOption = Annotated[
    str | None, typer.Option(metavar="NAME[,NAME...]", help=f"Analyses: {' '.join(NAMES)}. Default: all.")
]
BlockOption = Annotated[int, typer.Option(help="Block for attention, gradient and patches, from 0; -1 is the last.")]
HeadOption = Annotated[int | None, typer.Option(help="Head for attention, from 0. Default: the mean over heads.")]
QueryOption = Annotated[
    str | None,
    typer.Option(
        metavar="ROW,COLUMN|class|N",
        help='Query token for attention: a patch as ROW,COLUMN from 0, "class", or the index of a prefix token. '
        "Default: what the head reads.",
    ),
]
ClassOption = Annotated[
    str | None, typer.Option("--class", help="Class for gradient and relevance. Default: each image's top class.")
]
DistanceOption = Annotated[
    Literal["paper", "patches"] | None,
    typer.Option(
        help="Weights for distance: paper counts attention to the class token as distance 0, as in the paper's "
        "figures; patches leaves it out and renormalizes the rest. Default: paper."
    ),
]
ShowOption = Annotated[int, typer.Option(min=1, help="The most images on a sheet; the numbers cover all.")]


def command(
    model: ModelArgument,
    out: OutOption,
    images: ImagesArgument = None,
    only: OnlyOption = None,
    block: BlockOption = -1,
    head: HeadOption = None,
    query: QueryOption = None,
    class_name: ClassOption = None,
    distance: DistanceOption = None,
    show: ShowOption = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
    max_pixels: MaxPixelsOption = None,
    family: FamilyOption = None,
    part: PartOption = None,
    settings: SettingsOption = None,
) -> None:
    """Show where a model looks and what it has learned: the paper's figures for your images."""
    names = NAMES if only is None else parse_names(only)
    check_unused_options(names, head, query, class_name, distance)
    paths = find_images(images or [])
    check_unused(out)

    from vitreous.explain.analyses import OF_THE_MODEL, Options, Results
    from vitreous.explain.explanation import class_number
    from vitreous.explain.writing import write_files
    from vitreous.support.files import atomic_folder

    if not paths and not {*names} <= {*OF_THE_MODEL}:
        raise InputError("there are no images to explain", f"name some; only {' and '.join(OF_THE_MODEL)} need none")
    classifier = open_classifier(model, family, part, settings)
    class_names = classifier.names() if classifier.model.config.num_classes else ()
    names, skipped = supported(names, classifier.model, strict=only is not None)
    [number] = classifier.model.encoder.block_indices([block])
    token = parse_query(query, classifier.model)
    chosen = class_number(class_names, class_name)
    options = Options(names, number, head, token, chosen, show, distance or "paper")
    print_readout(options, classifier.model)
    faults: list[BadImage] = []
    with atomic_folder(out) as folder:
        results = Results(classifier.model, options, class_names)
        compute(results, classifier, paths, faults, max_pixels)
        notes = write_files(results, folder)
    print_results(out, results, notes, skipped, faults, as_json)
    exit_if_unreadable(faults, paths)


def check_unused_options(
    names: Sequence[str], head: int | None, query: str | None, class_name: str | None, distance: str | None
) -> None:
    """Raises InputError for an option that none of the analyses uses."""
    for option, value, users in (
        ("--head", head, ("attention",)),
        ("--query", query, ("attention",)),
        ("--class", class_name, ("gradient", "relevance")),
        ("--distance", distance, ("distance",)),
    ):
        if value is not None and not {*users} & {*names}:
            raise InputError(f"{option} is for {' and '.join(users)}", f"add --only {users[-1]}, or leave {option} out")


def parse_names(only: str) -> tuple[str, ...]:
    """Parses comma-separated analyses. Raises InputError for an unknown one."""
    chosen = [name.strip() for name in only.split(",")]
    for name in chosen:
        if name not in NAMES:
            raise unknown("analysis", name, NAMES)
    return tuple(name for name in NAMES if name in chosen)


def supported(names: Sequence[str], model: "VisionTransformer", strict: bool) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the analyses that the model supports, and the reasons against the others, which are also printed.

    Raises:
        InputError: one is not supported, and `strict`.
    """
    from vitreous.explain.analyses import check_support

    skipped = {}
    for name in names:
        try:
            check_support(name, model)
        except InputError as error:
            if strict:
                raise InputError(f"there is no {name}: {error.cause}", error.hint) from error
            skipped[name] = error.cause
            print(printable(f"no {name}: {error.cause}"), file=sys.stderr)
    return tuple(name for name in names if name not in skipped), skipped


def parse_query(text: str | None, model: "VisionTransformer") -> "Query":
    """Parses a patch, "class", or the index of a token. Raises InputError for anything else."""
    if text is None:
        return None
    if text == "class":
        if not model.config.class_token:
            raise InputError("this model has no class token", "use a patch, such as --query 3,4, or leave --query out")
        return 0
    if not re.fullmatch("[0-9]{1,6}(,[0-9]{1,6})?", text):
        raise InputError(f"invalid --query {text!r}", 'use ROW,COLUMN of a patch, "class", or a token\'s index')
    first, *second = map(int, text.split(","))
    return (first, second[0]) if second else first


def compute(
    results: "Results",
    classifier: "Classifier",
    paths: Sequence[str],
    faults: "list[BadImage]",
    max_pixels: float | None = None,
) -> None:
    """Computes the analyses, a few images at a time; unreadable images go to `faults`.

    Raises:
        InputError: no image could be read, or there is no such head or query.
    """
    from vitreous.explain.analyses import FOR_A_CLASS, OF_THE_MODEL
    from vitreous.explain.chunks import images_at_once

    analyses = {*results.options.analyses}
    if analyses <= {*OF_THE_MODEL}:
        return
    with_gradient = bool(analyses & {*FOR_A_CLASS})
    image_size = classifier.preprocessing.image_size
    batch_size = min(MOST_AT_ONCE, images_at_once(classifier.model.config, image_size, with_gradient))
    for names, pixels, inputs in read_inputs(paths, classifier, batch_size, faults, max_pixels):
        results.add(names, pixels, inputs)


def print_readout(options: "Options", model: "VisionTransformer") -> None:
    """Prints on stderr what the maps start from, if that is not the class token."""
    from vitreous.explain.analyses import FROM_THE_HEAD
    from vitreous.explain.attention_maps import readout_name

    names = {*options.analyses} & {*FROM_THE_HEAD} - ({"attention"} if options.query is not None else set())
    if names and model.config.pooling != "class_token":
        token = "does not read its class token" if model.config.class_token else "has no class token"
        if model.config.pooling == "class_token_and_mean":
            token = "reads more than its class token"
        print(f"this model {token}; the maps start from {readout_name(model.config)}", file=sys.stderr)


def print_results(
    out: Path,
    results: "Results",
    notes: dict[str, str],
    skipped: dict[str, str],
    faults: "Sequence[BadImage]",
    as_json: bool,
) -> None:
    """Prints the explained classes and the files."""
    classes = [
        {"image": name, "class_name": results.explained_class(i), "probability": results.probabilities[i]}
        for i, name in enumerate(results.names)
        if results.classes
    ]
    if as_json:
        written = {
            "out": str(out),
            "images": len(results.names),
            "unreadable": [fault.name for fault in faults],
            "classes": classes,
            "left_out": skipped,
            "analyses": {
                name: {"shows": note, "files": [f"{name}.{kind}" for kind in FILE_KINDS]}
                for name, note in notes.items()
            },
        }
        print(json.dumps(written, indent=2, allow_nan=False))
        return
    shown = results.options.shown
    for row in classes[:shown]:
        print(printable(f"{row['image']}  {row['class_name']}  {row['probability']:.1%}"))
    if len(classes) > shown:
        print(f"and {len(classes) - shown:,} more, in the numbers")
    width = max(map(len, notes))
    print(printable(f"written to {out}, each as png, svg, npz and csv:"))
    for name, note in notes.items():
        print(f"  {name:{width}}  {note}")
