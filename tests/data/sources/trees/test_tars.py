"""Tar archives give the samples of the folder they were made from, and nothing in one is believed or extracted."""

import bz2
import gzip
import io
import lzma
import pickle
import subprocess
import tarfile

import numpy as np
import pytest

from tests.data.sources.packing import CLASSES, SPLITS, all_names, content_of, line, pack, same, tree
from vitreous.data.decoding.images import BadImage
from vitreous.data.sources.open import open_data
from vitreous.data.sources.trees import spool, tars
from vitreous.support.errors import InputError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "GNU": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
COMPRESSIONS = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz", ".TXZ": "w:xz"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache for this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def member(name, size=0, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, target
    return info


def write(path, names=CLASSES, top="", mode="w", form=tarfile.GNU_FORMAT, extra=()):
    """Writes the images to an archive, perhaps inside a top folder; `extra` are further members and contents."""
    with tarfile.open(path, mode, format=form) as archive:
        for name in names:
            content = content_of(name)
            archive.addfile(member(top + name, len(content)), io.BytesIO(content))
        for info, content in extra:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("names", [CLASSES, SPLITS], ids=["classes", "splits"])
def test_an_archive_gives_the_samples_of_the_folder(tmp_path, suffix, names):
    data = open_data(write(tmp_path / f"photos{suffix}", names, mode=COMPRESSIONS[suffix]))
    same(data, open_data(tree(tmp_path / "photos", names)))
    assert data.train.load.content(0) == content_of(data.train.names[0])


@pytest.mark.parametrize("form", FORMATS)
def test_formats_and_long_names(tmp_path, form):
    names = [f"{'a class of a long name ' * 4}/{'x' * 90}{number}.png" for number in range(4)]
    names += [f"bée/{number}.png" for number in range(4)]
    same(open_data(write(tmp_path / "a.tar", names, form=FORMATS[form])), open_data(tree(tmp_path / "a", names)))


def test_the_command_tar(tmp_path):
    tree(tmp_path / "photos", SPLITS)
    subprocess.run(["tar", "-czf", "photos.tgz", "photos"], cwd=tmp_path, check=True)
    subprocess.run(["tar", "-cf", "dot.tar", "-C", "photos", "."], cwd=tmp_path, check=True)
    for name in ("photos.tgz", "dot.tar"):
        data = open_data(tmp_path / name)
        assert {at.removeprefix("photos/") for at in all_names(data)} == set(SPLITS)


def test_archives_of_splits_in_a_folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for split, mode, suffix in (("train", "w", ".tar"), ("val", "w:gz", ".tar.gz"), ("test", "w:xz", ".tar.xz")):
        write(folder / f"{split}{suffix}", mode=mode)
    data = open_data(folder)
    assert all_names(data) == {f"{split}/{name}" for split in ("train", "val", "test") for name in CLASSES}
    pack(folder / "val.zip")
    (folder / "val.tar.gz").unlink()
    assert "archives of two kinds" in line(folder)


def test_a_linked_archive(tmp_path):
    write(tmp_path / "blob")
    (tmp_path / "photos.tar").symlink_to("blob")
    assert all_names(open_data(tmp_path / "photos.tar")) == set(CLASSES)


def test_workers_read_in_place(tmp_path):
    data = open_data(write(tmp_path / "a.tar"))
    load = pickle.loads(pickle.dumps(data.train.load))
    assert [load.content(at) for at in range(len(data.train))] == [content_of(name) for name in data.train.names]
    write(tmp_path / "a.tar", list(reversed(CLASSES)))
    with pytest.raises(BadImage, match="the archive has changed"):
        load(0)


def test_the_last_member_of_a_name_counts(tmp_path):
    path = write(tmp_path / "a.tar", extra=[(member("ant/0.png"), content_of("newer"))])
    data = open_data(path)
    contents = [split.load.content(at) for split in data.splits for at in range(len(split))]
    assert content_of("newer") in contents
    assert content_of("ant/0.png") not in contents
    assert data.ignored == {"file that a later one of its name replaces": 1}


def test_appended_archives_are_read(tmp_path):
    write(tmp_path / "a.tar", CLASSES[:8])
    write(tmp_path / "b.tar", CLASSES[8:])
    (tmp_path / "both.tar").write_bytes((tmp_path / "a.tar").read_bytes() + (tmp_path / "b.tar").read_bytes())
    assert all_names(open_data(tmp_path / "both.tar")) == set(CLASSES)


