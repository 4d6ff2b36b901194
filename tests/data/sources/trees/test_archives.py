"""An archive equals the folder it was made from, and a hostile one is an error of one line."""

import os
import pickle
import stat
import zipfile

import pytest

from tests.data.sources.packing import CLASSES, SPLITS, add, all_names, line, pack, png, same, special, splits_of, tree
from vitreous.data.sources.open import open_data
from vitreous.data.sources.trees import archives
from vitreous.data.sources.trees.archives import ArchiveLoader
from vitreous.data.sources.trees.folders import FileLoader


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("top", ["", "photos/"])
@pytest.mark.parametrize("names", [CLASSES, SPLITS], ids=["classes", "splits"])
def test_an_archive_equals_its_folder(tmp_path, names, top, method):
    data = open_data(pack(tmp_path / "photos.zip", names, top, method))
    assert (type(data.train.load), data.name) == (ArchiveLoader, str(tmp_path / "photos.zip"))
    same(data, open_data(tree(tmp_path / "photos", names)), top)


@pytest.mark.parametrize("top", [False, True])
@pytest.mark.parametrize("splits", [("train",), ("train", "val"), ("train", "validation", "test"), ("Train", "Valid")])
def test_a_folder_may_hold_its_splits_as_archives(tmp_path, splits, top):
    (tmp_path / "packed").mkdir()
    for split in splits:
        tree(tmp_path / "photos" / split)
        pack(tmp_path / "packed" / f"{split}.zip", top=f"{split}/" * top)
    (tmp_path / "packed" / ".DS_Store").touch()
    data = open_data(tmp_path / "packed")
    assert isinstance(data.train.load, ArchiveLoader)
    folder = open_data(tmp_path / "photos")
    for split, other in zip(splits_of(data), splits_of(folder), strict=True):
        names = tuple(f"{name.partition('/')[0]}/{name}" if top else name for name in other.names)
        assert (split.names, split.labels.tolist()) == (names, other.labels.tolist())
        assert [split.load(i).tobytes() for i in range(len(split))] == [
            other.load(i).tobytes() for i in range(len(other))
        ]


def test_files_next_to_the_archives_are_counted_and_folders_take_precedence(tmp_path):
    pack(tmp_path / "train.zip")
    (tmp_path / "labels.csv").touch()
    assert open_data(tmp_path).ignored == {"csv file next to the archives": 1}
    tree(tmp_path / "photos")
    pack(tmp_path / "photos" / "train.zip")
    data = open_data(tmp_path / "photos")
    assert isinstance(data.train.load, FileLoader)
    assert (data.ignored, data.notes) == (
        {"file outside the class folders": 1},
        ("not read: 'train.zip'; unpack what has images to use",),
    )


def test_only_a_single_folder_that_is_not_a_split_is_entered(tmp_path):
    data = open_data(pack(tmp_path / "a.zip", top="train/"))
    assert {name.split("/")[0] for name in data.train.names} == {"train"}
    assert data.class_names == ("ant", "bee")
    pack(tmp_path / "b.zip", top="photos/", **{"readme.txt": b"x"})
    assert open_data(tmp_path / "b.zip").ignored == {"file outside the class folders": 1}
    stray = open_data(pack(tmp_path / "c.zip", top="photos/", **{"photos/x.png": b"x"}))
    assert stray.class_names == ("ant", "bee")
    assert stray.notes[1:] == ("left out 1 image that is in no class folder: 'photos/x.png'",)
    assert "one class folder, 'photos'" in line(pack(tmp_path / "d.zip", ["photos/1.png", "photos/2.png"]))


def test_clutter_is_skipped_and_other_members_are_counted(tmp_path):
    clutter = dict.fromkeys(("__MACOSX/ant/._0.png", "ant/.DS_Store", "bee/Thumbs.db", ".git/x.png", "./"), b"x")
    path = pack(tmp_path / "a.zip", **clutter)
    assert open_data(path).ignored == {}
    assert len(all_names(open_data(path))) == len(CLASSES)
    for name in ("ant/1.psd", "ant/notes", "labels.csv", "/etc/ant.png", "ant/../../x.png", "ant//1.png"):
        add(path, name)
    add(path, special("ant/link.png", stat.S_IFLNK | 0o777), b"/etc/passwd")
    add(path, special("ant/pipe.png", stat.S_IFIFO | 0o644))
    assert open_data(path).ignored == {
        "psd file": 1,
        "file without a suffix": 1,
        "file outside the class folders": 1,
        "absolute path, or one with '..' or '//' in it": 3,
        "link": 1,
        "device or pipe": 1,
    }
    assert all_names(open_data(path)) == set(CLASSES)


