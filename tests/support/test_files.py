"""A file appears complete or not at all."""

import errno
import json
import os
from pathlib import Path

import pytest

from vitreous.support.errors import InputError
from vitreous.support.files import atomic_file, atomic_folder, cache_folder, write_bytes, write_json, write_text


def test_files_are_written_and_nothing_else(tmp_path):
    write_bytes(tmp_path / "a", b"\0\1")
    write_text(tmp_path / "b", "é\r\n")
    write_json(tmp_path / "c", {"a": [1, 2.5, "é"]})
    assert (tmp_path / "a").read_bytes() == b"\0\1"
    assert (tmp_path / "b").read_bytes() == "é\r\n".encode()
    assert json.loads((tmp_path / "c").read_text("utf-8")) == {"a": [1, 2.5, "é"]}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), OSError(errno.ECONNRESET, "net")])
def test_a_failing_block_leaves_only_the_old_file(tmp_path, error):
    path = tmp_path / "model"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), atomic_file(path) as file:  # noqa: PT012 the block fails
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def write_on_a_full_disk(path):
    with atomic_file(path) as file:
        file.write(b"new")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*No space left") as error:
        write_on_a_full_disk(tmp_path / "model")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_device_is_an_input_error(tmp_path, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(Path, "open", lambda path, mode: full)
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


def test_the_content_is_flushed_before_the_rename(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (calls.append("rename"), replace(self, to))[1])
    write_bytes(tmp_path / "a", b"x")
    assert calls == ["fsync", "rename", "fsync"]


def test_a_missing_folder_and_special_files_are_refused(tmp_path):
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


def test_undecodable_names_round_trip_through_json(tmp_path):
    write_json(tmp_path / "a", ["caf\udce9"])
    assert json.loads((tmp_path / "a").read_text("utf-8")) == ["caf\udce9"]
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b", float("nan"))
    assert not (tmp_path / "b").exists()


# ---- folders


def fill(folder, last="weights", names=("a.json", "weights", "z.json")):
    with atomic_folder(folder, last) as new:
        for name in names:
            (new / name).write_text("new")


def contents(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_receives_all_files_and_keeps_others(tmp_path):
    fill(tmp_path / "deep" / "new")
    assert contents(tmp_path / "deep" / "new") == {"a.json": "new", "weights": "new", "z.json": "new"}
    (tmp_path / "old").mkdir()
    for name in ("weights", "notes"):
        (tmp_path / "old" / name).write_text("old")
    fill(tmp_path / "old")
    assert contents(tmp_path / "old") == {"a.json": "new", "weights": "new", "z.json": "new", "notes": "old"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "old"]


def test_all_files_are_flushed_and_the_last_moves_out_first_and_in_last(tmp_path, monkeypatch):
    for name in ("weights", "z.json"):
        (tmp_path / name).write_text("old")
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])

    def move(self, to):
        calls.append(f"{self.name} {'in' if to.parent == tmp_path else 'out'}")
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", move)
    fill(tmp_path)
    out, into = ["weights out", "z.json out"], ["a.json in", "z.json in", "weights in"]
    assert calls == ["fsync"] * 3 + out + ["fsync"] + into + ["fsync"]


@pytest.mark.parametrize("fatal", range(6))
@pytest.mark.parametrize("error", [OSError(errno.EACCES, "no"), KeyboardInterrupt()])
def test_a_failing_move_restores_the_folder(fatal, error, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.json", "weights", "notes"):
        (folder / name).write_text("old")
    before, moves, replace = contents(tmp_path), iter(range(100)), Path.replace

    def move(self, to):
        if next(moves) == fatal:
            raise error
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", move)
    if fatal == 5:  # two move out, three move in
        fill(folder)
        return
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        fill(folder)
    assert contents(tmp_path) == before
    assert len(list(tmp_path.rglob("*"))) == 4


def test_a_file_never_replaces_a_folder(tmp_path):
    (tmp_path / "z.json").mkdir()
    (tmp_path / "weights").write_text("old")
    with pytest.raises(InputError, match=r"z\.json': it is not a file"):
        fill(tmp_path)
    assert contents(tmp_path) == {"weights": "old"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["weights", "z.json"]


def test_a_failing_block_leaves_no_folder(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "deep" / "new") as new:  # noqa: PT012 the block fails
        (new / "a").write_text("new")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_the_environment_sets_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "vitreous"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("", "relative"):  # the specification has relative ones ignored
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == tmp_path / "home/.cache/vitreous"
