"""How labeled images lie in folders, on a disk or in an archive: one folder per class, and splits above them."""

from collections import Counter
from collections.abc import Iterable
from statistics import median_low
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from vitreous.data.images import BadImage, is_image_name
from vitreous.data.sources.splits import ImageData, Split, hold_out
from vitreous.support.errors import InputError
from vitreous.support.text import natural_key

SPLITS = {name: name for name in ("train", "validation", "test")} | {
    "val": "validation",
    "valid": "validation",
}
CLUTTER = frozenset(  # what systems leave in folders
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found")
)
LAYOUT = (
    "expected are FOLDER/CLASS/IMAGE, or FOLDER/train/CLASS/IMAGE with val/ and test/ beside train/, "
    "or one of these in a zip archive, or train.zip, val.zip and test.zip in a folder"
)
HEADERS = 32  # files looked at for the native size


class Entry(NamedTuple):
    """What lies directly in a folder."""

    name: str
    is_folder: bool
    is_linked_folder: bool = False


@runtime_checkable
class Loader(Protocol):
    """Images by their places; can be sent to a worker process. Both methods raise BadImage."""

    def __call__(self, index: int) -> Image.Image: ...

    def size(self, index: int) -> tuple[int, int]:
        """The (height, width) that the header tells."""
        ...


