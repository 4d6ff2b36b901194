"""Layouts of other tasks, and folders next to the classes, are refused or named, never learned as classes."""

import pytest

from tests.data.sources.packing import line
from tests.data.sources.trees.naming import PETS, each, hint, pets, sizes
from vitreous.data.sources.open import open_data


@pytest.mark.parametrize("name", ["Test", "test_images", "testing"])
def test_a_flat_test_split_next_to_classes_is_left_out(make, name):
    data = open_data(make(each(*PETS, name)))
    assert (data.class_names, sizes(data)) == (PETS, {"train": 6, "validation": 2})
    assert data.notes[0].startswith("test has no labels, and is not used")


@pytest.mark.parametrize("name", ["pred", "unlabeled", "Unlabeled_Images"])
def test_images_for_predictions_next_to_classes_are_left_out(make, name):
    data = open_data(make(each(*PETS, name)))
    assert data.class_names == PETS
    assert data.notes[0].startswith(f"{name!r} has no labels, and is not used")


def test_a_flat_validation_split_next_to_classes_is_refused(make):
    assert "seems to be a validation split, but has no class folders" in line(make(each(*PETS, "validation")))
    assert "one class folder, 'cat'" in line(make(each("cat", "test")))


def test_numbered_parts_are_refused_with_their_table(make):
    source = make(each("HAM10000_images_part_1", "HAM10000_images_part_2"), "HAM10000_metadata.csv")
    assert "seem to be splits or parts, not classes" in line(source)
    assert "if HAM10000_metadata.csv has the labels" in hint(source)


def test_parts_in_folders_of_their_own_are_refused(make):
    message = line(make(pets("Original Images/Original Images", "Augmented Images/Augmented Images")))
    assert "which hold the same folders: 'cat', 'dog'" in message


@pytest.mark.parametrize(
    "names",
    [
        ("JPEGImages", "SegmentationClass", "SegmentationObject"),
        ("input", "target"),
        ("img", "gt"),
        ("rgb", "depth"),
        ("HR", "LR"),
        ("images", "ground_truth"),
        ("images", "annotations/trimaps"),
    ],
)
@pytest.mark.parametrize("top", ["", "train/"])
def test_pictures_and_their_masks_are_refused(make, names, top):
    files = each(*(top + name for name in names)) + (each("val/images", "val/masks") if top else [])
    assert "is a set for detection, segmentation or depth" in line(make(files))


def test_boxes_next_to_pictures_are_refused_without_naming_classes(make):
    voc = make(each("VOC/JPEGImages"), "VOC/Annotations/0.xml", "VOC/ImageSets/train.txt")
    yolo = make(each("images/train", "images/val"), "labels/train/0.txt", "labels/val/0.txt")
    inside = make(each("train/images", "val/images"), "train/labels/0.txt", "val/labels/0.txt")
    for source in (voc, yolo, inside):
        assert "is a set for detection, segmentation or depth" in line(source)


def test_masks_in_each_class_are_refused_with_what_to_remove(make):
    source = make(each("COVID/images", "COVID/masks", "Normal/images", "Normal/masks"))
    assert hint(source) == "remove the folders 'masks', which seem to be masks, from each class"


@pytest.mark.parametrize(
    "names",
    [
        ("high", "low"),
        ("target", "background"),
        ("valid", "invalid"),
        ("depth charge", "mine"),
        ("mask", "no mask"),
        ("with_mask", "without_mask"),
        ("original", "fake"),
        ("class1", "class2"),
        ("star photo", "moon photo"),
        ("hr", "it", "sales"),
        ("test tube", "flask"),
    ],
)
def test_classes_with_such_words_are_classes(make, names):
    data = open_data(make(each(*names)))
    assert set(data.class_names) == set(names)
    assert data.notes == ()
