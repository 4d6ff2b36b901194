"""Checkpoints are written beside the training, when they are due."""

import threading

import pytest
import torch

from vitreous.support.errors import InputError
from vitreous.training.checkpointing.files import Checkpoints
from vitreous.training.checkpointing.saver import Saver


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_one_is_due_at_five_percent_of_the_run_or_ten_minutes(tmp_path, clock):
    saver = Saver(Checkpoints(tmp_path, print), None, print, clock)
    for seconds, interval in ((10.0, 1.0), (100.0, 5.0), (2000.0, 100.0), (86400.0, 600.0), (None, 600.0)):
        clock.now = saver.begun + interval - 0.01
        assert not saver.is_due(lambda seconds=seconds: seconds)
        clock.now = saver.begun + interval
        assert saver.is_due(lambda seconds=seconds: seconds)


def test_minutes_can_be_set(tmp_path, clock):
    saver = Saver(Checkpoints(tmp_path, print), 0.5, print, clock)
    clock.now = 29.0
    assert not saver.is_due(lambda: 1.0)
    clock.now = 30.0
    assert saver.is_due(lambda: 1.0)


def test_an_epoch_of_less_than_a_second_is_not_worth_one(tmp_path):
    clock = Clock()
    saver = Saver(Checkpoints(tmp_path, print), 0.5, print, clock)
    clock.now += 0.99
    assert not saver.is_worth
    clock.now += 0.02
    assert saver.is_worth


def test_what_is_saved_is_the_state_of_that_moment(tmp_path):
    weights = torch.zeros(1000)
    with Saver(Checkpoints(tmp_path, print), None, print) as saver:
        saver.save({"weights": weights, "rows": [1]}, step=1)
        weights += 1
    newest = Checkpoints(tmp_path, print).newest()
    assert newest is not None
    assert not newest.state["weights"].any()


def test_while_one_is_written_no_other_is_begun(tmp_path, monkeypatch):
    checkpoints, may_end = Checkpoints(tmp_path, print), threading.Event()
    write = checkpoints.write

    def slow(*arguments):
        may_end.wait(60)
        return write(*arguments)

    monkeypatch.setattr(checkpoints, "write", slow)
    with Saver(checkpoints, None, print) as saver:
        assert saver.save({"number": 1}, step=1)
        assert not saver.save({"number": 2}, step=2)
        may_end.set()
        assert saver.save_now({"number": 3}, step=3)
    assert sorted(path.name for path in checkpoints.path.iterdir()) == ["000001-step-1", "000002-step-3"]


def test_one_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    lines: list[str] = []
    checkpoints = Checkpoints(tmp_path, lines.append)

    def full(*arguments):
        raise InputError("cannot write a checkpoint: No space left on device", "free some space")

    with Saver(checkpoints, None, lines.append) as saver:
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, "write", full)
            assert saver.save({"number": 1}, step=1)
            assert not saver.wait()
        assert saver.save_now({"number": 2}, step=2)
    assert lines == [
        "warning: cannot write a checkpoint: No space left on device; the run goes on, and the last checkpoint stays; "
        "free some space"
    ]


def test_a_fault_of_the_program_is_raised(tmp_path):
    saver = Saver(Checkpoints(tmp_path, print), None, print)
    saver.save({"number": object()}, step=1)
    with pytest.raises(TypeError, match="cannot be saved"):
        saver.wait()


def test_the_model_is_that_of_the_moment_too(tmp_path):
    """Another model may replace it while the checkpoint is written."""
    checkpoints, model = Checkpoints(tmp_path, print), tmp_path / "model.safetensors"
    model.write_bytes(b"the best so far")
    unfinished = checkpoints.begin()
    (tmp_path / "new").write_bytes(b"a better one")
    (tmp_path / "new").replace(model)
    path = checkpoints.write({"number": 1}, 1, unfinished)
    assert (path / "model.safetensors").read_bytes() == b"the best so far"
    assert sorted(file.name for file in path.iterdir()) == [
        *("SHA256SUMS", "model.safetensors", "state.json", "state.safetensors")
    ]


def test_one_that_cannot_be_begun_is_a_warning(tmp_path):
    lines: list[str] = []
    folder = tmp_path / "run"
    folder.write_bytes(b"not a folder")
    with Saver(Checkpoints(folder, lines.append), None, lines.append) as saver:
        assert not saver.save({"number": 1}, step=1)
    assert [line.startswith("warning: cannot write a checkpoint to") for line in lines] == [True]
