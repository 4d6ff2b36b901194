"""From the rows of a table to samples by split and class."""

from collections import Counter, defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from itertools import repeat

from vitreous.data.sources.names import evaluations, notes_on_evaluation, split_of
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.tabular.labels import SEVERAL
from vitreous.support.errors import InputError
from vitreous.support.text import counted, listed

UNLABELED, NO_IMAGE = "row without a label", "row without an image"
REPEATED = "row of an image that an earlier row has"


@dataclass(frozen=True)
class Samples:
    """The samples of a table.

    Args:
        by_split: the names by split and class.
        ignored: rows that are left out, by kind.
        notes: for the user.
    """

    by_split: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def group(
    source: str,
    names: Sequence[str | None],
    labels: Sequence[str | None],
    splits: Sequence[str | None] | None,
    has_boxes: bool = False,
) -> Samples:
    """Groups rows by split and class; a row without a name, label or split is left out.

    Args:
        source: the table as the user named it.
        names: of the sample of each row.
        labels: its class.
        splits: its split; None if all rows are for training.
        has_boxes: whether the table has boxes as well, for the hint.

    Raises:
        InputError: no row is labeled, or an image has two labels or is in two splits.
    """
    samples = Samples()
    unlabeled: Counter[str] = Counter()
    first: dict[str, int] = {}
    by_split: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    more: list[tuple[int, int]] = []  # rows of an image that an earlier row has
    for row, (name, label, split) in enumerate(zip(names, labels, splits or repeat("train"), strict=bool(splits))):
        if name is None or split is None:
            continue
        if label is None:
            unlabeled[split] += 1
            continue
        earlier = first.setdefault(name, row)
        if earlier != row:
            more.append((earlier, row))
        else:
            by_split[split][label].append(name)
    _check_repeated(source, names, labels, splits, more, has_boxes)
    samples.ignored.update({REPEATED: len(more)} if more else {})
    _note_unlabeled(samples, unlabeled, by_split)
    if not by_split:
        raise InputError(
            f"no row of {source!r} has both an image and a label", "check the columns, or name them with --set"
        )
    for split, classes in by_split.items():
        samples.by_split[split] = {label: sorted(members) for label, members in classes.items()}
    return samples


def _note_unlabeled(samples: Samples, unlabeled: Counter[str], labeled: Container[str]) -> None:
    """Counts the rows without a label, or notes that a whole split has none."""
    for split, count in unlabeled.items():
        if split in labeled or split == "train":
            samples.ignored[UNLABELED] += count
        else:
            samples.notes.append(f"{split} has no labels and is left out; use its images with vitreous predict")


def _check_repeated(
    source: str,
    names: Sequence[str | None],
    labels: Sequence[str | None],
    splits: Sequence[str | None] | None,
    more: Sequence[tuple[int, int]],
    has_boxes: bool,
) -> None:
    """Raises InputError if rows of the same image differ in their label or split."""
    conflicts = [pair for pair in more if labels[pair[0]] != labels[pair[1]]]
    if conflicts:
        one, other = conflicts[0]
        cause = f"{names[one]!r} has two labels in {source!r}, {labels[one]!r} and {labels[other]!r}"
        many = f" ({counted(len(conflicts), 'row')} like this)" if len(conflicts) > 1 else ""
        if has_boxes:
            raise InputError(f"{cause}{many}; the boxes are for detection", "crop each box to an image of its own")
        raise InputError(f"{cause}{many}; {SEVERAL}", "leave one row for each image")
    leaks = [] if splits is None else [pair for pair in more if splits[pair[0]] != splits[pair[1]]]
    if leaks:
        one, other = leaks[0]
        assert splits is not None
        example = f"{names[one]!r} is in {splits[one]} and {splits[other]}"
        cause = f"{source!r} has {counted(len(leaks), 'image')} in two splits: {example}"
        raise InputError(cause, "keep each image in one split; otherwise the score is of images seen in training")


def splits_of_cells(
    source: str, column: str, cells: Sequence[object], flags: tuple[str, str] | None, required: bool
) -> tuple[list[str | None] | None, list[str]]:
    """The split of each row, and notes on the column.

    Args:
        source: the table as the user named it.
        column: the name of the column.
        cells: of the column.
        flags: the splits of 1 and of 0, for a column of these.
        required: whether the user named the column, so that it has to hold splits.

    Raises:
        InputError: the column has no training rows, and it was named or some of its values are splits.
    """
    values = Counter(str(cell).strip() for cell in cells)
    if flags:
        table = {
            **dict.fromkeys(("1", "1.0", "true", "yes"), flags[0]),
            **dict.fromkeys(("0", "0.0", "false", "no"), flags[1]),
        }
        meaning = {value: table.get(value.casefold()) for value in values}
    else:
        meaning = {value: split_of(value) for value in values}
        meaning |= evaluations(meaning)
    unknown = [value for value in values if meaning[value] is None]
    shown = listed([repr(value[:40]) for value in unknown])
    if "train" not in meaning.values():
        if required or any(meaning.values()):
            shown = listed([repr(value[:40]) for value in values])
            cause = f"column {column!r} of {source!r} has no training rows; its values are {shown}"
            raise InputError(cause, "write train, validation or test, or name another column with --set split_column=…")
        return None, [f"the column {column!r} is not used: its values are not splits"]
    splits = [meaning[str(cell).strip()] for cell in cells]
    if not unknown:
        return splits, notes_on_evaluation(meaning)
    count = sum(values[value] for value in unknown)
    return splits, [f"{counted(count, 'row')} left out, where {column!r} is not a split: {shown}"]


def splits_in_column(
    source: str,
    column: str,
    cells: Sequence[object],
    flags: tuple[str, str] | None,
    options: DataOptions,
    parts: int,
) -> tuple[list[str | None] | None, list[str]]:
    """The same for an object of Python, whose column of splits counts only if it is one of all splits.

    Args:
        source: the object, for messages.
        column: the name of the column.
        cells: of the column.
        flags: the splits of 1 and of 0, for a column of these.
        options: may name the column.
        parts: how many objects there are, one for each split.
    """
    if parts == 1:
        return splits_of_cells(source, column, cells, flags, options.split_column is not None)
    return None, [f"the column {column!r} is not used: there is an object for each split"]
