"""Tables of paths and labels give the samples of the folder they describe, and what is wrong with them is named."""

import csv
import json
import random

import pyarrow
import pytest
from pyarrow import parquet

from tests.data.sources.packing import CLASSES, all_names, content_of, splits_of, tree
from tests.data.sources.tabular.writing import ROWS, error, flat, labels_of, write
from vitreous.data.decoding.images import decode_image
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.tabular.tables import find_tables
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.run import run_name

# ---- the same samples as a folder


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_gives_the_samples_of_the_folder(tmp_path, suffix):
    folder = tree(tmp_path / "photos")
    path = folder / f"all.{suffix}"
    rows = random.Random(1).sample(ROWS, len(ROWS))  # in any order
    if suffix == "jsonl":
        path.write_text("".join(json.dumps({"file_name": name, "label": label}) + "\n" for name, label in rows))
    elif suffix == "parquet":
        parquet.write_table(pyarrow.table({"path": [r[0] for r in rows], "label": [r[1] for r in rows]}), path)
    else:
        write(path, rows, separator="\t" if suffix == "tsv" else ",")
    data, expected = open_data(path), open_data(tree(tmp_path / "same"))
    assert data.class_names == expected.class_names
    assert labels_of(data) == labels_of(expected)
    assert data.native_size == expected.native_size
    assert not data.notes


def test_every_row_has_its_own_pixels(tmp_path):
    folder = tree(tmp_path)
    data = open_data(write(folder / "all.csv"))
    for split in splits_of(data):
        for at, name in enumerate(split.names):
            assert split.load(at).tobytes() == decode_image(content_of(name)).tobytes()
            assert split.load.content(at) == content_of(name)


def test_a_table_is_hashed_like_any_source(tmp_path):
    folder = tree(tmp_path)
    first = open_data(write(folder / "all.csv"))
    again = open_data(write(folder / "again.csv", reversed(ROWS)))
    assert first.validation.names == again.validation.names
    assert len(first.validation) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"separator": ";"},
        {"separator": "|"},
        {"encoding": "utf-8-sig"},
        {"encoding": "utf-16"},
        {"end": "\r\n"},
        {"after": "\n \n\n"},
        {"before": "# labels of 2019\n\n"},
        {"after": "# the end\n"},
        {"header": ("  Path ", "LABEL")},
        {"header": ("File Name", "Species")},
        {"header": ("image_id", "class")},
        {"header": ("id", "anything")},
        {"header": None},
    ],
    ids=str,
)
def test_usual_ways_of_writing_a_table(tmp_path, changes):
    folder = tree(tmp_path)
    assert labels_of(open_data(write(folder / "all.csv", **changes))) == dict(ROWS)


