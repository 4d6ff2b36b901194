"""Sources that a program holds: DataFrames and datasets, whole or by split."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from vitreous.data.sources.names import split_of
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.splits import ImageData
from vitreous.data.sources.tabular.datasets import is_hugging_face, open_datasets
from vitreous.data.sources.tabular.frames import is_frame, open_frames
from vitreous.support.errors import InputError

ORDER = ("train", "validation", "test")
KINDS = "give the path of images, a DataFrame, a dataset with __len__ and __getitem__, or a dict of these by split"


def open_objects(source: Any, options: DataOptions) -> ImageData:
    """Opens a DataFrame or a map-style dataset, or several of them by split.

    A tuple is (train, validation) or (train, validation, test); the keys of a dict name the splits, such as "train",
    "val" and "test". A DataFrame has the columns of a table; see `open_frames`. A sample of a dataset is
    (image, label) or {"image": …, "label": …}; see `open_datasets`.

    Raises:
        InputError: it is something else, or cannot be read as these functions document.
    """
    parts, unused = _by_split(source)
    frames = [is_frame(part) for part in parts.values()]
    if any(frames) and not all(frames):
        raise InputError("some splits are DataFrames and others are not", "give the same kind for each split")
    name = source_name(source)
    data = open_frames(parts, options, name) if all(frames) else open_datasets(parts, options, name)
    notes = [f"not used, since their names are not splits: {', '.join(map(repr, unused))}"] if unused else []
    return replace(data, notes=(*data.notes, *notes), in_python=True)


def source_name(source: Any) -> str:
    """The name that `open_objects` gives a source, before it is opened."""
    parts, _ = _by_split(source)
    return object_name(parts.get("train", next(iter(parts.values()))))


def _by_split(source: Any) -> tuple[dict[str, Any], list[str]]:
    """The parts of a source by split, and the keys that are not splits."""
    if isinstance(source, tuple):
        if not 2 <= len(source) <= len(ORDER):
            raise InputError(
                f"the data is a tuple of {len(source)}", "give (train, validation) or (train, validation, test)"
            )
        return dict(zip(ORDER, source, strict=False)), []
    if isinstance(source, Mapping):
        parts: dict[str, Any] = {}
        unused = []
        for key, part in source.items():
            split = split_of(str(key))
            if split is None:
                unused.append(str(key))
            elif split in parts:
                raise InputError(f"two keys of the data mean {split}", "give one of them")
            else:
                parts[split] = part
        if "train" not in parts:
            keys = ", ".join(map(repr, source)) or "no keys"
            raise InputError(f"the data has {keys}, but not 'train'", "name the splits train, validation and test")
        return parts, unused
    if is_frame(source) or is_hugging_face(source) or hasattr(source, "__getitem__") or hasattr(source, "__iter__"):
        return {"train": source}, []
    raise InputError(f"the data is a {type(source).__name__}", KINDS)


def object_name(source: Any) -> str:
    """A name for an object, by which its run is called: "dataframe", or that of the dataset."""
    if is_frame(source):
        return "dataframe"
    while isinstance(source, Subset | ConcatDataset):
        source = source.dataset if isinstance(source, Subset) else source.datasets[0]
    if is_hugging_face(source):
        info = getattr(source, "info", None)
        named = getattr(info, "dataset_name", None) or getattr(info, "builder_name", None)
        return str(named or "dataset").replace("/", "-")
    return type(source).__name__.lower()
