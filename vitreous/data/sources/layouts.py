"""The two layouts of labeled photos, in a folder or an archive: one folder per class, and splits above them."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

from PIL import Image

from vitreous.data.images import Decoding, decode_image, file_bytes, header_size, is_image_name
from vitreous.data.sources.assemble import assemble
from vitreous.data.sources.names import split_of
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.splits import ImageData, Loader
from vitreous.support.errors import InputError

CLUTTER = frozenset(  # that operating systems leave in folders
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found")
)
LAYOUT = (
    "arrange it as FOLDER/CLASS/IMAGE, or as FOLDER/train/CLASS/IMAGE with val/ and test/ next to train/; "
    "a zip of either works, and so do train.zip, val.zip and test.zip in a folder"
)


class Entry(NamedTuple):
    """A file or folder directly inside a folder."""

    name: str
    is_folder: bool
    is_linked_folder: bool = False


@dataclass(frozen=True, eq=False)
class ImageLoader(Loader):
    """Loads image files.

    Args:
        names: of the images, relative to the source.
        decoding: of their files.
    """

    names: tuple[str, ...]
    decoding: Decoding

    def __call__(self, index: int) -> Image.Image:
        return decode_image(self.file(index), self.names[index], self.decoding)

    def size(self, index: int) -> tuple[int, int]:
        """The (height, width) in the header; no pixel is decoded."""
        return header_size(self.file(index), self.names[index], self.decoding)

    def at_least(self, side: int) -> Self:
        return replace(self, decoding=replace(self.decoding, at_least=side))

    @property
    def settings(self) -> Decoding:
        return self.decoding

    def content(self, index: int) -> bytes:
        return file_bytes(self.file(index), self.names[index])

    @abstractmethod
    def file(self, index: int) -> str | bytes:
        """The path or the content of an image file."""


@dataclass(frozen=True, eq=False)
class Tree(ABC):
    """A tree of folders and files. Folders are named by their path from the top, with "/"; the top is "".

    Args:
        source: as the user named it.
        ignored: how many files and folders were ignored, by kind; everyone who ignores one counts it here.
    """

    source: str
    ignored: Counter[str]

    def path(self, folder: str) -> str:
        """The path of a folder, for messages."""
        return str(Path(self.source, folder))

    @abstractmethod
    def entries(self, folder: str) -> list[Entry]:
        """The entries of a folder by name, without hidden ones and clutter."""

    @abstractmethod
    def images(self, folder: str, others: Counter[str]) -> Iterable[str]:
        """The images below a folder, in any order; other files are counted in `others` by kind."""

    @abstractmethod
    def loader(self, names: tuple[str, ...], decoding: Decoding) -> ImageLoader:
        """A loader of these images."""


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden or left by an operating system."""
    return name.startswith(".") or name.casefold() in CLUTTER


def kind_of(name: str) -> str:
    """The kind to count a file as that is not an image: "heic file"."""
    _, dot, suffix = name.rpartition(".")
    return f"{suffix.lower()} file" if dot else "file without a suffix"


def holds_only_folders(entries: Iterable[Entry]) -> bool:
    """Whether these can be the class folders of a split: there are folders, and no images next to them."""
    entries = list(entries)
    return any(e.is_folder for e in entries) and all(e.is_folder or not is_image_name(e.name) for e in entries)


def open_tree(tree: Tree, options: DataOptions) -> ImageData:
    """The images in a tree of either layout, split as `open_data` documents.

    Raises:
        InputError: the layout is not recognized, there is one class, a class has no images, or the classes of the
            splits differ.
    """
    folders = split_folders(tree)
    images = {name: _images_by_class(tree, folder) for name, folder in folders.items()}

    def key(class_name: str, name: str) -> str:
        return name.removeprefix(f"{folders['train']}/{class_name}/".lstrip("/"))

    return assemble(tree.source, images, tree.loader, options, ignored=tree.ignored, key=key)


def split_folders(tree: Tree) -> dict[str, str]:
    """The folder of each split: {"train": "train", "test": "Test"}; {"train": ""} without splits."""
    names = [entry.name for entry in tree.entries("") if entry.is_folder]
    folders: dict[str, str] = {}
    for name in names:
        split = split_of(name)
        if split is None or not holds_only_folders(tree.entries(name)):
            continue
        if split in folders:
            cause = f"{tree.source!r} has two {split} splits: {folders[split]!r} and {name!r}"
            raise InputError(cause, "keep one of them")
        folders[split] = name
    if not folders:
        _refuse_nested_train(tree, names)
        return {"train": ""}
    if "train" not in folders:
        others = ", ".join(repr(name) for name in folders.values())
        raise InputError(f"{tree.source!r} has {others} but no 'train' folder of classes", LAYOUT)
    for name in names:
        if name not in folders.values():
            tree.ignored[f"folder next to train/: {name}"] += 1
    return folders


def _refuse_nested_train(tree: Tree, names: Iterable[str]) -> None:
    """Raises InputError if one of the folders has its own train folder: the user means that folder."""
    for name in names:
        train = {e.name.casefold(): e for e in tree.entries(name)}.get("train")
        if train and train.is_folder and holds_only_folders(tree.entries(f"{name}/{train.name}")):
            cause = f"{tree.source!r} has no class folders: {name!r} in it has its own train folder"
            raise InputError(cause, f"use {tree.source}/{name}")


def _images_by_class(tree: Tree, split_folder: str) -> dict[str, list[str]]:
    """The sorted images of each class of one split."""
    classes: dict[str, list[str]] = {}
    loose = 0
    for entry in tree.entries(split_folder):
        folder = f"{split_folder}/{entry.name}".lstrip("/")
        if entry.is_linked_folder:
            cause = f"the class folder {tree.path(folder)!r} is a link, and links to folders are not followed"
            raise InputError(cause, "replace the link with the folder")
        if entry.is_folder:
            others: Counter[str] = Counter()
            classes[entry.name] = sorted(tree.images(folder, others))
            if not classes[entry.name]:
                contents = ", ".join(f"{count} x {kind}" for kind, count in others.items())
                state = f"has no images, but {contents}" if contents else "is empty"
                cause = f"the class folder {tree.path(folder)!r} {state}"
                raise InputError(cause, "remove it, or add JPEG, PNG, WebP, BMP or GIF images")
            tree.ignored.update(others)
        else:
            loose += is_image_name(entry.name)
            tree.ignored["file outside the class folders"] += 1
    if len(classes) < 2:
        count = f"one class folder, {next(iter(classes))!r}" if classes else "no class folders"
        outside = f", and {loose} images outside class folders" if loose else ""
        raise InputError(f"{tree.path(split_folder)!r} has {count}{outside}, but needs at least two classes", LAYOUT)
    return classes
