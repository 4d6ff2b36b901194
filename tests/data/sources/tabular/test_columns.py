"""Columns of splits, folds and boxes, and labels that are not classes."""

import pandas
import pytest

from tests.data.sources.packing import tree
from tests.data.sources.tabular.writing import ROWS, error, flat, write
from vitreous.data.sources.open import open_data


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


@pytest.mark.parametrize("in_frame", [False, True])
def test_folds_and_more_columns_of_splits_are_named(tmp_path, monkeypatch, in_frame):
    monkeypatch.chdir(tree(tmp_path))
    rows = [(*row, number % 3, number % 2, 0) for number, row in enumerate(ROWS)]
    header = ("path", "label", "kfold", "is_train", "is_valid")
    data = open_data(pandas.DataFrame(rows, columns=header) if in_frame else write(tmp_path / "all.csv", rows, header))
    assert data.notes == (
        "the folds in 'kfold' are not used; to validate on one, write a column split",
        "columns of splits that are not used: 'is_valid'",
    )


def test_boxes_of_single_images_are_noted(tmp_path):
    rows = [(*row, 1, 2, 3, 4) for row in ROWS]
    data = open_data(write(tree(tmp_path) / "all.csv", rows, ("path", "label", "xmin", "ymin", "xmax", "ymax")))
    assert ["boxes" in note for note in data.notes] == [True]


@pytest.mark.parametrize("in_frame", [False, True])
@pytest.mark.parametrize("missing", [-1, -1.0])
def test_minus_one_is_no_label(tmp_path, monkeypatch, in_frame, missing):
    monkeypatch.chdir(tmp_path)
    rows = [(name, [0, 1, missing][number % 3]) for number, (name, _) in enumerate(flat(tmp_path, 12))]
    header = ("path", "label")
    data = open_data(pandas.DataFrame(rows, columns=header) if in_frame else write(tmp_path / "all.csv", rows, header))
    assert data.class_names == ("0", "1")
    assert data.ignored == {"row without a label": 4}
    assert data.notes[0] == "the label -1 means no label"


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
