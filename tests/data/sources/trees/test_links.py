"""Links are followed inside the source, and out of it on request; one that is not followed is named."""

import os
import stat

import pytest

from tests.data.sources.packing import add, all_names, line, pack, special, tree
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.trees.folders import real_target
from vitreous.support.errors import InputError

FOLLOW = DataOptions(follow_links=True)
PETS = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(4)]


@pytest.fixture
def photos(tmp_path):
    """A folder with train/, next to elsewhere/ with the same classes."""
    tree(tmp_path / "elsewhere", PETS)
    tree(tmp_path / "photos" / "train", PETS)
    return tmp_path / "photos"


@pytest.mark.parametrize("name", ["val", "Testing", "test_set"])
def test_a_linked_split_is_followed_on_request_and_named_otherwise(photos, name):
    (photos / name).symlink_to(photos.parent / "elsewhere")
    message = line(photos)
    assert (
        f"the folder '{photos}/{name}' is a link that leads out of the folder; add --set follow_links=true" in message
    )
    data = open_data(photos, FOLLOW)
    split = data.validation if name == "val" else data.test
    assert [*split.names] == [f"{name}/{path}" for path in PETS]
    assert split.load(0).tobytes() == data.train.load(data.train.names.index("train/cat/0.png")).tobytes()


def test_a_linked_train_folder_and_a_linked_source_are_followed(photos):
    (photos / "train").rename(photos.parent / "moved")
    (photos / "train").symlink_to(photos.parent / "moved")
    assert "train' is a link that leads out" in line(photos)
    assert open_data(photos, FOLLOW).class_names == ("cat", "dog")
    (photos.parent / "link").symlink_to(photos.parent / "elsewhere")
    assert open_data(photos.parent / "link").class_names == ("cat", "dog")


def test_links_inside_the_source_are_followed(photos):
    tree(photos / "store" / "val", PETS)
    (photos / "val").symlink_to("store/val")
    tree(photos / "store" / "birds", ["0.png", "1.png"])
    (photos / "train" / "bird").symlink_to(photos / "store" / "birds")
    data = open_data(photos)
    assert data.class_names == ("bird", "cat", "dog")
    assert [*data.validation.names] == [f"val/{path}" for path in PETS]
    assert data.notes[0].startswith("not used: the folder 'store' next to train, with 10 images")


@pytest.mark.parametrize("folder", ["photos", "photos/train"])
def test_a_linked_class_folder_is_followed_on_request_and_named_otherwise(photos, folder):
    root = photos if folder == "photos/train" else photos / "train"
    tree(photos.parent / "birds", ["0.png", "1.png"])
    (photos / "train" / "bird").symlink_to(photos.parent / "birds")
    assert "bird' is a link that leads out of the folder; add --set follow_links=true" in line(root)
    assert open_data(root, FOLLOW).class_names == ("bird", "cat", "dog")


def test_links_to_nothing_and_in_circles_are_named(photos):
    for target in ("nowhere", "val", ".", ".."):
        (photos / "val").unlink(missing_ok=True)
        (photos / "val").symlink_to(target)
        for options in (DataOptions(), FOLLOW):
            with pytest.raises(InputError, match=r"val' is a link that leads to (nothing|a folder above itself)"):
                open_data(photos, options)
    (photos / "val").unlink()
    (photos / "train" / "fox").symlink_to("nowhere")
    (photos / "extra").symlink_to(photos)
    data = open_data(photos, FOLLOW)
    assert data.class_names == ("cat", "dog")
    assert data.notes == (
        f"the link '{photos}/train/fox' leads to nothing and is left out",
        f"the link '{photos}/extra' leads to a folder above itself and is left out",
    )


def test_one_folder_is_not_two_splits_or_classes(photos):
    (photos / "val").symlink_to("train")
    message = line(photos)
    assert f"'{photos}/train/cat' and '{photos}/val/cat' are the same folder, by a link; remove the link" in message
    (photos / "val").unlink()
    (photos / "train" / "tiger").symlink_to("cat")
    assert "train/cat' and '" in line(photos)


