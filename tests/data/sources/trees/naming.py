"""Names of images in folders, and what opening them says."""

from tests.data.sources.packing import line, splits_of

PETS = ("cat", "dog")


def each(*folders, count=4):
    """The names of some images in each folder."""
    return [f"{folder}/{number}.png" for folder in folders for number in range(count)]


def pets(*folders):
    """The names of images of two classes in each folder."""
    return each(*(f"{folder}/{name}" for folder in folders for name in PETS))


def sizes(data):
    return {split.name: len(split) for split in splits_of(data)}


def use(source, folder):
    return f"use {source}/{folder}" if source.is_dir() else f"unpack it, and use the folder {folder!r}"


def hint(source):
    return line(source).partition("; ")[2]