def test_folder_members_are_folders(tmp_path):
    path = pack(tmp_path / "a.zip", **{"ant/": b"", "ant/deeper/": b"", "./ant/deeper/x.png": png(1)})
    assert all_names(open_data(path)) == {*CLASSES, "ant/deeper/x.png"}
    add(path, special("cat", stat.S_IFDIR | 0o755), b" ")
    assert "'cat'" not in line(path)
    assert f"'{path}/cat' is empty" in line(path)


def test_members_that_cannot_be_decompressed_are_counted(tmp_path):
    path = pack(tmp_path / "a.zip")
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        info = zipfile.ZipInfo(f"ant/{method}.png")
        info.compress_type = method
        add(path, info)
    encrypt(path, b"bee/7.png")
    assert open_data(path).ignored == {"image with an unsupported compression": 2, "encrypted image": 1}
    assert all_names(open_data(path)) == {*CLASSES} - {"bee/7.png"}
    for number in range(7):
        encrypt(path, f"bee/{number}.png".encode())
    assert "has no images, but 8 × encrypted image" in line(path)


def encrypt(path, name):
    """Sets the encryption flag in the table of contents."""
    content = bytearray(path.read_bytes())
    content[content.rindex(name) - 46 + 8] |= 1
    path.write_bytes(content)


def test_names_are_decoded_with_and_without_the_utf_8_flag(tmp_path):
    names = [f"café/{i}.png" for i in range(3)] + [f"пчела/{i}.png" for i in range(3)]
    marked = pack(tmp_path / "marked.zip", names)
    content = bytearray(marked.read_bytes())
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # without the UTF-8 flag, as some systems write them
        start = -1
        while (start := content.find(signature, start + 1)) >= 0:
            content[start + at + 1] &= ~8
    (tmp_path / "unmarked.zip").write_bytes(content)
    data = open_data(tmp_path / "unmarked.zip")
    assert data.class_names == ("café", "пчела")
    same(data, open_data(marked))
    old = content.replace("café".encode(), b"caf\x82\x80")  # not UTF-8, so code page 437
    (tmp_path / "old.zip").write_bytes(old)
    assert open_data(tmp_path / "old.zip").class_names == ("caféÇ", "пчела")


def test_two_images_of_one_name_are_refused(tmp_path):
    path = pack(tmp_path / "a.zip")
    with pytest.warns(UserWarning, match="Duplicate"):
        add(path, "ant/3.png")
    assert "two members 'ant/3.png'" in line(path)
    pack(tmp_path / "b.zip")
    add(tmp_path / "b.zip", "./ant/3.png")
    assert "two members 'ant/3.png'" in line(tmp_path / "b.zip")


