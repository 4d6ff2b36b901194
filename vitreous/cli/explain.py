"""`vitreous explain`."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitreous.cli.app import FamilyOption, SettingsOption, open_classifier
from vitreous.cli.inputs import check_unused, counting, exit_if_unreadable, find_images, readable
from vitreous.support.errors import InputError, unknown
from vitreous.support.text import printable

if TYPE_CHECKING:
    from vitreous.classifier import Classifier
    from vitreous.data.images import BadImage
    from vitreous.explain.analyses import Findings, Wishes
    from vitreous.explain.attention_maps import Query

# Those of vitreous.explain.analyses, which also says what each shows; a test compares them.
NAMES = ("attention", "rollout", "gradient", "relevance", "distance", "positions", "filters", "patches")
MOST_AT_ONCE = 64  # images

ModelArgument = Annotated[str, typer.Argument(help="A run's folder, a weights file of any family, or a name of a hub.")]
ImagesArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Images, folders of them at any depth, patterns such as 'new/*.jpg', or - for names on stdin."),
]
OutOption = Annotated[Path, typer.Option(help="A new folder, or an empty one, for figures and numbers.")]
OnlyOption = Annotated[
    str | None, typer.Option(metavar="NAME[,NAME...]", help=f"Of: {' '.join(NAMES)}. By default all.")
]
BlockOption = Annotated[
    int, typer.Option(help="For attention, gradient and patches: its number from 0; -1 is the last.")
]
HeadOption = Annotated[int | None, typer.Option(help="For attention: its number from 0; by default their mean.")]
QueryOption = Annotated[
    str | None,
    typer.Option(
        metavar="ROW,COLUMN|class|N",
        help="For attention, whose: a patch, by its row and column from 0; class, the class token; or the number of a "
        "token in front of the patches. By default what the head reads.",
    ),
]
ClassOption = Annotated[
    str | None, typer.Option("--class", help="For gradient and relevance; by default each image's likeliest.")
]
ShowOption = Annotated[int, typer.Option(min=1, help="The most images on a sheet; the numbers are of all.")]


def command(
    model: ModelArgument,
    out: OutOption,
    images: ImagesArgument = None,
    only: OnlyOption = None,
    block: BlockOption = -1,
    head: HeadOption = None,
    query: QueryOption = None,
    class_name: ClassOption = None,
    show: ShowOption = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
    family: FamilyOption = None,
    settings: SettingsOption = None,
) -> None:
    """Show where a model looks and what it has learned: the paper's figures, of your images."""
    names = NAMES if only is None else analyses_named(only)
    check_options(names, head, query, class_name)
    paths = find_images(images or [])
    check_unused(out)

    from vitreous.explain.analyses import OF_THE_MODEL, Wishes
    from vitreous.explain.attention_maps import block_numbers
    from vitreous.explain.explanation import class_number
    from vitreous.support.files import atomic_folder
    from vitreous.support.host import tune_host

    if not paths and not {*names} <= {*OF_THE_MODEL}:
        raise InputError("there are no images to explain", f"name some; only {' and '.join(OF_THE_MODEL)} need none")
    tune_host()
    classifier = open_classifier(model, family, settings)
    class_names = classifier.names() if classifier.model.config.num_classes else ()
    names, left_out = possible(names, classifier, strict=only is not None)
    [number] = block_numbers(classifier.model, [block])
    wishes = Wishes(names, number, head, query_of(query, classifier), class_number(class_names, class_name), show)
    tell_reading(wishes, classifier)
    faults: list[BadImage] = []
    with atomic_folder(out) as folder:
        findings = found(classifier, class_names, wishes, paths, faults)
        shows = written(findings, folder)
    tell(out, findings, shows, left_out, faults, as_json)
    exit_if_unreadable(faults, paths)


def check_options(names: Sequence[str], head: int | None, query: str | None, class_name: str | None) -> None:
    """Raises InputError for an option that none of the analyses minds."""
    for option, value, users in (
        ("--head", head, ("attention",)),
        ("--query", query, ("attention",)),
        ("--class", class_name, ("gradient", "relevance")),
    ):
        if value is not None and not {*users} & {*names}:
            raise InputError(f"{option} is for {' and '.join(users)}", f"add --only {users[-1]}, or leave {option} out")


def analyses_named(only: str) -> tuple[str, ...]:
    """Reads names with commas between them. Raises InputError for one that does not exist."""
    asked = [name.strip() for name in only.split(",")]
    for name in asked:
        if name not in NAMES:
            raise unknown("analysis", name, NAMES)
    return tuple(name for name in NAMES if name in asked)


