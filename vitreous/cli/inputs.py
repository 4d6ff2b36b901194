"""The images a command reads: finding them, reading them in batches, reporting bad ones and progress."""

import glob
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from vitreous.cli.app import BAD_INPUT
from vitreous.support.errors import InputError
from vitreous.support.text import listed, natural_key, printable, tallied

if TYPE_CHECKING:
    from torch import Tensor

    from vitreous.classifier import Classifier
    from vitreous.data.decoding.images import BadImage
    from vitreous.data.reading import Reading

T = TypeVar("T")
STDIN = "-"
PICTURES = ("cr2", "cr3", "nef", "arw", "orf", "rw2", "raf", "dng", "psd", "svg", "jxl", "jp2", "ico", "tga", "exr")
SECONDS_BETWEEN_LINES = 10  # of progress, where stderr is not a terminal


def find_images(arguments: Iterable[str]) -> list[str]:
    """The images that the arguments name, in their order; those in a folder in natural order.

    A path that does not exist is kept, and reported later like a broken image. Files that are passed over, since their
    names are not those of images, are counted on stderr.

    Raises:
        InputError: a folder, a pattern or stdin yields no image, or an archive is given.
    """
    from vitreous.data.decoding.formats import NAMES

    images: list[str] = []
    passed: Counter[str] = Counter()
    for argument in arguments:
        before = passed.copy()
        if argument == STDIN:
            lines = (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer)
            paths = [path for line in lines if line for path in images_at(line, passed)]
            empty = InputError("stdin is empty", "pipe in one path per line, as find and ls print them")
        elif not os.path.lexists(argument) and glob.has_magic(argument):
            # Not Path.glob, which refuses absolute patterns.
            matches = sorted(glob.iglob(argument, recursive=True), key=natural_key)  # noqa: PTH207
            paths = [path for match in matches for path in images_at(match, passed, named=False)]
            hint = "use a pattern like 'new/*.jpg' or 'new/**/*.jpg'"
            empty = InputError(f"no image matches {argument!r}{but_only(passed - before)}", hint)
        else:
            paths = list(images_at(argument, passed))
            empty = InputError(f"no images in {argument!r}{but_only(passed - before)}", f"add {NAMES} files")
        if not paths:
            raise empty
        images += paths
    print_passed(passed)
    return images


def images_at(path: str, passed: Counter[str], named: bool = True) -> Iterator[str]:
    """The images in a folder, at any depth; or the file itself, with any suffix if the user `named` it.

    Other files, except hidden ones and clutter, are counted in `passed` by kind.

    Raises:
        InputError: the file is an archive that the user `named`.
    """
    from vitreous.data.decoding.images import is_image_name
    from vitreous.data.sources.trees.tree import is_clutter, is_packed, kind_of

    if not Path(path).is_dir():
        if named and is_packed(path):
            raise InputError(f"{path!r} is an archive, not an image", "unpack it, and give the folder")
        if named or is_image_name(path):
            yield path
        elif not is_clutter(Path(path).name):
            passed[kind_of(Path(path).name)] += 1
        return
    for folder, folders, files in os.walk(path, onerror=_raise):
        for name in folders:
            if Path(folder, name).is_symlink():
                print(f"skipped: {printable(f'{folder}/{name}')} is a link to a folder", file=sys.stderr)
        folders[:] = sorted((name for name in folders if not is_clutter(name)), key=natural_key)
        passed.update(kind_of(name) for name in files if not is_image_name(name) and not is_clutter(name))
        for name in sorted(filter(is_image_name, files), key=natural_key):
            yield f"{folder.rstrip('/')}/{name}"


def but_only(passed: Counter[str]) -> str:
    """What there is instead of images, for an error; nothing if there is nothing."""
    return f", but {counts(passed)}" if passed else ""


def counts(passed: Counter[str]) -> str:
    """The kinds of files, the most frequent first: "3 × cr2 file, 1 × pdf file"."""
    return printable(tallied(passed))


