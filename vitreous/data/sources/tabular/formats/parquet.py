"""Parquet tables, with the paths of images or the images themselves in a column."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.data.decoding.images import MAX_BYTES, BadImage, check_bytes
from vitreous.data.sources.names import distinct, normalized
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.tabular.columns import choose_columns, shared_names
from vitreous.data.sources.tabular.formats.reading import ImageCells, Table
from vitreous.data.sources.trees.spool import check_space, new_spool, remove_spool
from vitreous.data.sources.trees.tree import ImageLoader
from vitreous.support.errors import InputError
from vitreous.support.extras import install_command
from vitreous.support.text import counted, first_line

ROWS = 256  # read at once of a column of images
CHUNK = 64 * 2**20  # bytes written between two checks of the free space


@dataclass(frozen=True)
class Stored:
    """Images that were copied into one file.

    Args:
        path: of that file.
        names: of the images: the path that the table records, or the table and the row.
        spans: the offset and size of each, int64; the size is -1 where a row has no image.
    """

    path: str
    names: list[str]
    spans: np.ndarray


@dataclass(frozen=True, eq=False)
class StoredLoader(ImageLoader):
    """Loads images from one file in which they follow each other.

    Args:
        path: of that file.
        spans: the offset and size of each image.
    """

    path: str
    spans: np.ndarray

    def file(self, index: int) -> bytes:
        name = self.names[index]
        offset, size = self.spans[index].tolist()
        check_bytes(name, size)
        try:
            with Path(self.path).open("rb", buffering=0) as file:
                content = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise BadImage(name, f"cannot be read: {error.strerror}", "start again") from error
        if len(content) != size:
            raise BadImage(name, "cannot be read: the unpacked images have changed", "start again")
        return content


def read_parquet(source: str, options: DataOptions) -> Table:
    """Reads the columns that matter of a Parquet table; of images in a column, only where they are.

    Label numbers get the names that Hugging Face's `datasets` records in the file.

    Raises:
        InputError: pyarrow is missing, the table cannot be read, or columns are not found.
    """
    with _Parquet(source) as file:
        schema = file.schema_arrow
        names = list(schema.names)
        holders = [name for name in names if _holds_images(schema.field(name).type)]
        image = holders[0] if len(holders) == 1 and options.path_column is None else None
        columns = choose_columns(source, names, options, image=image)
        assert columns.label is not None  # no first row was given to recognize columns of 0 and 1 by
        name, label = names[columns.image], names[columns.label]
        split = None if columns.split is None else names[columns.split]
        labels = _named(source, _cells(file, label), schema.metadata, label)
        _check_paths(source, name, schema.field(name).type)
        if name not in holders:
            images = _cells(file, name)
        elif paths := _paths_alone(file, name):
            images = paths
        else:
            images = ImageCells(source, name, file.metadata.num_rows)
        splits = None if split is None else _cells(file, split)
        numbers = labels if columns.number is None else _cells(file, names[columns.number])
    notes = shared_names(names, columns, zip(labels, numbers, strict=True))
    return Table(images, labels, splits, split or "", columns, notes)


def store_images(source: str, columns: Sequence[ImageCells]) -> Stored:
    """Copies the images of columns into a spool, from which each can be read by itself.

    In a row group, images are compressed together: reading one of them would decompress hundreds.

    Raises:
        InputError: a table cannot be read, or the disk is full.
    """
    spool = new_spool(source)
    names: list[str] = []
    spans: list[tuple[int, int]] = []
    offset = checked = 0
    try:
        with spool.open("wb") as file:
            for column in columns:
                table = Path(column.path).name
                for row, (name, content) in enumerate(_images(column)):
                    if offset + len(content or b"") >= checked:
                        check_space(source, CHUNK)
                        checked = offset + CHUNK
                    names.append(f"{table}/{row:08}" + (f"/{name}" if name else ""))
                    spans.append((offset, -1 if content is None else len(content)))
                    if content is not None and len(content) <= MAX_BYTES:  # a larger one fails when it is loaded
                        offset += file.write(content)
    except BaseException as error:
        remove_spool(spool)
        if isinstance(error, OSError):
            cause = f"cannot unpack {source!r} to {str(spool.parent)!r}: {error.strerror or error}"
            raise InputError(cause, "free some space, or set XDG_CACHE_HOME to another disk") from error
        raise
    return Stored(str(spool), names, np.array(spans, np.int64).reshape(-1, 2))


def _images(column: ImageCells) -> Iterator[tuple[str, bytes | None]]:
    """The file name and the bytes of each image; None for an empty cell."""
    with _Parquet(column.path) as file:
        for batch in file.iter_batches(batch_size=ROWS, columns=[column.column]):
            for cell in batch.column(0):
                value = cell.as_py()
                if isinstance(value, dict):
                    yield str(value.get("path") or "").rpartition("/")[2], value.get("bytes")
                else:
                    yield "", value


class _Parquet:
    """An open Parquet file; on hostile bytes pyarrow raises many errors, which mean that it cannot be read."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __enter__(self) -> Any:
        try:
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise InputError("reading a Parquet table needs pyarrow", install_command("data")) from error
        try:
            self.file = ParquetFile(self.source, memory_map=True)
        except Exception as error:
            raise self.unreadable(error) from error
        return self.file

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.file.close()
        if isinstance(error, Exception) and not isinstance(error, InputError | AssertionError):
            raise self.unreadable(error) from error

    def unreadable(self, error: Exception) -> InputError:
        """The error for a file that pyarrow cannot read."""
        return InputError(
            f"{self.source!r} cannot be read as Parquet: {first_line(error)}", "write the table again, or use CSV"
        )


