"""Images in a folder on disk."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vitreous.data.images import Decoding, file_stamp, is_image_name
from vitreous.data.sources.layouts import Entry, ImageLoader, Tree, is_clutter, kind_of
from vitreous.support.errors import InputError


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
    """A folder on disk; `root` is its path with links resolved."""

    root: str

    def entries(self, folder: str) -> list[Entry]:
        return [
            Entry(e.name, e.is_dir(follow_symlinks=False), e.is_symlink() and e.is_dir())
            for e in _entries(Path(self.root, folder))
        ]

    def images(self, folder: str, others: Counter[str]) -> Iterator[str]:
        pending = [folder]
        while pending:
            folder = pending.pop()
            for entry in _entries(Path(self.root, folder)):
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{folder}/{entry.name}")
                elif entry.is_symlink() and not leads_to_file_inside(entry.path, self.root):
                    others["link out of the folder, to a folder or to nothing"] += 1
                elif not is_image_name(entry.name):
                    others[kind_of(entry.name)] += 1
                elif not entry.is_file():
                    others["device or pipe"] += 1
                else:
                    yield f"{folder}/{entry.name}"

    def loader(self, names: tuple[str, ...], decoding: Decoding) -> FileLoader:
        return FileLoader(names, decoding, self.root)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder by name, without hidden ones and clutter."""
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not is_clutter(entry.name)]
    except OSError as error:
        raise InputError(
            f"cannot read the folder {str(folder)!r}: {error.strerror}", "check its permissions"
        ) from error
    return sorted(kept, key=lambda entry: entry.name)


def leads_to_file_inside(link: str, root: str) -> bool:
    """Whether a link leads to a file inside the root."""
    target = Path(link).resolve()
    return target.is_file() and target.is_relative_to(root)
