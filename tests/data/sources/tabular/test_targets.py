"""The names that datasets have for their classes are used, or the user reads why not."""

import pytest
from torch.utils.data import ConcatDataset

from tests.data.sources.tabular.squares import Squares, check, error
from vitreous.data.sources.open import open_data


def test_a_target_transform_is_respected():
    squares = Squares(200, 4, lambda image, label: (image, label // 2))
    squares.classes = list("abcd")
    squares.targets, squares.target_transform = squares.numbers, lambda label: label // 2
    data = open_data(squares)
    check(data, squares, lambda number: str(number // 2))
    assert data.notes == ("train: its class names are not used, since its target_transform changes the numbers",)


def test_class_names_of_the_dataset():
    squares = Squares(classes=2)
    squares.classes = ["zebra", "ant"]
    data = open_data(squares)
    assert data.class_names == ("zebra", "ant")
    check(data, squares, lambda number: squares.classes[number])
    assert not data.notes
    squares.class_to_idx = {"ant": 0, "zebra": 1}
    data = open_data(squares)
    check(data, squares, lambda number: ["ant", "zebra"][number])
    assert data.notes == ("train: its classes and class_to_idx differ; class_to_idx is used",)


@pytest.mark.parametrize("names", [["a", "a"], ["a", ""], ["a", " a "]])
def test_repeated_and_empty_class_names_are_refused(names):
    squares = Squares()
    squares.classes = names
    assert "a name of its own" in error(squares)


def test_too_few_class_names_are_refused():
    squares = Squares(classes=3)
    squares.classes = ["a", "b"]
    assert "label 2, but 2 class names" in error(squares)


def test_classes_without_samples_are_noted():
    squares = Squares()
    squares.classes = ["a", "b", "c"]
    data = open_data(squares)
    assert data.class_names == ("a", "b")
    assert data.notes == ("classes without samples are left out: 'c'",)


def test_joined_datasets_name_their_classes_alike():
    one, two = Squares(12), Squares(10)
    one.classes, two.classes = ["a", "b"], ["a", "b", "c"]
    assert open_data(ConcatDataset([one, two])).class_names == ("a", "b")
    two.classes = ["b", "a"]
    assert "name the label 0 differently, 'b' and 'a'" in error(ConcatDataset([one, two]))
    data = open_data(ConcatDataset([one, Squares(8)]))
    assert data.class_names == ("0", "1")
    assert data.notes == ("train: its class names are not used, since a part of it has none",)
