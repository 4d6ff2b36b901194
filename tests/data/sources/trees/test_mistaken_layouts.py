"""Layouts of other tasks, and folders next to the classes, are refused or named, never learned as classes."""

import pytest

from tests.data.sources.packing import line
from tests.data.sources.trees.naming import PETS, each, hint, pets, sizes, use
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


def test_dev_and_eval_are_validation_and_test(make):
    data = open_data(make(pets("Train", "Dev", "Eval")))
    assert {split.name: split.names[0].split("/")[0] for split in data.splits} == {
        "train": "Train",
        "validation": "Dev",
        "test": "Eval",
    }
    assert data.notes == ("'Eval' is used as the test split",)
    assert open_data(make(pets("train", "eval"))).test is None
    assert "which hold the same folders" in line(make(pets("Dev", "Eval")))


@pytest.mark.parametrize("name", ["System Volume Information", "$RECYCLE.BIN", "#recycle", "@eaDir", "__MACOSX"])
def test_folders_of_the_system_are_no_classes(make, name):
    data = open_data(make([*each(*PETS), f"{name}/0.png", f"cat/{name}/0.png"], f"{name}/more", "dog/Thumbs.db"))
    assert (data.class_names, sizes(data)) == (PETS, {"train": 6, "validation": 2})
    assert (data.ignored, data.notes) == ({}, ())


@pytest.mark.parametrize("table", ["labels.csv", "metadata.jsonl", "_classes.csv"])
def test_a_table_inside_a_split_is_named(make, table):
    source = make(each("train", "test"), f"train/{table}", "sample_submission.csv")
    use = f"use it: vitreous train {source}/train/{table}" if source.is_dir() else "unpack all, and train on the table"
    assert hint(source) == f"if {table} has the labels of the images next to it, {use}"
    assert f"if {table} has the labels, " in hint(make(each("img"), table))
    assert "use the" not in hint(make(each("img"), "sample_submission.csv"))


def test_a_table_of_boxes_inside_a_split_is_named(make):
    source = make(each("train", "valid"), "train/_annotations.coco.json")
    assert "_annotations.coco.json has boxes, not a class for each image" in hint(source)


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        ((*pets("Leaves/Leaves/train", "Leaves/Leaves/valid"), *each("test/test")), "Leaves"),
        (
            (*pets("S/Data/LOC/train"), *each("S/Data/LOC/val"), "S/Annotations/LOC/0.xml", "S/ImageSets/a.txt"),
            "S/Data",
        ),
        ((*pets("images/Images"), "annotations/Annotation/0"), "images"),
        ((*pets("B/images", "B/segmentations"), "B/parts/a.txt", "B/attributes/a.txt"), "B/images"),
        ((*pets("Images"), "lists/a.mat", "Annotation/cat/0"), "Images"),
    ],
)
def test_the_set_inside_a_downloaded_folder_is_named(make, names, folder):
    others = [name for name in names if not name.endswith("png")]
    source = make([name for name in names if name.endswith("png")], *others)
    assert use(source, folder) in hint(source)


def test_of_several_tables_that_with_labels_is_named(make):
    source = make(each("Training_Input", "Test_Input"), "Training_GroundTruth.csv", "Training_Metadata.csv")
    assert hint(source).startswith("if Training_GroundTruth.csv has the labels")
    assert "if list_attr.csv has the labels" in hint(make(each("align/align"), "list_attr.csv")), "above the folder"


def test_folders_of_programs_next_to_classes_are_named(make):
    data = open_data(make(each(*PETS, "runs/exp1", "Wandb")))
    assert data.notes == ("folders that may be no classes, 'Wandb', 'runs': remove those that are not",)
