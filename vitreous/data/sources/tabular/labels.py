"""Class names from the cells of a table."""

import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from numbers import Integral, Real

import numpy as np

from vitreous.data.sources.names import normalized, skeleton
from vitreous.support.errors import InputError
from vitreous.support.text import listed, natural_key

MISSING = frozenset(("", "nan", "NaN", "NAN", "<NA>", "NaT", "null", "NULL", "#N/A", "N/A"))  # "None" may be a class
UNIQUE = 5  # this many rows with a label of their own, and none without, are not of classes
FRACTIONS = 20  # this many different numbers with fractions are not classes
SEVERAL = "an image can have only one label"


def class_labels(source: str, cells: Sequence[object]) -> tuple[list[str | None], list[str]]:
    """The class name of each cell, and what the user should know of them.

    Names are text without surrounding spaces: "1" and "01" stay two classes, and a note says so. Whole numbers have no
    fraction, since a column of numbers with an empty cell is often written as 1.0.

    Args:
        source: the table as the user named it.
        cells: any values; an empty one, NaN and None give None.

    Raises:
        InputError: cells hold several labels, or numbers that are not classes.
    """
    names: dict[Hashable, str | None] = {}
    keys: list[Hashable] = []
    for cell in cells:
        key = cell if type(cell) is str else (type(cell).__name__, _hashable(source, cell))
        if key not in names:
            names[key] = _text(cell)
        keys.append(key)
    notes = _drop_zero_fractions(source, names)
    notes += _drop_unlabeled(names)
    texts = {name for name in names.values() if name is not None}
    refuse_several_labels(source, texts)
    labels = [names[key] for key in keys]
    _refuse_measurements(source, labels)
    return labels, [*notes, *look_alikes(texts)]


def _hashable(source: str, cell: object) -> Hashable:
    """A cell as part of a key: bytes, numbers and text; a 0-d array as its number."""
    if isinstance(cell, list | tuple | set | dict) or (hasattr(cell, "shape") and cell.shape):
        cause = f"the labels of {source!r} are lists, such as {str(cell)[:60]!r}; {SEVERAL}"
        raise InputError(cause, "give a column with one label in each cell")
    if isinstance(cell, float) and cell != cell:
        return None  # NaN differs from itself
    return cell if isinstance(cell, Hashable) else str(cell)


def _text(cell: object) -> str | None:
    """The class name of a cell; None if it is missing."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):  # of pandas
        return None
    if hasattr(cell, "item") and hasattr(cell, "shape"):
        cell = cell.item()  # of numpy and torch
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "replace")
    if isinstance(cell, bool | np.bool_):
        return str(bool(cell))
    if isinstance(cell, Integral):
        return str(int(cell))
    if isinstance(cell, Real):
        number = float(cell)
        return None if np.isnan(number) else str(int(number)) if number.is_integer() else str(number)
    text = normalized(str(cell).strip())
    return None if text in MISSING else text


def _drop_zero_fractions(source: str, names: dict[Hashable, str | None]) -> list[str]:
    """Writes 1.0 as 1 where all names are numbers, and notes other fractions.

    Raises:
        InputError: these are measurements.
    """
    texts = [name for name in names.values() if name is not None]
    if not all(re.fullmatch(r"[+-]?\d+(\.\d*)?", text) for text in texts):
        return []
    fractions = [text for text in texts if text.partition(".")[2].strip("0")]
    if len(fractions) >= FRACTIONS:
        cause = f"the labels of {source!r} are numbers with fractions, such as {fractions[0]!r}, not classes"
        raise InputError(cause, "name another column with --set label_column=…")
    whole = {key: name.partition(".")[0] for key, name in names.items() if name is not None and name not in fractions}
    names.update(whole)
    return [f"labels with fractions are classes: {listed(sorted(set(fractions)))}"] if fractions else []


def _drop_unlabeled(names: dict[Hashable, str | None]) -> list[str]:
    """Takes -1 for a missing label, and notes it.

    It stays a class if other numbers are negative as well, or if 1 is the only other class.
    """
    texts = {name for name in names.values() if name is not None}
    if "-1" not in texts or texts == {"-1", "1"} or any(re.fullmatch(r"-\d+(\.\d*)?", text) for text in texts - {"-1"}):
        return []
    names.update({key: None for key, name in names.items() if name == "-1"})
    return ["the label -1 means no label"]


def _refuse_measurements(source: str, labels: Sequence[str | None]) -> None:
    """Raises InputError if each row has a label of its own: ages, captions or names of files, not classes."""
    present = [label for label in labels if label is not None]
    if len(present) >= UNIQUE and len(set(present)) == len(present):
        cause = (
            f"{source!r} has {len(present):,} different labels in {len(present):,} rows, such as {present[0][:40]!r}"
        )
        raise InputError(f"{cause}: these are not classes", "name another column with --set label_column=…")


def refuse_several_labels(source: str, names: set[str]) -> None:
    """Raises InputError if a name is a list, or made of others, as "scab rust" next to "scab" and "rust"."""
    for name in sorted(names):
        if re.fullmatch(r"\[.*\]|\(.*,.*\)|\{.*\}", name, re.DOTALL):
            raise InputError(f"{source!r} has the label {name!r}, a list; {SEVERAL}", "give each image one label")
        for separator in ("|", ";", ",", " "):
            parts = [part.strip() for part in name.split(separator)]
            if len(parts) > 1 and all(part in names for part in parts):
                cause = f"{source!r} has the label {name!r} next to {listed([repr(part) for part in parts])}"
                raise InputError(f"{cause}; {SEVERAL}", "leave out such rows, or rename what is one class")


def look_alikes(names: set[str]) -> list[str]:
    """Notes on classes that differ in leading zeros; `similar_names` of a check finds other likenesses."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[re.sub(r"(?<!\d)(?<!\d\.)0+(?=\d)", "", skeleton(name))].append(name)
    alike = [sorted(group, key=natural_key) for group in groups.values() if len({skeleton(name) for name in group}) > 1]
    cause = "classes that differ only in leading zeros stay apart"
    return [f"{cause}: {listed([repr(name) for name in group])}" for group in sorted(alike)]
