"""What may be read otherwise than meant is named: copies of classes, folders inside them, masks next to images."""

import time

import pytest

from tests.data.sources.packing import content_of, line, pack, tree
from tests.data.sources.trees.naming import each
from vitreous.data.sources.open import open_data
from vitreous.data.sources.trees.doubts import are_numbered, doubts, paired


def test_a_class_that_holds_folders_called_like_classes_is_named(make):
    data = open_data(make(each("cat", "dog", "backup/cat", "backup/dog", "backup/old")))
    (note,) = [note for note in data.notes if "backup" in note]
    assert note == ("class 'backup' has folders that are called like classes, 'cat', 'dog': remove it if it is a copy")


@pytest.mark.parametrize(
    "name", ["cat - Copy", "cat - Copy (2)", "cat (1)", "Cat copy", "cat_copy", "cat_aug", "cat-backup"]
)
def test_a_copy_of_a_class_is_named(make, name):
    notes = open_data(make(each("cat", "dog", name))).notes
    assert any(note.startswith(f"class {name!r} is called like a copy of") for note in notes)


def test_folders_inside_classes_are_named_together(make):
    data = open_data(make(each("part1/cat", "part1/dog", "part2/fox", "part2/hen", "plain/deep/one")))
    assert data.notes == (
        "classes are read with all folders inside them: 'part1' ('cat', 'dog'), 'part2' ('fox', 'hen')",
    )


def test_one_folder_inside_each_class_is_named_if_they_differ(make):
    data = open_data(make(each("p1/benign", "p2/malignant", "p3/benign")))
    assert data.notes == (
        "classes are read with all folders inside them: 'p1' ('benign'), 'p2' ('malignant'), 'p3' ('benign')",
    )
    assert open_data(make(each("plain/p1/images", "plain/p2/images"))).notes[1:] == ()


def test_masks_next_to_images_are_named(make):
    source = make([f"{name}/{file}.png" for name in ("benign", "normal") for file in ("1", "1_mask", "2", "2_mask_1")])
    assert open_data(source).notes == (
        "4 images called like the mask of another, such as 'benign/1_mask.png': move them out if they are not photos",
    )


def test_ordinary_classes_raise_no_doubt():
    names = ("with_mask", "without_mask", "depth", "photo copy", "copycat", "type (1)", "type (2)")
    images = {name: [f"{name}/{file}" for file in ("1.png", "gas_mask.png", "x/2.png")] for name in names}
    assert doubts({name: [name] for name in names}, images) == []


def paired_files(*folders):
    """The names of files of an image and, in other folders, of what belongs to it."""
    return [f"{folder}/2007_{number}.png" for folder in folders for number in (32, 39, 63, 121, 504)]


@pytest.mark.parametrize("top", ["", "train/"])
def test_folders_with_files_of_the_same_names_are_named(make, top):
    names = paired_files(f"{top}views", f"{top}layers") + (paired_files("val/views", "val/layers") if top else [])
    assert open_data(make(names)).notes == (
        "'layers', 'views' hold files of the same names: are they classes, or pictures and their masks?",
    )


def test_folders_with_files_of_the_same_names_are_refused_if_one_is_called_masks(make):
    message = line(make(paired_files("houses", "house_masks")))
    assert "is a set for segmentation or depth, not classes: 'house_masks', 'houses' hold files of the" in message
    assert message.endswith("remove 'house_masks', and arrange the others as CLASS/IMAGE")
    assert open_data(make(paired_files("with_mask", "without_mask"))).class_names == ("with_mask", "without_mask")


def test_names_that_count_files_pair_no_folders():
    for names in ("1 2 3 4", "img_0001 img_0002 img_0003", "s1_1 s1_2 s2_1 s2_2", "anna1 anna2 bob1 bob2", "a b"):
        assert are_numbered(names.split()) == (names != "a b")
        assert paired({name: [f"{name}/{stem}.png" for stem in names.split()] for name in ("cat", "dog")}) == []
    files = ["anna.png", "bob.png", "carl.png"]
    assert paired({"cat": files, "dog": files}) == ["cat", "dog"]
    assert paired({"cat": files, "dog": [*files, "doris.png"]}) == []
    assert paired({str(number): files for number in range(20)}) == []


def test_pairs_of_many_files_are_found_at_once():
    images = {name: [f"{name}/{7 * number * number}.jpg" for number in range(100_000)] for name in ("a", "b", "c")}
    begin = time.perf_counter()
    assert paired(images) == ["a", "b", "c"]
    assert time.perf_counter() - begin < 10


def with_tables(tmp_path, **tables):
    """The notes on tables next to class folders."""
    source = tree(tmp_path / "photos")
    for name, text in tables.items():
        (source / f"{name}.csv").write_text(text)
    return open_data(source).notes


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("path,label\nant/1.png,bee\n", True),
        ('"name";"label"\n"x.png";"a"\n"3.png";"bee"\n', True),
        ("epoch,loss\n1,0.5\n2,0.25\n", False),
        ("class,count\nant,8\nbee,8\n", False),
        ("path,label\nx.png,ant\n", False),
    ],
)
def test_a_table_with_labels_next_to_class_folders_is_named(tmp_path, text, named):
    path = tmp_path / "photos" / "labels.csv"
    note = f"labels.csv next to the class folders is not read; to use its labels: vitreous train {path}"
    assert with_tables(tmp_path, labels=text) == ((note,) if named else ())


def test_a_table_of_ids_next_to_splits_is_named(tmp_path):
    source = tree(tmp_path / "photos", each("train/cat", "train/dog", "val/cat", "val/dog"))
    (source / "val" / "cat" / "ISIC_1.png").write_bytes(content_of("ISIC_1"))
    (source / "truth.csv").write_text("id,label\nISIC_1,dog\n")
    (note,) = open_data(source).notes
    assert note.startswith("truth.csv next to the class folders is not read")


def test_a_table_that_is_called_labels_in_an_archive_is_named(tmp_path):
    source = pack(tmp_path / "photos.zip", **{"train_labels.csv": b"x", "sizes.csv": b"x"})
    (note,) = open_data(source).notes
    assert note == (
        "train_labels.csv next to the class folders is not read; if it has the labels, unpack all, and train on it"
    )
