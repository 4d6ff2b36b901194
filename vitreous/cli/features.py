"""`vitreous features`."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal

import typer

from vitreous.cli.app import FamilyOption, SettingsOption, open_classifier
from vitreous.cli.inputs import counting, find_images, readable, tell_unreadable
from vitreous.support.errors import InputError
from vitreous.support.text import csv_cell, printable

if TYPE_CHECKING:
    from torch import Tensor

    from vitreous.classifier import Classifier
    from vitreous.data.images import BadImage

BATCH_SIZE = 32
NUMBER = "<f4"  # float32
Token = Literal["patches", "class"]


ImagesArgument = Annotated[
    list[str],
    typer.Argument(help="Images, folders of them at any depth, patterns such as 'new/*.jpg', or - for names on stdin."),
]
OutOption = Annotated[
    Path, typer.Option(help="A .npy file, a row of float32 for each image; a .csv beside it says which row is whose.")
]
BlocksOption = Annotated[
    str | None,
    typer.Option(
        metavar="N[,N...]",
        help="In place of the representation y (equation 4), what the tokens are after these blocks, side by side.",
    ),
]
TokenOption = Annotated[
    Token | None, typer.Option(help="With --blocks: the mean of the patches (the default), or the class token.")
]


def command(
    model: Annotated[str, typer.Argument(help="A run's folder, a weights file of any family, or a name of a hub.")],
    images: ImagesArgument,
    out: OutOption,
    blocks: BlocksOption = None,
    token: TokenOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files if they are there.")] = False,
    family: FamilyOption = None,
    settings: SettingsOption = None,
) -> None:
    """Write the representations of images as rows of numbers."""
    if token is not None and blocks is None:
        raise InputError("--token says what to take after some blocks", "add --blocks, as in --blocks 3,5")
    paths, table = find_images(images), out.with_suffix(".csv")
    check_files(out, table, overwrite)

    from vitreous.support.files import atomic_folder
    from vitreous.support.host import tune_host

    tune_host()
    classifier = open_classifier(model, family, settings)
    compute, width = computing(classifier, blocks, token or "patches")
    faults: list[BadImage] = []
    with atomic_folder(out.parent, last=out.name) as folder:
        with (
            (folder / out.name).open("wb") as rows,
            (folder / table.name).open("w", encoding="utf-8", newline="") as text,
        ):
            count = write(classifier, paths, compute, width, rows, text, faults)
        if not count:
            cause = f"none of the {len(paths):,} images could be read"
            raise InputError(cause, "give JPEG, PNG, WebP, BMP or GIF files")
    print(printable(f"{out}: {count:,} rows of {width:,} numbers, float32"))
    print(printable(f"{table}: the path of each row's image"))
    tell_unreadable(faults, paths)


def check_files(out: Path, table: Path, overwrite: bool) -> None:
    """Raises InputError where the files to be written have another name, or are there and may not be replaced."""
    from vitreous.support.files import check_target

    if out.suffix != ".npy":
        raise InputError(f"--out {str(out)!r} is not the name of a .npy file", "end it in .npy")
    for path in (out, table):
        check_target(path)
        if path.exists() and not overwrite:
            raise InputError(f"{str(path)!r} is there already", "give another --out, or --overwrite to replace it")


def computing(classifier: "Classifier", blocks: str | None, token: Token) -> "tuple[Callable[[Tensor], Tensor], int]":
    """What computes the rows of a batch of images, and how many numbers a row has.

    Raises:
        InputError: there is no such block, or no class token.
    """
    import torch

    network, config = classifier.model, classifier.model.config
    if blocks is None:
        return network.representation, config.width
    numbers = network.encoder.block_indices(block_list(blocks))
    if token == "class" and not config.class_token:
        raise InputError("this model has no class token", "leave --token out for the mean of the patches")

    def compute(images: "Tensor") -> "Tensor":
        after = network.tokens(images, numbers)
        parts = [x[:, 0] if token == "class" else x[:, config.prefix_tokens :].mean(dim=1) for x in after]
        return torch.cat(parts, dim=1)

    return compute, len(numbers) * config.width


def block_list(text: str) -> list[int]:
    """Reads 3,5 or -1. Raises InputError for anything else."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise InputError(f"--blocks {text!r} names no blocks", "write their numbers from 0, as in 3,5") from None


def write(
    classifier: "Classifier",
    paths: Sequence[str],
    compute: "Callable[[Tensor], Tensor]",
    width: int,
    rows: IO[bytes],
    text: IO[str],
    faults: "list[BadImage]",
) -> int:
    """Writes the rows and the table of their paths as they come; returns how many there are."""
    import torch

    from vitreous.data.reading import read_batches

    preprocessing = classifier.preprocessing
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("row", "path"))
    write_header(rows, (len(paths), width))
    count = done = 0
    with counting(len(paths)) as show, torch.inference_mode():
        for labels, pixels in read_batches(paths, preprocessing, BATCH_SIZE):
            if names := list(readable(labels, faults)):
                values = compute(preprocessing.normalize(torch.stack(pixels).to(classifier.device)))
                rows.write(values.float().cpu().numpy().astype(NUMBER).tobytes())
                table.writerows((count + i, csv_cell(name)) for i, name in enumerate(names))
                count += len(names)
            show(done := done + len(labels))
    rows.seek(0)
    write_header(rows, (count, width))  # of the same length: numpy leaves room for the number of rows to change
    return count


def write_header(file: IO[bytes], shape: tuple[int, int]) -> None:
    """Writes the beginning of a .npy file."""
    import numpy as np

    header = {"descr": NUMBER, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
