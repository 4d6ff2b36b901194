"""A set of torchvision as labeled images; labels are read without decoding an image."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from vitreous.data.decoding.images import Decoding
from vitreous.data.sources.assemble import assemble
from vitreous.data.sources.digits import ArrayLoader
from vitreous.data.sources.names import distinct
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.published.fetching import by_hand, data_folder, splits_of_set
from vitreous.data.sources.published.torchvision_sets import BY_NAME
from vitreous.data.sources.splits import ImageData, Loader
from vitreous.data.sources.trees.folders import FileLoader
from vitreous.support.errors import InputError

FILES = ("_image_files", "_images", "_samples", "samples", "imgs")  # the attributes with paths, by class
UNORDERED = ("Omniglot",)  # its class lists folders in any order
PREFIXED = ("Places365",)  # class names begin with "/a/"


def open_published(name: str, options: DataOptions) -> ImageData:
    """One of torchvision's sets, in its own splits; a part of train is held out if it has none to validate on.

    Sets that are one array of pixels stay one. Files are decoded by us, from their paths.

    Raises:
        InputError: its files are missing and cannot be downloaded, or cannot be read.
    """
    row = BY_NAME[name]
    splits = splits_of_set(row)
    try:
        classes = list(row.class_names or distinct(_classes(splits["train"])))
        contents = {split: _contents(data) for split, data in splits.items()}
        labels = {split: _labels(data) for split, data in splits.items()}
        samples = {
            split: by_class(_names(split, content, data_folder(name)), labels[split], classes)
            for split, content in contents.items()
        }
    except (OSError, ValueError, IndexError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        cause = f"the files of {name} in {str(data_folder(name))!r} are not as published: {error}"
        raise InputError(cause, f"remove them, or {by_hand(row)}") from error
    if row.title in UNORDERED:
        classes.sort()
    arrays = {split: content for split, content in contents.items() if isinstance(content, np.ndarray)}
    return assemble(
        name,
        samples,
        array_loader(arrays) if arrays else lambda names, decoding: FileLoader(names, decoding, str(data_folder(name))),
        options,
        notes=[f"{name}: {row.note}"] if row.note else [],
        channels=row.channels,
        flip_ok=row.flip_ok,
        class_names=[name for name in classes if samples["train"].get(name)],
    )


def by_class(names: Iterable[str], labels: np.ndarray, classes: Sequence[str]) -> dict[str, list[str]]:
    """The sorted names of each class that has any.

    Raises:
        ValueError: a label is out of range.
    """
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError(f"labels from {labels.min()} to {labels.max()}, but {len(classes)} class names")
    lists: list[list[str]] = [[] for _ in classes]
    for name, label in zip(names, labels.tolist(), strict=True):
        lists[label].append(name)
    return {name: sorted(members) for name, members in zip(classes, lists, strict=True) if members}


def array_loader(arrays: dict[str, np.ndarray]) -> Callable[[tuple[str, ...], Decoding], Loader]:
    """Makes the loader of samples named SPLIT/INDEX, which holds their pixels alone."""

    def loader(names: tuple[str, ...], decoding: Decoding) -> Loader:
        split = names[0].partition("/")[0] if names else next(iter(arrays))
        rows = np.array([int(name.rpartition("/")[2]) for name in names], np.int64)
        return ArrayLoader(arrays[split][rows])

    return loader


def _names(split: str, content: "np.ndarray | list[str]", folder: os.PathLike[str]) -> Iterable[str]:
    """The names of the samples: SPLIT/INDEX in an array, else their paths relative to the set's folder."""
    if isinstance(content, np.ndarray):
        return (f"{split}/{index:06}" for index in range(len(content)))
    start = f"{os.fspath(folder)}{os.sep}"
    names = [path.removeprefix(start).replace(os.sep, "/") for path in content]
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{name!r} is outside its folder")
    return names


def _contents(data: Any) -> "np.ndarray | list[str]":
    """The pixels "samples height width [channels]" of a set, or the paths of its files."""
    if hasattr(data, "data"):
        pixels = np.asarray(data.data)
        if type(data).__name__ == "EMNIST":
            return pixels.swapaxes(1, 2)
        is_channels_first = pixels.ndim == 4 and pixels.shape[1] == 3 and pixels.shape[3] != 3
        return pixels.transpose(0, 2, 3, 1) if is_channels_first else pixels
    for attribute in FILES:
        if hasattr(data, attribute):
            return [os.fspath(item[0] if isinstance(item, tuple) else item) for item in getattr(data, attribute)]
    return COMPUTED[type(data).__name__](data)


def _labels(data: Any) -> np.ndarray:
    """The class numbers of a set, int64."""
    for attribute in ("targets", "labels", "_labels", "y"):
        if hasattr(data, attribute):
            labels = np.asarray(getattr(data, attribute), np.int64)
            return labels[:, 0] if labels.ndim == 2 else labels  # QMNIST has more columns
    for attribute in ("_samples", "samples", "_flat_character_images"):
        if hasattr(data, attribute):
            return np.array([label for _, label in getattr(data, attribute)], np.int64)
    raise ValueError("no labels")


def _classes(data: Any) -> Sequence[str | Sequence[str]]:
    """The class names of a set."""
    if type(data).__name__ in PREFIXED:
        return [name.removeprefix("/")[2:] if name.startswith("/") else name for name in data.classes]
    for attribute in ("classes", "categories", "_characters"):
        if hasattr(data, attribute):
            return getattr(data, attribute)
    raise ValueError("no class names")


def _caltech101(data: Any) -> list[str]:
    """The paths that its __getitem__ makes."""
    folder = f"{data.root}/101_ObjectCategories"
    pairs = zip(data.y, data.index, strict=True)
    return [f"{folder}/{data.categories[label]}/image_{number:04d}.jpg" for label, number in pairs]


def _caltech256(data: Any) -> list[str]:
    """The paths that its __getitem__ makes."""
    folder = f"{data.root}/256_ObjectCategories"
    pairs = zip(data.y, data.index, strict=True)
    return [f"{folder}/{data.categories[label]}/{label + 1:03d}_{number:04d}.jpg" for label, number in pairs]


def _omniglot(data: Any) -> list[str]:
    """The paths that its __getitem__ makes."""
    images = data._flat_character_images
    return [f"{data.target_folder}/{data._characters[label]}/{name}" for name, label in images]


COMPUTED: dict[str, Callable[[Any], list[str]]] = {
    "Caltech101": _caltech101,
    "Caltech256": _caltech256,
    "Omniglot": _omniglot,
}
