"""Puts torchvision's sets into the cache: complete or not at all, once for all processes, verified where possible."""

import io
import os
import shutil
import socket
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from http.client import HTTPException
from pathlib import Path
from typing import Any

from vitreous.data.sources.published.torchvision_sets import PublishedSet
from vitreous.support.errors import InputError
from vitreous.support.text import first_line, printable

TIMEOUT = 60.0  # seconds without a byte
PARTIAL = ".partial"  # the folder of a download that is not complete
EXTRACTED = {"ImageNet": ("meta.bin", "train", "val")}  # torchvision would extract its archives while it opens them
ARCHIVES = (".tar", ".gz", ".tgz", ".zip", ".bz2", ".xz", ".mat")  # kept after an interruption; torchvision checks them


def data_folder(name: str) -> Path:
    """The folder of a set: `$XDG_CACHE_HOME/vitreous/data/NAME`, by default in `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "vitreous" / "data" / name


def splits_of_set(row: PublishedSet) -> dict[str, Any]:
    """Torchvision's data set of each split, downloaded unless its files are there.

    A download is extracted in a folder inside the set's, and moved up when it is complete: torchvision takes a half
    extracted folder for a whole one. Archives that a person put into the set's folder are used from there.

    Raises:
        InputError: it cannot be downloaded or read; the hint says which files to put where.
    """
    folder = data_folder(row.name)
    present = _present(row, folder)
    if present is not None:
        return present
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(row.name, folder / ".lock"):
            present = _present(row, folder)  # by another process
            if present is None:
                _fetch(row, folder)
                present = _open(row, folder, download=False)
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError, EOFError, HTTPException) as error:
        if not row.downloads:
            cause = f"{row.name} cannot be downloaded, and its files in {str(folder)!r} are missing or not as published"
        else:
            cause = f"cannot download {row.name}: {_reason(error)}"
        raise InputError(cause, by_hand(row)) from error
    return present


def _reason(error: Exception) -> str:
    """Why a download failed, in a few words: "Name or service not known"."""
    inner = getattr(error, "reason", error)
    return getattr(inner, "strerror", None) or first_line(error) or type(error).__name__


def by_hand(row: PublishedSet) -> str:
    """How to place the files of a set without a download."""
    return f"put these files into {data_folder(row.name)} (or make it a link to them): {row.files}, from {row.page}"


def _present(row: PublishedSet, folder: Path) -> dict[str, Any] | None:
    """The splits, if all of their files are in the folder."""
    if not all((folder / name).exists() for name in EXTRACTED.get(row.title, ())):
        return None
    try:
        return _open(row, folder, download=False)
    except (RuntimeError, FileNotFoundError):  # torchvision's words for files that are missing, or not as published
        return None
    except OSError as error:
        raise InputError(f"cannot read {str(folder)!r}: {error.strerror}", "check its permissions") from error


def _open(row: PublishedSet, folder: Path, download: bool) -> dict[str, Any]:
    """Torchvision's data sets; those of CIFAR are pickles, which it reads only if their MD5 is the published one."""
    from torchvision import datasets

    kind = getattr(datasets, row.title)
    more = {"download": True} if download and row.downloads else {}
    return {split: kind(str(folder), **arguments, **more) for split, arguments in row.splits.items()}


def _fetch(row: PublishedSet, folder: Path) -> None:
    """Downloads and extracts a set inside its folder, and moves it up when it is complete."""
    staging = folder / PARTIAL
    _clean(staging)
    staging.mkdir(exist_ok=True)
    linked = _link_archives(folder, staging)
    if linked:
        print(printable(f"{row.name}: extracting the archives in {folder}"), file=sys.stderr, flush=True)
    elif row.downloads:
        print(printable(f"{row.name}: downloading to {folder}, from {row.page}"), file=sys.stderr, flush=True)
    with _quiet(), _timeout():
        _open(row, staging, download=True)
    _move_up(staging, folder)
    shutil.rmtree(staging)


def _clean(staging: Path) -> None:
    """Removes what an interrupted extraction left, and keeps archives, which are verified before they are used."""
    for parent, folders, files in os.walk(staging, topdown=False):
        for path in (Path(parent, name) for name in files):
            if not path.name.endswith(ARCHIVES) or path.is_symlink():
                path.unlink()
        for path in (Path(parent, name) for name in folders):
            if not any(path.iterdir()):
                path.rmdir()


def _link_archives(folder: Path, staging: Path) -> int:
    """Links the archives that a person has put into a set's folder; returns how many."""
    linked = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != PARTIAL]
        for name in files:
            target = staging / Path(parent, name).relative_to(folder)
            if name.endswith(ARCHIVES) and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(Path(parent, name).absolute())
                linked += 1
    return linked


def _move_up(staging: Path, folder: Path) -> None:
    """Moves all that is in `staging` into `folder`; files that are there already stay."""
    for entry in sorted(staging.iterdir()):
        target = folder / entry.name
        if not os.path.lexists(target):
            entry.rename(target)
        elif entry.is_dir() and target.is_dir():
            _move_up(entry, target)


@contextmanager
def _lock(name: str, path: Path) -> Generator[None, None, None]:
    """Lets one process at a time fetch a set; the others wait, and then find it."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{name}: waiting for another process that downloads it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _timeout() -> Generator[None, None, None]:
    """A limit on how long a server may be silent; torchvision sets none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Keeps torchvision's lines off the output, and its bars off everything but a terminal."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))
        if not sys.stderr.isatty():
            stack.enter_context(redirect_stderr(io.StringIO()))
        yield
