"""The index of a tar archive agrees with the standard library, and refuses what is broken."""

import gzip
import io
import pickle
import tarfile

import numpy as np
import pytest

from tests.data.sources.packing import content_of
from vitreous.data.decoding.images import DEFAULT, BadImage
from vitreous.data.sources.trees import tar_index
from vitreous.data.sources.trees.tar_index import MEMBER, TarLoader, first_names, index_tar, read_member
from vitreous.support.errors import InputError

LONG = "/".join(["deep" * 20] * 3) + "/ünïcode-" + "x" * 90 + ".png"
NAMES = ["ant/0.png", "./bee/1.png", LONG, "top.png", "z" * 120 + ".png"]
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def member(name, **fields):
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def write(path, names=NAMES, form=tarfile.PAX_FORMAT, others=()):
    with tarfile.open(path, "w", format=form) as archive:
        for name in names:
            content = content_of(name)
            archive.addfile(member(name, size=len(content)), io.BytesIO(content))
        for info in others:
            archive.addfile(info)
    return str(path)


def line(path):
    with pytest.raises(InputError) as error:
        index_tar(str(path))
    assert error.value.hint
    return str(error.value)


@pytest.mark.parametrize("form", FORMATS)
def test_names_offsets_and_sizes_are_those_of_the_standard_library(tmp_path, form):
    names = [name for name in NAMES if form != "ustar" or len(name) < 100]
    path = write(tmp_path / "a.tar", names, FORMATS[form])
    index = index_tar(path)
    with tarfile.open(path) as archive:
        expected = [(info.name.removeprefix("./"), info.offset_data, info.size) for info in archive]
    assert list(zip(index.names, index.offsets.tolist(), index.sizes.tolist(), strict=True)) == expected
    for name, offset, size in expected:
        assert read_member(name, path, index.stamp, offset, size) == content_of(("./" if "bee" in name else "") + name)
    assert not index.ignored


def test_a_name_in_two_parts_of_a_ustar_header(tmp_path):
    name = "folder/" * 15 + "cat.png"
    assert len(name) > 100
    assert index_tar(write(tmp_path / "a.tar", [name], tarfile.USTAR_FORMAT)).names == [name]


def test_only_regular_files_count(tmp_path):
    others = [
        member("class", type=tarfile.DIRTYPE),
        member("link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("hard.png", type=tarfile.LNKTYPE, linkname="ant/0.png", size=99),
        member("pipe.png", type=tarfile.FIFOTYPE),
        member("../out.png"),
        member("/absolute.png"),
        member("ant/._0.png"),
        member("__MACOSX/0.png"),
        member("last.png"),
    ]
    index = index_tar(write(tmp_path / "a.tar", ["ant/0.png"], others=others))
    assert index.names == ["ant/0.png", "last.png"]
    assert index.folders == ["class"]
    assert index.ignored == {
        "link": 2,
        "device or pipe": 1,
        "absolute path, or one with '..' or '//' in it": 2,
    }


def test_sparse_files_are_ignored_and_what_follows_them_is_found(tmp_path):
    sparse = member("sparse.png", size=BLOCK_OF_TWO, type=b"S").tobuf(tarfile.GNU_FORMAT)
    block = bytearray(sparse[:512])
    block[482] = 1  # another block describes it
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    more = write(tmp_path / "more.tar", ["after.png"])
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(block) + bytes(512) + bytes(1024) + (tmp_path / "more.tar").read_bytes())
    index = index_tar(str(path))
    assert (index.names, index.ignored) == (["after.png"], {"sparse file": 1})
    assert index.offsets.tolist() == (index_tar(more).offsets + 2048).tolist()


BLOCK_OF_TWO = 1024


def test_appended_archives_are_read_too(tmp_path):
    first = write(tmp_path / "a.tar", ["ant/0.png"])
    second = write(tmp_path / "b.tar", ["bee/0.png"])
    both = tmp_path / "both.tar"
    both.write_bytes((tmp_path / "a.tar").read_bytes() + bytes(10**6 // 512 * 512) + (tmp_path / "b.tar").read_bytes())
    index = index_tar(str(both))
    assert index.names == index_tar(first).names + index_tar(second).names
    assert read_member("x", str(both), index.stamp, *(int(a[1]) for a in (index.offsets, index.sizes))) == content_of(
        "bee/0.png"
    )


def test_what_is_broken_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.tar"
    good = (tmp_path / "good.tar").read_bytes() if write(tmp_path / "good.tar") else b""
    path.write_bytes(good[:700])
    assert "is cut off: it ends inside 'ant/0.png'" in line(path)
    path.write_bytes(good[: index_tar(str(tmp_path / "good.tar")).offsets[1] - 100])
    assert "is cut off inside a header" in line(path)
    path.write_bytes(good[:1] + b"!" + good[2:])
    assert "is not a tar archive" in line(path)
    second = int(index_tar(str(tmp_path / "good.tar")).offsets[1]) - 512
    path.write_bytes(good[:second] + b"!" + good[second + 1 :])
    assert f"is broken at byte {second:,}" in line(path)
    path.write_bytes(gzip.compress(good))
    assert "gunzip" in line(path)
    path.write_bytes(b"")
    assert index_tar(str(path)).names == []
    assert "No such file" in line(tmp_path / "none.tar")
    monkeypatch.setattr(tar_index, "MAX_MEMBERS", 3)
    assert "has more than 3 members" in line(tmp_path / "good.tar")
    monkeypatch.setattr(tar_index, "MAX_EXTENSION", 20)
    assert "an extended header of" in line(tmp_path / "good.tar")


def test_a_size_beyond_the_archive_is_refused_without_allocating(tmp_path):
    info = member("a.png", size=2**62)
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "it ends inside 'a.png'" in line(tmp_path / "a.tar")


def test_the_loader_notices_that_the_archive_has_changed(tmp_path):
    path = write(tmp_path / "a.tar")
    index = index_tar(path)
    rows = [(0, *row) for row in zip(index.offsets, index.sizes, strict=True)]
    loader = TarLoader(tuple(index.names), DEFAULT, ((path, index.stamp),), np.array(rows, MEMBER))
    loader = pickle.loads(pickle.dumps(loader))
    assert loader(0).size == (10, 6)
    assert loader.content(0) == content_of("ant/0.png")
    write(tmp_path / "a.tar", NAMES[::-1])
    with pytest.raises(BadImage, match="the archive has changed"):
        loader(0)


def test_the_first_names_are_read_alone(tmp_path):
    path = write(tmp_path / "a.tar")
    assert first_names(path, 2) == ["ant/0.png", "bee/1.png"]
    (tmp_path / "a.tar").write_bytes(b"no tar")
    assert first_names(path, 2) == []