def test_quoted_cells_may_have_separators_and_newlines(tmp_path):
    names = ['ant/a, "b".png', "bee/1.png", "ant/2.png", "bee/3.png"]
    tree(tmp_path, names)
    with (tmp_path / "all.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("path", "comment", "label"), *((name, "one\ntwo", name[:3]) for name in names)])
    assert labels_of(open_data(tmp_path / "all.csv")) == {name: name[:3] for name in names}


def test_latin_letters_are_read_and_noted(tmp_path):
    folder = tree(tmp_path)
    path = write(folder / "all.csv", [(name, label.replace("e", "é")) for name, label in ROWS], encoding="latin-1")
    data = open_data(path)
    assert data.class_names == ("ant", "béé")
    assert "Windows-1252" in data.notes[0]


def test_tables_are_found_in_order(tmp_path):
    for name in ("b.csv", "train.CSV", "a.parquet", "notes.txt", ".hidden.csv"):
        (tmp_path / name).touch()
    assert find_tables(tmp_path) == ["a.parquet", "b.csv", "notes.txt", "train.CSV"]


# ---- columns


def test_the_columns_can_be_named(tmp_path):
    rows = [(label, name, "train" if number % 3 else "test") for number, (name, label) in enumerate(ROWS)]
    path = write(tree(tmp_path) / "all.csv", rows, ("kind", "where", "part"))
    data = open_data(path, DataOptions(path_column="where", label_column="kind", split_column="part"))
    assert labels_of(data) == dict(ROWS)
    assert data.test is not None
    message = error(path)
    assert "no column of images" in message
    assert "--set path_column=" in message
    assert "'kind', 'where', 'part'" in message
    assert "no column 'wher'" in error(path, path_column="wher")


def test_several_columns_that_may_be_meant_are_listed(tmp_path):
    path = write(tree(tmp_path) / "all.csv", [(*row, row[1]) for row in ROWS], ("path", "label", "class"))
    message = error(path)
    assert "several columns that may hold the labels: 'label', 'class'" in message
    assert "--set label_column=label" in message
    assert labels_of(open_data(path, DataOptions(label_column="class"))) == dict(ROWS)


def test_a_name_is_preferred_to_a_number(tmp_path):
    rows = [(number, name, 7, label) for number, (name, label) in enumerate(ROWS)]
    path = write(tree(tmp_path) / "all.csv", rows, ("id", "file_name", "class_id", "class_name"))
    assert labels_of(open_data(path)) == dict(ROWS)


def test_a_column_for_each_class(tmp_path):
    rows = [(name, int(label == "ant"), int(label == "bee")) for name, label in ROWS]
    path = write(tree(tmp_path) / "all.csv", rows, ("image", "ant", "bee"))
    assert labels_of(open_data(path)) == dict(ROWS)
    several = write(tmp_path / "several.csv", [*rows, (ROWS[0][0], 1, 1)], ("image", "ant", "bee"))
    assert "row 18" in error(several)
    assert "2 classes, ant, bee" in error(several)
    none = write(tmp_path / "none.csv", [*rows, (ROWS[0][0], 0, 0)], ("image", "ant", "bee"))
    assert "0 classes" in error(none)


def test_boxes_are_refused_if_an_image_has_several(tmp_path):
    folder = tree(tmp_path)
    boxes = [(name, label, 1, 2, 3, 4) for name, label in ROWS]
    header = ("path", "label", "xmin", "ymin", "xmax", "ymax")
    assert labels_of(open_data(write(folder / "one.csv", boxes, header))) == dict(ROWS)
    several = write(folder / "two.csv", [*boxes, (ROWS[0][0], "bee", 1, 2, 3, 4)], header)
    assert "boxes are for detection" in error(several)


# ---- splits


def test_a_column_of_splits(tmp_path):
    splits = ["train", "TRAIN", " val", "test"]
    rows = [(*row, splits[number % 4]) for number, row in enumerate(ROWS)]
    data = open_data(write(tree(tmp_path) / "all.csv", rows, ("path", "label", "Data Set")))
    assert [len(split) for split in splits_of(data)] == [8, 4, 4]
    assert labels_of(data) == dict(ROWS)
    assert set(data.test.names) == {name for name, _, split in rows if split == "test"}


def test_a_column_of_zeros_and_ones(tmp_path):
    rows = [(*row, number % 2) for number, row in enumerate(ROWS)]
    data = open_data(write(tree(tmp_path) / "all.csv", rows, ("path", "label", "is_train")))
    assert set(data.test.names) == {name for name, _, train in rows if not train}


def test_a_column_without_splits_is_not_used_unless_it_is_named(tmp_path):
    rows = [(*row, f"camera {number % 3}") for number, row in enumerate(ROWS)]
    path = write(tree(tmp_path) / "all.csv", rows, ("path", "label", "set"))
    data = open_data(path)
    assert data.test is None
    assert "'set' is not used" in data.notes[0]
    assert "no training rows" in error(path, split_column="set")


def test_rows_of_unknown_splits_are_left_out_and_noted(tmp_path):
    rows = [(*row, "extra" if number in (1, 9) else "train") for number, row in enumerate(ROWS)]
    data = open_data(write(tree(tmp_path) / "all.csv", rows, ("path", "label", "split")))
    assert len(all_names(data)) == 14
    assert data.notes == ("2 rows left out, where 'split' is not a split: 'extra'",)


def test_an_image_in_two_splits_is_a_leak(tmp_path):
    rows = [(*row, "train") for row in ROWS] + [(*ROWS[3], "test")]
    message = error(write(tree(tmp_path) / "all.csv", rows, ("path", "label", "split")))
    assert "in two splits: 'ant/3.png' is in train and test" in message


def test_tables_of_other_splits_next_to_train(tmp_path):
    folder = tree(tmp_path, [f"{split}/{number}.png" for split in ("train", "test") for number in range(8)])
    rows = [(number, "even" if number % 2 == 0 else "odd") for number in range(8)]
    write(folder / "train.csv", rows, ("id", "label"))
    write(folder / "test.csv", rows, ("id", "label"))
    write(folder / "sample_submission.csv", rows, ("id", "label"))
    data = open_data(folder / "train.csv")
    assert set(data.test.names) == {f"test/{number}.png" for number in range(8)}
    assert all(name.startswith("train/") for split in (data.train, data.validation) for name in split.names)
    assert data.notes == ("test.csv is read as the test split",)


@pytest.mark.parametrize("header", [("id", "label"), ("id",)])
def test_a_table_of_test_without_labels_is_left_out(tmp_path, header):
    folder = tree(tmp_path, [f"{split}/{number}.png" for split in ("train", "test") for number in range(8)])
    write(folder / "train.csv", [(n, "even" if n % 2 == 0 else "odd") for n in range(8)], ("id", "label"))
    write(folder / "test.csv", [(number, "")[: len(header)] for number in range(8)], header)
    data = open_data(folder / "train.csv")
    assert data.test is None
    assert any("test" in note and ("no labels" in note or "not used" in note) for note in data.notes)


# ---- labels


def test_numbers_are_in_natural_order(tmp_path):
    rows = [(name, number % 11) for number, (name, _) in enumerate(flat(tmp_path, 22))]
    assert open_data(write(tmp_path / "all.csv", rows)).class_names == tuple(map(str, range(11)))


def test_numbers_that_pandas_wrote_with_a_fraction(tmp_path):
    rows = [(name, "" if number == 5 else f"{number % 2}.0") for number, (name, _) in enumerate(flat(tmp_path))]
    data = open_data(write(tmp_path / "all.csv", rows))
    assert data.class_names == ("0", "1")
    assert data.ignored == {"row without a label": 1}


def test_leading_zeros_stay_apart_and_are_noted(tmp_path):
    rows = [(name, ["1", "01", "Cat", "cat"][number % 4]) for number, (name, _) in enumerate(flat(tmp_path, 16))]
    data = open_data(write(tmp_path / "all.csv", rows))
    assert set(data.class_names) == {"1", "01", "Cat", "cat"}
    notes = [note for note in data.notes if "differ" in note]
    assert notes == ["classes that differ only in leading zeros stay apart: '01', '1'"]


@pytest.mark.parametrize("missing", ["", " ", "NaN", "nan", "<NA>", "null"])
def test_rows_without_a_label_are_left_out(tmp_path, missing):
    rows = flat(tmp_path)
    rows[2] = (rows[2][0], missing)
    data = open_data(write(tmp_path / "all.csv", rows))
    assert data.class_names == ("even", "odd")
    assert len(all_names(data)) == 7
    assert data.ignored == {"row without a label": 1}
    assert not data.notes


def test_none_may_be_a_class(tmp_path):
    rows = [(name, label.replace("odd", "None")) for name, label in flat(tmp_path)]
    assert open_data(write(tmp_path / "all.csv", rows)).class_names == ("even", "None")


def test_several_labels_are_refused(tmp_path):
    rows = [(name, ["scab", "rust", "scab rust"][number % 3]) for number, (name, _) in enumerate(flat(tmp_path, 12))]
    message = error(write(tmp_path / "all.csv", rows))
    assert "'scab rust' next to 'scab', 'rust'" in message
    assert "only one label" in message
    lists = [(name, ["['dog']", "['cat']"][number % 2]) for number, (name, _) in enumerate(rows)]
    assert "a list; " in error(write(tmp_path / "lists.csv", lists))
    path = tmp_path / "all.jsonl"
    path.write_text("\n".join(json.dumps({"path": name, "label": ["a", "b"]}) for name, _ in rows))
    assert "lists" in error(path)


def test_measurements_are_not_classes(tmp_path):
    rows = [(name, f"{number + 0.25}") for number, (name, _) in enumerate(flat(tmp_path, 24))]
    assert "fractions" in error(write(tmp_path / "all.csv", rows))


def test_an_image_with_two_labels_is_refused(tmp_path):
    rows = flat(tmp_path)
    message = error(write(tmp_path / "all.csv", [*rows, (rows[0][0], "odd")]))
    assert "'000.png' has two labels" in message
    assert "'even' and 'odd'" in message


def test_repeated_rows_count_once(tmp_path):
    rows = flat(tmp_path)
    data = open_data(write(tmp_path / "all.csv", [*rows, rows[0], rows[1]]))
    assert sum(map(len, data.splits)) == 8
    assert not data.notes
    assert data.ignored == {"row of an image that an earlier row has": 2}


# ---- hostile and broken tables


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no rows"),
        (b"path,label\n", "no rows"),
        (b"path,label\na.png,\0\n", "cannot be read"),
        (b"path,label\n" + b'"' + b"x" * 300_000 + b'",1\n', "field larger"),
        (b"path,label\n" + b"x" * 2_000_000, "line of more than"),
        (b"path,label\na.png,cat,dog\n", "3 cells"),
        (b"path,path,label\na,b,c\n", "several columns"),
        (b",".join(b"p%d" % number for number in range(20_000)) + b"\n1\n", "20,000 columns"),
        (b"label,pixel0,pixel1\n3,17,255\n", "no column of images"),
        (b"path,label\n=cmd|' /C calc'!A0,1\n", "lists 1 image, but none is in"),
        (b"path,label\n\x1b[31m.png,1\n", "lists 1 image, but none is in"),
    ],
)
def test_a_hostile_table_is_one_line(tmp_path, content, words):
    (tmp_path / "all.csv").write_bytes(content)
    assert words in error(tmp_path / "all.csv")


