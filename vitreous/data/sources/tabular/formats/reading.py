"""The columns of tables in text files, whatever separates their cells, with bounded lines and cells."""

import csv
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TextIO

from vitreous.data.decoding.images import is_image_name
from vitreous.data.sources.names import split_of
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.tabular.columns import Columns, OneHot, choose_columns, shared_names
from vitreous.support.errors import InputError
from vitreous.support.text import counted, listed

SEPARATORS = ",;\t|"
MAX_LINE = 2**20  # characters
MAX_COLUMNS = 10_000
HEADERLESS = 3  # columns at most of a table without a header
PATH_AND_LABEL = re.compile(r"[^\s\"].*\s\S+")  # an image without a header above it; its path may have spaces
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class ImageCells:
    """A column of images, which is read later and row group by row group.

    Args:
        path: of the table.
        column: its name.
        count: of its rows.
    """

    path: str
    column: str
    count: int

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class Table:
    """The columns that matter of a table.

    Args:
        images: a path for each row; or where the images themselves are, if the table holds them.
        labels: cells of any kind.
        splits: cells of any kind; None if there is no such column.
        split_column: its name.
        columns: which they are.
        notes: for the user.
    """

    images: Sequence[object] | ImageCells
    labels: Sequence[object]
    splits: Sequence[object] | None
    split_column: str
    columns: Columns
    notes: list[str] = field(default_factory=list)


def read_csv(source: str, options: DataOptions) -> Table:
    """Reads a table whose cells are separated by commas, semicolons, tabs, bars or spaces.

    The first row names the columns. Two or three need no names if that row has the path of an image.

    Raises:
        InputError: it cannot be read, a row has more cells than the header, or columns are not found.
    """
    for encoding in _encodings(source):
        try:
            with opened(source, encoding) as file:
                notes = ["the table is not UTF-8 and is read as Windows-1252"] if encoding == "cp1252" else []
                return _read_rows(source, file, options, notes)
        except UnicodeDecodeError:
            continue
    raise InputError(f"{source!r} is not a text file", "save it again as CSV in UTF-8")


def _read_rows(source: str, file: TextIO, options: DataOptions, notes: list[str]) -> Table:
    """The columns of an open CSV file."""
    rows = _rows(source, file)
    number, header = next(rows, (0, []))
    first: tuple[int, list[str]] | None = None
    if _is_headerless(header):
        first, header = (number, header), _assumed_names(header)
        notes.append(f"the table has no header; its columns are read as {listed(header)}")
    if len(header) > MAX_COLUMNS:
        raise InputError(f"{source!r} has {len(header):,} columns", "keep those of the path and the label")
    header = [name.strip() for name in header]
    first = first or next(rows, None)
    if first is None:
        raise InputError(f"{source!r} has no rows", "write a row for each image: path,label")
    columns = choose_columns(source, header, options, first[1])
    images: list[str] = []
    labels: list[str | None] = []
    splits: list[str] = []
    one_hot = OneHot(source, header, columns.classes)
    width, image, label, split = len(header), columns.image, columns.label, columns.split
    read = [at for at in (image, label, split) if at is not None]
    pairs: set[tuple[object, object]] = set()  # of a label and its number
    repeated, last = 0, first[0]
    for number, row in chain([first], rows):
        if len(row) != width:
            if row[0].startswith("#"):
                continue
            row = _padded(source, number, row, width)
        if number > last + 1:
            _check_lines(source, number, [row[at] for at in read])
        last = number
        if all(row[at].strip() == header[at] for at in read):
            repeated += 1
            continue
        images.append(row[image])
        labels.append(one_hot.label([row[at] for at in columns.classes], number) if label is None else row[label])
        if split is not None:
            splits.append(row[split])
        if columns.number is not None:
            pairs.add((labels[-1], row[columns.number]))
    one_hot.check()
    notes += shared_names(header, columns, pairs)
    if repeated:
        notes.append(f"left out {counted(repeated, 'row')} that only repeat the names of the columns")
    return Table(
        images, labels, None if split is None else splits, "" if split is None else header[split], columns, notes
    )


