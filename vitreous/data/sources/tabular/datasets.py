"""Map-style datasets of torch, torchvision and Hugging Face, whole or one for each split."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import ConcatDataset, Subset

from vitreous.data.decoding.images import Decoding
from vitreous.data.sources.assemble import assemble
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.splits import ImageData
from vitreous.data.sources.tabular.columns import choose_columns
from vitreous.data.sources.tabular.labels import class_labels, described, look_alikes
from vitreous.data.sources.tabular.pictures import ObjectLoader, as_opened
from vitreous.data.sources.tabular.samples import group, splits_in_column
from vitreous.data.sources.tabular.targets import Label, Parts, check_names, label_of, names_of_classes, read_targets
from vitreous.support.errors import InputError
from vitreous.support.text import counted, first_line, listed, natural_key

DIGITS = 8  # of the number in a sample's name


class Labeled(NamedTuple):
    """A dataset whose labels were read.

    Args:
        dataset: gives samples by their number.
        parts: where a sample has its image and label.
        labels: of each sample; None leaves it out.
        class_names: of label numbers; None if they have none.
        notes: for the user.
        splits: of each sample; None if the samples do not name it.
        unreadable: the numbers of the samples that cannot be read.
    """

    dataset: Any
    parts: Parts
    labels: list[Label]
    class_names: list[str] | None
    notes: list[str]
    splits: list[str | None] | None = None
    unreadable: Collection[int] = ()


@dataclass(frozen=True, eq=False)
class DatasetLoader(ObjectLoader):
    """Loads images from datasets.

    Args:
        datasets: with the place of the image in their samples.
        samples: the dataset and the number of each sample, "samples 2".
    """

    datasets: tuple[tuple[Any, Any], ...]
    samples: np.ndarray

    def picture(self, index: int) -> Any:
        which, number = self.samples[index].tolist()
        dataset, image = self.datasets[which]
        return dataset[number][image]


def open_datasets(datasets: Mapping[str, Any], options: DataOptions, name: str) -> ImageData:
    """Opens datasets with a sample for each number from 0 to their length.

    Args:
        datasets: by split.
        options: how to read them.
        name: for messages and the run's folder.

    Raises:
        InputError: a dataset cannot be read in any order, samples are not pairs of an image and a label, images are
            of a kind that is not supported, or a sample is in two splits.
    """
    check_leaks(datasets, name)
    opened = {split: _open(dataset, name, options, len(datasets)) for split, dataset in datasets.items()}
    names: list[str | None] = []
    splits: list[str | None] = []
    for split, part in opened.items():
        names += [
            None if number in part.unreadable else f"{split}/{number:0{DIGITS}}" for number in range(len(part.labels))
        ]
        splits += part.splits or [split] * len(part.labels)
    labels, label_notes = _class_names(opened, name)
    samples = group(name, names, labels, splits)
    order = list(dict.fromkeys(text for part in opened.values() for text in part.class_names or ()))
    present = {text for classes in samples.by_split.values() for text in classes}
    notes = [f"{split}: {note}" for split, part in opened.items() for note in part.notes] + label_notes
    if absent := [repr(text) for text in order if text not in present]:
        notes.append(f"classes without samples are left out: {listed(absent)}")
    in_train = samples.by_split.get("train", {})
    class_names = [text for text in order if text in in_train]
    class_names += sorted(in_train.keys() - set(order), key=natural_key)
    known = {split: number for number, split in enumerate(opened)}
    sources = tuple((part.dataset, part.parts.image) for part in opened.values())

    def loader(chosen: tuple[str, ...], decoding: Decoding) -> DatasetLoader:
        parts = [text.partition("/") for text in chosen]
        places = np.array([(known[split], int(number)) for split, _, number in parts], np.int64).reshape(-1, 2)
        return DatasetLoader(chosen, decoding, sources, places)

    return assemble(
        name, samples.by_split, loader, options, ignored=samples.ignored, class_names=class_names,
        notes=[*notes, *samples.notes],
    )  # fmt: skip


def _class_names(opened: Mapping[str, Labeled], name: str) -> tuple[list[str | None], list[str]]:
    """The class name of each sample of all splits, and notes on them; numbers without names are read as in a table."""
    train = opened.get("train")
    common = None if train is None else train.class_names
    named = [_named(label, part.class_names or common, name) for part in opened.values() for label in part.labels]
    texts, notes = class_labels(name, [label for label in named if not isinstance(label, _Name)])
    rest = iter(texts)
    labels = [str(label) if isinstance(label, _Name) else next(rest) for label in named]
    return labels, list(dict.fromkeys((*notes, *look_alikes({label for label in labels if label is not None}))))


class _Name(str):
    """A name that the dataset has for a number, and that is taken as it is."""


def _open(dataset: Any, name: str, options: DataOptions, parts: int) -> Labeled:
    """A dataset with its labels; the first image is checked to be of a kind that can be used."""
    if is_hugging_face(dataset):
        return _open_hugging_face(dataset, name, options, parts)
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        cause = f"{name!r} can only be read from start to end"
        raise InputError(
            cause, "give a map-style dataset, with __len__ and __getitem__; or write the images to a folder"
        )
    targets = read_targets(dataset, name, options)
    class_names, notes = names_of_classes(dataset, name)
    notes += targets.columns.notes if targets.columns else ()
    if targets.unreadable:
        numbers = listed([str(number) for number in targets.unreadable])
        notes.append(
            f"{counted(len(targets.unreadable), 'sample')} left out as unreadable: {numbers} ({targets.reason})"
        )
    splits = None
    if targets.columns and targets.parts.split is not None:
        splits, more = splits_in_column(
            name, targets.parts.split, targets.splits, targets.columns.flags, options, parts
        )
        notes += more
    unreadable = frozenset(targets.unreadable)
    first = next(number for number in range(len(dataset)) if number not in unreadable)
    as_opened(dataset[first][targets.parts.image])  # raises for floats, before anything is trained
    return Labeled(dataset, targets.parts, targets.labels, class_names, notes, splits, unreadable)


def is_hugging_face(dataset: object) -> bool:
    """Whether this is a dataset of Hugging Face's `datasets` that can be read in any order."""
    return type(dataset).__module__.partition(".")[0] == "datasets" and hasattr(dataset, "cast_column")


