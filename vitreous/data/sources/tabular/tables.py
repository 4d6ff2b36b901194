"""Tables of images on disk: CSV and other text, JSON and Parquet, with a path and a label in each row."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vitreous.data.decoding.images import Decoding
from vitreous.data.sources.assemble import assemble
from vitreous.data.sources.names import TRAIN, split_of
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.splits import ImageData
from vitreous.data.sources.tabular.formats.json_rows import read_json, read_json_lines
from vitreous.data.sources.tabular.formats.parquet import StoredLoader, read_parquet, store_images
from vitreous.data.sources.tabular.formats.reading import ImageCells, Table, read_csv
from vitreous.data.sources.tabular.labels import class_labels
from vitreous.data.sources.tabular.listed import open_listed
from vitreous.data.sources.tabular.lookup import find_files
from vitreous.data.sources.tabular.samples import NO_IMAGE, group, splits_of_cells
from vitreous.support.errors import InputError
from vitreous.support.text import listed

READERS = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".txt": read_csv,
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
}
SUFFIXES = tuple(READERS)
UNREAD = (
    *(".xlsx", ".xls", ".ods", ".feather", ".arrow", ".pkl", ".pickle"),
    *(".xml", ".yaml", ".yml", ".html", ".db", ".sqlite", ".lst"),
)
FORMATS = f"save it as a table that can be read: {', '.join(SUFFIXES)}"
PART = re.compile(r"(?P<name>.+)-(?P<number>\d{1,6})-of-(?P<count>\d{1,6})")  # as `datasets` names parts of a table
BESIDE = re.compile(r"(?<![a-z])(labels?|info|metadata|annotations?|solutions?|list)(?![a-z])", re.IGNORECASE)
SAME_COLUMNS = "use the same columns in each table"


def is_table(source: str | Path) -> bool:
    """Whether a path has the suffix of a table."""
    return str(source).casefold().endswith(SUFFIXES)


def is_unread_table(source: str | Path) -> bool:
    """Whether a path has the suffix of a table in another format."""
    return str(source).casefold().endswith(UNREAD)


def find_tables(folder: str | Path) -> list[str]:
    """The names of the tables directly inside a folder."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if is_table(e.name) and not e.name.startswith(".") and e.is_file())


def open_table(source: str, options: DataOptions) -> ImageData:
    """Opens a table with a row for each image: its path or id, its label and, optionally, its split.

    The columns are found by their usual names, such as path, filename, image_id, label, class, species, split and
    is_train, or as `options` names them. Paths are relative to the folder of the table, or to a folder in it; an id is
    a file name without suffix. In Parquet, the images themselves may be in a column. Without a column of splits, all
    rows are for training; next to train.csv, a val.csv and a test.csv with the same columns are the other splits. Of a
    table in parts, such as train-00000-of-00002.parquet, all parts are read.

    Raises:
        InputError: the table cannot be read, its columns are not found, no image exists, or an image has two labels
            or is in two splits.
    """
    tables = [(path, _read(path, options)) for path in _parts(source)]
    table, notes = tables[0][1], [note for _, part in tables for note in part.notes]
    notes += table.columns.notes
    splits: list[str | None] | None = None
    if table.splits is not None:
        cells = [cell for _, part in tables for cell in part.splits or [None] * len(part.images)]
        required = options.split_column is not None
        splits, more = splits_of_cells(source, table.split_column, cells, table.columns.flags, required)
        notes += more
    notes += _notes_on_splits(source, splits is not None)
    if splits is None and _split_of_table(source) == TRAIN:
        siblings, more = _siblings(source, options)
        notes += more
        rows = sum(len(part.images) for _, part in tables)
        splits = [TRAIN] * rows
        splits += [split for split, _, part in siblings for _ in range(len(part.images))]
        tables += [(path, part) for _, path, part in siblings]
    labels, more = class_labels(source, [cell for _, part in tables for cell in part.labels])
    notes = list(dict.fromkeys((*notes, *more)))
    if isinstance(table.images, ImageCells):
        return _open_stored(source, [part.images for _, part in tables], labels, splits, options, notes)
    folder = os.path.realpath(Path(source).parent)
    found = [
        find_files(
            path, folder, Path(path).stem, _paths(source, part), options.follow_links, split=_split_of_table(path)
        )
        for path, part in tables
    ]
    has_boxes = any(part.columns.has_boxes for _, part in tables)
    return open_listed(source, folder, found, labels, splits, options, notes=notes, has_boxes=has_boxes)


def _read(source: str, options: DataOptions) -> Table:
    """The columns of a table."""
    return READERS[Path(source).suffix.casefold()](source, options)


def _split_of_table(path: str | Path) -> str | None:
    """The split that a table's name means, such as train.csv, train_labels.csv or train-00000-of-00002.parquet."""
    stem = Path(path).stem
    part = PART.fullmatch(stem)
    return split_of(BESIDE.sub("", part["name"] if part else stem))


def _beside(path: str | Path) -> str:
    """The word next to a table's split: "labels" of train_labels.csv, and "" of train.csv."""
    word = BESIDE.search(Path(path).stem)
    return word[0].casefold() if word else ""


def _parts(source: str) -> list[str]:
    """The files of a table: several if it is one of train-00000-of-00002.parquet and train-00001-of-00002.parquet.

    Raises:
        InputError: some of them are missing.
    """
    path = Path(source)
    part = PART.fullmatch(path.stem)
    if part is None:
        return [source]
    name, width, count = part["name"], len(part["number"]), int(part["count"])
    files = [path.with_name(f"{name}-{at:0{width}}-of-{part['count']}{path.suffix}") for at in range(count)]
    missing = [repr(file.name) for file in files if not file.is_file()]
    if missing:
        cause = f"{source!r} is one of {count} parts, of which {listed(missing)} are missing"
        raise InputError(cause, "download the other parts, or give this one another name")
    return [str(file) for file in files]


def _siblings(source: str, options: DataOptions) -> tuple[list[tuple[str, str, Table]], list[str]]:
    """The split, path and columns of the tables next to train.csv that are other splits, and notes on them."""
    path, names, notes = Path(source), {}, []
    for name in find_tables(path.parent):
        split = _split_of_table(name)
        part = PART.fullmatch(Path(name).stem)
        if split in (None, TRAIN) or _beside(name) != _beside(path):
            continue
        if Path(name).suffix.casefold() != path.suffix.casefold():
            continue
        if part is None or not int(part["number"]):
            names.setdefault(split, []).append(name)
    found = []
    for split, several in names.items():
        if len(several) > 1:
            raise InputError(f"{str(path.parent)!r} has two tables of {split}: {listed(several)}", "keep one of them")
        try:
            tables = [(split, file, _read(file, options)) for file in _parts(str(path.parent / several[0]))]
        except InputError as error:
            notes.append(f"{several[0]} is not used: {error.cause}")
            continue
        found += tables
        notes.append(f"{several[0]} is read as the {split} split")
        notes += [note for _, _, table in tables for note in table.notes]
    return found, notes


def _notes_on_splits(source: str, has_splits: bool) -> list[str]:
    """Notes on a table of another split that is trained on, and on tables that a column of splits replaces."""
    split, name = _split_of_table(source), Path(source).name
    if split not in (None, TRAIN):
        return [] if has_splits else [f"{name} is called {split}, but all its rows are for training"]
    if not has_splits or split is None:
        return []
    others = [other for other in find_tables(Path(source).parent) if _split_of_table(other) not in (None, TRAIN)]
    unused = listed([other for other in others if _beside(other) == _beside(source)])
    return [f"not used, since {name} has a column of splits: {unused}"] if unused else []


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
