"""Columns of splits, folds and boxes, and labels that are not classes."""

import json

import datasets as hugging_face
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from tests.data.sources.packing import tree
from tests.data.sources.tabular.writing import ROWS, error, flat, write
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions


@pytest.mark.parametrize(
    ("column", "split"), [("is_valid", "validation"), ("IsValidation", "validation"), ("is_testing", "test")]
)
@pytest.mark.parametrize("in_frame", [False, True])
def test_a_column_of_flags_is_the_split(tmp_path, monkeypatch, column, split, in_frame):
    monkeypatch.chdir(tree(tmp_path))
    rows = [(*row, number % 2 == 1) for number, row in enumerate(ROWS)]
    header = ("path", "label", column)
    data = open_data(pandas.DataFrame(rows, columns=header) if in_frame else write(tmp_path / "all.csv", rows, header))
    chosen = {"validation": data.validation, "test": data.test}[split]
    assert set(chosen.names) == {name for name, _, flag in rows if flag}


def held(kind, folder, rows, header):
    """A table of these rows in a file or in an object of Python."""
    columns = {name: [row[at] for row in rows] for at, name in enumerate(header)}
    if kind == "csv":
        return write(folder / "all.csv", rows, header)
    if kind == "frame":
        return pandas.DataFrame(columns)
    if kind == "hub":
        return hugging_face.Dataset.from_dict(columns)
    return [dict(zip(header, row, strict=True)) for row in rows]


KINDS = pytest.mark.parametrize("kind", ["csv", "frame", "dicts", "hub"])


@KINDS
@pytest.mark.parametrize(
    ("column", "cells", "sizes"),
    [
        ("split", ["train", "train", "val", "test"], [8, 4, 4]),
        ("is_valid", ["no", "no", "no", "yes"], [12, 4]),
        ("is_test", [0, 0, 1, 1], [6, 2, 8]),
    ],
)
def test_a_column_of_splits_is_used(tmp_path, monkeypatch, kind, column, cells, sizes):
    monkeypatch.chdir(tree(tmp_path))
    rows = [(*row, cells[number % 4]) for number, row in enumerate(ROWS)]
    data = open_data(held(kind, tmp_path, rows, ("path", "label", column)))
    assert [len(split) for split in data.splits] == sizes
    assert not data.notes


@KINDS
def test_columns_of_splits_and_folds_that_are_not_used_are_named(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tree(tmp_path))
    rows = [(*row, number % 3, "camera", 0) for number, row in enumerate(ROWS)]
    data = open_data(held(kind, tmp_path, rows, ("path", "label", "kfold", "set", "is_valid")))
    notes = [note.removeprefix("train: ") for note in data.notes]
    assert notes == [
        "the folds in 'kfold' are not used; to validate on one, write a column split",
        "columns of splits that are not used: 'is_valid'",
        "the column 'set' is not used: its values are not splits",
    ]


@KINDS
def test_splits_in_several_columns_are_refused(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tree(tmp_path))
    rows = [(*row, number % 2, 0) for number, row in enumerate(ROWS)]
    source = held(kind, tmp_path, rows, ("path", "label", "is_train", "is_valid"))
    assert "its splits in several columns, 'is_train', 'is_valid'" in error(source)
    assert open_data(source, DataOptions(split_column="is_valid")).test is None


@pytest.mark.parametrize("kind", ["frame", "dicts", "hub"])
def test_a_column_of_splits_is_not_used_where_each_split_is_given(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tree(tmp_path))
    rows = [(*row, "train") for row in ROWS]
    header = ("path", "label", "split")
    data = open_data((held(kind, tmp_path, rows[::2], header), held(kind, tmp_path, rows[1::2], header)))
    assert [len(split) for split in data.splits] == [8, 8]
    assert "the column 'split' is not used" in data.notes[0]
    assert len(data.notes) == len(set(data.notes))


def test_columns_of_numbers_are_not_classes(tmp_path):
    """As Label Studio writes them: the first row has only 0 and 1 in the columns of numbers."""
    rows = [(name, number, 1, number % 2) for number, (name, _) in enumerate(flat(tmp_path))]
    message = error(write(tmp_path / "all.csv", rows, ("image", "id", "annotator", "annotation_id")))
    assert "no column of labels" in message
    rows = [(name, number, label, 1) for number, (name, label) in enumerate(flat(tmp_path))]
    data = open_data(write(tmp_path / "all.csv", rows, ("image", "id", "choice", "annotator")))
    assert data.class_names == ("even", "odd")


@KINDS
def test_boxes_of_single_images_are_noted(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tree(tmp_path))
    rows = [(*row, 1, 2, 3, 4) for row in ROWS]
    data = open_data(held(kind, tmp_path, rows, ("path", "label", "xmin", "ymin", "xmax", "ymax")))
    assert ["boxes" in note for note in data.notes] == [True]