def test_links_inside_a_class_lead_to_each_image_once_and_end(photos):
    root = photos / "train"
    for name in ("a", "b"):
        (root / "cat" / name).mkdir()
        tree(root / "cat" / name, ["0.png"])
        (root / "cat" / name / "other").symlink_to(root / "cat" / ("b" if name == "a" else "a"))
        (root / "cat" / name / "up").symlink_to("..")
        (root / "cat" / name / "self").symlink_to("self")
        (root / "cat" / name / "self.png").symlink_to("self.png")
    tree(photos.parent / "more", ["x.png", "deep/y.png"])
    (photos.parent / "more" / "back").symlink_to(root)
    for name in ("first", "second"):
        (root / "cat" / name).symlink_to(photos.parent / "more")
    own = {*PETS, "cat/a/0.png", "cat/b/0.png"}
    data = open_data(root)
    assert all_names(data) == own
    assert data.ignored == {
        "link to a folder that is read already": 4,
        "link to nothing": 2,
        "file without a suffix": 2,
        "link out of the folder": 2,
    }
    assert data.notes == (
        "classes are read with all folders inside them: 'cat' ('a', 'b')",
        "not followed: 2 links out of the folder; --set follow_links=true follows them",
    )
    followed = open_data(root, FOLLOW)
    names = [path.removeprefix("cat/") for path in all_names(followed) - own]
    assert sorted(name.partition("/")[2] for name in names) == ["deep/y.png", "x.png"]
    assert followed.notes == ("classes are read with all folders inside them: 'cat' ('a', 'b', 'first')",)


def test_a_class_of_links_is_followed_on_request(photos):
    root = photos / "train"
    (root / "bird").mkdir()
    for path in sorted((photos.parent / "elsewhere" / "cat").iterdir()):
        (root / "bird" / path.name).symlink_to(path)
    assert "bird' has no images, but 4 × link out of the folder; add --set follow_links=true" in line(root)
    data = open_data(root, FOLLOW)
    assert data.class_names == ("bird", "cat", "dog")
    assert data.ignored == {}


def test_many_links_are_read_in_linear_time(photos, monkeypatch):
    for number in range(300):
        tree(photos.parent / "many" / str(number), ["0.png"])
        (photos / "train" / "cat" / str(number)).symlink_to(photos.parent / "many" / str(number))
    calls = []
    real = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path, **options: calls.append(path) or real(path, **options))
    assert len(all_names(open_data(photos / "train", FOLLOW))) == 308
    assert len(calls) < 4 * 300


def test_linked_archives_of_splits_are_followed_on_request(tmp_path):
    (tmp_path / "packed").mkdir()
    pack(tmp_path / "packed" / "train.zip", PETS)
    pack(tmp_path / "outside.zip", PETS)
    (tmp_path / "packed" / "val.zip").symlink_to(tmp_path / "outside.zip")
    assert "val.zip' is a link out of the folder; add --set follow_links=true" in line(tmp_path / "packed")
    assert len(open_data(tmp_path / "packed", FOLLOW).validation) == 8


def test_links_in_archives_are_named(tmp_path):
    path = pack(tmp_path / "a.zip", PETS, "train/")
    add(path, special("train/cat/link.png", stat.S_IFLNK | 0o777), b"0.png")
    add(path, special("train/fox", stat.S_IFLNK | 0o777), b"cat")
    data = open_data(path)
    assert (data.class_names, data.ignored) == (("cat", "dog"), {"link": 1})
    assert data.notes == (f"the link '{path}/train/fox' is not followed in an archive and is left out",)
    add(path, special("val", stat.S_IFLNK | 0o777), b"train")
    assert f"the folder '{path}/val' is a link that is not followed in an archive; replace it" in line(path)


def test_the_real_path_of_a_link_is_that_of_the_system(tmp_path):
    tree(tmp_path / "a" / "b", ["0.png"])
    (tmp_path / "into").symlink_to("a/b")
    targets = ["a", "a/", "a/.", "a/..", ".", "..", "a/b/0.png", "into/0.png", "into", "into/..", "none/0.png", "loop"]
    (tmp_path / "loop").symlink_to("loop")
    known = {}
    for number, target in enumerate([*targets, *(str(tmp_path / target) for target in targets), "/", "//"]):
        link = tmp_path / f"link{number}"
        link.symlink_to(target)
        for path in (link, tmp_path / "into" / "more"):
            assert real_target(str(path), known) == os.path.realpath(path)


def test_links_into_one_folder_look_it_up_once(photos, monkeypatch):
    for number in range(300):
        tree(photos.parent / "elsewhere" / f"class {number}", ["0.png", "1.png"])
        (photos / "train" / f"class {number}").symlink_to(photos.parent / "elsewhere" / f"class {number}")
        (photos / "train" / "cat" / f"link{number}.png").symlink_to(photos.parent / "elsewhere" / "cat" / "0.png")
    calls, realpath = [], os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path, **options: (calls.append(path), realpath(path, **options))[1])
    data = open_data(photos, FOLLOW)
    assert len(data.class_names) == 302
    assert len(calls) < 2 * 302 + 50, "one for each class folder that is read, not for each link in it"
