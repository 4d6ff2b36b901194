"""The classes of the splits are compared: what differs is an error or a note, for any number of classes."""

import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.data.encoding import encoded, photo
from vitreous.data.sources.assemble import class_notes
from vitreous.data.sources.open import open_data
from vitreous.support.errors import InputError


def test_many_classes_are_compared_in_linear_time():
    names = [f"class {number}" for number in range(20_000)]
    classes = {name: ["0.png"] for name in names}
    begin = time.perf_counter()
    assert class_notes("photos", {"train": classes, "validation": classes, "test": classes}, names) == []
    assert time.perf_counter() - begin < 5  # some 0.1 s; the square of 20,000 takes minutes


def test_classes_that_differ_in_case_or_spaces_between_splits_are_errors():
    with pytest.raises(InputError, match="has ' cat' in test, but 'Cat' in train: they differ only in case or spaces"):
        class_notes("photos", {"train": {"Cat": ["0"], "dog": ["0"]}, "test": {" cat": ["1"]}}, ["Cat", "dog"])
    names = ["Cat", "CAT", "dog"]
    notes = class_notes("photos", {"train": {name: ["0"] for name in names}, "test": {"CAT": ["1"]}}, names)
    assert notes == [
        "test has no images of 'Cat', 'dog'",
    ]


def test_a_folder_of_heic_names_the_extra_once(tmp_path, monkeypatch):
    for name in ("a/0", "a/1", "b/0", "b/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.heic").write_bytes(encoded(photo(), "HEIF"))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match=r"none of 2 images .* is a HEIC image") as error:
        open_data(tmp_path)
    assert error.value.cause.count("pip install") == 1
    assert error.value.hint == "pip install '.[photos]' in a clone of vitreous, or save it as JPEG"


def test_classes_that_train_lacks_are_listed():
    with pytest.raises(InputError, match="has 'fox', 'zebra' in test but not in train"):
        class_notes("photos", {"train": {"a": ["0"], "b": ["0"]}, "test": {"zebra": ["1"], "fox": ["2"]}}, ["a", "b"])


@pytest.mark.parametrize(("kind", "most", "words"), [(np.float32, 1, "floating-point"), (np.uint16, 4095, "16-bit")])
def test_the_range_of_deep_images_is_noted_with_their_kind(tmp_path, kind, most, words):
    for name in ("a/0", "a/1", "b/0", "b/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pixels = np.linspace(0, most, 64).reshape(8, 8).astype(kind)
        Image.fromarray(pixels).save(tmp_path / f"{name}.tif")
    (note,) = open_data(tmp_path).notes
    assert note.startswith(f"{words} images: values 0..{most} become 0..255 (from 2 training images;")


@pytest.mark.parametrize(("most", "named"), [(255.0, True), (1.0, False), (20.0, False)])
def test_floats_of_two_ranges_are_noted(tmp_path, most, named):
    for kind, scale in (("ant", 1.0), ("bee", most)):
        (tmp_path / kind).mkdir()
        for number in range(4):
            pixels = np.full((8, 8), scale * (1 - number / 10), np.float32)
            Image.fromarray(pixels).save(tmp_path / kind / f"{number}.tif")
    notes = [note for note in open_data(tmp_path).notes if "largest value" in note]
    assert len(notes) == named
    if named:
        assert "in 'ant/" in notes[0]
        assert "but 255 in 'bee/" in notes[0]
