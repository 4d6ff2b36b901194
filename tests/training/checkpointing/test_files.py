"""A checkpoint is complete and undamaged, or does not count."""

import errno
import os
import random
import shutil
import subprocess

import pytest
import torch

from vitreous.support.errors import InputError
from vitreous.training.checkpointing import files
from vitreous.training.checkpointing.files import Checkpoints

FLIPS = 100
OPERATIONS = ("mkdir", "open", "fsync", "rename", "rmdir", "unlink")


def state(number: int) -> dict:
    """A state with its number in a tensor and in a value."""
    return {"number": number, "tensor": torch.full((64,), float(number))}


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def checkpoints(tmp_path, lines) -> Checkpoints:
    (tmp_path / "model.safetensors").write_bytes(b"the best model")
    return Checkpoints(tmp_path, lines.append)


def number_of(checkpoints: Checkpoints) -> int | None:
    """The number of the newest state, which must be whole."""
    newest = checkpoints.newest()
    if newest is None:
        return None
    assert torch.equal(newest.state["tensor"], state(newest.state["number"])["tensor"])
    return newest.state["number"]


def test_the_newest_two_are_kept(checkpoints, lines):
    assert checkpoints.newest() is None
    for number in range(4):
        checkpoints.write(state(number), step=10 * number)
        assert number_of(checkpoints) == number
    assert sorted(path.name for path in checkpoints.path.iterdir()) == ["000003-step-20", "000004-step-30"]
    assert lines == []


def test_damaged_ones_do_not_count_among_those_kept(checkpoints):
    for number in (1, 2, 3):
        path = checkpoints.write(state(number), step=number)
        if number > 1:
            (path / "state.json").write_bytes(b"")
            assert number_of(checkpoints) == 1
    checkpoints.write(state(4), step=4)
    assert sorted(path.name for path in checkpoints.path.iterdir()) == ["000001-step-1", "000004-step-4"]


def test_sha256sum_agrees(checkpoints):
    path = checkpoints.write(state(1), step=1)
    done = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=path, capture_output=True, text=True, check=True)
    assert done.stdout.count(": OK") == 3


def test_the_model_comes_back(checkpoints, tmp_path):
    checkpoints.write(state(1), step=1)
    (tmp_path / "model.safetensors").write_bytes(b"of a later epoch")
    newest = checkpoints.newest()
    assert newest is not None
    checkpoints.restore_model(newest)
    assert (tmp_path / "model.safetensors").read_bytes() == b"the best model"
    (tmp_path / "model.safetensors").unlink()
    checkpoints.write(state(2), step=2)
    (tmp_path / "model.safetensors").write_bytes(b"of a later epoch")
    newest = checkpoints.newest()
    assert newest is not None
    checkpoints.restore_model(newest)  # there was none then: what is there stays until another one is kept
    assert (tmp_path / "model.safetensors").read_bytes() == b"of a later epoch"


def test_any_flipped_bit_is_found(checkpoints, lines):
    checkpoints.write(state(1), step=1)
    path = checkpoints.write(state(2), step=2)
    draw = random.Random(0)
    for flip in range(FLIPS):
        file = draw.choice(sorted(path.iterdir()))
        whole = file.read_bytes()
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(content)
        assert number_of(checkpoints) == 1
        assert len(lines) == flip + 1
        file.write_bytes(whole)
    assert number_of(checkpoints) == 2


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "model.safetensors", "SHA256SUMS"])
def test_a_cut_or_missing_file_is_found(name, checkpoints):
    checkpoints.write(state(1), step=1)
    path = checkpoints.write(state(2), step=2)
    content = (path / name).read_bytes()
    for length in (0, 1, len(content) // 2, len(content) - 1):
        (path / name).write_bytes(content[:length])
        assert number_of(checkpoints) == 1
    (path / name).unlink()
    assert number_of(checkpoints) == 1
    (path / name).write_bytes(content)
    assert number_of(checkpoints) == 2
    (path / ".DS_Store").write_bytes(b"")  # of the system: not the checkpoint's
    assert number_of(checkpoints) == 2


def in_a_child(function, *arguments) -> int:
    """Runs a function in a fork of this process, which then ends without any cleanup; returns its exit status."""
    child = os.fork()
    if child == 0:
        try:
            function(*arguments)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_at_any_operation_the_old_or_the_new_one_loads(checkpoints, tmp_path, lines):
    checkpoints.write(state(1), step=1)
    whole = tmp_path.parent / "whole"
    shutil.copytree(tmp_path, whole)
    found = []
    for last in range(200):
        shutil.rmtree(tmp_path)
        shutil.copytree(whole, tmp_path)

        def write(last: int = last) -> None:
            """Writes, and is killed before the operation of that number."""
            left = last

            def counted(operation):
                def wrapped(*arguments, **options):
                    nonlocal left
                    if left == 0:
                        os._exit(9)
                    left -= 1
                    return operation(*arguments, **options)

                return wrapped

            for name in OPERATIONS:
                setattr(os, name, counted(getattr(os, name)))
            checkpoints.write(state(2), step=2)

        killed = in_a_child(write) == 9
        found.append(number_of(checkpoints))
        assert lines == []
        checkpoints.write(state(3), step=3)
        assert number_of(checkpoints) == 3
        assert not [*checkpoints.path.glob(".saving-*")]
        if not killed:
            break
    assert found == [1] * found.count(1) + [2] * found.count(2)
    assert found.count(1) > 5
    assert found.count(2) > 1


@pytest.mark.parametrize("name", ["mkdir", "fsync", "rename"])
def test_a_failed_write_leaves_the_others(name, checkpoints, monkeypatch):
    checkpoints.write(state(1), step=1)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        with pytest.raises(InputError, match=r"cannot write .*: No space left on device"):
            checkpoints.write(state(2), step=2)
    assert number_of(checkpoints) == 1
    assert len([*checkpoints.path.iterdir()]) == 1


def test_a_folder_that_is_gone_does_not_come_back(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    checkpoints = Checkpoints(folder, print)
    checkpoints.write(state(1), step=1)
    shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"cannot write .*: No such file or directory"):
        checkpoints.write(state(2), step=2)
    assert not folder.exists()


def test_another_format_is_no_checkpoint(checkpoints):
    (checkpoints.path / "notes").mkdir(parents=True)
    assert checkpoints.newest() is None
    (checkpoints.path / "000009-step-1").mkdir()
    with pytest.raises(InputError, match=r"all checkpoints in .* are damaged; restore one, or remove them all"):
        checkpoints.newest()
    assert files.damage(checkpoints.path / "000009-step-1") == "SHA256SUMS: No such file or directory"