@runtime_checkable
class Tree(Protocol):
    """Folders that hold folders and files; each is called by its path from the top, with "/"; the top is ""."""

    @property
    def source(self) -> str:
        """What was given."""
        ...

    @property
    def ignored(self) -> Counter[str]:
        """What is left out, by kind: whoever leaves something out adds to it."""
        ...

    def path(self, folder: str) -> str:
        """A folder, as a person finds it."""
        ...

    def entries(self, folder: str) -> list[Entry]:
        """What lies directly in a folder but hidden entries and clutter, by name."""
        ...

    def images(self, folder: str, others: Counter[str]) -> Iterable[str]:
        """The images below a folder, in any order; what else there is, is counted in `others` by its kind."""
        ...

    def loader(self, names: tuple[str, ...]) -> Loader:
        """What decodes these images."""
        ...


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or one that systems leave."""
    return name.startswith(".") or name.casefold() in CLUTTER


def kind_of(name: str) -> str:
    """What to count a file as that is not an image we read: "heic file"."""
    _, dot, suffix = name.rpartition(".")
    return f"{suffix.lower()} file" if dot else "file without a suffix"


def open_tree(tree: Tree, validation_fraction: float) -> ImageData:
    """Photos in one of the two layouts, split as `open_data` says.

    Raises:
        InputError: no layout can be told, one class, a class without images, classes that differ between splits.
    """
    folders = split_folders(tree)
    listed = {name: _list_classes(tree, folder) for name, folder in folders.items()}
    class_names = _common_classes(listed, folders, tree.source)

    parts = {name: [classes[c] for c in class_names] for name, classes in listed.items()}
    if "validation" not in parts:
        prefixes = [f"{folders['train']}/{c}/".lstrip("/") for c in class_names]
        held_out = [
            hold_out([name.removeprefix(prefix) for name in names], validation_fraction)
            for prefix, names in zip(prefixes, parts["train"], strict=True)
        ]
        parts["train"], parts["validation"] = _divide(parts["train"], held_out)
        if not any(parts["validation"]):
            hint = "add images, or a val/ folder beside train/"
            raise InputError(f"every class of {tree.source!r} has one image, so none is left for validation", hint)

    splits = {name: _split(name, tree, names) for name, names in parts.items()}
    return ImageData(
        name=tree.source,
        class_names=tuple(class_names),
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        native_size=_native_size(tree, splits["train"].names),
        channels=3,
        flip_ok=True,
        ignored=dict(tree.ignored),
    )


def split_folders(tree: Tree) -> dict[str, str]:
    """Which folder holds which split: {"train": "train", "test": "Test"}; {"train": ""} without splits."""
    entries = tree.entries("")
    folders = [entry.name for entry in entries if entry.is_folder]
    found: dict[str, str] = {}
    for name in folders:
        split = SPLITS.get(name.casefold())
        if split is None or not _holds_only_folders(tree, name):
            continue
        if split in found:
            cause = f"{tree.source!r} has two {split} splits: {found[split]!r} and {name!r}"
            raise InputError(cause, "keep one of them")
        found[split] = name
    if not found:
        for name in folders:
            inside = {e.name.casefold(): e for e in tree.entries(name)}.get("train")
            if inside and inside.is_folder and _holds_only_folders(tree, f"{name}/{inside.name}"):
                cause = f"{tree.source!r} is no source: {name!r} in it has a train folder of its own"
                raise InputError(cause, f"give {tree.source}/{name}")
        return {"train": ""}
    if "train" not in found:
        there = ", ".join(repr(name) for name in found.values())
        raise InputError(f"{tree.source!r} has {there} but no 'train' folder of classes", LAYOUT)
    for name in folders:
        if name not in found.values():
            tree.ignored[f"folder beside train/: {name}"] += 1
    return found


def _holds_only_folders(tree: Tree, folder: str) -> bool:
    """Whether this can be a split: there are folders in it, and no images next to them."""
    entries = tree.entries(folder)
    return any(entry.is_folder for entry in entries) and not any(is_image_name(entry.name) for entry in entries)


def _list_classes(tree: Tree, split_folder: str) -> dict[str, list[str]]:
    """The images of each class of one split, sorted."""
    classes: dict[str, list[str]] = {}
    loose = 0
    for entry in tree.entries(split_folder):
        folder = f"{split_folder}/{entry.name}".lstrip("/")
        if entry.is_linked_folder:
            raise InputError(
                f"the class folder {tree.path(folder)!r} is a link, and links to folders are not followed",
                "put the folder itself there",
            )
        if entry.is_folder:
            others: Counter[str] = Counter()
            classes[entry.name] = sorted(tree.images(folder, others))
            if not classes[entry.name]:
                holds = ", ".join(f"{count} x {what}" for what, count in others.items()) or "no files"
                raise InputError(
                    f"the class folder {tree.path(folder)!r} has no images, but {holds}",
                    "remove it, or put JPEG, PNG, WebP, BMP or GIF images in it",
                )
            tree.ignored.update(others)
        else:
            loose += is_image_name(entry.name)
            tree.ignored["file outside the class folders"] += 1
    if len(classes) < 2:
        shown = f"{tree.source}/{split_folder}".rstrip("/")
        found = f"one class folder, {next(iter(classes))!r}" if classes else "no class folders"
        beside = f", and {loose} images outside class folders" if loose else ""
        raise InputError(f"{shown!r} has {found}{beside}; two classes are the least", LAYOUT)
    return classes


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


def _split(name: str, tree: Tree, classes: list[list[str]]) -> Split:
    """A split of images, given by class."""
    names = tuple(name for names in classes for name in names)
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(names) for names in classes])
    return Split(name, names, labels, tree.loader(names))


def _native_size(tree: Tree, names: tuple[str, ...]) -> tuple[int, int]:
    """The median height and width that some headers, spread evenly over the names, tell."""
    places = np.linspace(0, len(names) - 1, min(HEADERS, len(names)), dtype=int).tolist()
    loader = tree.loader(tuple(names[place] for place in places))
    sizes, error = [], None
    for index in range(len(places)):
        try:
            sizes.append(loader.size(index))
        except BadImage as bad:  # skipped and listed when it is loaded
            error = bad
    if not sizes:
        cause = f"none of the images of {tree.source!r} looked at can be read; the last: {error}"
        raise InputError(cause, "check the files")
    heights, widths = zip(*sizes, strict=True)
    return median_low(heights), median_low(widths)
