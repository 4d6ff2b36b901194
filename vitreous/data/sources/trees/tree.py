"""Trees of folders and image files, on disk or in an archive, that one code reads the layouts of."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from vitreous.data.decoding.bands import Picture
from vitreous.data.decoding.images import Decoding, file_bytes, is_image_name
from vitreous.data.decoding.picture import Stored, decode_picture, picture_maximum, picture_size, stored_channels
from vitreous.data.sources.packed import PackedNames
from vitreous.data.sources.splits import Loader

CLUTTER = frozenset(  # that operating systems leave in folders
    (
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "#recycle", "#snapshot"),
        *("$recycle.bin", "recycler", "system volume information", "lost+found"),
    )
)
HIDDEN_CLUTTER = (  # the starts of hidden folders that programs leave, perhaps with images in them
    *(".appledouble", ".cache", ".comments", ".dropbox", ".dvc", ".fseventsd", ".git", ".hg", ".idea"),
    *(".ipynb_checkpoints", ".local", ".picasaoriginals", ".snapshot", ".spotlight", ".svn", ".temporaryitems"),
    *(".thumb", ".trash", ".venv", ".vscode", ".xvpics", ".zfs", ".@"),
)
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".tbz2", ".bz2", ".txz", ".xz", ".zst", ".7z", ".rar")
PART_OF_ARCHIVE = re.compile(r"\.(?:zip|7z|rar|tar|gz)\.\d{2,4}$|\.[zr]\d\d$|\.part\d+\.rar$", re.IGNORECASE)
BOXES = ".coco.json"  # ends the table of a set for detection
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", BOXES)
LAYOUT = (
    "arrange it as FOLDER/CLASS/IMAGE, or as FOLDER/train/CLASS/IMAGE with val/ and test/ next to train/; "
    "a zip of either works, and so do train.zip, val.zip and test.zip in a folder"
)

# Why a link is not followed.
OUTSIDE, NOWHERE, ABOVE = "leads out of the folder", "leads to nothing", "leads to a folder above itself"
IN_ARCHIVE = "is not followed in an archive"
LINK_OUT, ARCHIVE_PART = "link out of the folder", "part of an archive"  # kinds that files are counted as
SHOWN = 5  # names of images in a message
FOLLOW = "add --set follow_links=true to follow links, or replace it with what it leads to"


class Entry(NamedTuple):
    """A file or folder directly inside a folder.

    Args:
        name: of it.
        is_folder: whether it is a folder, or a link to one that is followed.
        link: why it is a link that is not followed, to a folder or to nothing; "" for anything else.
    """

    name: str
    is_folder: bool
    link: str = ""


class Contents(NamedTuple):
    """What a folder directly holds.

    Args:
        folders: their names.
        links: to folders or to nothing, that are not followed.
        images: how many there are.
        others: how many other files there are.
        first: the names of the first few images.
        archives: the names of archives.
        tables: the names of tables.
    """

    folders: tuple[str, ...]
    links: tuple[Entry, ...]
    images: int
    others: int
    first: tuple[str, ...]
    archives: tuple[str, ...]
    tables: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ImageLoader(Loader):
    """Loads image files.

    Args:
        names: of the images, relative to the source.
        decoding: of their files.
    """

    names: tuple[str, ...] | PackedNames
    decoding: Decoding

    def __getstate__(self) -> dict[str, Any]:
        """For another process, with the names packed."""
        return self.__dict__ | {"names": PackedNames(self.names) if isinstance(self.names, tuple) else self.names}

    def __call__(self, index: int) -> Picture:
        return decode_picture(self.file(index), self.names[index], self.decoding)

    def decode(self, index: int, content: bytes) -> Picture:
        return decode_picture(content, self.names[index], self.decoding)

    def size(self, index: int) -> tuple[int, int]:
        """The (height, width) in the header; no pixel is decoded."""
        return picture_size(self.file(index), self.names[index], self.decoding)

    def at_least(self, side: int) -> Self:
        return replace(self, decoding=replace(self.decoding, at_least=side))

    @property
    def settings(self) -> Decoding:
        return self.decoding

    def content(self, index: int) -> bytes:
        return file_bytes(self.file(index), self.names[index], self.decoding)

    def maximum(self, index: int) -> int | float | None:
        """The largest value of an image with more than 8 bits; None for others, whose pixels are not decoded."""
        return picture_maximum(self.file(index), self.names[index], self.decoding)

    def stored(self, index: int) -> Stored:
        """The channels in the header; no pixel is decoded."""
        return stored_channels(self.file(index), self.names[index], self.decoding)

    @abstractmethod
    def file(self, index: int) -> str | bytes:
        """The path or the content of an image file."""


@dataclass(frozen=True, eq=False)
class Tree(ABC):
    """A tree of folders and files. Folders are named by their path from the top, with "/"; the top is "".

    Args:
        source: as the user named it.
        ignored: how many files and folders were ignored, by kind; everyone who ignores one counts it here.
        notes: what the user should know of how the tree was read, a sentence each.
        tables: next to class folders or splits.
    """

    source: str
    ignored: Counter[str]
    notes: list[str] = field(default_factory=list, kw_only=True)
    tables: list[str] = field(default_factory=list, kw_only=True)

    def path(self, folder: str) -> str:
        """The path of a folder, for messages."""
        return str(Path(self.source, folder))

    def use(self, folder: str) -> str:
        """The hint to open a folder instead."""
        path = self.path(folder)
        return f"use {path}" if Path(path).exists() else f"unpack it, and use the folder {folder!r}"

    @abstractmethod
    def entries(self, folder: str) -> list[Entry]:
        """The entries of a folder by name, without hidden ones and clutter."""

    @abstractmethod
    def images(self, folder: str, others: Counter[str]) -> Iterable[str]:
        """The images below a folder, in any order; other files are counted in `others` by kind."""

    @abstractmethod
    def loader(self, names: tuple[str, ...], decoding: Decoding) -> ImageLoader:
        """A loader of these images."""

    def target(self, folder: str) -> str:
        """What is the same for two folders if they are one, by a link."""
        return folder

    def start_of(self, file: str) -> bytes | None:
        """The first bytes of a file on disk; None if it cannot be read, or is in an archive."""
        return None

    def hidden(self, folder: str) -> list[str]:
        """The names of the hidden folders directly inside a folder that hold images; empty if none are known."""
        return []

    def contents(self, folder: str) -> Contents:
        """What a folder directly holds, with the names of the first few images."""
        folders, links, archives, tables, others = [], [], [], [], 0
        images, shown = 0, []
        for entry in self.entries(folder):
            if entry.is_folder:
                folders.append(entry.name)
            elif entry.link:
                links.append(entry)
            elif is_image_name(entry.name):
                images += 1
                if images <= SHOWN:
                    shown.append(entry.name)
            else:
                others += 1
                if is_packed(entry.name):
                    archives.append(entry.name)
                elif entry.name.lower().endswith(TABLE_SUFFIXES):
                    tables.append(entry.name)
        return Contents(
            tuple(folders), tuple(links), images, others, tuple(shown), tuple(archives), tuple(tables)
        )  # fmt: skip


def join(folder: str, name: str) -> str:
    """The path of an entry of a folder."""
    return f"{folder}/{name}" if folder else name


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden or left by an operating system."""
    return name.startswith(".") or name.casefold() in CLUTTER


def may_be_class(hidden: str) -> bool:
    """Whether a hidden folder is not one that programs are known to leave."""
    return hidden.startswith(".") and not hidden.casefold().startswith(HIDDEN_CLUTTER)


def is_packed(name: str) -> bool:
    """Whether a file has the suffix of an archive, or of a part of one."""
    return name.lower().endswith(ARCHIVE_SUFFIXES) or PART_OF_ARCHIVE.search(name) is not None


def kind_of(name: str) -> str:
    """The kind to count a file as that is not an image: "heic file"."""
    if PART_OF_ARCHIVE.search(name):
        return ARCHIVE_PART
    _, dot, suffix = name.rpartition(".")
    return f"{suffix.lower()} file" if dot else "file without a suffix"


def is_archive_kind(kind: str) -> bool:
    """Whether files counted as this kind are archives."""
    suffix, _, rest = kind.partition(" ")
    return kind == ARCHIVE_PART or (rest == "file" and f".{suffix}" in ARCHIVE_SUFFIXES)
