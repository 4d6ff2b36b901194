"""Files that live as long as the process: what an archive or a table holds in a form that cannot be read in place."""

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vitreous.support.errors import InputError

PREFIX = "spool-"
LOCK = ".lock"
RESERVE = 2**30  # bytes of the disk that stay free

_kept: dict[str, FileLock] = {}  # the lock of each spool of this process, held until it is removed


def spool_folder() -> Path:
    """Where spools are: the user's cache, since /tmp is often in memory."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(cache) / "vitreous" / "spools"


def new_spool(source: str) -> Path:
    """An empty file that is removed when this process ends; one that was killed leaves it to the next spool.

    Args:
        source: what it is for, for messages.

    Raises:
        InputError: the cache is not writable.
    """
    folder = spool_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        descriptor, name = tempfile.mkstemp(prefix=PREFIX, dir=folder)
        os.close(descriptor)
        lock = FileLock(f"{name}{LOCK}")
        lock.acquire(blocking=False)
    except OSError as error:
        cause = f"cannot write {str(folder)!r}, where {source!r} is unpacked while it is used: {error.strerror}"
        raise InputError(cause, "set XDG_CACHE_HOME to a writable folder with free space") from error
    if not _kept:
        atexit.register(_remove_all, os.getpid())
    _kept[name] = lock
    return Path(name)


def check_space(source: str, size: int) -> None:
    """Raises InputError if a spool cannot grow by this many bytes."""
    folder = spool_folder()
    free = shutil.disk_usage(folder).free
    if size > free - RESERVE:
        cause = (
            f"{source!r} needs {size / 2**30:.1f} GiB to be unpacked, but {str(folder)!r} has {free / 2**30:.1f} GiB"
        )
        raise InputError(cause, "free some space, or set XDG_CACHE_HOME to a folder on another disk")


def remove_spool(path: Path) -> None:
    """Removes a spool before the process ends."""
    lock = _kept.pop(str(path), None)
    _remove(path)
    if lock is not None:
        lock.release()


def _remove_all(process: int) -> None:
    """Removes the spools of this process, but not in a copy of it."""
    if os.getpid() == process:
        for name in list(_kept):
            remove_spool(Path(name))


def _remove_abandoned(folder: Path) -> None:
    """Removes the spools of processes that were killed: nobody holds their locks."""
    for path in folder.glob(f"{PREFIX}*{LOCK}"):
        lock = FileLock(path)
        with suppress(Timeout, OSError), lock.acquire(blocking=False):
            _remove(path.with_suffix(""))


def _remove(path: Path) -> None:
    """Removes a spool and its lock, if they are there."""
    for file in (path, path.with_name(f"{path.name}{LOCK}")):
        with suppress(OSError):  # another process was faster
            file.unlink()