def test_a_short_row_has_no_label(tmp_path):
    rows = flat(tmp_path)
    data = open_data(write(tmp_path / "all.csv", [*rows[:-1], (rows[-1][0],)]))
    assert data.ignored == {"row without a label": 1}


def test_settings_of_a_table_reach_it(tmp_path):
    settings = {"path_column": "where", "label_column": "kind", "split_column": "part"}
    options = Recipe().with_settings(settings).data.options
    assert (options.path_column, options.label_column, options.split_column) == ("where", "kind", "part")


def test_columns_are_of_tables_only(tmp_path):
    assert "is not a table" in error(tree(tmp_path), label_column="kind")


def test_a_table_that_does_not_exist(tmp_path):
    assert "does not exist" in error(tmp_path / "all.csv", label_column="kind")


def test_two_tables_of_a_split_are_refused(tmp_path):
    folder = tree(tmp_path)
    for name in ("train", "val", "valid"):
        write(folder / f"{name}.csv")
    assert "two tables of validation: val.csv, valid.csv" in error(folder / "train.csv")


def test_a_table_of_real_photos_gives_the_samples_of_their_folder(data_folder, tmp_path):
    folder = tmp_path / "ants_bees"
    folder.symlink_to(data_folder / "ants_bees")
    paths = [path.relative_to(folder.resolve()) for path in folder.resolve().rglob("*.jp*g")]
    rows = [(f"ants_bees/{path}", path.parts[1], path.parts[0]) for path in paths]
    table = write(tmp_path / "all.csv", rows, ("path", "label", "split"))
    data, expected = open_data(table, DataOptions(follow_links=True)), open_data(folder)
    for split, other in zip(splits_of(data), splits_of(expected), strict=True):
        assert split.names == tuple(f"ants_bees/{name}" for name in other.names)
        assert split.labels.tolist() == other.labels.tolist()
        assert split.load(0).tobytes() == other.load(0).tobytes()


