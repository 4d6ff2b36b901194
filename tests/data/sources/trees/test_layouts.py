"""Splits are read as splits and classes as classes, in a folder and in an archive; anything between is refused."""

import shutil

import pytest

from tests.data.sources.packing import line, pack, splits_of, tree
from tests.data.sources.trees.naming import PETS, each, hint, pets, sizes, use
from vitreous.data.check.quick import check_lines
from vitreous.data.sources.open import open_data

# ---- splits


@pytest.mark.parametrize(
    ("train", "other", "kind"),
    [
        ("Training", "Testing", "test"),
        ("training_set", "test_set", "test"),
        ("train_images", "test-images", "test"),
        ("TrainSet", "ValSet", "validation"),
        ("train2017", "val2017", "validation"),
        ("imgs_train", "dev", "validation"),
        ("train_001", "holdout", "test"),
        ("latih", "uji", "test"),
        ("flowers-train", "flowers-test", "test"),
        ("TREINO", "validação", "validation"),
    ],
)
def test_folders_whose_names_mean_splits_are_splits(make, train, other, kind):
    data = open_data(make(pets(train, other)))
    assert data.class_names == PETS
    assert {name.split("/")[0] for name in (*data.train.names,)} == {train}
    assert sizes(data)[kind] == 8
    assert {name.split("/")[0] for split in splits_of(data) if split.name == kind for name in split.names} == {other}
    assert (data.ignored, data.notes) == ({}, ())


@pytest.mark.parametrize(
    "names",
    [
        ("train", "bus", "car"),
        ("test tube", "Training shoes", "flask"),
        ("valid", "invalid"),
        ("tr", "de", "fr"),
        ("0", "1"),
        ("class1", "class2"),
    ],
)
def test_classes_that_are_called_like_splits_or_numbers_are_classes(make, names):
    data = open_data(make(each(*names)))
    assert set(data.class_names) == set(names)
    assert (sizes(data), data.notes) == ({"train": 3 * len(names), "validation": len(names)}, ())


def test_splits_inside_class_folders_are_splits(make):
    data = open_data(
        make(each(*(f"{name}/{split}" for name in PETS for split in ("Train", "val", "test"))), "dog/x.png")
    )
    assert (data.class_names, sizes(data)) == (PETS, {"train": 8, "validation": 8, "test": 8})
    assert all(name.split("/")[1] == "test" for name in data.test.names)
    assert [data.class_names[label] for label in data.test.labels] == [name.split("/")[0] for name in data.test.names]
    assert data.notes == ("left out 1 image that is in no class folder: 'dog/x.png'",)
    held = open_data(make(each("cat/train", "dog/train", "cat/other", count=20)))
    assert sizes(held) == {"train": 36, "validation": 4}
    assert held.notes == ("not used: the folder 'cat/other' next to train, with 20 images",)


def test_splits_inside_some_classes_are_refused(make):
    assert "'cat' has splits inside, and 'dog' not; arrange all" in line(make(each("cat/train", "cat/test", "dog")))
    vehicles = open_data(make(each("vehicle/train", "vehicle/bus", "animal/cat")))
    assert vehicles.class_names == ("animal", "vehicle")


@pytest.mark.parametrize("top", ["pets", "a/b", "data/pets/images"])
def test_folders_around_everything_are_entered(make, top):
    plain = open_data(make([f"{top}/{name}/{number}.png" for name in PETS for number in range(30)], f"{top}/notes.txt"))
    assert (plain.class_names, sizes(plain), plain.ignored) == (
        *(PETS, {"train": 54, "validation": 6}, {"file outside the class folders": 1}),
    )
    assert len(plain.notes) == 1
    assert plain.notes[0].startswith("read from '")
    assert f"{top}', the only folder in" in plain.notes[0]
    split = open_data(make(pets(f"{top}/train", f"{top}/test")))
    assert (split.class_names, sizes(split)) == (PETS, {"train": 6, "validation": 2, "test": 8})


