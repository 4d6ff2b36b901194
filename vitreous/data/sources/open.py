"""Opens a source of labeled images: the embedded digits, or photos in folders or zip archives.

Opening reads names, not pixels. The splits depend on the file names alone, so they are the same every time and on
every machine.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vitreous.data.images import is_image_name
from vitreous.data.sources.archives import SUFFIX, open_archives
from vitreous.data.sources.layouts import LAYOUT, SPLITS, Entry, ImageLoader, Tree, is_clutter, kind_of, open_tree
from vitreous.data.sources.splits import ImageData, Split, hold_out
from vitreous.support.errors import InputError

DIGITS = "digits"
TEST_FRACTION = 0.2  # of the digits, which have no test split of their own


def open_data(source: str | Path, validation_fraction: float = 0.1) -> ImageData:
    """Opens a source of labeled images.

    "digits" means scikit-learn's 1,797 handwritten digits of 8x8 pixels, of which a fixed fifth is the test split;
    use "./digits" for a folder of that name. Any other source is a folder in one of two layouts:

    - `FOLDER/CLASS/IMAGE`, without a test split.
    - `FOLDER/train/CLASS/IMAGE`, optionally with `val/`, `valid/` or `validation/`, and `test/` next to train/. Other
      folders there are ignored and counted. A folder called train that directly holds images is a class.

    Images may be in subfolders of a class folder. Links are followed only to files inside the source.

    A zip archive of either layout, perhaps inside one top folder, gives the same samples as the folder it was made
    from; it is read in place, and links in it are ignored and counted. A folder without subfolders may instead hold an
    archive for each split: `train.zip`, `val.zip` and `test.zip`.

    Without a validation split, a fixed part of train is held out: of each class with n images, the
    max(1, round(n * f)) whose names, relative to the class folder, have the smallest hashes. This does not depend on
    other classes, and hardly changes when images are added. The only image of a class stays in train.

    Args:
        source: "digits", a folder, or a zip archive.
        validation_fraction: f, in (0, 1).

    Raises:
        InputError: the source does not exist or is empty, has one class, a class without images, or splits with
            different classes; or an archive cannot be read or has two images of the same name.
    """
    if not 0 < validation_fraction < 1:
        raise InputError(f"the validation fraction is {validation_fraction}", "set it between 0 and 1")
    is_path = isinstance(source, Path) and source.is_dir()  # str(Path("./digits")) has no dot
    if str(source) == DIGITS and not is_path:
        return _open_digits(validation_fraction)
    return open_tree(_tree(str(source)), validation_fraction)


def _tree(source: str) -> Tree:
    """A folder, an archive, or a folder of archives as a tree."""
    root = _real_path(source)
    if not root.is_dir():
        return open_archives(source, [("", str(root))], Counter())
    tree = FolderTree(source, Counter(), str(root))
    entries = tree.entries("")
    if any(entry.is_folder for entry in entries):
        return tree
    archives = []
    for file in (root / entry.name for entry in entries):
        if file.suffix.casefold() != SUFFIX or file.stem.casefold() not in SPLITS:
            tree.ignored[f"{kind_of(file.name)} next to the archives"] += 1
        elif not _leads_to_file_inside(str(file), tree.root):
            raise InputError(f"{tree.path(file.name)!r} is a link out of the folder", "replace it with the archive")
        else:
            archives.append((file.stem, str(file)))
    return open_archives(source, archives, tree.ignored) if archives else FolderTree(source, Counter(), tree.root)


def _real_path(source: str) -> Path:
    """The path of a folder or archive with links resolved, against which links inside it are checked."""
    try:
        root = Path(source).resolve()
        if root.is_dir() or (root.is_file() and source.casefold().endswith(SUFFIX)):
            return root
        exists = root.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null character, a loop of links
        raise InputError(f"{source!r} cannot be opened: {error}", "check the path") from error
    if exists:
        raise InputError(f"{source!r} is not a folder or a {SUFFIX} archive", LAYOUT)
    raise InputError(f"{source!r} does not exist", "check the path; a source is a folder, a .zip or digits")


# ---- digits


@dataclass(frozen=True, eq=False)
class ArrayLoader:
    """Gray images from a byte array "samples height width"."""

    pixels: np.ndarray

    def __call__(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


def _open_digits(validation_fraction: float) -> ImageData:
    """scikit-learn's digits, scaled from 0..16 to 0..255."""
    from sklearn.datasets import load_digits

    values, target = load_digits(return_X_y=True)
    values, target = np.asarray(values, np.float64), np.asarray(target, np.int64)
    pixels = np.rint(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    names = [f"{DIGITS}/{index:04}" for index in range(len(target))]
    indices: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for label in range(10):
        rest = np.flatnonzero(target == label)
        for name, fraction in (("test", TEST_FRACTION), ("validation", validation_fraction)):
            mask = hold_out([names[index] for index in rest.tolist()], fraction)
            indices[name] += rest[mask].tolist()
            rest = rest[~mask]
        indices["train"] += rest.tolist()

    def split(name: str) -> Split:
        chosen = indices[name]
        return Split(name, tuple(names[i] for i in chosen), target[chosen], ArrayLoader(pixels[chosen]))

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


# ---- folders


@dataclass(frozen=True, eq=False)
class FileLoader(ImageLoader):
    """Loads the image files of a folder."""

    folder: str

    def file(self, index: int) -> str:
        return f"{self.folder}/{self.names[index]}"


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
                elif entry.is_symlink() and not _leads_to_file_inside(entry.path, self.root):
                    others["link out of the folder, to a folder or to nothing"] += 1
                elif not is_image_name(entry.name):
                    others[kind_of(entry.name)] += 1
                elif not entry.is_file():
                    others["device or pipe"] += 1
                else:
                    yield f"{folder}/{entry.name}"

    def loader(self, names: tuple[str, ...]) -> FileLoader:
        return FileLoader(names, self.root)


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


def _leads_to_file_inside(link: str, root: str) -> bool:
    """Whether a link leads to a file inside the root."""
    target = Path(link).resolve()
    return target.is_file() and target.is_relative_to(root)
