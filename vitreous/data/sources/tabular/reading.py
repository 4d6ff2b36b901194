"""The columns of tables in files: CSV, TSV and JSON lines, with bounded lines and cells."""

import csv
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from vitreous.data.decoding.images import is_image_name
from vitreous.data.sources.names import split_of
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.tabular.columns import Columns, OneHot, choose_columns
from vitreous.support.errors import InputError
from vitreous.support.text import listed

SEPARATORS = ",;\t|"
MAX_LINE = 2**20  # characters
MAX_COLUMNS = 10_000
HEADERLESS = 3  # columns at most of a table without a header
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
    """Reads a table whose cells are separated by commas, semicolons, tabs or bars; the first row names the columns.

    Two or three columns need no names if the first row has the path of an image.

    Raises:
        InputError: it cannot be read, a row has more cells than the header, or columns are not found.
    """
    for encoding in _encodings(source):
        try:
            with _opened(source, encoding) as file:
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
    for number, row in _chained(first, rows):
        if len(row) != width:
            if row[0].startswith("#"):
                continue
            row = _padded(source, number, row, width)
        images.append(row[image])
        labels.append(one_hot.label([row[at] for at in columns.classes], number) if label is None else row[label])
        if split is not None:
            splits.append(row[split])
    one_hot.check()
    return Table(
        images, labels, None if split is None else splits, "" if split is None else header[split], columns, notes
    )


def _chained(first: tuple[int, list[str]], rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    """The first row and the others."""
    yield first
    yield from rows


def _padded(source: str, number: int, row: list[str], width: int) -> list[str]:
    """A row with as many cells as the header; empty ones at the end may be missing or too many."""
    if any(cell.strip() for cell in row[width:]):
        cause = f"line {number} of {source!r} has {len(row)} cells, but the header has {width}"
        raise InputError(cause, 'put quotes around cells with the separator in them: "a, b"')
    return (row + [""] * width)[:width]


def _rows(source: str, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, with the number of their last line; comments above the header are left out."""
    lines = _lines(source, file)
    line = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    separator = max(SEPARATORS, key=line.count)
    if source.casefold().endswith(".tsv"):
        separator = "\t"

    def rest() -> Iterator[str]:
        yield line
        yield from lines

    reader = csv.reader(rest(), delimiter=separator)
    try:
        for row in reader:
            if row and (len(row) > 1 or row[0].strip()):
                yield reader.line_num, row
    except csv.Error as error:
        cause = f"line {reader.line_num} of {source!r} cannot be read: {error}"
        raise InputError(cause, "save the table again as CSV in UTF-8") from error


def _lines(source: str, file: TextIO) -> Iterator[str]:
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


def read_json_lines(source: str, options: DataOptions) -> Table:
    """Reads a table with a JSON object in each line.

    Raises:
        InputError: it cannot be read, a line is not an object, or columns are not found.
    """
    try:
        with _opened(source, "utf-8-sig") as file:
            objects = _objects(source, file)
            first = next(objects, None)
            if first is None:
                raise InputError(f"{source!r} has no rows", 'write a line for each image: {"path": …, "label": …}')
            names = list(first)
            columns = choose_columns(source, names, options)
            assert columns.label is not None  # no first row was given to recognize columns of 0 and 1 by
            kept = [names[at] for at in (columns.image, columns.label, columns.split) if at is not None]
            cells = [[value] for value in (first.get(name) for name in kept)]
            for row in objects:
                for name, column in zip(kept, cells, strict=True):
                    column.append(row.get(name))
    except UnicodeDecodeError as error:
        raise InputError(f"{source!r} is not UTF-8", "save it again in UTF-8") from error
    split = columns.split
    return Table(cells[0], cells[1], cells[2] if split is not None else None, kept[-1], columns)


def _objects(source: str, file: TextIO) -> Iterator[dict[str, object]]:
    """The objects of a file of JSON lines."""
    for number, line in enumerate(_lines(source, file), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise InputError(f"line {number} of {source!r} is not JSON: {reason}", "write it again") from error
        if not isinstance(value, dict):
            raise InputError(f"line {number} of {source!r} is not a JSON object", 'write {"path": …, "label": …}')
        yield value


def _encodings(source: str) -> tuple[str, ...]:
    """The encodings to try for a file, by its first bytes."""
    try:
        with Path(source).open("rb") as file:
            start = file.read(2)
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from error
    return ("utf-16",) if start in UTF_16 else ("utf-8-sig", "cp1252", "latin-1")


@contextmanager
def _opened(source: str, encoding: str) -> Generator[TextIO, None, None]:
    """An open text file; errors of the disk are the user's."""
    try:
        with Path(source).open(encoding=encoding, newline="") as file:
            yield file
    except OSError as error:
        raise _unreadable(source, error) from error


def _unreadable(source: str, error: Exception) -> InputError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return InputError(f"{source!r} cannot be read: {reason}", "check its name and permissions")
