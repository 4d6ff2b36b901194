"""DataFrames are read like tables, with paths, bytes or pixels in the column of images."""

import numpy as np
import pandas
import pyarrow
import pytest
from PIL import Image

import vitreous as vt
from tests.data.sources.packing import CLASSES, all_names, content_of, tree
from vitreous.data.decoding.images import decode_image
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.support.errors import InputError

LABELS = [name.partition("/")[0] for name in CLASSES]


def samples(data):
    """The pixels and the class name of each sample by its name."""
    return {
        name: (split.load(at).tobytes(), data.class_names[split.labels[at]])
        for split in data.splits
        for at, name in enumerate(split.names)
    }


def expected(name):
    return decode_image(content_of(name)).tobytes(), name[:3]


def error(source, **options):
    with pytest.raises(InputError) as raised:
        open_data(source, DataOptions(**options))
    assert str(raised.value).isprintable()
    assert raised.value.hint
    return str(raised.value)


@pytest.mark.parametrize("kind", ["str", "numpy", "Path", "absolute", "arrow"])
def test_paths_in_a_frame(tmp_path, monkeypatch, kind):
    folder = tree(tmp_path)
    monkeypatch.chdir(folder)
    paths = {
        "numpy": pandas.Series([np.str_(name) for name in CLASSES], dtype=object),
        "Path": [folder / name for name in CLASSES],
        "absolute": [str(folder / name) for name in CLASSES],
    }
    columns = {"Image Path": paths.get(kind, CLASSES), "label": LABELS}
    data = open_data(pyarrow.table(columns) if kind == "arrow" else pandas.DataFrame(columns))
    found = samples(data)
    assert len(found) == len(CLASSES)
    for name, sample in found.items():
        assert sample == expected(name.removeprefix(f"{folder}/"))
    assert data.name == "dataframe"
    assert data.class_names == ("ant", "bee")


@pytest.mark.parametrize("kind", ["bytes", "PIL", "array", "dict"])
def test_images_in_a_frame(kind):
    convert = {
        "bytes": lambda content: content,
        "PIL": decode_image,
        "array": lambda content: np.asarray(decode_image(content)),
        "dict": lambda content: {"bytes": content, "path": None},
    }[kind]
    data = open_data(pandas.DataFrame({"image": [convert(content_of(n)) for n in CLASSES], "label": LABELS}))
    assert samples(data) == {f"row {row:08}": expected(name) for row, name in enumerate(CLASSES)}


def test_a_column_of_splits_and_missing_values(tmp_path, monkeypatch):
    monkeypatch.chdir(tree(tmp_path))
    frame = pandas.DataFrame({"path": CLASSES, "label": LABELS, "split": ["train", "test"] * 8})
    frame.loc[0, "label"] = None
    frame.loc[1, "label"] = float("nan")
    frame["label"] = frame["label"].astype("category")
    frame.loc[2, "path"] = pandas.NA
    data = open_data(frame)
    assert data.class_names == ("ant", "bee")
    assert set(data.test.names) == set(CLASSES[3::2])
    assert data.ignored == {"row without a label": 2, "row without an image": 1}


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1] * 8, ("0", "1")),
        ([2, 10] * 8, ("2", "10")),
        ([0.0, 1.0] * 7 + [0.0, float("nan")], ("0", "1")),
        ([True, False] * 8, ("False", "True")),
        (pandas.array([1, 2] * 7 + [1, pandas.NA], dtype="Int64"), ("1", "2")),
        (np.array([b"x", b"y"] * 8), ("x", "y")),
    ],
    ids=["numbers", "natural order", "floats", "bools", "nullable", "bytes"],
)
def test_kinds_of_labels(tmp_path, monkeypatch, labels, names):
    monkeypatch.chdir(tree(tmp_path))
    data = open_data(pandas.DataFrame({"path": CLASSES, "target": labels}))
    assert data.class_names == names


def test_a_column_for_each_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tree(tmp_path))
    one = [int(label == "ant") for label in LABELS]
    frame = pandas.DataFrame({"path": CLASSES, "ant": one, "bee": [1 - number for number in one]})
    for name, sample in samples(open_data(frame)).items():
        assert sample == expected(name)
    frame.loc[3, "bee"] = 1
    assert "2 classes" in error(frame)


def test_frames_by_split(tmp_path, monkeypatch):
    monkeypatch.chdir(tree(tmp_path))
    frame = pandas.DataFrame({"path": CLASSES, "label": LABELS})
    data = open_data({"train": frame[::2], "test": frame[1::2]})
    assert set(data.test.names) == set(CLASSES[1::2])
    data = open_data((frame[::2], frame[1::2]))
    assert set(data.validation.names) == set(CLASSES[1::2])
    assert "in two splits" in error((frame, frame[:1]))
    assert "same kind" in error((frame, [(1, 2)]))


def test_a_missing_file_does_not_search_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tree(tmp_path))
    frame = pandas.DataFrame({"path": [*CLASSES[:-1], "7.png"], "label": LABELS})
    data = open_data(frame)
    assert data.notes == ("1 image missing, counted as broken: '7.png'",)
    assert "7.png" in all_names(data)


def test_frames_that_cannot_be_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tree(tmp_path))
    frame = pandas.DataFrame({"path": CLASSES, "label": LABELS})
    assert "empty" in error(frame[:0])
    assert "no column of labels" in error(frame.assign(a=1, b=2, c="x").drop(columns=["label", "a", "b"]).assign(d="y"))
    assert "several columns" in error(pandas.concat([frame, frame], axis=1))
    assert "no column 'where'" in error(frame, path_column="where")
    assert "paths and other objects" in error(frame.assign(path=[*CLASSES[:-1], b"x"]))
    floats = pandas.DataFrame({"image": [np.zeros((4, 4, 3))] * 16, "label": LABELS})
    assert "array of floats; give uint8 pixels from 0 to 255" in error(floats)
    message = error(frame.assign(path=[f"none/{name}" for name in CLASSES]))
    assert f"lists 16 images, but none is in {str(tmp_path)!r}" in message
    assert "paths relative to this working folder" in message
    assert "lists" in error(frame.assign(label=[["a", "b"]] * 16))


def test_train_takes_a_frame(tmp_path, monkeypatch):
    monkeypatch.chdir(tree(tmp_path))
    settings = {"epochs": 1, "batch_size": 8, "warmup_epochs": 0, "image_size": 16, "patch_size": 8}
    frame = pandas.DataFrame({"path": CLASSES, "label": LABELS})
    assert vt.train(frame, "Ti/16", settings=settings).class_names == ("ant", "bee")
    assert (tmp_path / "runs" / "dataframe" / "model.safetensors").is_file()


def test_images_of_a_program_are_decoded_again_for_each_view():
    frame = pandas.DataFrame(
        {"image": [Image.new("RGB", (4, 4), (row, 0, 0)) for row in range(8)], "label": [0, 1] * 4}
    )
    data = open_data(frame)
    first = data.train.load(0)
    first.putpixel((0, 0), (255, 255, 255))
    assert data.train.load(0).getpixel((0, 0)) != (255, 255, 255)