def test_the_command_trains_on_a_table(tmp_path, vitreous_process):
    folder = tree(tmp_path / "photos", [f"train/{name}" for name in CLASSES])
    write(folder / "train.csv", ROWS, ("file", "class"))
    settings = ["epochs=1", "warmup_epochs=0", "image_size=16", "patch_size=8", "label_column=class"]
    words = [word for setting in settings for word in ("--set", setting)]
    result = vitreous_process("train", "photos/train.csv", "--model", "Ti/16", *words, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "runs" / "photos" / "model.safetensors").is_file()
    assert "vitreous predict runs/photos photos/train/" in result.stdout
    recipe = (tmp_path / "runs" / "photos" / "recipe.toml").read_text()
    assert 'label_column = "class"' in recipe


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("photos", "photos"),
        ("a/photos.zip", "photos"),
        ("photos.tar.gz", "photos"),
        ("photos.tgz", "photos"),
        ("photos/train.csv", "photos"),
        ("photos/train.txt", "photos"),
        ("photos/train", "train"),
        ("flowers.PARQUET", "flowers"),
        ("v1.2", "v1.2"),
        ("shards/train-{000..099}.tar", "shards"),
        ("hf:me/photos@main:small", "photos"),
        ("/", "images"),
    ],
)
def test_names_of_runs(source, name):
    assert run_name(source) == name
