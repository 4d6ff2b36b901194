"""DataFrames of pandas and polars, and tables of pyarrow: the columns of a table on disk, or images themselves."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitreous.data.decoding.images import Decoding
from vitreous.data.sources.assemble import assemble
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.splits import ImageData
from vitreous.data.sources.tabular.columns import Columns, OneHot, choose_columns
from vitreous.data.sources.tabular.labels import class_labels
from vitreous.data.sources.tabular.listed import open_listed
from vitreous.data.sources.tabular.lookup import find_files, is_empty
from vitreous.data.sources.tabular.pictures import ObjectLoader, as_opened
from vitreous.data.sources.tabular.samples import NO_IMAGE, group, splits_in_column
from vitreous.support.errors import InputError


@dataclass(frozen=True, eq=False)
class CellLoader(ObjectLoader):
    """Loads images from the cells of a DataFrame.

    Args:
        cells: one for each image.
    """

    cells: tuple[Any, ...]

    def picture(self, index: int) -> Any:
        return self.cells[index]


def is_frame(source: object) -> bool:
    """Whether an object is a DataFrame of pandas or polars, or a table of pyarrow."""
    module = type(source).__module__.partition(".")[0]
    return module in ("pandas", "polars", "pyarrow") and hasattr(source, "columns")


def open_frames(frames: Mapping[str, Any], options: DataOptions, name: str) -> ImageData:
    """Opens DataFrames with a row for each image: its path, bytes or pixels, its label and, optionally, its split.

    Relative paths start from the working folder; absolute ones may lead anywhere, since a program and not a file
    names them.

    Args:
        frames: by split; a single one for training may have a column of splits.
        options: may name the columns.
        name: for messages and the run's folder.

    Raises:
        InputError: columns are not found, no image exists, or an image has two labels or is in two splits.
    """
    images: list[Any] = []
    labels: list[Any] = []
    splits: list[str | None] = []
    notes: list[str] = []
    has_boxes = False
    for split, frame in frames.items():
        names, columns = _columns(frame, options, name)
        cells = _cells(frame, names[columns.image])
        images += cells
        labels += _labels(frame, names, columns, name)
        has_boxes |= columns.has_boxes
        notes += [note for note in columns.notes if note not in notes]
        of_rows: list[str | None] | None = None
        if columns.split is not None:
            column = str(names[columns.split])
            of_rows, more = splits_in_column(
                name, column, _cells(frame, names[columns.split]), columns.flags, options, len(frames)
            )
            notes += [note for note in more if note not in notes]
        splits += of_rows or [split] * len(cells)
    classes, more = class_labels(name, labels)
    notes += more
    present = [cell for cell in images if not is_empty(cell)]
    if any(isinstance(cell, str | Path) for cell in present):
        if not all(isinstance(cell, str | Path) for cell in present):
            raise InputError("the column of images has paths and other objects", "give one kind")
        folder = str(Path.cwd())
        found = find_files(name, folder, "", images, follow_links=True, search=False)
        return open_listed(name, folder, [found], classes, splits, options, notes=notes, has_boxes=has_boxes)
    if present:
        as_opened(present[0])  # raises for floats, before anything is trained
    rows = [None if is_empty(cell) else f"row {row:08}" for row, cell in enumerate(images)]
    samples = group(name, rows, classes, splits)
    samples.ignored.update({NO_IMAGE: rows.count(None)})

    def loader(chosen: tuple[str, ...], decoding: Decoding) -> CellLoader:
        return CellLoader(chosen, decoding, tuple(images[int(row.removeprefix("row "))] for row in chosen))

    return assemble(name, samples.by_split, loader, options, ignored=+samples.ignored, notes=[*notes, *samples.notes])


def _columns(frame: Any, options: DataOptions, name: str) -> tuple[list[Any], Columns]:
    """The names of the columns of a DataFrame, and which ones matter."""
    names = list(frame.column_names if _is_arrow(frame) else frame.columns)
    if len(frame) == 0:
        raise InputError(f"the DataFrame {name!r} is empty", "give a row for each image")
    counts = Counter(names)
    first = [_cells(frame[:1], column)[0] if counts[column] == 1 else None for column in names]
    return names, choose_columns(name, [str(column) for column in names], options, first)


def _labels(frame: Any, names: list[Any], columns: Columns, name: str) -> list[Any]:
    """The labels of a DataFrame: those of a column, or the class whose column has the 1."""
    if columns.label is not None:
        return _cells(frame, names[columns.label])
    one_hot = OneHot(name, [str(column) for column in names], columns.classes)
    rows = zip(*(_cells(frame, names[at]) for at in columns.classes), strict=True)
    labels = [one_hot.label(row, number) for number, row in enumerate(rows)]
    one_hot.check()
    return labels


def _cells(frame: Any, column: Any) -> list[Any]:
    """The cells of a column."""
    values = frame[column]
    return values.to_pylist() if _is_arrow(frame) else values.to_list()


def _is_arrow(frame: Any) -> bool:
    return type(frame).__module__.startswith("pyarrow")