def possible(names: Sequence[str], classifier: "Classifier", strict: bool) -> tuple[tuple[str, ...], dict[str, str]]:
    """Those of some analyses that the model can give, and the reasons against the others, which are told.

    Raises:
        InputError: one that was asked for by name, which is `strict`, is not possible.
    """
    from vitreous.explain.analyses import reason_against

    left_out = {}
    for name in names:
        if (reason := reason_against(name, classifier.model)) is not None:
            if strict:
                raise InputError(f"there is no {name}: {reason.cause}", reason.hint)
            left_out[name] = reason.cause
            print(printable(f"no {name}: {reason.cause}"), file=sys.stderr)
    return tuple(name for name in names if name not in left_out), left_out


def query_of(text: str | None, classifier: "Classifier") -> "Query":
    """Reads a patch, "class", or the number of a token. Raises InputError for anything else."""
    if text is None:
        return None
    if text == "class":
        if not classifier.model.config.class_token:
            raise InputError("this model has no class token", "give the --query of a patch, as 3,4, or leave it out")
        return 0
    if not re.fullmatch("[0-9]{1,6}(,[0-9]{1,6})?", text):
        raise InputError(f"--query {text!r} names no token", "write a patch as ROW,COLUMN, class, or a token's number")
    first, *second = map(int, text.split(","))
    return (first, second[0]) if second else first


def found(
    classifier: "Classifier",
    class_names: Sequence[str],
    wishes: "Wishes",
    paths: Sequence[str],
    faults: "list[BadImage]",
) -> "Findings":
    """Computes the numbers, a few images at a time.

    Raises:
        InputError: no image could be read, or there is no such block, head or query.
    """
    import torch

    from vitreous.data.reading import read_batches
    from vitreous.explain.analyses import OF_THE_MODEL, Findings, images_a_step

    findings = Findings(classifier.model, wishes, class_names)
    if {*wishes.analyses} <= {*OF_THE_MODEL}:
        return findings
    preprocessing = classifier.preprocessing
    step = min(MOST_AT_ONCE, images_a_step(classifier.model.config, preprocessing.image_size, wishes.analyses))
    done = 0
    with counting(len(paths)) as show:
        for labels, pixels in read_batches(paths, preprocessing, step):
            if names := list(readable(labels, faults)):
                inputs = preprocessing.normalize(torch.stack(pixels).to(classifier.device))
                findings.add(names, pixels, inputs)
            show(done := done + len(labels))
    if not findings.names:
        raise InputError(f"none of the {len(paths):,} images could be read", "give JPEG, PNG, WebP, BMP or GIF files")
    return findings


def written(findings: "Findings", folder: Path) -> dict[str, str]:
    """Writes figures and numbers; returns what each group of files shows."""
    from vitreous.explain.writing import write_all

    return write_all(findings, folder)


def tell_reading(wishes: "Wishes", classifier: "Classifier") -> None:
    """Says on the standard error stream what is shown of a model whose head reads no class token."""
    from vitreous.explain.analyses import FROM_THE_HEAD
    from vitreous.explain.attention_maps import readout_name

    asked = [
        name
        for name in wishes.analyses
        if name in FROM_THE_HEAD and not (name == "attention" and wishes.query is not None)
    ]
    config = classifier.model.config
    if asked and config.pooling != "class_token":
        has = "does not read its class token" if config.class_token else "has no class token"
        print(f"this model {has}: shown is what its head reads, {readout_name(config)}", file=sys.stderr)


def tell(
    out: Path,
    findings: "Findings",
    shows: dict[str, str],
    left_out: dict[str, str],
    faults: "Sequence[BadImage]",
    as_json: bool,
) -> None:
    """Prints what was explained and written."""
    chosen = [
        {"image": name, "class_name": findings.explained_class(i), "probability": findings.probabilities[i]}
        for i, name in enumerate(findings.names)
        if findings.classes
    ]
    if as_json:
        written = {
            "out": str(out),
            "images": len(findings.names),
            "unreadable": [fault.name for fault in faults],
            "classes": chosen,
            "left_out": left_out,
            "analyses": {
                name: {"shows": note, "files": [f"{name}.{kind}" for kind in ("png", "svg", "npz", "csv")]}
                for name, note in shows.items()
            },
        }
        print(json.dumps(written, indent=2, allow_nan=False))
        return
    for row in chosen[: findings.wishes.shown]:
        print(printable(f"{row['image']}  {row['class_name']}  {row['probability']:.1%}"))
    if len(chosen) > findings.wishes.shown:
        print(f"and {len(chosen) - findings.wishes.shown:,} more, in the numbers")
    width = max(map(len, shows))
    print(printable(f"written to {out}, each as png, svg, npz and csv:"))
    for name, note in shows.items():
        print(f"  {name:{width}}  {note}")
