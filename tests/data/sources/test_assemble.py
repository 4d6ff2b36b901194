"""The classes of the splits are compared: what differs is an error or a note, for any number of classes."""

import time

import pytest

from vitreous.data.sources.assemble import class_notes
from vitreous.support.errors import InputError


def test_many_classes_are_compared_in_linear_time():
    names = [f"class {number}" for number in range(20_000)]
    classes = {name: ["0.png"] for name in names}
    begin = time.perf_counter()
    assert class_notes("photos", {"train": classes, "validation": classes, "test": classes}, names) == []
    assert time.perf_counter() - begin < 5  # some 0.1 s; the square of 20,000 takes minutes


def test_classes_that_differ_in_case_or_spaces_are_errors_between_splits_and_notes_in_one():
    with pytest.raises(InputError, match="has ' cat' in test, but 'Cat' in train: they differ only in case or spaces"):
        class_notes("photos", {"train": {"Cat": ["0"], "dog": ["0"]}, "test": {" cat": ["1"]}}, ["Cat", "dog"])
    names = ["Cat", "CAT", "dog"]
    notes = class_notes("photos", {"train": {name: ["0"] for name in names}, "test": {"CAT": ["1"]}}, names)
    assert notes == [
        "two classes, 'Cat' and 'CAT', differ only in case or spaces",
        "test has no images of 'Cat', 'dog'",
    ]


def test_classes_that_train_lacks_are_listed():
    with pytest.raises(InputError, match="has 'fox', 'zebra' in test but not in train"):
        class_notes("photos", {"train": {"a": ["0"], "b": ["0"]}, "test": {"zebra": ["1"], "fox": ["2"]}}, ["a", "b"])