def print_passed(passed: Counter[str]) -> None:
    """Prints to stderr how many files were passed over, and which of them are pictures in formats that are not read."""
    from vitreous.data.sources.trees.tree import is_archive_kind

    if passed:
        print(f"passed over: {counts(passed)}", file=sys.stderr)
    pictures = [suffix for suffix in PICTURES if f"{suffix} file" in passed]
    if pictures:
        print(f"hint: {listed(pictures)} pictures are not read; save them as JPEG or PNG", file=sys.stderr)
    if any(is_archive_kind(kind) for kind in passed):
        print("hint: archives are not read; unpack them", file=sys.stderr)


def _raise(error: OSError) -> None:
    """Raises the error of an unreadable folder, which os.walk would ignore."""
    raise error


def readable(results: "Iterable[T | BadImage]", bad: "list[BadImage]") -> Iterator[T]:
    """The results of good images; each bad one is printed to stderr at once and added to `bad`."""
    from vitreous.data.decoding.images import BadImage

    for result in results:
        if isinstance(result, BadImage):
            print(f"error: {result}", file=sys.stderr)
            bad.append(result)
        else:
            yield result


def read_inputs(
    paths: Sequence[str],
    classifier: "Classifier",
    batch_size: int,
    bad: "list[BadImage]",
    max_pixels: float | None = None,
) -> "Iterator[tuple[list[str], list[Tensor], Tensor]]":
    """Reads images for a model in batches, with progress on stderr.

    Args:
        paths: of the images.
        classifier: whose preprocessing and device to use.
        batch_size: images read at once.
        bad: gets the images that cannot be read; they are printed and skipped.
        max_pixels: of an image; the usual limit if None.

    Yields:
        The paths of a batch, their pixels as bytes, and the normalized images on the device.

    Raises:
        InputError: at the end, if no image could be read.
    """
    import torch

    from vitreous.data.decoding.formats import NAMES
    from vitreous.data.reading import read_batches

    preprocessing = classifier.preprocessing
    done = 0
    reading = reading_with(max_pixels)
    with counting(len(paths)) as show:
        for results, pixels in read_batches(paths, preprocessing, batch_size, reading):
            if names := list(readable(results, bad)):
                yield names, pixels, preprocessing.normalize(torch.stack(pixels).to(classifier.device))
            show(done := done + len(results))
    print_remarks(reading)
    if len(bad) == len(paths):
        raise InputError(f"none of the {len(paths):,} images could be read", f"give {NAMES} files")


def reading_with(max_pixels: float | None) -> "Reading":
    """How images are read with --max-pixels, or without."""
    from vitreous.data.reading import Reading

    return Reading() if max_pixels is None else Reading(int(max_pixels))


def print_remarks(reading: "Reading") -> None:
    """Prints to stderr which images were repaired or cut off: the first of each kind, and how many there are."""
    for kind in ("repaired", "values"):
        images = [(name, remark) for name, remark in reading.remarks if remark.startswith(kind)]
        if images:
            name, remark = images[0]
            more = f" (and {len(images) - 1:,} more like it)" if len(images) > 1 else ""
            print(f"note: {printable(name)}: {remark}{more}", file=sys.stderr)


def exit_if_unreadable(bad: "Sequence[BadImage]", paths: Sequence[str]) -> None:
    """Ends a command that skipped images: prints how many, and exits with the code for bad input."""
    if bad:
        print(f"{len(bad):,} of {len(paths):,} images could not be read", file=sys.stderr)
        raise typer.Exit(BAD_INPUT)


@contextmanager
def counting(total: int) -> Iterator[Callable[[int], None]]:
    """Shows progress on stderr: a bar on a terminal, otherwise a line every few seconds.

    Yields a function to call with the number of images done, of `total`.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("images"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    last = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)

        def show(done: int) -> None:
            nonlocal last
            progress.update(task, completed=done)
            if progress.disable and time.monotonic() - last > SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                print(f"{done:,} of {total:,} images", file=sys.stderr)

        yield show


def check_unused(folder: Path) -> None:
    """Raises InputError if a folder to write exists and is not empty, or is something other than a folder."""
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"the folder {str(folder)!r} is not empty", "choose another with --out, or remove it")
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder", "choose another with --out")