@KINDS
@pytest.mark.parametrize("missing", [-1, -1.0])
def test_minus_one_is_no_label(tmp_path, monkeypatch, kind, missing):
    monkeypatch.chdir(tmp_path)
    rows = [(name, [0, 1, missing][number % 3]) for number, (name, _) in enumerate(flat(tmp_path, 12))]
    data = open_data(held(kind, tmp_path, rows, ("path", "label")))
    assert data.class_names == ("0", "1")
    assert data.ignored == {"row without a label": 4}
    assert data.notes == ("the label -1 means no label",)


@KINDS
def test_minus_one_next_to_one_is_a_class(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    rows = [(name, [-1, 1][number % 2]) for number, (name, _) in enumerate(flat(tmp_path, 12))]
    data = open_data(held(kind, tmp_path, rows, ("path", "label")))
    assert data.class_names == ("1", "-1")
    assert not data.notes


@pytest.mark.parametrize("labels", [(-1, 1), (-2, -1, 1, 2)])
def test_minus_one_may_be_a_class(tmp_path, labels):
    rows = [(name, labels[number % len(labels)]) for number, (name, _) in enumerate(flat(tmp_path, 16))]
    data = open_data(write(tmp_path / "all.csv", rows))
    assert set(data.class_names) == set(map(str, labels))
    assert not data.notes


def test_a_label_for_each_row_is_not_a_class(tmp_path):
    rows = [(name, 20 + number) for number, (name, _) in enumerate(flat(tmp_path))]
    assert "8 different labels in 8 rows, such as '20': these are not classes" in error(
        write(tmp_path / "all.csv", rows)
    )


def test_labels_with_fractions_are_noted(tmp_path):
    rows = [(name, ["0.0", "0.5", "1.0"][number % 3]) for number, (name, _) in enumerate(flat(tmp_path, 12))]
    data = open_data(write(tmp_path / "all.csv", rows))
    assert data.class_names == ("0", "0.5", "1")
    assert data.notes == ("labels with fractions are classes: 0.5",)


@KINDS
@pytest.mark.parametrize("sets", [("ab", "bc", "ac"), ("ab", "bc", "c", "a")])
@pytest.mark.parametrize("separator", [" ", ", ", ";", "|", "+"])
def test_several_labels_in_a_cell_are_refused(tmp_path, monkeypatch, kind, separator, sets):
    monkeypatch.chdir(tmp_path)
    labels = [separator.join(parts) for parts in sets]
    rows = [(name, labels[number % len(labels)]) for number, (name, _) in enumerate(flat(tmp_path, 12))]
    quoted = [(name, f'"{label}"') for name, label in rows] if kind == "csv" else rows
    message = error(held(kind, tmp_path, quoted, ("path", "label")))
    assert f"labels of the same parts in any order, such as 'a{separator}b'" in message


@pytest.mark.parametrize(
    ("labels", "noted"),
    [
        (("golden retriever", "labrador retriever", "sea lion"), False),
        (("tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark, white shark"), False),
        (("animalia;aves;corvus", "animalia;aves;parus", "animalia;reptilia;lacerta"), False),
        (("hot dog", "dog", "sea lion"), False),
        (("black cat", "white cat", "black dog", "white dog"), True),
        (("cat|dog", "cat", "bird"), True),
        (("animal;cat", "animal;dog", "animal"), True),
    ],
)
def test_names_of_several_words_are_classes(tmp_path, labels, noted):
    rows = [(name, f'"{labels[number % len(labels)]}"') for number, (name, _) in enumerate(flat(tmp_path, 16))]
    data = open_data(write(tmp_path / "all.csv", rows))
    assert set(data.class_names) == set(labels)
    assert ["each of these is one class" in note for note in data.notes] == [True] * noted


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_two_numbers_of_one_class_name_are_noted(tmp_path, suffix):
    rows = [(name, "crane" if at % 3 else "hen", (at % 3) + 133) for at, (name, _) in enumerate(flat(tmp_path))]
    header = ("file", "class_name", "class_id")
    path = tmp_path / f"all.{suffix}"
    if suffix == "csv":
        write(path, rows, header)
    elif suffix == "json":
        path.write_text(json.dumps([dict(zip(header, row, strict=True)) for row in rows]))
    else:
        columns = zip(*rows, strict=True)
        parquet.write_table(pyarrow.table({k: list(v) for k, v in zip(header, columns, strict=True)}), path)
    assert open_data(path).notes == (
        "several numbers in 'class_id' are one class: 'crane' (134, 135); "
        "to keep them apart: --set label_column=class_id",
    )
    assert open_data(path, DataOptions(label_column="class_id")).class_names == ("133", "134", "135")
