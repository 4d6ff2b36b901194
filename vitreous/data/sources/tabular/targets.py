"""The labels of a map-style dataset, without decoding its images where it has them in a list."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch.utils.data import ConcatDataset, Subset

from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.tabular.columns import Columns, choose_columns
from vitreous.data.sources.tabular.labels import described
from vitreous.support.counts import spread
from vitreous.support.errors import InputError
from vitreous.support.text import first_line, listed

LISTS = ("targets", "labels", "_labels")  # where torchvision's datasets keep them
COMPARED = 16  # samples whose label in the list is compared with that of the sample
EVERY = 10.0  # seconds between two lines of progress
SAMPLE = 'a sample is (image, label), or a dict such as {"image": …, "label": …}'

Label = int | str | None


class Parts(NamedTuple):
    """Where a sample has its image and its label: positions of a tuple, or keys of a dict."""

    image: Any
    label: Any
    split: str | None = None


class Targets(NamedTuple):
    """The labels of a dataset.

    Args:
        labels: of each sample; None if it has none or cannot be read.
        parts: of a sample.
        unreadable: the numbers of the samples that cannot be read.
        reason: why the first of these cannot be read.
        splits: cells of any kind, if samples have a part for it.
        columns: the keys of samples that are dicts.
    """

    labels: list[Label]
    parts: Parts
    unreadable: list[int]
    reason: str
    splits: list[Any]
    columns: Columns | None


def read_targets(dataset: Any, name: str, options: DataOptions) -> Targets:
    """The labels of all samples: from the list that the dataset has, if it agrees with some samples; or from all.

    Raises:
        InputError: samples are not pairs of an image and a label, or none can be read.
    """
    count = len(dataset)
    if not count:
        raise InputError(f"the dataset {name!r} is empty", "give one with samples")
    listed_labels = label_list(dataset)
    chosen = spread(count, COMPARED).tolist()
    targets = _from_samples(dataset, name, options, chosen)
    if listed_labels is not None and len(listed_labels) == count and targets.parts.split is None:
        try:
            labels = [label_of(value) for value in listed_labels]
        except InputError:
            labels = []
        bad = set(targets.unreadable)
        if labels and all(labels[at] == targets.labels[i] for i, at in enumerate(chosen) if at not in bad):
            return targets._replace(labels=labels, unreadable=[])
    return _from_samples(dataset, name, options, range(count))


def label_list(dataset: Any) -> Sequence[Any] | None:
    """The labels that a dataset has in a list; None if there is none, or they are transformed."""
    if isinstance(dataset, Subset):
        parent = label_list(dataset.dataset)
        return None if parent is None else [parent[int(index)] for index in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [label_list(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else [label for part in parts for label in part or ()]
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for attribute in LISTS:
        values = getattr(dataset, attribute, None)
        if hasattr(values, "tolist"):
            values = values.tolist()
        if isinstance(values, list | tuple) and len(values) == len(dataset):
            return values
    return None


def _from_samples(dataset: Any, name: str, options: DataOptions, indices: Sequence[int]) -> Targets:
    """The labels of these samples, from the samples themselves."""
    labels: list[Label] = []
    splits: list[Any] = []
    parts: Parts | None = None
    columns: Columns | None = None
    unreadable: list[int] = []
    reason = ""
    reported = time.monotonic()
    for index in indices:
        try:
            sample = dataset[index]
        except Exception as error:  # the program's own code may raise anything
            unreadable.append(index)
            reason = reason or f"{type(error).__name__}: {first_line(error)}"
            labels.append(None)
            splits.append(None)
            continue
        if parts is None:
            parts, columns = _parts(sample, name, options)
        labels.append(label_of(_part(sample, parts.label, name)))
        splits.append(None if parts.split is None else sample.get(parts.split))
        if time.monotonic() - reported > EVERY:
            reported = time.monotonic()
            print(f"reading labels: {len(labels):,} of {len(indices):,} samples", file=sys.stderr)
    if parts is None:
        raise InputError(f"no sample of {name!r} can be read: {reason}", "check that dataset[0] works")
    return Targets(labels, parts, unreadable, reason, splits, columns)


def _parts(sample: Any, name: str, options: DataOptions) -> tuple[Parts, Columns | None]:
    """Where samples have their image and label, and the keys of those that are dicts."""
    if isinstance(sample, Mapping):
        keys = [str(key) for key in sample]
        columns = choose_columns(name, keys, options)
        assert columns.label is not None  # no first row was given to recognize columns of 0 and 1 by
        split = None if columns.split is None else keys[columns.split]
        return Parts(keys[columns.image], keys[columns.label], split), columns
    if isinstance(sample, tuple | list) and len(sample) >= 2:
        return Parts(0, 1), None
    raise InputError(f"a sample of {name!r} is a {type(sample).__name__}", SAMPLE)


def _part(sample: Any, key: Any, name: str) -> Any:
    """A part of a sample."""
    try:
        return sample[key]
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(f"a sample of {name!r} has no {key!r}", SAMPLE) from error


def label_of(value: Any) -> Label:
    """A label as a number or text; None if it is missing. What -1 means depends on the others; see `class_labels`.

    Raises:
        InputError: it is a vector, a fraction, or of another kind.
    """
    if getattr(value, "size", None) is not None and hasattr(value, "item"):
        count = value.numel() if callable(value.size) else value.size
        if count != 1:
            cause = f"a label is a vector of {count} numbers; an image can have only one label"
            raise InputError(cause, "give the number of its class, such as labels.argmax()")
        value = value.item()
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        if value < -1:
            raise InputError(f"a label is {value}", "number the classes from 0")
        return int(value)
    if isinstance(value, str):
        return value.strip() or None
    raise InputError(f"a label is {described(value)} ({type(value).__name__})", "give the number or name of its class")


def names_of_classes(dataset: Any, name: str) -> tuple[list[str] | None, list[str]]:
    """The names that a dataset has for its label numbers, or None, and notes on names that are not used.

    Raises:
        InputError: a name is empty, two are equal, or joined datasets have different names for a number.
    """
    if isinstance(dataset, Subset):
        return names_of_classes(dataset.dataset, name)
    if isinstance(dataset, ConcatDataset):
        return _names_of_joined([names_of_classes(part, name) for part in dataset.datasets], name)
    numbers, classes = getattr(dataset, "class_to_idx", None), getattr(dataset, "classes", None)
    notes = []
    if isinstance(numbers, Mapping) and numbers and sorted(numbers.values()) == list(range(len(numbers))):
        by_number = sorted(numbers, key=lambda key: numbers[key])
        if isinstance(classes, list | tuple) and classes and list(classes) != by_number:
            notes.append("its classes and class_to_idx differ; class_to_idx is used")
        classes = by_number
    if not isinstance(classes, list | tuple) or not classes:
        return None, []
    if getattr(dataset, "target_transform", None) is not None:
        return None, ["its class names are not used, since its target_transform changes the numbers"]
    return check_names(
        [", ".join(map(str, c)) if isinstance(c, tuple | list) else str(c) for c in classes], name
    ), notes


def _names_of_joined(
    parts: Sequence[tuple[list[str] | None, list[str]]], name: str
) -> tuple[list[str] | None, list[str]]:
    """The names of joined datasets: the longest ones, if all agree."""
    notes = list(dict.fromkeys(note for _, more in parts for note in more))
    named = [names for names, _ in parts if names is not None]
    if not named:
        return None, notes
    if len(named) < len(parts):
        return None, [*notes, "its class names are not used, since a part of it has none"]
    longest = max(named, key=len)
    for names in named:
        for number, (one, other) in enumerate(zip(names, longest, strict=False)):
            if one != other:
                cause = f"parts of {name!r} name the label {number} differently, {one!r} and {other!r}"
                raise InputError(cause, "number the classes alike in all parts, such as with a target_transform")
    return longest, notes


def check_names(names: list[str], source: str) -> list[str]:
    """The names without surrounding spaces. Raises InputError if one is empty or two are equal."""
    names = [name.strip() for name in names]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if "" in names or repeated:
        cause = f"{source!r} has several classes named {listed([repr(name) for name in repeated])}"
        empty = f"class {names.index('')} of {source!r} has no name" if "" in names else ""
        raise InputError(empty or cause, "give each class a name of its own")
    return names
