"""Class folders that may not be what the user means: each is read, and named in a note."""

import re
from collections.abc import Mapping, Sequence

from vitreous.data.sources.names import simplified
from vitreous.support.text import counted, listed

# After the name of another file: its mask, such as "1_mask.png" or "1_mask_2.png" next to "1.png".
MASK = re.compile(r"[_\- ](?:masks?|seg|segmentation|gt|labels?|annotations?|depth)(?:[_\- ]?\d+)?$", re.IGNORECASE)
# After the name of another folder: its copy, as file managers name it.
COPY = re.compile(r"(?: - copy(?: \(\d+\))?|[ _]copy(?: \d+)?| ?\(\d+\))$", re.IGNORECASE)
SHOWN = 3  # names in a note


def doubts(classes: Mapping[str, Sequence[str]], images: Mapping[str, Sequence[str]]) -> list[str]:
    """Notes on copies of class folders, folders inside class folders, and masks next to images.

    Args:
        classes: the folders of each class of a split.
        images: the images of each class.
    """
    names = {simplified(name) for name in images}
    inner = {name: inner_folders(classes[name], images[name]) for name in images}
    copied = {name: [folder for folder in inner[name] if simplified(folder) in names] for name in images}
    several = {name: folders for name, folders in inner.items() if len(folders) > 1 and not copied[name]}
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