def test_only_regular_files_inside_are_read(tmp_path):
    unsafe = [member(name) for name in ("../up.png", "/etc/x.png", "ant/../../y.png")]
    special = [
        member("ant/link.png", kind=tarfile.SYMTYPE, target="/etc/passwd"),
        member("ant/hard.png", kind=tarfile.LNKTYPE, target="ant/0.png"),
        member("ant/fifo.png", kind=tarfile.FIFOTYPE),
        member("ant/device.png", kind=tarfile.CHRTYPE),
    ]
    extra = [(info, b"") for info in (*unsafe, *special)]
    data = open_data(write(tmp_path / "a.tar", extra=[*extra, (member("ant/notes.txt"), b"hello")]))
    assert all_names(data) == set(CLASSES)
    assert data.ignored == {
        "absolute path, or one with '..' or '//' in it": 3,
        "link": 2,
        "device or pipe": 2,
        "txt file": 1,
    }
    absolute = write(tmp_path / "b.tar", top="/photos/")
    assert "absolute paths" in line(absolute)


def test_captions_do_not_make_it_a_shard(tmp_path):
    captions = [(member(name.replace(".png", ".txt")), b"a caption") for name in CLASSES]
    data = open_data(write(tmp_path / "a.tar", extra=captions))
    assert all_names(data) == set(CLASSES)
    assert data.ignored == {"txt file": len(CLASSES)}


# ---- broken and hostile archives


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_broken_archive_is_one_line(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", mode=COMPRESSIONS[suffix])
    content = path.read_bytes()
    for broken in (b"", content[: len(content) // 2 + 99], b"x" * 600, content[:300] + b"\xff" * 400 + content[700:]):
        path.write_bytes(broken)
        message = line(path)
        assert str(path) in message
        assert "spool" not in message
    assert not list((tmp_path / "cache").rglob("spool-*"))


def test_an_archive_that_is_cut_off_between_members_is_noted(tmp_path):
    path = write(tmp_path / "a.tar")
    assert not open_data(path).notes
    path.write_bytes(path.read_bytes()[:10240])
    assert open_data(path).notes == ("a.tar has no mark at its end, so it may be cut off",)


def test_an_unsupported_compression_has_a_hint(tmp_path):
    (tmp_path / "a.tar.zst").write_bytes(b"(\xb5/\xfd" + bytes(100))
    assert "unzstd" in line(tmp_path / "a.tar.zst")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_is_refused(tmp_path, monkeypatch, compress):
    monkeypatch.setattr(tars, "RATIO_FREE", 2**20)
    (tmp_path / "a.tar.gz").write_bytes(compress(bytes(2**26)))
    assert "200 times its size" in line(tmp_path / "a.tar.gz")
    assert not list((tmp_path / "cache").rglob("spool-*"))


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tgz", mode="w:gz")
    monkeypatch.setattr(spool, "RESERVE", 2**60)
    assert "GiB to be unpacked" in line(path)
    assert not list((tmp_path / "cache").rglob("spool-*"))


def test_random_bytes_never_raise_anything_else(tmp_path):
    content = bytearray(write(tmp_path / "a.tar").read_bytes())
    random = np.random.default_rng(0)
    for _ in range(50):
        broken = bytearray(content)
        for at in random.integers(0, 4096, 20).tolist():
            broken[at] = int(random.integers(256))
        (tmp_path / "b.tar").write_bytes(broken)
        errors = []
        try:
            data = open_data(tmp_path / "b.tar")
            errors = [error for split in data.splits for at in range(len(split)) if (error := bad(split.load, at))]
        except InputError as error:
            errors = [error]
        assert all(str(error).isprintable() for error in errors)


def bad(load, at):
    """The error of an image, if it has one."""
    try:
        load(at)
    except BadImage as error:
        return error
    return None


def test_what_is_decompressed_is_removed_at_the_end(tmp_path, cache, fresh_process):
    path = write(tmp_path / "a.tgz", mode="w:gz")
    code = f"from vitreous.data.sources.open import open_data\nprint(open_data({str(path)!r}).train.load(0).size)"
    assert fresh_process(code).stdout == "(10, 6)\n"
    assert not list(cache.rglob("spool-*"))
