"""WebDataset shards: tar archives in which the files of a sample share a key, such as 0001.jpg and 0001.cls.

A tar archive can be read anywhere, so the shards are indexed once and their samples are shuffled like those of any
other source; nothing is streamed, and only the samples of a batch are in memory.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitreous.data.decoding.images import Decoding, is_image_name
from vitreous.data.sources.assemble import assemble
from vitreous.data.sources.names import distinct, normalized
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.published.shard_names import LABEL_FILES, Shards, key_of
from vitreous.data.sources.splits import ImageData
from vitreous.data.sources.trees.tar_index import MEMBER, TarIndex, TarLoader, index_tar, note_on_end
from vitreous.support.errors import InputError
from vitreous.support.text import natural_key

MAX_LABEL = 2**20  # bytes of a file with a label
JSON_KEYS = ("label", "cls", "class", "class_id", "target", "category", "class_name", "label_name")
NAME_FILES = ("classnames.txt", "class_names.txt", "classes.txt", "labels.txt")
LINES = "write one name a line, that of label 0 first; or remove the file"
Members = dict[str, int]  # the number of a file in its archive, by suffix


@dataclass(frozen=True, eq=False)
class _Samples:
    """What the shards hold: a row of MEMBER for each image by its name, and names by split and label."""

    archives: list[tuple[str, tuple[int, int]]] = field(default_factory=list)
    rows: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    names: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)

    def loader(self, names: tuple[str, ...], decoding: Decoding) -> TarLoader:
        """The loader of some samples."""
        members = np.array([self.rows[name] for name in names], MEMBER)
        return TarLoader(names, decoding, tuple(self.archives), members)


def open_shards(source: str, shards: Shards, options: DataOptions) -> ImageData:
    """The labeled samples of shards.

    A sample's label is the number or name in its .cls file, the "label" of its .json, or its .txt. Numbers get the
    names in classnames.txt or classes.txt next to the shards, if there is one.

    Raises:
        InputError: a shard is broken, none is for training, no sample has a label, or the .txt files are captions.
    """
    if "train" not in shards.paths:
        cause = f"{source!r} has shards for {' and '.join(shards.paths)}, but none to train on"
        raise InputError(cause, "add those for training, such as train-000.tar, or rename these")
    samples = _Samples(ignored=Counter(shards.ignored))
    for split, paths in shards.paths.items():
        samples.names[split] = {}
        for path in paths:
            _read_shard(samples, split, path, os.path.relpath(path, shards.folder))
    unlabeled = [split for split, classes in samples.names.items() if not classes]
    if "train" in unlabeled or not samples.rows:
        cause = f"no sample of {source!r} has a label: an image with a .cls, .json or .txt file of the same key"
        raise InputError(cause, "write the class of 0001.jpg to 0001.cls in the same shard")
    _check_captions(source, samples)
    names, order, note = _class_names(shards, samples.names["train"])
    return assemble(
        source,
        {
            split: {names.get(label, label): each for label, each in classes.items()}
            for split, classes in samples.names.items()
            if classes
        },
        samples.loader,
        options,
        ignored=samples.ignored,
        notes=[
            *shards.notes,
            *samples.notes,
            *note,
            *(f"{split} has no labels, so it is not used" for split in unlabeled),
        ],
        class_names=order,
    )


def _read_shard(samples: _Samples, split: str, path: str, shard: str) -> None:
    """Adds the samples of one shard."""
    index = index_tar(path)
    number = len(samples.archives)
    samples.archives.append((path, index.stamp))
    samples.notes.extend(note_on_end(path, shard))
    samples.ignored.update(index.ignored)
    groups, kind = _grouped(index, samples.ignored)
    labels = _labels(index, [members.get(kind) for members in groups]) if kind else iter([None] * len(groups))
    by_label = samples.names[split]
    places = index.offsets.tolist(), index.sizes.tolist()
    for members, label in zip(groups, labels, strict=True):
        image = _image_of(members)
        if image is None or label is None:
            missing = "one image" if image is None else "a label"
            samples.ignored[f"sample without {missing}"] += 1
            continue
        name = f"{shard}/{index.names[image]}"
        samples.rows[name] = number, places[0][image], places[1][image]
        by_label.setdefault(label, []).append(name)
        samples.kinds[kind or ""] += 1


def _grouped(index: TarIndex, ignored: Counter[str]) -> tuple[list[Members], str | None]:
    """The files of each key, and the suffix of the labels: the first of LABEL_FILES that there is."""
    groups: dict[str, Members] = {}
    suffixes: set[str] = set()
    for number, name in enumerate(index.names):
        key, suffix = key_of(name)
        members = groups.setdefault(key, {})
        if suffix in members:
            ignored["file that a later one of its name in the shard replaces"] += 1
        members[suffix] = number
        suffixes.add(suffix)
    return list(groups.values()), next((kind for kind in LABEL_FILES if kind in suffixes), None)


def _image_of(members: Members) -> int | None:
    """The image of a sample: "jpg" rather than "depth.png"; None if there is none, or several of one rank."""
    images = [(suffix, number) for suffix, number in members.items() if is_image_name(f"x.{suffix}")]
    plain = [number for suffix, number in images if "." not in suffix]
    if len(plain) != 1:
        plain = [] if plain else [number for _, number in images]
    return plain[0] if len(plain) == 1 else None


def _labels(index: TarIndex, numbers: list[int | None]) -> Iterator[str | None]:
    """The label in each of these files; None where there is none."""
    offsets, sizes = index.offsets.tolist(), index.sizes.tolist()
    with Path(index.path).open("rb", buffering=0) as file:
        for number in numbers:
            if number is None or sizes[number] > MAX_LABEL:
                yield None
            else:
                content = os.pread(file.fileno(), sizes[number], offsets[number])
                is_json = index.names[number].lower().endswith(".json")
                yield label_in_json(content) if is_json else label_in_text(content)


def label_in_text(content: bytes) -> str | None:
    """A class number without leading zeros or a fraction of 0, or a class name; None for none, such as -1 or bytes."""
    text = ""
    for encoding in ("cp1252", "utf-8-sig"):  # as in tables, the first only if it is not UTF-8
        with suppress(UnicodeDecodeError):
            text = " ".join(content.decode(encoding).split())
    if any(character < " " for character in text):
        return None
    if number_text := re.fullmatch(r"([+-]?[0-9]{1,18})(\.0*)?", text):
        number = int(number_text[1])
        return str(number) if number >= 0 else None
    return normalized(text) or None


def label_in_json(content: bytes) -> str | None:
    """The number or name under the first of JSON_KEYS that a JSON object has."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    label = next((value[key] for key in JSON_KEYS if key in value), None)
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if isinstance(label, bool) or not isinstance(label, int | str):
        return None
    return label_in_text(str(label).encode("utf-8", "replace"))