def _holds_images(kind: Any) -> bool:
    """Whether a column's type is that of images: binary, or bytes with a path, as `datasets` writes them."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(
            kind.field(at).name == "bytes" and _holds_images(kind.field(at).type) for at in range(kind.num_fields)
        )
    return types.is_binary(kind) or types.is_large_binary(kind)


def _check_paths(source: str, column: str, kind: Any) -> None:
    """Raises InputError if a column holds several images in each row, which are not read to find out."""
    from pyarrow import types

    if types.is_nested(kind) and not _holds_images(kind):
        what = "structs" if types.is_struct(kind) else "lists"
        cause = f"column {column!r} of {source!r} holds {what}, not one image or path in each row"
        raise InputError(cause, "write a row for each image, or name another column: --set path_column=…")


def _paths_alone(file: Any, column: str) -> list[object]:
    """The paths in a column of bytes with a path, if the first row that is not empty has a path alone."""
    for batch in file.iter_batches(batch_size=ROWS, columns=[column]):
        for cell in batch.column(0):
            value = cell.as_py()
            if isinstance(value, dict) and value.get("path") and value.get("bytes") is None:
                return [row and row.get("path") for row in file.read(columns=[f"{column}.path"]).column(0).to_pylist()]
            if value is not None:
                return []
    return []


def _cells(file: Any, column: str) -> list[object]:
    """The cells of a column, as Python values."""
    return file.read(columns=[column]).column(0).to_pylist()


def _named(source: str, cells: list[object], metadata: dict[bytes, bytes] | None, column: str) -> list[object]:
    """Label numbers by the names that `datasets` records in the schema; -1 means that there is no label.

    Raises:
        InputError: a number has no name.
    """
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return cells
    numbers = [cell if isinstance(cell, int) else -1 if cell is None else None for cell in cells]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or None in numbers:
        return cells
    known = dict(enumerate(distinct(map(normalized, names)))) | {-1: None}
    if unknown := [number for number in numbers if number not in known]:
        cause = f"column {column!r} of {source!r} has the label {unknown[0]}, but {counted(len(names), 'class name')}"
        raise InputError(cause, "number the classes from 0, or write the table again with a name for each")
    return [known[number] for number in numbers if number is not None]
