"""The images that a command reads: which they are, those that cannot be read, and how far it has come."""

import glob
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from vitreous.cli.app import BAD_INPUT
from vitreous.support.errors import InputError
from vitreous.support.text import natural_key, printable

if TYPE_CHECKING:
    from vitreous.data.images import BadImage

T = TypeVar("T")
STDIN = "-"
BETWEEN_LINES = 10  # seconds between two lines that tell how far a command is, where there is no terminal


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


def readable(results: "Iterable[T | BadImage]", faults: "list[BadImage]") -> Iterator[T]:
    """The results of good images alone; a bad one is told at once, on one line, and added to `faults`."""
    from vitreous.data.images import BadImage

    for result in results:
        if isinstance(result, BadImage):
            print(f"error: {result}", file=sys.stderr)
            faults.append(result)
        else:
            yield result


def tell_unreadable(faults: "Sequence[BadImage]", paths: Sequence[str]) -> None:
    """Ends a command that met images it could not read: with their number, and the exit code of bad input."""
    if faults:
        print(f"{len(faults):,} of {len(paths):,} images could not be read", file=sys.stderr)
        raise typer.Exit(BAD_INPUT)


@contextmanager
def counting(total: int) -> Iterator[Callable[[int], None]]:
    """Shows on the standard error stream how many images are done: a bar on a terminal, else a line now and then.

    Args:
        total: of the images.

    Yields:
        What is called with the number of images that are done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("images"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    told = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)

        def show(done: int) -> None:
            nonlocal told
            progress.update(task, completed=done)
            if progress.disable and time.monotonic() - told > BETWEEN_LINES:
                told = time.monotonic()
                print(f"{done:,} of {total:,} images", file=sys.stderr)

        yield show


def check_unused(folder: Path) -> None:
    """Raises InputError where a folder to be written holds something already, or is none."""
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"the folder {str(folder)!r} is used", "give a new one with --out, or remove it")
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is no folder", "give a new one with --out")
