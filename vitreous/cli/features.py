"""`vitreous features`."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal

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
from vitreous.cli.inputs import exit_if_unreadable, find_images, read_inputs
from vitreous.support.errors import InputError
from vitreous.support.text import csv_cell, printable

if TYPE_CHECKING:
    from torch import Tensor

    from vitreous.classifier import Classifier
    from vitreous.data.decoding.images import BadImage

BATCH_SIZE = 32
DTYPE = "<f4"  # float32
Token = Literal["patches", "class"]


def command(
    model: ModelArgument,
    images: ImagesArgument,
    out: Annotated[
        Path, typer.Option(help="A .npy file with one float32 row per image; a .csv next to it lists their paths.")
    ],
    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N...]",
            help="Concatenate the tokens after these blocks, instead of the representation y (equation 4).",
        ),
    ] = None,
    token: Annotated[
        Token | None,
        typer.Option(help="With --blocks: the mean of the patch tokens (the default), or the class token."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    max_pixels: MaxPixelsOption = None,
    family: FamilyOption = None,
    part: PartOption = None,
    settings: SettingsOption = None,
) -> None:
    """Write the representations of images to a .npy file."""
    if token is not None and blocks is None:
        raise InputError("--token needs --blocks", "add --blocks, such as --blocks 3,5")
    paths, table = find_images(images), out.with_suffix(".csv")
    check_files(out, table, overwrite)

    from vitreous.support.files import atomic_folder

    classifier = open_classifier(model, family, part, settings)
    compute, width = features_of(classifier, blocks, token or "patches")
    bad: list[BadImage] = []
    with (
        atomic_folder(out.parent, last=out.name) as folder,
        (folder / out.name).open("wb") as rows,
        (folder / table.name).open("w", encoding="utf-8", newline="") as text,
    ):
        count = write(classifier, paths, compute, width, rows, text, bad, max_pixels)
    print(printable(f"{out}: {count:,} rows of {width:,} float32 numbers"))
    print(printable(f"{table}: the image path of each row"))
    exit_if_unreadable(bad, paths)


def check_files(out: Path, table: Path, overwrite: bool) -> None:
    """Raises InputError if `out` is not a .npy file, or a file exists and may not be replaced."""
    from vitreous.support.files import check_target

    if out.suffix != ".npy":
        raise InputError(f"--out {str(out)!r} is not a .npy file", "give it the suffix .npy")
    for path in (out, table):
        check_target(path)
        if path.exists() and not overwrite:
            raise InputError(f"{str(path)!r} exists", "choose another --out, or replace it with --overwrite")


def features_of(classifier: "Classifier", blocks: str | None, token: Token) -> "tuple[Callable[[Tensor], Tensor], int]":
    """The function from a batch of images to their features, and the width of these.

    Raises:
        InputError: there is no such block, or no class token.
    """
    import torch

    network, config = classifier.model, classifier.model.config
    if blocks is None:
        return network.representation, config.feature_width
    numbers = network.encoder.block_indices(block_list(blocks))
    if token == "class" and not config.class_token:
        raise InputError("this model has no class token", "omit --token to use the mean of the patch tokens")

    def compute(images: "Tensor") -> "Tensor":
        tokens = network.tokens(images, numbers)
        parts = [x[:, 0] if token == "class" else x[:, config.prefix_tokens :].mean(dim=1) for x in tokens]
        return torch.cat(parts, dim=1)

    return compute, len(numbers) * config.width


def block_list(text: str) -> list[int]:
    """Parses 3,5 or -1. Raises InputError for anything else."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise InputError(f"--blocks {text!r} is not a list of block numbers", "count from 0, such as 3,5") from None


def write(
    classifier: "Classifier",
    paths: Sequence[str],
    compute: "Callable[[Tensor], Tensor]",
    width: int,
    rows: IO[bytes],
    text: IO[str],
    bad: "list[BadImage]",
    max_pixels: float | None = None,
) -> int:
    """Writes the rows and the table of their paths batch by batch; returns the number of rows."""
    import torch

    table = csv.writer(text, lineterminator="\n")
    table.writerow(("row", "path"))
    write_header(rows, (len(paths), width))
    count = 0
    with torch.inference_mode():
        for names, _, images in read_inputs(paths, classifier, BATCH_SIZE, bad, max_pixels):
            rows.write(compute(images).float().cpu().numpy().astype(DTYPE).tobytes())
            table.writerows((count + i, csv_cell(name)) for i, name in enumerate(names))
            count += len(names)
    rows.seek(0)
    write_header(rows, (count, width))  # of the same length: numpy pads the header so that the row count may change
    return count


def write_header(file: IO[bytes], shape: tuple[int, int]) -> None:
    """Writes the header of a .npy file."""
    import numpy as np

    header = {"descr": DTYPE, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
