"""A file is there whole or not at all."""

import errno
import json
import os
from pathlib import Path

import pytest

from vitreous.support.errors import InputError
from vitreous.support.files import atomic_file, write_bytes, write_json, write_text


def test_a_file_appears_with_its_content_and_nothing_else(tmp_path):
    write_bytes(tmp_path / "a", b"\0\1")
    write_text(tmp_path / "b", "é\r\n")
    write_json(tmp_path / "c", {"a": [1, 2.5, "é"]})
    assert (tmp_path / "a").read_bytes() == b"\0\1"
    assert (tmp_path / "b").read_bytes() == "é\r\n".encode()
    assert json.loads((tmp_path / "c").read_text("utf-8")) == {"a": [1, 2.5, "é"]}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), OSError(errno.ECONNRESET, "net")])
def test_a_failing_block_leaves_the_old_file_and_no_trace(tmp_path, error):
    path = tmp_path / "model"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), atomic_file(path) as file:  # noqa: PT012 the block is what fails
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def write_on_a_full_disk(path):
    with atomic_file(path) as file:
        file.write(b"new")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*No space left") as error:
        write_on_a_full_disk(tmp_path / "model")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_really_full_is_one_clear_line(tmp_path, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr("vitreous.support.files._open", lambda path, mode: full)
        with pytest.raises(InputError, match="No space left"):
            write_bytes(tmp_path / "model", b"x")


def test_the_old_file_stays_until_the_end_of_the_block(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (calls.append("rename"), replace(self, to))[1])
    write_bytes(tmp_path / "a", b"x")
    assert calls == ["fsync", "rename", "fsync"]


def test_a_missing_folder_and_what_is_no_file_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*No such file"):
        write_bytes(tmp_path / "missing" / "a", b"")
    with pytest.raises(InputError, match="not a file"):
        write_bytes(tmp_path, b"")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="not a file"):
        write_bytes(tmp_path / "fifo", b"")


def test_the_longest_name_can_be_written(tmp_path):
    write_bytes(tmp_path / ("n" * 255), b"x")
    assert (tmp_path / ("n" * 255)).read_bytes() == b"x"


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "ordinary").touch()
    write_bytes(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_undecodable_names_can_be_written_and_come_back_from_json(tmp_path):
    write_json(tmp_path / "a", ["caf\udce9"])
    assert json.loads((tmp_path / "a").read_text("utf-8")) == ["caf\udce9"]
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b", float("nan"))
    assert not (tmp_path / "b").exists()