def test_what_is_held_out_does_not_depend_on_folders_around(make):
    names = [f"{name}/{number}.png" for name in PETS for number in range(40)]
    plain, wrapped = open_data(make(names)), open_data(make([f"a/b/{name}" for name in names]))
    assert {f"a/b/{name}" for name in plain.validation.names} == set(wrapped.validation.names)
    split = open_data(make([f"train/train/{name}" for name in names] + pets("test/test")))
    assert {f"train/train/{name}" for name in plain.validation.names} == set(split.validation.names)
    assert sizes(split)["test"] == 8


def test_a_folder_of_data_sets_is_refused_with_one_of_them(make):
    source = make(pets("pets/train", "pets/val") + each("docs"))
    assert "'pets' in it has its own train folder" in line(source)
    assert hint(source) == use(source, "pets")


def test_a_class_of_one_split_is_not_entered(make):
    data = open_data(make(pets("train") + each("test/cat/old", "test/cat/new")))
    assert data.class_names == PETS
    assert sizes(data)["test"] == 8
    assert data.notes == ("test has no images of 'dog'",)


# ---- refused


def test_flat_splits_are_refused_with_the_table_or_the_names(make):
    names = [*each("train", "test"), "train/x.png"]
    assert "has images directly in 'test', 'train', without a folder for each class" in line(make(names))
    assert "train/CLASS/IMAGE" in hint(make(names))
    source = make(names, "sample_submission.csv", "classes.csv", "train.csv")
    table = f"use it: vitreous train {source}/train.csv" if source.is_dir() else "unpack all, and train on the table"
    assert hint(source) == f"if train.csv has the labels, {table}"
    assert "labels.csv" in hint(make(names, "a.csv", "labels.csv", "z.csv"))
    named = [f"train/{name}.{number}.jpg" for name in PETS for number in range(9)]
    source = make([*named, "test1/1.jpg"], "sampleSubmission.csv")
    assert "begin with the class ('cat', 'dog')" in hint(source)
    assert f"{source}/train/cat/" in hint(source)
    assert "begin with the class" in hint(make([name.removeprefix("train/") for name in named]))
    assert "begin with the class" not in hint(make([f"train/IMG_{number}.jpg" for number in range(5)]))
    assert "'train'" in line(make(each("train", "val", "test", "extra")))
    assert "'train'" in line(make(each("train")))


@pytest.mark.parametrize(
    "parts",
    [("fold1", "fold2", "fold3"), ("2019", "2020"), ("sessionA", "sessionB"), ("learn", "check"), ("color", "gray")],
)
def test_parts_with_the_same_folders_are_refused(make, parts):
    message = line(make(pets(*parts)))
    assert "which hold the same folders: 'cat', 'dog'" in message
    assert all(repr(part) in message for part in parts)
    assert "same folders" in line(make([*pets(*parts), *each(f"{parts[0]}/bird")]))


@pytest.mark.parametrize(
    "inner", [("2019", "2020"), ("session 1", "session 2"), ("images",), ("other", "unknown"), ("fold1", "fold2")]
)
def test_classes_with_the_same_folders_of_numbers_or_sessions_are_classes(make, inner):
    assert open_data(make(each(*(f"{name}/{folder}" for name in PETS for folder in inner)))).class_names == PETS


def test_classes_with_different_folders_are_classes(make):
    assert open_data(make(each("cat/siamese", "cat/other", "dog/beagle", "dog/other"))).class_names == PETS


@pytest.mark.parametrize(
    "names", [("batch1", "batch2"), ("images", "folds"), ("train_a", "train_b"), ("set_1", "set_2")]
)
def test_folders_that_seem_to_be_parts_are_refused(make, names):
    assert "seem to be splits or parts, not classes" in line(make(each(*names)))


def test_train_next_to_classes_like_it_is_refused(make):
    message = line(make(each("train/steam", "train/diesel", "bus", "car")))
    assert "'train', which may be a split or a class, next to 'bus', 'car'" in message