def _check_captions(source: str, samples: _Samples) -> None:
    """Raises InputError if most .txt files differ: they describe images, and do not name a class."""
    count, classes = len(samples.rows), set().union(*samples.names.values())
    if samples.kinds["txt"] == count and len(classes) > max(2, count / 2):
        cause = f"the .txt files of {source!r} are captions, not classes: {len(classes):,} texts for {count:,} images"
        raise InputError(cause, "write the class of 0001.jpg to 0001.cls in the same shard")


def _class_names(
    shards: Shards, train: dict[str, list[str]]
) -> tuple[dict[str, str], list[str] | None, tuple[str, ...]]:
    """The name of each label if a file has them, the classes of train in order, and a note.

    Raises:
        InputError: the file has too few names, or a line without one.
    """
    if not all(label.isdigit() for label in train):
        return {}, None, ()
    file = next((path for name in NAME_FILES if (path := Path(shards.folder, name)).is_file()), None)
    if file is None or file.stat().st_size > MAX_LABEL:
        return {}, None, ()
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    largest = max(map(int, train))
    if largest >= len(lines):
        cause = f"{str(file)!r} has {len(lines):,} class names, but there are labels up to {largest:,}"
        raise InputError(cause, LINES)
    if unnamed := [label for label in map(int, train) if not lines[label]]:
        raise InputError(f"line {unnamed[0] + 1} of {str(file)!r} is empty, so label {unnamed[0]} has no name", LINES)
    names = {str(number): name for number, name in enumerate(distinct(map(normalized, lines)))}
    order = [names[label] for label in sorted(train, key=natural_key)]
    return names, order, (f"class names are from {file.name}",)
