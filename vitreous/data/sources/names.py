"""Names in a source: which ones mean a split, and when two names are the same class."""

import unicodedata

SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


def split_of(name: str) -> str | None:
    """The split that a folder, archive or cell of a table names: "train", "validation" or "test"; None for others."""
    return SPLITS.get(name.strip().casefold())


def normalized(name: str) -> str:
    """A class name with accents composed (NFC), so that é is the same however a file system wrote it."""
    return unicodedata.normalize("NFC", name)
