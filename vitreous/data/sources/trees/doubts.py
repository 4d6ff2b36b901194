"""Class folders that may not be what the user means: each is read, and named in a note."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from heapq import nsmallest
from itertools import chain, combinations
from math import prod

from vitreous.data.sources.names import simplified
from vitreous.support.text import counted, listed

# After the name of another file: its mask, such as "1_mask.png" or "1_mask_2.png" next to "1.png".
MASK = re.compile(r"[_\- ](?:masks?|seg|segmentation|gt|labels?|annotations?|depth)(?:[_\- ]?\d+)?$", re.IGNORECASE)
NUMBER = re.compile(r"[0-9]+")
# After the name of another folder: its copy, as file managers and people name it.
COPY = re.compile(r"(?: - copy(?: \(\d+\))?|[ _]copy(?: \d+)?|[ _-](?:aug|augmented|backup)| ?\(\d+\))$", re.IGNORECASE)
LEFTOVERS = frozenset(  # names of folders that programs and people leave next to classes
    (
        *("backup", "backups", "checkpoints", "duplicates", "logs", "mlruns", "new folder", "output", "outputs"),
        *("plots", "rejected", "results", "runs", "temp", "tmp", "trash", "unsorted", "untitled folder", "wandb"),
    )
)
SHOWN = 3  # names in a note
MANY = 12  # classes, of which none are taken for the masks of others
LOOKED_AT = 1000  # names of files that two folders share, to see whether they are numbers
ALIKE, FEWEST = 0.9, 3  # of the files of two folders, if those of one belong to those of the other


def doubts(classes: Mapping[str, Sequence[str]], images: Mapping[str, Sequence[str]]) -> list[str]:
    """Notes on copies of class folders, folders inside class folders, and masks next to images.

    Args:
        classes: the folders of each class of a split.
        images: the images of each class.
    """
    names = {simplified(name) for name in images}
    inner = {name: inner_folders(classes[name], images[name]) for name in images}
    copied = {name: [folder for folder in inner[name] if simplified(folder) in names] for name in images}
    single = {folders[0] for name, folders in inner.items() if len(folders) == 1 and not copied[name]}
    least = 1 if len(single) > 1 else 2  # patient1/benign and patient2/malignant, rather than CLASS/images
    several = {name: folders for name, folders in inner.items() if len(folders) >= least and not copied[name]}
    notes = [
        f"class {name!r} has folders that are called like classes, {quoted(folders)}: remove it if it is a copy"
        for name, folders in copied.items()
        if folders
    ]
    notes += [
        f"class {name!r} is called like a copy of {name[: copy.start()]!r}: remove it if it is one"
        for name in images
        if (copy := COPY.search(name)) and simplified(name[: copy.start()]) in names
    ]
    if leftovers := [name for name in images if simplified(name) in LEFTOVERS and not copied[name]]:
        notes.append(f"folders that may be no classes, {quoted(leftovers)}: remove those that are not")
    if several:
        parts = [f"{name!r} ({quoted(folders)})" for name, folders in several.items()]
        notes.append(f"classes are read with all folders inside them: {listed(parts, SHOWN)}")
    masks = [image for found in images.values() for image in masks_among(found)]
    if masks:
        shown = f"{counted(len(masks), 'image')} called like the mask of another, such as {masks[0]!r}"
        notes.append(f"{shown}: move them out if they are not photos")
    return notes


def inner_folders(folders: Sequence[str], images: Sequence[str]) -> list[str]:
    """The folders directly inside a class's folders that have images, by name."""
    found = set()
    for folder in folders:
        start = len(folder) + 1
        for image in images:
            if image.startswith(f"{folder}/") and (end := image.find("/", start)) > 0:
                found.add(image[start:end])
    return sorted(found)


def paired(images: Mapping[str, Sequence[str]]) -> list[str]:
    """The classes whose files have the same names as those of another, as pictures and their masks."""
    sizes = {name: len(found) for name, found in images.items()} if len(images) <= MANY else {}
    alike = [(a, b) for a, b in combinations(sizes, 2) if min(sizes[a], sizes[b]) >= ALIKE * max(sizes[a], sizes[b])]
    stems = {
        name: {image.rpartition("/")[2].rpartition(".")[0] for image in images[name]}
        for name in dict.fromkeys(chain.from_iterable(alike))
    }
    found: set[str] = set()
    for name, other in alike:
        if {name, other} <= found:
            continue
        shared = stems[name] & stems[other]
        if len(shared) < ALIKE * max(sizes[name], sizes[other]):
            continue
        shortest = nsmallest(LOOKED_AT, shared, key=lambda stem: (len(stem), stem))  # 1, 2, … rather than 1, 10, …
        names = [stem for stem in shortest if not MASK.search(stem)]
        if len(names) >= FEWEST and not are_numbered(names):
            found |= {name, other}
    return [name for name in images if name in found]


def are_numbered(stems: Collection[str]) -> bool:
    """Whether names count the files, and so mean nothing, such as "1", "img_0001" or "s03_12"."""
    numbers: dict[str, list[list[int]]] = defaultdict(list)
    for stem in stems:
        numbers[NUMBER.sub("#", stem)].append([int(number) for number in NUMBER.findall(stem)])
    if 2 * len(numbers) > len(stems):
        return False
    ranges = sum(prod(max(each) - min(each) + 1 for each in zip(*rows, strict=True)) for rows in numbers.values())
    return ranges <= 2 * len(stems)


def masks_among(images: Sequence[str]) -> list[str]:
    """The images whose names are those of others, followed by a word such as "mask"."""
    candidates = [(image, match.start()) for image in images if (match := MASK.search(image.rpartition(".")[0]))]
    if not candidates:
        return []
    stems = {image.rpartition(".")[0] for image in images}
    return [image for image, end in candidates if image[:end] in stems]


def quoted(names: Sequence[str]) -> str:
    """A few names in a sentence."""
    return listed([repr(name) for name in names], SHOWN)
