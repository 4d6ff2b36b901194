"""The columns of tables in JSON: an object in each line, a list of objects, or the label of each path."""

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TextIO

from vitreous.data.decoding.images import is_image_name
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.tabular.columns import choose_columns, shared_names
from vitreous.data.sources.tabular.formats.reading import Table, lines_of, opened
from vitreous.support.errors import InputError

MOST_BYTES = 2**30  # of a file that is read at once
ROW = 'write {"path": …, "label": …} for each image'


def read_json_lines(source: str, options: DataOptions) -> Table:
    """Reads a table with a JSON object in each line.

    Raises:
        InputError: it cannot be read, a line is not an object, or columns are not found.
    """
    try:
        with opened(source, "utf-8-sig") as file:
            return _table(source, _objects(source, file), options)
    except UnicodeDecodeError as error:
        raise InputError(f"{source!r} is not UTF-8", "save it again in UTF-8") from error


def read_json(source: str, options: DataOptions) -> Table:
    """Reads a table that is a list of objects, or an object with the label of each path; JSON lines as well.

    Raises:
        InputError: it cannot be read, has another form, such as COCO's, or columns are not found.
    """
    with opened(source, "utf-8-sig") as file:
        try:
            if Path(source).stat().st_size > MOST_BYTES:
                raise InputError(f"{source!r} is too large to read at once", "write it as JSON lines or CSV")
            value = json.loads(file.read(), object_pairs_hook=partial(_object, source))
        except InputError:
            raise
        except UnicodeDecodeError as error:
            raise InputError(f"{source!r} is not UTF-8", "save it again in UTF-8") from error
        except json.JSONDecodeError as error:
            if error.msg == "Extra data" and error.lineno > 1:
                return read_json_lines(source, options)
            raise InputError(f"{source!r} is not JSON: {error}", "write it again") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{source!r} is not JSON that can be read", "write it again") from error
    if isinstance(value, dict) and {"images", "annotations"} <= value.keys():
        cause = f"{source!r} has images and annotations in COCO's format, for detection"
        raise InputError(cause, "write a table of path,label with one row for each image")
    if isinstance(value, dict) and all(is_image_name(name) for name in value):
        value = [{"path": name, "label": label} for name, label in value.items()]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InputError(f"{source!r} is not a list of JSON objects", ROW)
    return _table(source, value, options)


def _object(source: str, pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON. Raises InputError if a key occurs twice with different values, as an image with two labels."""
    found = dict(pairs)
    if len(found) < len(pairs) and (twice := next((key for key, value in pairs if found[key] != value), None)):
        raise InputError(f"{source!r} has {twice!r} twice, with different values", "keep one of them")
    return found


def _table(source: str, objects: Iterable[dict[str, object]], options: DataOptions) -> Table:
    """The columns of rows that are objects; those of the first row count."""
    rows = iter(objects)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{source!r} has no rows", ROW)
    names = list(first)
    columns = choose_columns(source, names, options)
    assert columns.label is not None  # no first row was given to recognize columns of 0 and 1 by
    split = None if columns.split is None else names[columns.split]
    kept = [names[at] for at in (columns.image, columns.label, columns.split, columns.number) if at is not None]
    cells = [[first.get(name)] for name in kept]
    for row in rows:
        for name, column in zip(kept, cells, strict=True):
            column.append(row.get(name))
    notes = shared_names(names, columns, zip(cells[1], cells[-1], strict=True))
    return Table(cells[0], cells[1], None if split is None else cells[2], split or "", columns, notes)


def _objects(source: str, file: TextIO) -> Iterator[dict[str, object]]:
    """The objects of a file of JSON lines."""
    for number, line in enumerate(lines_of(source, file), start=1):
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
