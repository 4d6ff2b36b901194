"""Files that appear whole or not at all."""

import errno
import json
import os
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Literal

from vitreous.support.errors import InputError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what a write itself can run into


@contextmanager
def atomic_path(path: str | Path) -> Generator[Path, None, None]:
    """A path to write to that takes the place of `path` when the block ends, or leaves no trace where it fails.

    For writers that take a name and not a file; where one opens a file itself, `atomic_file` is simpler. What
    lies there is a temporary name in the same folder, flushed to the disk, renamed, and the folder flushed:
    after a crash at any moment `path` holds its old content or the new one. The writer may replace what it was
    given; permissions are those of any new file.

    Raises:
        InputError: the folder is missing or cannot be written, the disk is full, `path` is no ordinary file.
    """
    path = Path(path)
    check_target(path)
    # A name of its own, not the target's and a suffix: that may have the longest name there can be.
    temporary = path.parent / f".vitreous-{secrets.token_hex(8)}.tmp"
    try:
        temporary.touch(exist_ok=False)
        permissions = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(permissions)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):  # the first error is the one to tell
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        if error.errno in DISK_ERRORS or error.filename == str(temporary):
            cause = f"cannot write {str(path)!r}: {error.strerror}"
            raise InputError(cause, "give a folder with room and permission to write") from error
        raise
    _flush_folder(path.parent)


@contextmanager
def atomic_file(path: str | Path, mode: Literal["wb", "w"] = "wb") -> Generator[IO[Any], None, None]:
    """A file to write that takes the place of `path` when the block ends, or leaves no trace; see `atomic_path`.

    Text is UTF-8, with the line ends it is given.
    """
    with atomic_path(path) as temporary, _open(temporary, mode) as file:
        yield file


@contextmanager
def atomic_folder(path: str | Path, last: str = "") -> Generator[Path, None, None]:
    """An empty folder to write files to, which move into the folder `path` when the block ends, or leave no trace.

    `path` and the folders above it are made where they are not there. What it holds under other names stays. Files
    are flushed before any moves; an error in between puts all back that was there. Those that they replace move out
    before they move in, so that a crash leaves no mixture: the file `last`, without which the others are of no use,
    goes out first and comes in last.

    Args:
        path: of the folder.
        last: a file's name.

    Raises:
        InputError: `path` is no folder, or cannot be made or written, or what would be replaced is no file.
    """
    path = Path(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with (
            TemporaryDirectory(prefix=".vitreous-", dir=path) as new,
            TemporaryDirectory(prefix=".vitreous-", dir=path) as old,
        ):
            yield Path(new)
            _move_in(Path(new), path, Path(old), last)
            for folder in made:
                _flush_folder(folder.parent)
    except BaseException as error:
        for folder in made:
            with suppress(OSError):  # the first error is the one to tell
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        cause = f"cannot write the folder {str(path)!r}: {error.strerror}"
        raise InputError(cause, "give a folder with room and permission to write") from error


def check_target(path: Path) -> None:
    """Raises InputError where something is in the place of a file to be written that is no file."""
    if path.exists() and not path.is_file():  # renaming would replace even /dev/null
        raise InputError(f"cannot write {str(path)!r}: it is not a file", "give the name of a file")


def _move_in(new: Path, path: Path, old: Path, last: str) -> None:
    """Moves all files of `new` to `path`, and those they replace to `old`; after an error all are where they were."""
    names = sorted((file.name for file in new.iterdir()), key=lambda name: (name == last, name))
    for name in names:
        check_target(path / name)
        with (new / name).open("rb+") as file:
            os.fsync(file.fileno())
    try:
        for name in reversed(names):
            if os.path.lexists(path / name):
                (path / name).replace(old / name)
        _flush_folder(path)
        for name in names:
            (new / name).replace(path / name)
        _flush_folder(path)
    except BaseException:
        for name in names:
            with suppress(OSError):  # the first error is the one to tell
                if os.path.lexists(old / name):
                    (old / name).replace(path / name)
                elif not (new / name).exists():
                    (path / name).unlink()
        raise


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes the bytes as the whole file, atomically."""
    with atomic_file(path) as file:
        file.write(content)


def write_text(path: str | Path, text: str) -> None:
    """Writes the text as the whole file, atomically, as UTF-8."""
    with atomic_file(path, "w") as file:
        file.write(text)


def write_json(path: str | Path, value: object) -> None:
    """Writes the value as indented JSON, atomically. Raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _open(path: Path, mode: str) -> IO[Any]:
    r"""The file to write. Undecodable bytes of names do not stop a report: they become \udcff, as JSON spells it."""
    if mode == "wb":
        return path.open("wb")
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="")


def _flush_folder(folder: Path) -> None:
    """Makes a rename last: the name is in the folder, and the folder is written later than the file."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOTSUP,
        ):  # file systems that cannot, network ones above all
            raise
    finally:
        os.close(descriptor)