def _open_hugging_face(dataset: Any, name: str, options: DataOptions, parts: int) -> Labeled:
    """A dataset of `datasets`: its images stay undecoded until they are loaded, and its labels are read at once."""
    if not hasattr(dataset, "__len__"):
        raise InputError(f"{name!r} is streamed, so it can only be read from start to end", "load it without streaming")
    from datasets import Image

    notes = ["its transform is not used"] if getattr(dataset, "format", {}).get("type") == "custom" else []
    dataset = dataset.with_format(None)
    columns = list(dataset.column_names)
    images = [column for column in columns if isinstance(dataset.features[column], Image)]
    found = choose_columns(name, columns, options, image=images[0] if len(images) == 1 else None)
    notes += found.notes
    assert found.label is not None  # no first row was given to recognize columns of 0 and 1 by
    image, label = columns[found.image], columns[found.label]
    if image in images:
        dataset = dataset.cast_column(image, Image(decode=False))
    cells = dataset.select_columns([label])[:][label]
    numbers: dict[Any, Label] = {}
    labels = [
        numbers[cell] if cell in numbers else numbers.setdefault(cell, label_of(cell)) for cell in map(_plain, cells)
    ]
    class_names = getattr(dataset.features[label], "names", None)
    splits = None
    if found.split is not None:
        split = columns[found.split]
        kind = getattr(dataset.features[split], "names", None)
        values = dataset.select_columns([split])[:][split]
        values = [None if value in (None, -1) else kind[value] for value in values] if kind else values
        splits, more = splits_in_column(name, split, values, found.flags, options, parts)
        notes += more
    kept = dataset.select_columns([image])
    if len(kept) and (first := kept[0][image]) is not None:
        as_opened(first)  # raises for lists of images and for floats, before anything is trained
    named = check_names(class_names, name) if class_names else None
    return Labeled(kept, Parts(image, label), labels, named, notes, splits)


def _plain(cell: Any) -> Any:
    """A cell that can be a key. Raises InputError for a list of labels."""
    if isinstance(cell, list | dict):
        raise InputError(f"a label is a list, {described(cell)}; an image can have only one label", "choose one")
    return cell


def _named(label: Label, class_names: Sequence[str] | None, source: str) -> Label | _Name:
    """A label with the name that the dataset has for its number; -1 has none."""
    if class_names is None or not isinstance(label, int):
        return label
    if label >= len(class_names):
        cause = f"{source!r} has the label {label}, but {counted(len(class_names), 'class name')}"
        raise InputError(cause, "give a name for each number from 0")
    return None if label < 0 else _Name(class_names[label])


def check_leaks(datasets: Mapping[str, Any], name: str) -> None:
    """Raises InputError if a sample of the same dataset is in two splits."""
    seen: dict[str, dict[int, np.ndarray]] = {split: _origins(dataset) for split, dataset in datasets.items()}
    splits = list(seen)
    for at, split in enumerate(splits):
        for other in splits[at + 1 :]:
            for origin in seen[split].keys() & seen[other].keys():
                shared = np.intersect1d(seen[split][origin], seen[other][origin])
                if len(shared):
                    number = counted(len(shared), "sample")
                    cause = f"{name!r} has {number} in both {split} and {other}, such as {shared[0]}"
                    raise InputError(cause, "give each split samples of its own")


def _origins(dataset: Any) -> dict[int, np.ndarray]:
    """The numbers of the samples that a dataset has of each underlying one."""
    if isinstance(dataset, Subset):
        indices = np.asarray(list(map(int, dataset.indices)), np.int64)
        return _selected(dataset.dataset, indices)
    if isinstance(dataset, ConcatDataset):
        parts: dict[int, list[np.ndarray]] = {}
        for part in dataset.datasets:
            for origin, numbers in _origins(part).items():
                parts.setdefault(origin, []).append(numbers)
        return {origin: np.concatenate(numbers) for origin, numbers in parts.items()}
    if not hasattr(dataset, "__len__"):
        return {}
    try:
        count = len(dataset)
    except Exception as error:  # the program's own code may raise anything
        cause = f"the length of the {type(dataset).__name__} cannot be used: {first_line(error)}"
        raise InputError(cause, "let its __len__ return the number of samples") from error
    return {id(dataset): np.arange(count)}


def _selected(parent: Any, indices: np.ndarray) -> dict[int, np.ndarray]:
    """The numbers that some samples of a dataset have in the underlying ones."""
    if isinstance(parent, Subset):
        return _selected(parent.dataset, np.asarray(list(map(int, parent.indices)), np.int64)[indices])
    if isinstance(parent, ConcatDataset):
        ends = np.asarray(parent.cumulative_sizes)
        which = np.searchsorted(ends, indices, side="right")
        found: dict[int, list[np.ndarray]] = {}
        for at, part in enumerate(parent.datasets):
            inside = indices[which == at] - (ends[at - 1] if at else 0)
            for origin, numbers in _selected(part, inside).items():
                found.setdefault(origin, []).append(numbers)
        return {origin: np.concatenate(numbers) for origin, numbers in found.items()}
    return {id(parent): np.where(indices < 0, indices + len(parent), indices)}