def test_a_split_without_class_folders_is_refused(make):
    assert "val' has 4 images but no class folders; arrange its images as val/" in line(
        make([*pets("train"), *each("val")])
    )
    assert "train' has 4 images but no class folders" in line(make([*pets("test"), *each("train")]))
    assert "has its images in '" in line(make([*pets("train"), *each("val/images")]))


def test_a_split_without_train_is_refused_with_what_may_be_it(make):
    assert "rename 'my train' to train" in line(make(pets("test", "my train")))
    assert "unpack train.zip" in line(make(pets("test"), "train.zip"))
    assert "has 'val' but no 'train'" in line(make(pets("val")))


# ---- left out, with a note


def test_images_beside_class_folders_are_left_out_and_listed(make):
    strays = [f"train/{number:02}.png" for number in range(20)]
    data = open_data(make([*pets("train", "val"), *strays, "val/y.png", "z.png"]))
    assert (data.class_names, sizes(data)) == (PETS, {"train": 8, "validation": 8})
    first = ", ".join(map(repr, strays[:5]))
    assert data.notes == (
        f"left out 20 images that are in no class folder: {first} … and 15 more",
        "left out 1 image that is in no class folder: 'val/y.png'",
        "left out 1 image that is in no class folder: 'z.png'",
    )
    alone = open_data(make([*pets("train"), "train/x.png"]))
    assert (alone.class_names, sizes(alone)) == (PETS, {"train": 6, "validation": 2})
    plain = open_data(make([*each(*PETS), "x.png"]))
    assert (plain.class_names, len(plain.notes)) == (PETS, 1)


def test_folders_next_to_the_splits_are_named_with_their_images(make):
    data = open_data(make([*pets("train", "val", "more"), *each("extra/deep", count=1)], "docs/readme.txt"))
    assert sizes(data) == {"train": 8, "validation": 8}
    assert data.notes == (
        "not used: the folder 'extra' next to train, with 1 image",
        "not used: the folder 'more' next to train, with 8 images; rename it val or test if it is that split",
    )
    assert data.ignored == {"folder next to train/: docs": 1}


def test_the_images_of_a_folder_that_is_not_used_are_counted_within_bounds(make, monkeypatch):
    monkeypatch.setattr("vitreous.data.sources.trees.classes.COUNTED", 3)
    assert "with more than 3 images" in open_data(make([*pets("train"), *each("extra")])).notes[0]


@pytest.mark.parametrize("folder", ["test", "test/unknown", "test/images", "Testing/test", "test/0"])
def test_a_test_split_without_labels_is_not_used(make, folder):
    source = make([*pets("train"), *each(folder)])
    data = open_data(source)
    assert (data.class_names, data.test) == (PETS, None)
    predict = f"vitreous predict MODEL {source}/{folder}" if source.is_dir() else "unpack it for vitreous predict"
    assert data.notes == (f"test has no labels, and is not used: after the training, {predict}",)


def test_hidden_folders_with_images_are_named_and_clutter_is_not(make):
    clutter = each(".git", ".ipynb_checkpoints", ".thumbnails", "__MACOSX", "cat/.cache")
    data = open_data(make([*each(*PETS, ".fox", "cat/.deep"), *clutter]))
    assert (data.class_names, sizes(data)) == (PETS, {"train": 6, "validation": 2})
    assert data.notes == ("left out hidden folders with images: '.fox'; rename them without the dot to use them",)
    assert data.ignored == {"image in a hidden folder": 4}
    split = open_data(make(pets("train") + each("train/.fox", ".val/cat")))
    assert split.notes[0].startswith("left out hidden folders with images: 'train/.fox'")


def test_archives_inside_folders_are_named(make):
    data = open_data(make(pets("train"), "test.zip", "train/b.zip", "train/cat/more.tar", "train/cat/x/m.TAR"))
    assert data.notes == (
        "not read: 'train/b.zip'; unpack what has images to use",
        "not read: 'test.zip'; unpack what has images to use",
        "not read, unpack them if they have images: the archives in 'train/cat' (2 × tar file)",
    )


