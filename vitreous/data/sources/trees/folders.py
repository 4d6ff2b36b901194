"""Images in a folder on disk."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vitreous.data.decoding.images import Decoding, file_stamp, is_image_name
from vitreous.data.sources.trees.tree import (
    ABOVE,
    LINK_OUT,
    NOWHERE,
    OUTSIDE,
    Entry,
    ImageLoader,
    Tree,
    is_clutter,
    join,
    kind_of,
    may_be_class,
)  # fmt: skip
from vitreous.support.errors import InputError

START = 2**16  # bytes of a table that are looked at


@dataclass(frozen=True, eq=False)
class FileLoader(ImageLoader):
    """Loads the image files of a folder."""

    folder: str

    def file(self, index: int) -> str:
        return f"{self.folder}/{self.names[index]}"

    def stamp(self, index: int) -> bytes:
        return file_stamp(self.file(index))


@dataclass(frozen=True, eq=False)
class FolderTree(Tree):
    """A folder on disk.

    Links to files and folders inside it are followed, others only on request.

    Args:
        root: its path with links resolved.
        follow_links: whether links out of it are followed.
    """

    root: str
    follow_links: bool = False

    def entries(self, folder: str) -> list[Entry]:
        known: dict[str, str] = {}
        found = [self._entry(entry, known) for entry in _scan(self._full(folder)) if not is_clutter(entry.name)]
        found.sort()
        return found

    def _entry(self, entry: os.DirEntry[str], known: dict[str, str]) -> Entry:
        """An entry of a folder; for `known`, see `real_target`."""
        if not entry.is_symlink():
            return Entry(entry.name, entry.is_dir(follow_symlinks=False))
        if is_image_name(entry.name):  # a link to a file, most probably; there may be a million
            return Entry(entry.name, False)
        kind = _kind(entry.path)
        if kind != stat.S_IFDIR:
            return Entry(entry.name, False, "" if kind else NOWHERE)
        target = real_target(entry.path, known)
        folder = os.path.dirname(entry.path)  # noqa: PTH120 (faster than a Path)
        if folder not in known:
            known[folder] = os.path.realpath(folder)
        if _is_inside(known[folder], target):
            return Entry(entry.name, False, ABOVE)
        if self.follow_links or _is_inside(target, self.root):
            return Entry(entry.name, True)
        return Entry(entry.name, False, OUTSIDE)

    def images(self, folder: str, others: Counter[str]) -> Iterator[str]:
        begin, read = folder, None
        pending = [folder]
        while pending:
            folder = pending.pop()
            for entry in _scan(self._full(folder)):
                path = join(folder, entry.name)
                if is_clutter(entry.name):
                    if count := _hidden_images(entry):
                        others["image in a hidden folder"] += count
                elif entry.is_symlink():
                    read = read or _Read(os.path.realpath(self._full(begin)))
                    kind = self._link_kind(entry, read)
                    if kind == FOLDER:
                        pending.append(path)
                    elif kind:
                        others[kind] += 1
                    else:
                        yield path
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                elif not is_image_name(entry.name):
                    others[kind_of(entry.name)] += 1
                elif not entry.is_file():
                    others["device or pipe"] += 1
                else:
                    yield path

    def _link_kind(self, link: os.DirEntry[str], read: "_Read") -> str:
        """The kind a link is ignored as; FOLDER for a folder to read, "" for an image."""
        kind = _kind(link.path)
        if kind == stat.S_IFDIR:
            target = real_target(link.path, read.known)
            if not self.follow_links and not _is_inside(target, self.root):
                return LINK_OUT
            return FOLDER if read.add(target) else "link to a folder that is read already"
        if not is_image_name(link.name):
            return kind_of(link.name)
        if kind != stat.S_IFREG:
            return "device or pipe" if kind else "link to nothing"
        inside = self.follow_links or _is_inside(real_target(link.path, read.known), self.root)
        return "" if inside else LINK_OUT

    def target(self, folder: str) -> str:
        status = os.stat(self._full(folder))  # noqa: PTH116 (faster than a Path)
        return f"{status.st_dev} {status.st_ino}"

    def _full(self, folder: str) -> str:
        """The path of a folder on disk."""
        return f"{self.root}/{folder}" if folder else self.root

    def start_of(self, file: str) -> bytes | None:
        try:
            with Path(self._full(file)).open("rb") as opened:
                return opened.read(START)
        except OSError:  # a note less
            return None

    def hidden(self, folder: str) -> list[str]:
        return sorted(entry.name for entry in _scan(self._full(folder)) if _hidden_images(entry))

    def loader(self, names: tuple[str, ...], decoding: Decoding) -> FileLoader:
        return FileLoader(names, decoding, self.root)


FOLDER = "folder"


class _Read:
    """The folders that were read, by their real paths, so that links lead to each image once and never in circles."""

    def __init__(self, folder: str) -> None:
        self.folders: set[str] = set()
        self.above: set[str] = set()  # all of them
        self.known: dict[str, str] = {}  # see `real_target`
        self.add(folder)

    def add(self, folder: str) -> bool:
        """Adds a folder to read; false if it, or a folder above or below it, is read already."""
        if folder in self.folders or folder in self.above:
            return False
        above = []
        for parent in map(str, Path(folder).parents):
            if parent in self.folders:
                return False
            if parent in self.above:  # and so are those above it, none of which was read
                break
            above.append(parent)
        self.folders.add(folder)
        self.above.update(above)
        return True


def _scan(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(f"cannot read the folder {folder!r}: {error.strerror}", "check its permissions") from error


def _hidden_images(entry: os.DirEntry[str]) -> int:
    """How many images are directly in an entry, if it is a hidden folder that no program is known to leave."""
    if not may_be_class(entry.name) or not entry.is_dir(follow_symlinks=False):
        return 0
    try:
        return sum(is_image_name(inner.name) for inner in _scan(entry.path))
    except InputError:  # without permission to look
        return 0


def _kind(path: str) -> int:
    """The kind of what a path leads to, such as stat.S_IFDIR; 0 for nothing."""
    try:
        return stat.S_IFMT(os.stat(path).st_mode)  # noqa: PTH116 (faster than a Path)
    except (OSError, ValueError):
        return 0


def real_target(link: str, known: dict[str, str]) -> str:
    """The real path of what a link leads to. `known` keeps that of its folder, which many links lead into."""
    with suppress(OSError):
        folder, name = os.path.split(os.path.join(os.path.dirname(link), os.readlink(link)))  # noqa: PTH115, PTH118, PTH120 (faster than a Path)
        if folder not in known:
            known[folder] = os.path.realpath(folder)
        target = os.path.join(known[folder], name)  # noqa: PTH118
        if name not in ("", ".", "..") and not os.path.islink(target):  # noqa: PTH114
            return target
    return os.path.realpath(link)


def _is_inside(path: str, folder: str) -> bool:
    """Whether a path is a folder, or inside it."""
    return path == folder or path.startswith(folder if folder.endswith("/") else f"{folder}/")


def leads_to_file_inside(link: str, root: str) -> bool:
    """Whether a link leads to a file inside the root."""
    target = Path(link).resolve()
    return target.is_file() and target.is_relative_to(root)