def test_each_problem_with_an_archive_is_one_line(tmp_path):
    (tmp_path / "text.zip").write_text("not an archive")
    assert "cannot be read as a zip archive" in line(tmp_path / "text.zip")
    (tmp_path / "empty.zip").touch()
    assert "cannot be read as a zip archive" in line(tmp_path / "empty.zip")
    whole = pack(tmp_path / "a.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as a zip archive" in line(tmp_path / "half.zip")
    assert "no class folders" in line(pack(tmp_path / "none.zip", []))
    assert "2 images outside class folders" in line(pack(tmp_path / "flat.zip", ["1.png", "2.png"]))
    assert "is an archive of a kind that is not read; unpack it" in line(pack(tmp_path / "a.rar"))
    os.mkfifo(tmp_path / "fifo.zip")
    assert "is not a folder, an archive or a table" in line(tmp_path / "fifo.zip")
    assert "but no 'train'" in line(pack(tmp_path / "b.zip", top="test/"))
    assert "'fly' in validation but not in train" in line(pack(tmp_path / "c.zip", [*SPLITS, "val/fly/1.png"]))


def test_each_problem_with_a_folder_of_archives_is_one_line(tmp_path):
    pack(tmp_path / "test.zip")
    assert "has 'test' but no 'train'" in line(tmp_path)
    pack(tmp_path / "train.zip", ["1.png", "2.png"])
    assert f"the split '{tmp_path}/train' has 2 images but no class folders" in line(tmp_path)
    pack(tmp_path / "train.zip")
    open_data(tmp_path)
    for name in ("val", "valid"):
        pack(tmp_path / f"{name}.zip")
    assert "two validation splits" in line(tmp_path)
    (tmp_path / "valid.zip").unlink()
    (tmp_path / "val.zip").rename(tmp_path.parent / "outside.zip")
    (tmp_path / "val.zip").symlink_to(tmp_path.parent / "outside.zip")
    assert "is a link out of the folder" in line(tmp_path)


def test_the_number_of_members_and_their_table_are_bounded(tmp_path, monkeypatch):
    path = pack(tmp_path / "a.zip")
    monkeypatch.setattr(archives, "MAX_MEMBERS", len(CLASSES) - 1)
    assert "has 16 members, 15 are allowed" in line(path)
    monkeypatch.setattr(archives, "MAX_CONTENTS", 500)
    assert "500 are allowed" in line(path)


def test_the_native_size_is_the_median(tmp_path):
    path = pack(tmp_path / "a.zip", **{"ant/huge.png": png(size=(90, 70)), "ant/broken.png": b"broken"})
    assert open_data(path).native_size == (6, 10)
    assert "could be read" in line(pack(tmp_path / "b.zip", [], **dict.fromkeys(CLASSES, b"broken")))


def test_the_table_of_contents_is_read_once_and_pickles_small(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    content = png()
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(3000):
            archive.writestr(f"{'ab'[number % 2]}/{number}.png", content)
    data = open_data(path)
    monkeypatch.setattr(archives, "ZipFile", lambda file: pytest.fail("the table of contents is read again"))
    sent = pickle.dumps(data.train)
    assert len(sent) < 100 * len(data.train)
    assert pickle.loads(sent).load(0).tobytes() == data.train.load(0).tobytes()


def test_a_real_archive_equals_its_folder(data_folder, tmp_path):
    path = data_folder / "cifar10_test.zip"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "cifar")
    data, folder = open_data(path), open_data(tmp_path / "cifar")
    assert (len(data.class_names), len(data.train) + len(data.validation)) == (10, 10_000)
    assert data.native_size == (32, 32)
    for split, other in zip(splits_of(data), splits_of(folder), strict=True):
        assert (split.names, split.labels.tolist()) == (other.names, other.labels.tolist())
        assert all(split.load(i).tobytes() == other.load(i).tobytes() for i in range(0, len(split), 50))


def test_names_with_backslashes_are_read(tmp_path):
    names = [name.replace("/", "\\") for name in SPLITS]
    path = pack(tmp_path / "a.zip", names, "photos\\")
    data = open_data(path)
    assert data.class_names == ("ant", "bee")
    assert all_names(data) == {f"photos/{name}" for name in SPLITS}
    assert data.train.load(0).size == (10, 6)
    mixed = pack(tmp_path / "b.zip", **{"ant/a\\b.png": png(1)})
    assert "ant/a\\b.png" in all_names(open_data(mixed))  # a name on Unix


def test_two_folders_around_everything_are_entered(tmp_path):
    data = open_data(pack(tmp_path / "a.zip", SPLITS, "photos/photos/", **{"__MACOSX/photos/._x.png": b"x"}))
    assert all_names(data) == {f"photos/photos/{name}" for name in SPLITS}
    assert data.notes == (f"read from '{tmp_path}/a.zip/photos/photos', the only folder in '{tmp_path}/a.zip'",)


@pytest.mark.parametrize("top", ["/photos/", "../", "C:\\photos\\", "//server/"])
def test_an_archive_of_unsafe_paths_is_refused_with_the_command(tmp_path, top):
    names = [name.replace("/", "\\") if "\\" in top else name for name in CLASSES]
    message = line(pack(tmp_path / "a.zip", names, top))
    assert "all images of" in message
    assert "have absolute paths, or '..' in them, which are not read; create the archive inside the folder" in message
