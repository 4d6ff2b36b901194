"""Tables in text and JSON of any usual form are read, and others are named in one line."""

import json

import pytest

from tests.data.sources.packing import splits_of, tree
from tests.data.sources.tabular.writing import ROWS, error, flat, labels_of, write
from vitreous.data.sources.open import open_data

SPLIT = ("path", "label", "split")
OBJECTS = [{"file_name": name, "label": label} for name, label in ROWS]


@pytest.mark.parametrize("header", [None, ("path", "label")])
@pytest.mark.parametrize("separator", [" ", "   ", "\t", ",", ";"])
@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_usual_separators(tmp_path, suffix, separator, header):
    table = write(tree(tmp_path) / f"all.{suffix}", ROWS, header, separator)
    assert labels_of(open_data(table)) == dict(ROWS)


def test_a_list_of_paths_and_numbers(tmp_path):
    """As the lists of ImageNet: train.txt and val.txt, and some paths with spaces."""
    for split in ("train", "val"):
        rows = flat(tmp_path / split / "a b")
        write(tmp_path / f"{split}.txt", [(f"a b/{name}", len(label)) for name, label in rows], None, " ")
    data = open_data(tmp_path / "train.txt")
    assert data.class_names == ("3", "4")
    assert data.notes == (
        "the table has no header; its columns are read as path, label",
        "val.txt is read as the validation split",
    )
    assert set(splits_of(data)[1].names) == {f"val/a b/{name}" for name, _ in rows}


def test_labels_of_several_words_need_commas(tmp_path):
    rows = [(name, "golden retriever") for name, _ in flat(tmp_path)]
    assert "separate the cells with commas" in error(write(tmp_path / "all.txt", rows, None, " "))
    quoted = [(name, f'"{label} retriever"') for name, label in flat(tmp_path)]
    data = open_data(write(tmp_path / "all.txt", quoted, ("path", "label"), " "))
    assert data.class_names == ("even retriever", "odd retriever")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(OBJECTS),
        json.dumps(dict(ROWS)),
        json.dumps(OBJECTS, indent=1),
        "\n".join(map(json.dumps, OBJECTS)),
    ],
    ids=["list", "mapping", "indented", "lines"],
)
def test_json(tmp_path, text):
    (tree(tmp_path) / "all.json").write_text(text)
    assert labels_of(open_data(tmp_path / "all.json")) == dict(ROWS)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"images": [], "annotations": [], "categories": []}, "in COCO's format, for detection"),
        ({"path": {"0": "a.png"}, "label": {"0": "a"}}, "not a list of JSON objects"),
        ([["a.png", 0]], "not a list of JSON objects"),
        ([], "has no rows"),
        ({}, "has no rows"),
        ([{"path": ["a.png"], "label": 1}, {"path": "b.png", "label": 2}], "a path in"),
        ([{"path": "a.png"}], "no column of labels"),
    ],
)
def test_json_of_other_forms_is_one_line(tmp_path, value, words):
    (tmp_path / "all.json").write_text(json.dumps(value))
    assert words in error(tmp_path / "all.json")


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize(
    "content", [b"{", b"[" * 100_000, b"[1]", b"\xff\xfe\xfd", b"", b'{"path": 1}', b"1 2", b"NaN"]
)
def test_hostile_json_is_one_line(tmp_path, content, suffix):
    (tmp_path / f"all.{suffix}").write_bytes(content)
    assert error(tmp_path / f"all.{suffix}")


@pytest.mark.parametrize("name", ["all.xlsx", "all.FEATHER", "all.xml"])
def test_tables_of_other_formats_name_those_that_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"content")
    message = error(tmp_path / name)
    assert "is not a folder, an archive or a table; save it as a table that can be read: .csv, .tsv, .txt, " in message


def test_labels_of_test_are_next_to_those_of_train(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"{split}_labels.csv", flat(tmp_path / f"{split}_images"))
    write(tmp_path / "test.csv", [("000",)], ("id",))
    data = open_data(tmp_path / "train_labels.csv")
    assert set(data.test.names) == {f"test_images/{number:03}.png" for number in range(8)}
    assert data.notes[0] == "test_labels.csv is read as the test split"


def test_a_quote_that_is_not_closed_swallows_no_rows(tmp_path):
    rows = [*ROWS[:3], (ROWS[3][0], f'"{ROWS[3][1]}'), *ROWS[4:]]
    message = error(write(tree(tmp_path) / "all.csv", rows))
    assert f"ends a cell of {len(ROWS) - 3} lines that begins with {ROWS[3][1]!r}" in message
    rows = [(name, label, f'"a\nnote, on {name}"') for name, label in ROWS]  # in a column that is not read
    assert labels_of(open_data(write(tmp_path / "all.csv", rows, ("path", "label", "note")))) == dict(ROWS)


def test_names_of_columns_in_the_middle_are_no_row(tmp_path):
    """As of tables that were joined with cat."""
    rows = [*ROWS[:3], ("path", " label"), *ROWS[3:], ("path", "label")]
    data = open_data(write(tree(tmp_path) / "all.csv", rows))
    assert labels_of(data) == dict(ROWS)
    assert "left out 2 rows that only repeat the names of the columns" in data.notes


def test_a_path_with_two_labels_in_json_is_refused(tmp_path):
    text = json.dumps(dict(ROWS))[:-1]
    name, label = ROWS[0]
    (tree(tmp_path) / "all.json").write_text(f'{text}, "{name}": "other"}}')
    assert f"has {name!r} twice, with different values" in error(tmp_path / "all.json")
    (tmp_path / "all.json").write_text(f'{text}, "{name}": "{label}"}}')
    assert labels_of(open_data(tmp_path / "all.json")) == dict(ROWS)


def test_a_table_called_test_that_is_trained_on_is_named(tmp_path):
    table = write(tree(tmp_path) / "test.csv")
    assert "test.csv is called test, but all its rows are for training" in open_data(table).notes
    write(tmp_path / "train.csv", [(*row, "train" if at % 4 else "val") for at, row in enumerate(ROWS)], SPLIT)
    assert "not used, since train.csv has a column of splits: test.csv" in open_data(tmp_path / "train.csv").notes
    assert not open_data(write(tmp_path / "all.csv")).notes
