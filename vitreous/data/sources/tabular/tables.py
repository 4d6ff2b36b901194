"""Tables of images on disk: CSV, TSV, JSON lines and Parquet, with a path and a label in each row."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vitreous.data.images import Decoding
from vitreous.data.sources.assemble import assemble
from vitreous.data.sources.names import split_of
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.splits import ImageData
from vitreous.data.sources.tabular.labels import class_labels
from vitreous.data.sources.tabular.listed import open_listed
from vitreous.data.sources.tabular.lookup import find_files
from vitreous.data.sources.tabular.parquet import StoredLoader, read_parquet, store_images
from vitreous.data.sources.tabular.reading import ImageCells, Table, read_csv, read_json_lines
from vitreous.data.sources.tabular.samples import NO_IMAGE, group, splits_of_cells
from vitreous.support.errors import InputError

READERS = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
}
SUFFIXES = tuple(READERS)
SAME_COLUMNS = "use the same columns in each table"


def is_table(source: str | Path) -> bool:
    """Whether a path has the suffix of a table."""
    return str(source).casefold().endswith(SUFFIXES)


def find_tables(folder: str | Path) -> list[str]:
    """The names of the tables directly inside a folder, with that of the training images first."""
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if is_table(e.name) and not e.name.startswith(".") and e.is_file())
    return sorted(names, key=lambda name: split_of(Path(name).stem) != "train")


def open_table(source: str, options: DataOptions) -> ImageData:
    """Opens a table with a row for each image: its path or id, its label and, optionally, its split.

    The columns are found by their usual names, such as path, filename, image_id, label, class, species, split and
    is_train, or as `options` names them. Paths are relative to the folder of the table, or to a folder in it; an id is
    a file name without suffix. In Parquet, the images themselves may be in a column. Without a column of splits, all
    rows are for training; next to train.csv, a val.csv and a test.csv with the same columns are the other splits.

    Raises:
        InputError: the table cannot be read, its columns are not found, no image exists, or an image has two labels
            or is in two splits.
    """
    table = _read(source, options)
    notes = list(table.notes)
    splits: list[str | None] | None = None
    if table.splits is not None:
        required = options.split_column is not None
        cells, flags = table.splits, table.columns.flags
        splits, more = splits_of_cells(source, table.split_column, cells, flags, required)
        notes += more
    tables = [(source, table)]
    if splits is None and split_of(Path(source).stem) == "train":
        siblings, more = _siblings(source, options)
        notes += more
        names = ["train"] * len(table.images)
        for split, path, sibling in siblings:
            tables.append((path, sibling))
            names += [split] * len(sibling.images)
        splits = [*names] if siblings else None
    labels, more = class_labels(source, [cell for _, table in tables for cell in table.labels])
    notes += more
    if isinstance(table.images, ImageCells):
        return _open_stored(source, [table.images for _, table in tables], labels, splits, options, notes)
    folder = os.path.realpath(Path(source).parent)
    found = [
        find_files(path, folder, Path(path).stem, _paths(source, table), options.follow_links) for path, table in tables
    ]
    has_boxes = any(table.columns.has_boxes for _, table in tables)
    return open_listed(source, folder, found, labels, splits, options, notes=notes, has_boxes=has_boxes)


def _read(source: str, options: DataOptions) -> Table:
    """The columns of a table."""
    return READERS[Path(source).suffix.casefold()](source, options)


def _siblings(source: str, options: DataOptions) -> tuple[list[tuple[str, str, Table]], list[str]]:
    """The split, path and columns of the tables next to train.csv that are other splits, and notes on them."""
    path, found, notes = Path(source), [], []
    for name in find_tables(path.parent):
        split = split_of(Path(name).stem)
        if split in (None, "train") or Path(name).suffix.casefold() != path.suffix.casefold():
            continue
        if any(split == other for other, _, _ in found):
            raise InputError(f"{str(path.parent)!r} has two tables of {split}", "keep one of them")
        sibling = str(path.parent / name)
        try:
            found.append((split, sibling, _read(sibling, options)))
        except InputError as error:
            notes.append(f"{name} is not used: {error.cause}")
        else:
            notes.append(f"{name} is read as the {split} split")
    return found, notes


def _paths(source: str, table: Table) -> Sequence[object]:
    """The paths in a table."""
    if isinstance(table.images, ImageCells):
        raise InputError(f"a table next to {source!r} has images in it", SAME_COLUMNS)
    return table.images


def _open_stored(
    source: str,
    columns: Sequence[object],
    labels: Sequence[str | None],
    splits: Sequence[str | None] | None,
    options: DataOptions,
    notes: list[str],
) -> ImageData:
    """The images in the columns of tables."""
    cells = [column for column in columns if isinstance(column, ImageCells)]
    if len(cells) < len(columns):
        raise InputError(f"a table next to {source!r} has no images in it", SAME_COLUMNS)
    stored = store_images(source, cells)
    names = [name if size >= 0 else None for name, size in zip(stored.names, stored.spans[:, 1].tolist(), strict=True)]
    samples = group(source, names, labels, splits)
    rows = {name: row for row, name in enumerate(stored.names)}

    def loader(names: tuple[str, ...], decoding: Decoding) -> StoredLoader:
        return StoredLoader(names, decoding, stored.path, stored.spans[[rows[name] for name in names]])

    ignored = Counter(samples.ignored)
    ignored.update({NO_IMAGE: sum(name is None for name in names)})
    return assemble(source, samples.by_split, loader, options, ignored=+ignored, notes=[*notes, *samples.notes])
