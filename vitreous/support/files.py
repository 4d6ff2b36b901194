"""Atomic writes: a file or a folder of files appears complete or not at all."""

import errno
import json
import os
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from vitreous.support.errors import InputError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # of the write itself


@contextmanager
def atomic_path(path: str | Path) -> Generator[Path, None, None]:
    """A temporary path that replaces `path` when the block ends, or is removed if the block fails.

    For writers that take a path; `atomic_file` opens the file itself. The temporary file is in the same folder; it is
    flushed to disk and renamed, and the folder is flushed: after a crash at any moment `path` holds its old content or
    the new one. The writer may replace the file; its permissions are those of any new file.

    Raises:
        InputError: the folder is missing or not writable, the disk is full, or `path` is not a regular file.
    """
    path = Path(path)
    check_target(path)
    # Not the target's name with a suffix, which could exceed the longest name allowed.
    temporary = path.parent / f".vitreous-{secrets.token_hex(8)}.tmp"
    try:
        temporary.touch(exist_ok=False)
        permissions = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(permissions)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):  # report the first error
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        if error.errno in DISK_ERRORS or error.filename == str(temporary):
            cause = f"cannot write {str(path)!r}: {error.strerror}"
            raise InputError(cause, "choose a writable folder with free space") from error
        raise
    flush_folder(path.parent)


@contextmanager
def atomic_file(path: str | Path) -> Generator[BinaryIO, None, None]:
    """An open file that replaces `path` when the block ends, or is removed if the block fails; see `atomic_path`."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        yield file


@contextmanager
def atomic_folder(path: str | Path, last: str = "") -> Generator[Path, None, None]:
    """An empty temporary folder whose files move into `path` when the block ends, or are removed if it fails.

    Missing folders are created, and files of other names stay. All files are flushed before any moves, and an error
    during the moves restores the old files. Replaced files move out before new ones move in, so that a crash leaves no
    mixture: the file `last`, without which the others are useless, moves out first and in last.

    Raises:
        InputError: `path` is not a folder, or cannot be created or written, or a file would replace a folder.
    """
    path = Path(path)
    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with (
            TemporaryDirectory(prefix=".vitreous-", dir=path) as new,
            TemporaryDirectory(prefix=".vitreous-", dir=path) as old,
        ):
            yield Path(new)
            _move_in(Path(new), path, Path(old), last)
            for folder in created:
                flush_folder(folder.parent)
    except BaseException as error:
        for folder in created:
            with suppress(OSError):  # report the first error
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        cause = f"cannot write the folder {str(path)!r}: {error.strerror}"
        raise InputError(cause, "choose a writable folder with free space") from error


def check_target(path: Path) -> None:
    """Raises InputError if something other than a regular file is at a path to write."""
    if path.exists() and not path.is_file():  # renaming would replace even /dev/null
        raise InputError(f"cannot write {str(path)!r}: it is not a file", "choose a path that is free or a file")


def _move_in(new: Path, path: Path, old: Path, last: str) -> None:
    """Moves all files of `new` to `path`, and those they replace to `old`; an error undoes all moves."""
    names = sorted((file.name for file in new.iterdir()), key=lambda name: (name == last, name))
    for name in names:
        check_target(path / name)
        with (new / name).open("rb+") as file:
            os.fsync(file.fileno())
    try:
        for name in reversed(names):
            if os.path.lexists(path / name):
                (path / name).replace(old / name)
        flush_folder(path)
        for name in names:
            (new / name).replace(path / name)
        flush_folder(path)
    except BaseException:
        for name in names:
            with suppress(OSError):  # report the first error
                if os.path.lexists(old / name):
                    (old / name).replace(path / name)
                elif not (new / name).exists():
                    (path / name).unlink()
        raise


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes bytes to a file atomically."""
    with atomic_file(path) as file:
        file.write(content)


def write_text(path: str | Path, text: str) -> None:
    r"""Writes text to a file atomically, as UTF-8. Undecodable bytes of file names are written as `\udcff`."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, value: object) -> None:
    """Writes a value to a file atomically, as indented JSON. Raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def cache_folder() -> Path:
    """The folder of what can be made again: `$XDG_CACHE_HOME/vitreous`, by default `~/.cache/vitreous`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "vitreous"


def flush_folder(folder: Path) -> None:
    """Flushes a folder, without which a rename in it may not survive a crash."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # unsupported by some network file systems
            raise
    finally:
        os.close(descriptor)
