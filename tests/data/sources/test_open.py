"""Sources label every sample correctly and reproducibly, and report what is wrong with a folder."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vitreous.data.decoding.images import BadImage
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.splits import hold_out
from vitreous.support.errors import InputError


def make(folder, *names, size=(10, 6)):
    """Writes images to a folder, each in a color derived from its name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (len(name), ord(name[0]), 0)).save(folder / name, "PNG")
    return folder


def numbered(folder, class_name, count):
    return make(folder, *(f"{class_name}/{number}.png" for number in range(count)))


def names_of(split):
    return set(split.names)


def splits_of(data):
    """The splits that exist."""
    return [split for split in (data.train, data.validation, data.test) if split is not None]


def class_counts(split, classes):
    return np.bincount(split.labels, minlength=classes).tolist()


def line(folder, **options):
    """The error message of opening a folder, which is one line with a hint."""
    with pytest.raises(InputError) as error:
        open_data(folder, DataOptions(**options))
    assert str(error.value).isprintable()
    assert error.value.hint
    return str(error.value)


def test_digits_have_fixed_splits():
    data = open_data("digits")
    splits = splits_of(data)
    _, validation, test = splits
    assert data.class_names == tuple("0123456789")
    assert (data.channels, data.native_size, data.flip_ok) == (1, (8, 8), False)
    assert sum(map(len, splits)) == 1797
    assert len(set().union(*map(names_of, splits))) == 1797
    assert abs(len(test) - 1797 / 5) < 5
    assert abs(len(validation) - 1797 * 4 / 50) < 5
    for split in splits:
        counts = class_counts(split, 10)
        assert sum(counts) == len(split) == len(split.labels)
        assert max(counts) - min(counts) <= 8
    for split, again in zip(splits, splits_of(open_data("digits")), strict=True):
        assert again.names == split.names
        assert again.labels.tolist() == split.labels.tolist()


def test_digits_equal_scikit_learns():
    from sklearn.datasets import load_digits

    images, target = load_digits(return_X_y=True)
    for split in splits_of(open_data("digits")):
        for place in range(0, len(split), 50):
            number = int(split.names[place].removeprefix("digits/"))
            image = split.load(place)
            assert image.mode == "L"
            assert np.abs(np.asarray(image) - np.reshape(images[number], (8, 8)) * 255 / 16).max() <= 0.5
            assert split.labels[place] == target[number]


def test_a_folder_called_digits_is_opened_by_its_path(tmp_path, monkeypatch):
    numbered(tmp_path / "digits", "a", 2)
    numbered(tmp_path / "digits", "b", 2)
    monkeypatch.chdir(tmp_path)
    assert open_data("./digits").class_names == ("a", "b")
    assert open_data(tmp_path / "digits").class_names == ("a", "b")
    assert "'digits' is both a data set and a file or folder here; type ./digits" in line("digits")
    assert open_data("set:digits").class_names == tuple("0123456789")
    assert "there is no data set 'digit'" in line("set:digit")


def test_class_folders_are_split_by_class(tmp_path):
    numbered(tmp_path, "class10", 30)
    numbered(tmp_path, "class2", 14)
    numbered(tmp_path, "rare", 1)
    data = open_data(tmp_path)
    assert data.class_names == ("class2", "class10", "rare")
    assert class_counts(data.train, 3) == [13, 27, 1]
    assert class_counts(data.validation, 3) == [1, 3, 0]
    assert data.test is None
    assert not names_of(data.train) & names_of(data.validation)
    for split in (data.train, data.validation):
        for name, label in zip(split.names, split.labels, strict=True):
            assert name.split("/")[0] == data.class_names[label]
    assert (data.native_size, data.channels, data.flip_ok, data.ignored) == ((6, 10), 3, True, {})


def test_each_name_loads_its_own_image(tmp_path):
    make(tmp_path, "ant/a.png", "ant/long name.png", "bee/deeper/still deeper/b.png", "bee/b.PNG")
    data = open_data(str(tmp_path))
    for split in (data.train, data.validation):
        load = pickle.loads(pickle.dumps(split.load))  # as in a worker process
        for place, name in enumerate(split.names):
            assert load(place).getpixel((0, 0)) == (len(name), ord(name[0]), 0)
    assert names_of(data.train) | names_of(data.validation) == {
        *("ant/a.png", "ant/long name.png", "bee/deeper/still deeper/b.png", "bee/b.PNG")
    }


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val", None])
@pytest.mark.parametrize("test", ["test", None])
def test_split_folders_work_in_every_combination(tmp_path, validation, test):
    for folder in filter(None, ("train", validation, test)):
        numbered(tmp_path / folder, "a", 20)
        numbered(tmp_path / folder, "b", 10)
    data = open_data(tmp_path)
    assert data.class_names == ("a", "b")
    assert class_counts(data.train, 2) == ([20, 10] if validation else [18, 9])
    assert class_counts(data.validation, 2) == ([20, 10] if validation else [2, 1])
    assert {name.split("/")[0] for name in data.validation.names} == {validation or "train"}
    assert [class_counts(split, 2) for split in splits_of(data)[2:]] == ([[20, 10]] if test else [])


