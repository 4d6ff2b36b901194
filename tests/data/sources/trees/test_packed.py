"""Archives that are not read, alone in a folder or next to others, are refused with what to unpack."""

import pytest

from tests.data.sources.packing import line
from tests.data.sources.trees.naming import PETS, each, hint
from vitreous.data.sources.open import open_data
from vitreous.data.sources.trees.tree import is_archive_kind, is_packed, kind_of

KINDS = ["photos.rar", "photos.7z", "photos.zip.001", "photos.part1.rar", "photos.z01", "photos.tar.zst"]


@pytest.mark.parametrize("name", KINDS)
def test_the_kinds_of_archives(name):
    assert is_packed(name)
    assert is_archive_kind(kind_of(name))
    assert not is_packed(f"{name}.txt")


@pytest.mark.parametrize("name", KINDS[:-1])
def test_an_archive_of_another_kind_is_to_be_unpacked(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    assert "is an archive of a kind that is not read; unpack it" in line(tmp_path / name)
    assert f"unpack {tmp_path / name}, and use the folder with its images" in line(tmp_path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("cat.zip", "dog.zip"), "/cat/, with the images of that class"),
        (("test.rar", "train.rar"), "/test/"),
        (("photos.part1.rar", "photos.part2.rar"), "photos.part1.rar, and use the folder with its images"),
        (("photos.z01", "photos.zip"), "photos.zip, and use the folder with its images"),
        (("photos.zip",), "use {}/photos.zip"),
    ],
)
def test_archives_alone_in_a_folder(make, names, expected):
    source = make([], *names)
    if source.is_dir():
        assert hint(source).endswith(expected.format(source))
    else:
        assert hint(source).startswith("unpack it, and what is in it, such as '")


def test_archives_in_folders_of_splits(make):
    source = make([], "train/cat.zip", "train/dog.zip", "val/cat.zip", "val/dog.zip")
    assert hint(source) == "unpack each archive into a folder of its name, next to it"


def test_archives_next_to_classes_are_named(make):
    data = open_data(make(each(*PETS), "more.zip.001", "cat/old.7z"))
    assert data.notes == (
        "not read: 'more.zip.001'; unpack what has images to use",
        "not read, unpack them if they have images: the archives in 'cat' (1 × 7z file)",
    )
    assert data.ignored == {"7z file": 1, "file outside the class folders": 1}
