"""Class names from the cells of a table."""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from numbers import Integral, Real

import numpy as np

from vitreous.data.sources.names import normalized, skeleton
from vitreous.support.errors import InputError
from vitreous.support.text import listed, natural_key

MISSING = frozenset(("", "nan", "NaN", "NAN", "<NA>", "NaT", "null", "NULL", "#N/A", "N/A"))  # "None" may be a class
UNIQUE = 5  # this many rows with a label of their own, and none without, are not of classes
FRACTIONS = 20  # this many different numbers with fractions are not classes
SEPARATORS = "|;,+&/ "  # of several labels in one cell
SHOWN = 60  # characters of a cell in a message
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
    notes += _drop_unlabeled(source, names)
    texts = {name for name in names.values() if name is not None}
    notes += _several_labels(source, texts)
    labels = [names[key] for key in keys]
    _refuse_measurements(source, labels)
    return labels, [*notes, *look_alikes(texts)]


def _hashable(source: str, cell: object) -> Hashable:
    """A cell as part of a key: bytes, numbers and text; a 0-d array as its number."""
    if isinstance(cell, list | tuple | set | dict) or (hasattr(cell, "shape") and cell.shape):
        cause = f"the labels of {source!r} are lists, such as {described(cell)}; {SEVERAL}"
        raise InputError(cause, "give a column with one label in each cell")
    if isinstance(cell, float) and cell != cell:
        return None  # NaN differs from itself
    return cell if isinstance(cell, Hashable) else str(cell)


def described(cell: object) -> str:
    """A cell in a message: text on one line, and of anything else that may be long only what it is."""
    if isinstance(cell, dict):
        return "a dict of " + (listed([repr(str(key)[:SHOWN]) for key in cell], 3) or "nothing")
    if isinstance(cell, list | tuple | set):
        short = all(isinstance(item, str | int | float) for item in cell) and len(str(cell)) <= SHOWN
        return str(cell) if short else f"a {type(cell).__name__} of {len(cell):,}"
    if isinstance(cell, bytes | bytearray):
        return f"{len(cell):,} bytes"
    if hasattr(cell, "shape"):
        return f"an array of shape {tuple(cell.shape)}"
    return repr(str(cell)[:SHOWN])


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


def _drop_unlabeled(source: str, names: dict[Hashable, str | None]) -> list[str]:
    """Takes -1 for a missing label, and notes it.

    It stays a class if other numbers are negative as well, or if 1 is the only other class.

    Raises:
        InputError: only one class is left.
    """
    others = {name for name in names.values() if name is not None} - {"-1"}
    if "-1" not in names.values() or others in (set(), {"1"}) or any(re.fullmatch(r"-\d+(\.\d*)?", n) for n in others):
        return []
    if len(others) == 1:
        cause = f"the labels of {source!r} are {others.pop()!r} and -1, and -1 means no label"
        raise InputError(cause, "write the names of two classes, or number them 0 and 1")
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


def _several_labels(source: str, names: set[str]) -> list[str]:
    """Notes on names that may hold several labels, such as "scab rust".

    Words that several names share may also be of one class, as in "black cat" and "black dog". These have their order.

    Raises:
        InputError: a name is a list, all its parts are names, or shared parts are in any order.
    """
    for name in sorted(names):
        if re.fullmatch(r"\[.*\]|\(.*,.*\)|\{.*\}", name, re.DOTALL):
            raise InputError(
                f"{source!r} has the label {name[:SHOWN]!r}, a list; {SEVERAL}", "give each image one label"
            )
    for separator in SEPARATORS:
        joined = {name: parts for name in sorted(names) if len(parts := _parts(name, separator)) > 1 and all(parts)}
        for name, parts in joined.items():
            if names.issuperset(parts):
                cause = f"{source!r} has the label {name!r} next to {listed([repr(part) for part in parts])}"
                raise InputError(f"{cause}; {SEVERAL}", "leave out such rows, or rename what is one class")
        counts = Counter(part for name in names for part in set(_parts(name, separator)))
        shared = [name for name, parts in joined.items() if all(counts[part] > 1 for part in parts)]
        is_shared = len(shared) == len(joined) > 1
        if is_shared and {parts[0] for parts in joined.values()} & {parts[-1] for parts in joined.values()}:
            cause = f"{source!r} has labels of the same parts in any order, such as {_shown(shared)}"
            raise InputError(f"{cause}; {SEVERAL}", "give each image one label, or join the words of a class with _")
        if not is_shared:
            shared = [name for name, parts in joined.items() if separator != " " and not names.isdisjoint(parts)]
        if shared:
            return [f"each of these is one class, though their parts occur in others as well: {_shown(shared)}"]
    return []


def _shown(names: Sequence[str]) -> str:
    return listed([repr(name[:SHOWN]) for name in names], 3)


def _parts(name: str, separator: str) -> list[str]:
    return [part.strip() for part in name.split(separator)]


def look_alikes(names: set[str]) -> list[str]:
    """Notes on classes that differ in leading zeros; `similar_names` of a check finds other likenesses."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[re.sub(r"(?<!\d)(?<!\d\.)0+(?=\d)", "", skeleton(name))].append(name)
    alike = [sorted(group, key=natural_key) for group in groups.values() if len({skeleton(name) for name in group}) > 1]
    cause = "classes that differ only in leading zeros stay apart"
    return [f"{cause}: {listed([repr(name) for name in group])}" for group in sorted(alike)]