def test_the_held_out_files_do_not_depend_on_the_layout_or_on_other_classes(tmp_path):
    for root in ("alone", "layout/train", "more"):
        numbered(tmp_path / root, "a", 40)
        numbered(tmp_path / root, "b", 40)
    numbered(tmp_path / "more", "aa", 9)
    held = [names_of(open_data(tmp_path / root).validation) for root in ("alone", "layout", "more")]
    assert {f"train/{name}" for name in held[0]} == held[1]
    assert {name for name in held[2] if not name.startswith("aa/")} == held[0]


def test_adding_images_hardly_changes_what_is_held_out(tmp_path):
    numbered(tmp_path, "a", 100)
    numbered(tmp_path, "b", 100)
    before = names_of(open_data(tmp_path).validation)
    make(tmp_path, "a/new.png", "b/new.png")
    assert len(before - names_of(open_data(tmp_path).validation)) <= 2


@given(st.lists(st.text(max_size=5), min_size=1, max_size=60, unique=True), st.floats(0.01, 0.99))
def test_the_held_out_count_is_exact_and_does_not_depend_on_order(names, fraction):
    mask = hold_out(names, fraction)
    assert mask.sum() == min(max(1, round(len(names) * fraction)), len(names) - 1)
    held = {name for name, out in zip(names, mask, strict=True) if out}
    assert held == {n for n, out in zip(names[::-1], hold_out(names[::-1], fraction), strict=True) if out}


def test_the_validation_fraction_is_kept_and_checked(tmp_path):
    numbered(tmp_path, "a", 10)
    numbered(tmp_path, "b", 10)
    assert len(open_data(tmp_path, DataOptions(0.3)).validation) == 6
    for fraction in (0.0, 1.0, float("nan")):
        assert "fraction" in line_of_fraction(tmp_path, fraction)


def line_of_fraction(folder, fraction):
    with pytest.raises(InputError) as error:
        open_data(folder, DataOptions(fraction))
    return str(error.value)


def test_a_class_called_train_is_a_class(tmp_path):
    for name in ("car", "plane", "train"):
        numbered(tmp_path, name, 3)
    assert open_data(tmp_path).class_names == ("car", "plane", "train")


def test_folders_next_to_train_are_ignored_and_counted(tmp_path):
    for name in ("a", "b"):
        numbered(tmp_path / "train", name, 2)
    numbered(tmp_path, "unlabeled", 2)
    data = open_data(tmp_path)
    assert data.class_names == ("a", "b")
    assert data.notes == ("not used: the folder 'unlabeled' next to train, with 2 images",)
    assert data.ignored == {}
    (tmp_path / "docs").mkdir()
    assert open_data(tmp_path).ignored == {"folder next to train/: docs": 1}


def test_clutter_is_skipped_and_other_files_are_counted(tmp_path):
    numbered(tmp_path, "a", 2)
    numbered(tmp_path, "b", 2)
    for name in (".DS_Store", "a/.DS_Store", "a/Thumbs.db", "a/._0.png", "b/desktop.ini"):
        (tmp_path / name).touch()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".cache").mkdir()
    assert open_data(tmp_path).ignored == {}
    for name in ("a/1.psd", "a/2.PSD", "a/notes", "b/deep.txt", "labels.csv"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "a" / "fifo.png")
    assert open_data(tmp_path).ignored == {
        "psd file": 2,
        "file without a suffix": 1,
        "txt file": 1,
        "device or pipe": 1,
        "file outside the class folders": 1,
    }


