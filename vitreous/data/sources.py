"""Where labelled images come from: the embedded digits, and folders of photos; and how they are split.

Opening a source reads names, never pixels. Splits are fixed by the files' names alone: opening the same
source again, or on another machine, gives the same samples in the same places.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from statistics import median_low

import numpy as np
from PIL import Image

from vitreous.data.images import BadImage, ImageLimits, decode_image, header_size, is_image_name
from vitreous.support.errors import InputError
from vitreous.support.text import natural_key

DIGITS = "digits"
TEST_FRACTION = 0.2  # of the digits, which come without a test split
SPLITS = {name: name for name in ("train", "validation", "test")} | {
    "val": "validation",
    "valid": "validation",
}
CLUTTER = frozenset(  # what systems leave in folders
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found")
)
LAYOUT = "expected are FOLDER/CLASS/IMAGE, or FOLDER/train/CLASS/IMAGE with val/ and test/ beside train/"
HEADERS = 32  # files looked at for the native size


@dataclass(frozen=True, eq=False)
class Split:
    """Samples of one split, classes one after the other.

    Args:
        name: "train", "validation" or "test".
        names: what each sample is called: its path relative to the source, with "/".
        labels: class numbers, int64, one per sample.
        load: decodes one sample by its place; raises BadImage. Can be sent to a worker process.
    """

    name: str
    names: tuple[str, ...]
    labels: np.ndarray
    load: Callable[[int], Image.Image]

    def __len__(self) -> int:
        return len(self.names)

    def class_counts(self, num_classes: int) -> list[int]:
        """Samples of each class."""
        return np.bincount(self.labels, minlength=num_classes).tolist()


@dataclass(frozen=True, eq=False)
class ImageData:
    """A source, opened and split.

    Args:
        name: the source, as it was given.
        class_names: a label is a place in here; sorted as people count.
        train: what is learned from.
        validation: what choices are made on.
        test: what is read once, at the end; None where there is none.
        native_size: the usual (height, width) of the images: the median over some of train.
        channels: 3 (RGB) or 1 (grey).
        flip_ok: whether an image swapped left and right is still of its class.
        ignored: what the folder holds besides, and how many; not what systems leave, such as .DS_Store.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None
    native_size: tuple[int, int]
    channels: int
    flip_ok: bool
    ignored: dict[str, int]


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


