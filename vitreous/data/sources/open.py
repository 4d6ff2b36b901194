"""Where labeled images come from: the embedded digits, and photos in folders or zip archives.

Opening a source reads names, never pixels. Splits are fixed by the files' names alone: opening the same
source again, or on another machine, gives the same samples in the same places.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from vitreous.data.images import ImageLimits, decode_image, header_size, is_image_name
from vitreous.data.sources.archives import SUFFIX, open_archives
from vitreous.data.sources.layouts import LAYOUT, SPLITS, Entry, Tree, is_clutter, kind_of, open_tree
from vitreous.data.sources.splits import ImageData, Split, hold_out
from vitreous.support.errors import InputError

DIGITS = "digits"
TEST_FRACTION = 0.2  # of the digits, which come without a test split


def open_data(source: str | Path, validation_fraction: float = 0.1) -> ImageData:
    """Opens a source of labeled images.

    "digits" is scikit-learn's 1,797 handwritten digits of 8x8 pixels, with a fixed test fifth; a folder of
    this name is "./digits". Any other source is a folder, in one of two layouts:

    - `FOLDER/CLASS/IMAGE`: there is no test split.
    - `FOLDER/train/CLASS/IMAGE`, with `val/`, `valid/` or `validation/`, and `test/`, or only some of these,
      beside train/. Other folders beside it are ignored and listed. A folder called train that holds images
      itself, next to car/ and plane/, is a class.

    Images may lie deeper inside a class folder. Links are followed to files inside the source only.

    A zip archive holds the same, also below one folder of its own, and gives the same samples as the folder
    that it was made from; links in it are ignored and listed. It is read in place. A folder without folders
    may hold its splits as archives: `train.zip`, with `val.zip` and `test.zip` or as the folders are called.

    Without a validation split, a fixed part of train is it: of each class with n images, those
    max(1, round(n * f)) whose names, relative to the class folder, have the smallest hashes. So it does not
    depend on the other classes, and hardly changes when images are added. A class's only image stays in
    train.

    Args:
        source: "digits", a folder, or a zip archive.
        validation_fraction: f, in (0, 1).

    Raises:
        InputError: no folder and no archive, empty, one class, a class without images, classes that differ
            between splits, an archive that cannot be read or holds two images of the same name.
    """
    if not 0 < validation_fraction < 1:
        raise InputError(f"the validation fraction is {validation_fraction}", "it must be between 0 and 1")
    is_path = isinstance(source, Path) and source.is_dir()  # Path("./digits") has lost its dot
    if str(source) == DIGITS and not is_path:
        return _open_digits(validation_fraction)
    return open_tree(_tree(str(source)), validation_fraction)


def _tree(source: str) -> Tree:
    """The folder, the archive, or the archives of a folder."""
    root = _real_path(source)
    if not root.is_dir():
        return open_archives(source, [("", str(root))])
    tree = FolderTree(source, str(root))
    entries = tree.entries("")
    if any(entry.is_folder for entry in entries):
        return tree
    archives = []
    for name in (entry.name for entry in entries):
        stem, dot, suffix = name.rpartition(".")
        if f"{dot}{suffix}".casefold() != SUFFIX or stem.casefold() not in SPLITS:
            tree.ignored[f"{kind_of(name)} beside the archives"] += 1
        elif not _leads_to_file_inside(tree.path(name), tree.root):
            raise InputError(f"{tree.path(name)!r} is no file inside the folder", "put the archive itself there")
        else:
            archives.append((stem, tree.path(name)))
    return open_archives(source, archives, tree.ignored) if archives else FolderTree(source, tree.root)


def _real_path(source: str) -> Path:
    """The folder's or archive's path without links, so that what is inside it can be told."""
    try:
        root = Path(source).resolve()
        if root.is_dir() or (root.is_file() and source.casefold().endswith(SUFFIX)):
            return root
        what = f"is not a folder or a {SUFFIX} archive" if root.exists() else "does not exist"
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null character, a loop of links
        what = f"cannot be opened: {error}"
    raise InputError(f"{source!r} {what}", LAYOUT)


# ---- digits


@dataclass(frozen=True, eq=False)
class ArrayLoader:
    """Makes gray images from the rows of an array "samples height width" of bytes."""

    pixels: np.ndarray

    def __call__(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


def _open_digits(validation_fraction: float) -> ImageData:
    """scikit-learn's digits, 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits

    values, target = load_digits(return_X_y=True)
    values, target = np.asarray(values, np.float64), np.asarray(target, np.int64)
    pixels = np.rint(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    splits: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for label in range(10):
        places = np.flatnonzero(target == label)
        is_test = hold_out([_digit_name(place) for place in places.tolist()], TEST_FRACTION)
        rest = places[~is_test]
        is_validation = hold_out([_digit_name(place) for place in rest.tolist()], validation_fraction)
        splits["test"] += places[is_test].tolist()
        splits["validation"] += rest[is_validation].tolist()
        splits["train"] += rest[~is_validation].tolist()

    def split(name: str) -> Split:
        places = splits[name]
        names = tuple(_digit_name(place) for place in places)
        return Split(name, names, target[places], ArrayLoader(pixels[places]))

    return ImageData(
        name=DIGITS,
        class_names=tuple("0123456789"),
        train=split("train"),
        validation=split("validation"),
        test=split("test"),
        native_size=(8, 8),
        channels=1,
        flip_ok=False,
        ignored={},
    )


def _digit_name(place: int) -> str:
    return f"{DIGITS}/{place:04}"


# ---- folders


@dataclass(frozen=True)
class FileLoader:
    """Decodes the files of a folder by their places."""

    folder: str
    names: tuple[str, ...]
    limits: ImageLimits = field(default_factory=ImageLimits)

    def __call__(self, index: int) -> Image.Image:
        return decode_image(self.path(index), self.limits)

    def path(self, index: int) -> str:
        return f"{self.folder}/{self.names[index]}"

    def size(self, index: int) -> tuple[int, int]:
        """The (height, width) that the header tells, undecoded."""
        return header_size(self.path(index), self.limits)


@dataclass(frozen=True, eq=False)
class FolderTree:
    """A folder on a disk as a `vitreous.data.sources.layouts.Tree`.

    Args:
        source: as it was given.
        root: its path without links.
        ignored: what is left out.
    """

    source: str
    root: str
    ignored: Counter[str] = field(default_factory=Counter)

    def path(self, folder: str) -> str:
        return f"{self.root}/{folder}" if folder else self.root

    def entries(self, folder: str) -> list[Entry]:
        return [
            Entry(e.name, e.is_dir(follow_symlinks=False), e.is_symlink() and e.is_dir())
            for e in _entries(self.path(folder))
        ]

    def images(self, folder: str, others: Counter[str]) -> Iterator[str]:
        pending = [folder]
        while pending:
            folder = pending.pop()
            for entry in _entries(self.path(folder)):
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{folder}/{entry.name}")
                elif entry.is_symlink() and not _leads_to_file_inside(entry.path, self.root):
                    others["link out of the folder, to a folder or to nothing"] += 1
                elif not is_image_name(entry.name):
                    others[kind_of(entry.name)] += 1
                elif not entry.is_file():
                    others["device or pipe"] += 1
                else:
                    yield f"{folder}/{entry.name}"

    def loader(self, names: tuple[str, ...]) -> FileLoader:
        return FileLoader(self.root, names)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder but hidden ones and clutter, by name."""
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not is_clutter(entry.name)]
    except OSError as error:
        raise InputError(f"cannot read the folder {folder!r}: {error.strerror}", "check its permissions") from error
    return sorted(seen, key=lambda entry: entry.name)


def _leads_to_file_inside(link: str, root: str) -> bool:
    """Whether a link ends at a file inside the root."""
    target = Path(link).resolve()
    return target.is_file() and target.is_relative_to(root)