def test_empty_classes_are_listed_at_once(make):
    message = line(make(pets("train"), "train/x/", "train/y/a.psd", "train/y/b.psd", "train/z/n.txt"))
    assert "3 class folders of " in message
    assert "'train/x' (empty), 'train/y' (2 × psd file), 'train/z' (1 × txt file); remove them, or add" in message


def test_empty_classes_of_other_splits_are_notes(make):
    data = open_data(make(pets("train", "val") + each("train/x"), "val/x/", "val/zz/a.txt", "test/cat/", "valid/"))
    assert (data.class_names, sizes(data)) == (("cat", "dog", "x"), {"train": 12, "validation": 8})
    assert data.notes == (
        "the folder 'valid' has no images, and is not used",
        "no images in 'val/x' (empty), 'val/zz' (1 × txt file)",
        "no images in 'test/cat' (empty)",
        "test has no images, and is not used",
        "validation has no images of 'x'",
    )


def test_folders_without_images_next_to_the_images_are_refused_with_the_place(make):
    source = make(pets("images"), "annotations/a.xml", "parts/b.txt")
    assert hint(source) == f"{use(source, 'images')}, if its folders are the classes"
    source = make([*pets("images"), "x.png"])
    assert hint(source) == f"{use(source, 'images')}, if its folders are the classes"


# ---- names of classes


def test_accents_that_are_stored_in_two_ways_are_one_class(make):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    data = open_data(make(each(f"train/{composed}", "train/b", f"val/{decomposed}", "val/b")))
    assert (data.class_names, data.notes) == (("b", composed), ())
    assert data.validation.labels.tolist() == [0] * 4 + [1] * 4
    both = open_data(make(each(composed, decomposed, "b", count=10)))
    assert (both.class_names, sizes(both)) == (("b", composed), {"train": 27, "validation": 3})
    held = [name for name in both.validation.names if not name.startswith("b/")]
    assert len({name.partition("/")[2] for name in held}) == 1, "held out by their names in the class folder"
    assert "2 folders in" in both.notes[0]
    assert "are one class, 'café': accents differ" in both.notes[0]


def test_classes_that_differ_in_case_or_spaces_are_named(make):
    message = line(make(each("train/Cat", "train/dog", "val/cat", "val/dog")))
    assert "has 'cat' in validation, but 'Cat' in train: they differ only in case or spaces" in message
    data = open_data(make(each("Big  cat", "big cat", "dog")))
    assert data.class_names == ("Big  cat", "big cat", "dog")
    [warning] = [text for text in check_lines(data) if text.startswith("warning")]
    assert "differ only in case, spaces or marks: 'Big  cat' and 'big cat'" in warning


# ---- folders of archives


def test_archives_of_splits_are_recognized_like_folders(tmp_path):
    for name in ("Training_Set.zip", "val2017.ZIP", "test-images.zip"):
        pack(tmp_path / name, each(*PETS))
    (tmp_path / "notes.txt").touch()
    (tmp_path / "docs").mkdir()
    data = open_data(tmp_path)
    assert (data.class_names, sizes(data)) == (PETS, {"train": 8, "validation": 8, "test": 8})
    assert data.ignored == {"txt file next to the archives": 1, "folder next to the archives": 1}
    tree(tmp_path, each("docs"))
    assert "'docs'" in line(tmp_path)


def test_an_archive_next_to_folders_is_named(tmp_path):
    tree(tmp_path / "photos", pets("test"))
    pack(tmp_path / "photos" / "train.zip", each(*PETS))
    assert "but no 'train' folder of classes; unpack train.zip" in line(tmp_path / "photos")
    shutil.move(tmp_path / "photos" / "test", tmp_path / "photos" / "train")
    assert open_data(tmp_path / "photos").notes == ("not read: 'train.zip'; unpack what has images to use",)
    (tmp_path / "only").mkdir()
    pack(tmp_path / "only" / "photos.zip", each(*PETS))
    assert hint(tmp_path / "only") == f"use {tmp_path}/only/photos.zip"