def _check_lines(source: str, number: int, cells: Sequence[str]) -> None:
    """Raises InputError if a path, a label or a split goes over several lines, and so may have swallowed rows."""
    for cell in cells:
        if len(lines := cell.strip().splitlines()) > 1:
            cause = f"line {number} of {source!r} ends a cell of {len(lines)} lines that begins with {lines[0][:40]!r}"
            raise InputError(cause, "a quote is not closed: correct it, or write each cell on one line")


def _padded(source: str, number: int, row: list[str], width: int) -> list[str]:
    """A row with as many cells as the header; empty ones at the end may be missing or too many."""
    if any(cell.strip() for cell in row[width:]):
        cause = f"line {number} of {source!r} has {len(row)} cells, but the header has {width}"
        raise InputError(cause, 'put quotes around cells with the separator in them: "a, b"')
    return (row + [""] * width)[:width]


def _rows(source: str, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, with the number of their last line; comments above the header are left out."""
    lines: Iterator[str] = lines_of(source, file)
    line = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    separator = max(SEPARATORS, key=line.count)
    if source.casefold().endswith(".tsv"):
        separator = "\t"
    lines = chain([line], lines)
    if separator not in line and len(line.split()) > 1:
        if PATH_AND_LABEL.fullmatch(line.strip()) and is_image_name(line.split(None)[-2]):
            yield from ((number, text.rsplit(None, 1)) for number, text in enumerate(lines, 1) if text.strip())
            return
        _check_spaced(source, line)
        separator, lines = " ", (f"{text.strip()}\n" for text in lines)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=separator == " ")
    try:
        for row in reader:
            if row and (len(row) > 1 or row[0].strip()):
                yield reader.line_num, row
    except csv.Error as error:
        cause = f"line {reader.line_num} of {source!r} cannot be read: {error}"
        raise InputError(cause, "save the table again as CSV in UTF-8") from error


def _check_spaced(source: str, line: str) -> None:
    """Raises InputError if a row of words may be read in several ways: a label of two words after a path."""
    words = line.split()
    if len(words) > 2 and any(map(is_image_name, words)) and not any(map(split_of, words)) and '"' not in line:
        cause = f"the first line of {source!r} has an image and several words: {line.strip()[:80]!r}"
        raise InputError(cause, "separate the cells with commas, under the names path,label")


def lines_of(source: str, file: TextIO) -> Iterator[str]:
    """The lines of a file, none longer than allowed."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise InputError(f"{source!r} has a line of more than {MAX_LINE:,} characters", "save it again as CSV")
        if "\0" in line:
            raise InputError(f"{source!r} cannot be read: it has null characters, so it is not text", "save it as CSV")
        yield line


def _is_headerless(row: Sequence[str]) -> bool:
    """Whether the first row is of an image."""
    return 2 <= len(row) <= HEADERLESS and sum(is_image_name(cell.strip()) for cell in row) == 1


def _assumed_names(row: Sequence[str]) -> list[str]:
    """Names for the columns of a table without a header."""
    names = ["path" if is_image_name(cell.strip()) else "" for cell in row]
    if len(row) == HEADERLESS:
        splits = [at for at, cell in enumerate(row) if not names[at] and split_of(cell)]
        names = [("split" if at == splits[0] else name) for at, name in enumerate(names)] if splits else names
    label = names.index("")
    return [name or ("label" if at == label else f"column {at + 1}") for at, name in enumerate(names)]


def _encodings(source: str) -> tuple[str, ...]:
    """The encodings to try for a file, by its first bytes."""
    try:
        with Path(source).open("rb") as file:
            start = file.read(2)
    except (OSError, ValueError) as error:
        raise unreadable(source, error) from error
    return ("utf-16",) if start in UTF_16 else ("utf-8-sig", "cp1252", "latin-1")


@contextmanager
def opened(source: str, encoding: str) -> Generator[TextIO, None, None]:
    """An open text file; errors of the disk are the user's."""
    try:
        with Path(source).open(encoding=encoding, newline="") as file:
            yield file
    except OSError as error:
        raise unreadable(source, error) from error


def unreadable(source: str, error: Exception) -> InputError:
    """The error for a file that the disk does not give."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return InputError(f"{source!r} cannot be read: {reason}", "check its name and permissions")
