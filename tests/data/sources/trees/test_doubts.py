"""What may be read otherwise than meant is named: copies of classes, folders inside them, masks next to images."""

import pytest

from tests.data.sources.trees.naming import each
from vitreous.data.sources.open import open_data
from vitreous.data.sources.trees.doubts import doubts


def test_a_class_that_holds_folders_called_like_classes_is_named(make):
    data = open_data(make(each("cat", "dog", "backup/cat", "backup/dog", "backup/old")))
    (note,) = [note for note in data.notes if "backup" in note]
    assert note == ("class 'backup' has folders that are called like classes, 'cat', 'dog': remove it if it is a copy")


@pytest.mark.parametrize("name", ["cat - Copy", "cat - Copy (2)", "cat (1)", "Cat copy", "cat_copy", "cat copy 2"])
def test_a_copy_of_a_class_is_named(make, name):
    notes = open_data(make(each("cat", "dog", name))).notes
    assert any(note.startswith(f"class {name!r} is called like a copy of") for note in notes)


def test_folders_inside_classes_are_named_together(make):
    data = open_data(make(each("part1/cat", "part1/dog", "part2/fox", "part2/hen", "plain/deep/one")))
    assert data.notes == (
        "classes are read with all folders inside them: 'part1' ('cat', 'dog'), 'part2' ('fox', 'hen')",
    )


def test_masks_next_to_images_are_named(make):
    source = make([f"{name}/{file}.png" for name in ("benign", "normal") for file in ("1", "1_mask", "2", "2_mask_1")])
    assert open_data(source).notes == (
        "4 images called like the mask of another, such as 'benign/1_mask.png': move them out if they are not photos",
    )


def test_ordinary_classes_raise_no_doubt():
    names = ("with_mask", "without_mask", "depth", "photo copy", "copycat", "type (1)", "type (2)")
    images = {name: [f"{name}/{file}" for file in ("1.png", "gas_mask.png", "x/2.png")] for name in names}
    assert doubts({name: [name] for name in names}, images) == []