@dataclass(frozen=True, eq=False)
class ArrayLoader:
    """Makes grey images from the rows of an array "samples height width" of bytes."""

    pixels: np.ndarray

    def __call__(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


def open_data(source: str | Path, validation_fraction: float = 0.1) -> ImageData:
    """Opens a source of labelled images.

    "digits" is scikit-learn's 1,797 handwritten digits of 8x8 pixels, with a fixed test fifth; a folder of
    this name is "./digits". Any other source is a folder, in one of two layouts:

    - `FOLDER/CLASS/IMAGE`: there is no test split.
    - `FOLDER/train/CLASS/IMAGE`, with `val/`, `valid/` or `validation/`, and `test/`, or only some of these,
      beside train/. Other folders beside it are ignored and listed. A folder called train that holds images
      itself, next to car/ and plane/, is a class.

    Images may lie deeper inside a class folder. Links are followed to files inside the source only.

    Without a validation split, a fixed part of train is it: of each class with n images, those
    max(1, round(n * f)) whose names, relative to the class folder, have the smallest hashes. So it does not
    depend on the other classes, and hardly changes when images are added. A class's only image stays in
    train.

    Args:
        source: "digits", or a folder.
        validation_fraction: f, in (0, 1).

    Raises:
        InputError: no folder, empty, one class, a class without images, classes that differ between splits.
    """
    if not 0 < validation_fraction < 1:
        raise InputError(f"the validation fraction is {validation_fraction}", "it must be between 0 and 1")
    is_path = isinstance(source, Path) and source.is_dir()  # Path("./digits") has lost its dot
    if str(source) == DIGITS and not is_path:
        return _open_digits(validation_fraction)
    return _open_folder(str(source), validation_fraction)


def hold_out(names: Sequence[str], fraction: float) -> np.ndarray:
    """Which of one class's names are held out, as a mask: a `fraction`, those with the smallest hashes.

    Of n names max(1, round(n * fraction)), but one stays: of a single name, none is held out.
    """
    count = min(max(1, round(len(names) * fraction)), len(names) - 1)
    hashes = [blake2b(os.fsencode(name), digest_size=8).digest() for name in names]
    mask = np.zeros(len(names), dtype=bool)
    mask[sorted(range(len(names)), key=lambda place: (hashes[place], names[place]))[:count]] = True
    return mask


# ---- digits


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


def _open_folder(source: str, validation_fraction: float) -> ImageData:
    """A folder of photos in one of the two layouts."""
    root = _real_folder(source)
    ignored: Counter[str] = Counter()
    folders = _split_folders(root, source, ignored)
    listed = {name: _list_classes(root, folder, source, ignored) for name, folder in folders.items()}
    class_names = _common_classes(listed, folders, source)

    parts = {name: [classes[c] for c in class_names] for name, classes in listed.items()}
    if "validation" not in parts:
        prefixes = [f"{folders['train']}/{c}/".lstrip("/") for c in class_names]
        held_out = [
            hold_out([name.removeprefix(prefix) for name in names], validation_fraction)
            for prefix, names in zip(prefixes, parts["train"], strict=True)
        ]
        parts["train"], parts["validation"] = _divide(parts["train"], held_out)
        if not any(parts["validation"]):
            mend = "add images, or a val/ folder beside train/"
            raise InputError(f"every class of {source!r} has one image, so none is left for validation", mend)

    splits = {name: _file_split(name, root, names) for name, names in parts.items()}
    return ImageData(
        name=source,
        class_names=tuple(class_names),
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        native_size=_native_size(splits["train"], source),
        channels=3,
        flip_ok=True,
        ignored=dict(ignored),
    )


def _real_folder(source: str) -> str:
    """The folder's path without links, so that what is inside it can be told."""
    try:
        root = Path(source).resolve()
        if root.is_dir():
            return str(root)
        what = "is not a folder" if root.exists() else "does not exist"
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null character, a loop of links
        what = f"cannot be opened: {error}"
    raise InputError(f"{source!r} {what}", LAYOUT)


def _split_folders(root: str, source: str, ignored: Counter[str]) -> dict[str, str]:
    """Which folder holds which split: {"train": "train", "test": "Test"}; {"train": ""} without splits."""
    entries = [entry for entry in _entries(root) if entry.is_dir(follow_symlinks=False)]
    found: dict[str, str] = {}
    for entry in entries:
        split = SPLITS.get(entry.name.casefold())
        if split is None or not _holds_only_folders(entry.path):
            continue
        if split in found:
            raise InputError(
                f"{source!r} has two {split} splits: {found[split]!r} and {entry.name!r}", "keep one of them"
            )
        found[split] = entry.name
    if not found:
        for entry in entries:
            inside = {e.name.casefold(): e for e in _entries(entry.path)}
            if "train" in inside and inside["train"].is_dir() and _holds_only_folders(inside["train"].path):
                cause = f"{source!r} is no source: {entry.name!r} in it has a train folder of its own"
                raise InputError(cause, f"give {source}/{entry.name}")
        return {"train": ""}
    if "train" not in found:
        there = ", ".join(repr(name) for name in found.values())
        raise InputError(f"{source!r} has {there} but no 'train' folder of classes", LAYOUT)
    for entry in entries:
        if entry.name not in found.values():
            ignored[f"folder beside train/: {entry.name}"] += 1
    return found


def _holds_only_folders(folder: str) -> bool:
    """Whether this can be a split: there are folders in it, and no images next to them."""
    entries = list(_entries(folder))
    return any(e.is_dir(follow_symlinks=False) for e in entries) and not any(is_image_name(e.name) for e in entries)


def _list_classes(root: str, split_folder: str, source: str, ignored: Counter[str]) -> dict[str, list[str]]:
    """The images of each class of one split, relative to the root, sorted."""
    folder, shown = (f"{base}/{split_folder}".rstrip("/") for base in (root, source))
    classes: dict[str, list[str]] = {}
    loose = 0
    for entry in _entries(folder):
        if entry.is_symlink() and entry.is_dir():
            raise InputError(
                f"the class folder {entry.path!r} is a link, and links to folders are not followed",
                "put the folder itself there",
            )
        if entry.is_dir(follow_symlinks=False):
            others: Counter[str] = Counter()
            prefix = f"{split_folder}/{entry.name}/".lstrip("/")
            classes[entry.name] = sorted(_images(entry.path, prefix, root, others))
            if not classes[entry.name]:
                holds = ", ".join(f"{count} x {what}" for what, count in others.items()) or "no files"
                raise InputError(
                    f"the class folder {entry.path!r} has no images, but {holds}",
                    "remove it, or put JPEG, PNG, WebP, BMP or GIF images in it",
                )
            ignored.update(others)
        else:
            loose += is_image_name(entry.name)
            ignored["file outside the class folders"] += 1
    if len(classes) < 2:
        found = f"one class folder, {next(iter(classes))!r}" if classes else "no class folders"
        beside = f", and {loose} images outside class folders" if loose else ""
        raise InputError(f"{shown!r} has {found}{beside}; two classes are the least", LAYOUT)
    return classes


def _images(folder: str, prefix: str, root: str, others: Counter[str]) -> Iterator[str]:
    """The images below a folder; what else there is, is counted in `others` by its kind."""
    pending = [(folder, prefix)]
    while pending:
        folder, prefix = pending.pop()
        for entry in _entries(folder):
            if entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, f"{prefix}{entry.name}/"))
            elif entry.is_symlink() and not _leads_to_file_inside(entry.path, root):
                others["link out of the folder, to a folder or to nothing"] += 1
            elif not is_image_name(entry.name):
                others[_kind(entry.name)] += 1
            elif not entry.is_file():
                others["device or pipe"] += 1
            else:
                yield prefix + entry.name