def test_links_are_followed_only_to_files_inside(tmp_path):
    root = tmp_path / "photos"
    make(root, "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    make(tmp_path, "secret/x.png")
    (root / "a" / "inside.png").symlink_to(root / "b" / "1.png")
    (root / "a" / "outside.png").symlink_to(tmp_path / "secret" / "x.png")
    (root / "a" / "dangling.png").symlink_to(root / "nothing.png")
    (root / "a" / "folder").symlink_to(tmp_path / "secret")
    (root / "a" / "loop").symlink_to(root)
    data = open_data(root)
    assert names_of(data.train) | names_of(data.validation) == {
        *("a/1.png", "a/2.png", "a/inside.png", "b/1.png", "b/2.png")
    }
    assert data.ignored == {
        "link out of the folder": 2,
        "link to nothing": 1,
        "link to a folder that is read already": 1,
    }
    (tmp_path / "link").symlink_to(root)
    assert open_data(tmp_path / "link").class_names == ("a", "b")  # the source itself may be a link


def test_a_linked_class_folder_is_an_error(tmp_path):
    root = make(tmp_path / "photos", "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    make(tmp_path, "elsewhere/1.png")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    assert "c' is a link that leads out of the folder; add --set follow_links=true" in line(root)


def test_each_problem_with_a_folder_is_one_line(tmp_path):
    assert line(tmp_path / "missing").startswith(f"'{tmp_path}/missing' does not exist; check the path")
    (tmp_path / "file").touch()
    assert "is not a folder" in line(tmp_path / "file")
    assert "FOLDER/CLASS/IMAGE" in line(tmp_path / "file")
    assert "cannot be opened" in line("a\0b")
    (tmp_path / "empty").mkdir()
    assert "no class folders" in line(tmp_path / "empty")
    assert "2 images outside class folders" in line(make(tmp_path / "flat", "1.png", "2.png"))
    assert "one class folder, 'a'" in line(numbered(tmp_path / "one", "a", 3))
    assert "one image" in line(make(tmp_path / "single", "a/1.png", "b/1.png"))


def test_an_empty_class_is_an_error_that_lists_its_files(tmp_path):
    numbered(tmp_path, "a", 3)
    numbered(tmp_path, "b", 3)
    (tmp_path / "c").mkdir()
    assert "is empty" in line(tmp_path)
    (tmp_path / "c" / "photo.psd").touch()
    assert "1 × psd file" in line(tmp_path)


def test_classes_that_differ_between_splits_are_listed(tmp_path):
    for name in ("train/a", "train/b", "val/a", "val/b", "test/a", "test/b"):
        numbered(tmp_path, name, 2)
    open_data(tmp_path)
    numbered(tmp_path, "test/zebra", 2)
    assert "'zebra' in test but not in train" in line(tmp_path)
    numbered(tmp_path, "train/zebra", 2)
    assert open_data(tmp_path).notes == ("validation has no images of 'zebra'",)


def test_missing_and_ambiguous_splits_are_refused(tmp_path):
    for name in ("val/a", "val/b"):
        numbered(tmp_path, name, 2)
    assert "no 'train' folder" in line(tmp_path)
    for name in ("train/a", "train/b", "valid/a", "valid/b"):
        numbered(tmp_path, name, 2)
    assert "two validation splits" in line(tmp_path)


def test_a_folder_of_several_data_sets_is_refused(tmp_path):
    for source in ("pets", "food"):
        numbered(tmp_path / source / "train", "a", 2)
        numbered(tmp_path / source / "train", "b", 2)
    assert "'food' in it has its own train folder" in line(tmp_path)


def test_an_unreadable_folder_is_one_line(tmp_path, monkeypatch):
    numbered(tmp_path, "a", 2)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "Permission denied" in line(tmp_path)


def test_hostile_names_are_inert(tmp_path):
    for name in ("=cmd", "<script>", "new\nline", "\x1b[31mred", "gpj.\u202eexe", os.fsdecode(b"caf\xe9")):
        numbered(tmp_path, name, 2)
    data = open_data(tmp_path)
    assert len(data.class_names) == 6
    for place in range(len(data.train)):
        assert data.train.load(place).size == (10, 6)
    (tmp_path / "new\nline" / "deep").mkdir()
    numbered(tmp_path, "train/x\ny", 2)
    line(tmp_path)


def test_a_broken_file_is_reported_when_it_is_loaded(tmp_path):
    numbered(tmp_path, "a", 4)
    numbered(tmp_path, "b", 4)
    (tmp_path / "a" / "text.jpg").write_text("not a picture")
    data = open_data(tmp_path)
    split = data.train if "a/text.jpg" in data.train.names else data.validation
    with pytest.raises(BadImage, match="is not a JPEG"):
        split.load(split.names.index("a/text.jpg"))
    assert data.native_size == (6, 10)


def test_a_folder_of_broken_files_is_refused(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("not a picture")
    assert "none of 2 images" in line(tmp_path)


def test_the_native_size_is_the_median(tmp_path):
    numbered(tmp_path, "a", 9)
    numbered(tmp_path, "b", 9)
    make(tmp_path, "a/huge.png", size=(900, 700))
    assert open_data(tmp_path).native_size == (6, 10)


def test_opening_many_files_decodes_none(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        content = make(tmp_path, f"{name}/0.png").joinpath(f"{name}/0.png")
        for number in range(1, 1500):
            os.link(content, tmp_path / name / f"{number}.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert class_counts(open_data(tmp_path).train, 2) == [1350, 1350]


def test_real_sets_are_opened_with_their_classes(data_folder):
    food = open_data(data_folder / "pizza_steak_sushi")
    assert food.class_names == ("pizza", "steak", "sushi")
    assert len(food.train) + len(food.validation) == 2638
    assert [len(split) for split in splits_of(food)[2:]] == [360]
    insects = open_data(data_folder / "ants_bees")
    assert (len(insects.train), len(insects.validation), insects.test) == (244, 153, None)
    assert insects.train.load(0).mode == "RGB"