def _leads_to_file_inside(link: str, root: str) -> bool:
    """Whether a link ends at a file inside the root."""
    target = Path(link).resolve()
    return target.is_file() and target.is_relative_to(root)


def _kind(name: str) -> str:
    """What to count a file as that is not an image we read: "heic file"."""
    _, dot, suffix = name.rpartition(".")
    return f"{suffix.lower()} file" if dot else "file without a suffix"


def _entries(folder: str) -> Iterable[os.DirEntry[str]]:
    """The entries of a folder but hidden ones and clutter, by name."""
    try:
        with os.scandir(folder) as entries:
            seen = [e for e in entries if not e.name.startswith(".") and e.name.casefold() not in CLUTTER]
    except OSError as error:
        raise InputError(f"cannot read the folder {folder!r}: {error.strerror}", "check its permissions") from error
    return sorted(seen, key=lambda entry: entry.name)


def _common_classes(listed: dict[str, dict[str, list[str]]], folders: dict[str, str], source: str) -> list[str]:
    """The class names, sorted as people count. Labels are places among them, so all splits need the same."""
    train = set(listed["train"])
    for split, classes in listed.items():
        for names, has, lacks in (
            (train - set(classes), folders["train"], folders[split]),
            (set(classes) - train, folders[split], folders["train"]),
        ):
            if names:
                some = ", ".join(repr(name) for name in sorted(names, key=natural_key)[:10])
                more = f" and {len(names) - 10} more" if len(names) > 10 else ""
                raise InputError(
                    f"{source!r} has {some}{more} in {has}/ but not in {lacks}/", "make the classes the same"
                )
    return sorted(train, key=natural_key)


def _divide(classes: list[list[str]], masks: list[np.ndarray]) -> tuple[list[list[str]], list[list[str]]]:
    """Each class's names, those where its mask is false and those where it is true."""
    pairs = [list(zip(names, mask, strict=True)) for names, mask in zip(classes, masks, strict=True)]
    return [[n for n, out in pair if not out] for pair in pairs], [[n for n, out in pair if out] for pair in pairs]


def _file_split(name: str, root: str, classes: list[list[str]]) -> Split:
    """A split of files, given by class."""
    names = tuple(name for names in classes for name in names)
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(names) for names in classes])
    return Split(name, names, labels, FileLoader(root, names))


def _native_size(train: Split, source: str) -> tuple[int, int]:
    """The median height and width that some headers, spread evenly over the split, tell."""
    assert isinstance(train.load, FileLoader)
    sizes, error = [], None
    for index in np.linspace(0, len(train) - 1, min(HEADERS, len(train)), dtype=int).tolist():
        try:
            sizes.append(header_size(train.load.path(index), train.load.limits))
        except BadImage as bad:  # skipped and listed when it is loaded
            error = bad
    if not sizes:
        raise InputError(
            f"none of the images of {source!r} looked at can be read; the last: {error}", "check the files"
        )
    heights, widths = zip(*sizes, strict=True)
    return median_low(heights), median_low(widths)
