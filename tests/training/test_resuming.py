"""A run that stops anywhere goes on as if nothing had happened, to the bit."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.reliability.places import with_signal
from tests.training.same_run import assert_same_run, last_state
from vitreous.support.errors import InputError
from vitreous.support.files import write_text
from vitreous.training.checkpointing.saver import Saver
from vitreous.training.interruption import Stopped
from vitreous.training.learner import Learner
from vitreous.training.records.display import Display
from vitreous.training.records.folder import RunFolder
from vitreous.training.records.log import Log
from vitreous.training.resuming import Finished
from vitreous.training.run import run_training
from vitreous.training.safeguard import Safeguard

CLASSES = {"dropout": 0.2, "stochastic_depth": 0.2, "depth": 2, "mixup": 0.2, "micro_batch": 4, "epochs": 3}
WAYS = {
    "classes": (CLASSES, "update", 4),
    "in an accumulation": (CLASSES, "micro-batch", 7),
    "in the first accumulation": (CLASSES, "micro-batch", 1),
    "while validating": (CLASSES, "validation", 2),
    "between epochs": (CLASSES, "epoch", 2),
    "with processes": (CLASSES | {"workers": 2}, "update", 4),
    "averaged": ({"dropout": 0.2, "ema_decay": 0.9, "algorithm": "sgd", "epochs": 3}, "update", 4),
    "masked patches": ({"goal": "masked_patch", "ema_decay": 0.9, "algorithm": "adam", "epochs": 3}, "update", 4),
    "bfloat16": ({"precision": "bfloat16", "dropout": 0.2, "micro_batch": 4}, "micro-batch", 4),
    "stalled": ({"lr": 1e-12, "patience": 3, "epochs": 9}, "epoch", 3),
    "seldom validated": ({"evaluate_every": 2, "epochs": 4}, "update", 8),
    "in steps": ({"steps": 5, "epochs": "auto"}, "update", 4),
}
PLACES: dict[str, tuple[type, str]] = {
    "update": (Learner, "update"),
    "micro-batch": (Learner, "_between"),
    "validation": (Display, "validating"),
    "epoch": (Log, "end_epoch"),
}


def stop_at(monkeypatch: pytest.MonkeyPatch, place: str, count: int, number: int = signal.SIGINT) -> None:
    """Sends a signal to this process at the call of that number."""
    owner, name = PLACES[place]
    monkeypatch.setattr(owner, name, with_signal(getattr(owner, name), count, number))


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_run_goes_on_to_the_same_bits(way, photos, tmp_path, quick, monkeypatch):
    (photos / "train/red/3.png").write_bytes(b"broken")
    settings, place, count = WAYS[way]
    run_training(photos, "auto", None, tmp_path / "whole", quick | settings, quiet=True)
    with monkeypatch.context() as patch:
        stop_at(patch, place, count)
        with pytest.raises(Stopped):
            run_training(photos, "auto", None, tmp_path / "stopped", quick | settings, quiet=True)
    assert json.loads((tmp_path / "stopped/environment.json").read_text())["finished"] is None
    torch.rand(7)
    run_training(resume=tmp_path / "stopped", quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    environment = json.loads((tmp_path / "stopped/environment.json").read_text())
    assert environment["finished"]
    assert len(environment["resumed"]) == 1


def test_a_run_may_stop_many_times(photos, tmp_path, quick, monkeypatch):
    run_training(photos, "auto", None, tmp_path / "whole", quick | CLASSES, quiet=True)
    arguments: dict[str, Any] = {"data": photos, "out": tmp_path / "stopped", "settings": quick | CLASSES}
    for place, count in (("update", 1), ("micro-batch", 2), ("validation", 1), ("update", 2), ("epoch", 1)):
        with monkeypatch.context() as patch:
            stop_at(patch, place, count, signal.SIGTERM)
            with pytest.raises(Stopped):
                run_training(**arguments, quiet=True)
        arguments = {"resume": tmp_path / "stopped"}
    run_training(**arguments, quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize("teaches", [True, False])
def test_runs_with_weights_go_on(teaches, photos, tmp_path, quick, monkeypatch):
    """The weights that a run began from are in its checkpoint; a teacher is read again."""
    run_training(photos, "auto", None, tmp_path / "first", quick, quiet=True)
    more = {"teacher": str(tmp_path / "first"), "distillation": "hard"} if teaches else {"weights": tmp_path / "first"}
    settings = {"dropout": 0.2, "epochs": 2, "device": "cpu", "threads": 1} | {k: str(v) for k, v in more.items()}
    settings = quick | settings if teaches else settings
    run_training(photos, "auto", None, tmp_path / "whole", settings, quiet=True)
    with monkeypatch.context() as patch:
        stop_at(patch, "update", 3)
        with pytest.raises(Stopped):
            run_training(photos, "auto", None, tmp_path / "stopped", settings, quiet=True)
    if not teaches:
        shutil.rmtree(tmp_path / "first")
    run_training(resume=tmp_path / "stopped", quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_without_a_checkpoint_starts_afresh(photos, tmp_path, quick, monkeypatch, capsys):
    run_training(photos, "auto", None, tmp_path / "whole", quick, quiet=True)
    with monkeypatch.context() as patch:
        stop_at(patch, "update", 2)
        with pytest.raises(Stopped):
            run_training(photos, "auto", None, tmp_path / "stopped", quick, quiet=True)
    shutil.rmtree(tmp_path / "stopped/checkpoints")
    run_training(resume=tmp_path / "stopped")
    assert "no checkpoint was finished yet: the run starts afresh" in capsys.readouterr().out
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.fixture
def stopped(photos, tmp_path, quick, monkeypatch) -> Path:
    """The folder of a run that was stopped after an epoch."""
    with monkeypatch.context() as patch:
        stop_at(patch, "epoch", 1)
        with pytest.raises(Stopped):
            run_training(photos, "auto", None, tmp_path / "run", quick | {"epochs": 2}, quiet=True)
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "model.safetensors", "SHA256SUMS"])
def test_a_damaged_checkpoint_is_passed_over(name, photos, tmp_path, quick, monkeypatch, capsys):
    stopped = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, "epoch", 1)
        with pytest.raises(Stopped):
            run_training(photos, "auto", None, stopped, quick | {"checkpoint_minutes": 1e-9}, quiet=True)
    newest = max((stopped / "checkpoints").iterdir())
    content = bytearray((newest / name).read_bytes())
    content[len(content) // 2] ^= 4
    (newest / name).write_bytes(content)
    run_training(resume=stopped)
    line = next(line for line in capsys.readouterr().out.splitlines() if "is damaged" in line)
    assert line.startswith(f"the checkpoint {newest.name} is damaged (")
    assert name in line or name == "SHA256SUMS"


def test_without_an_undamaged_checkpoint_nothing_is_lost(stopped):
    """The model and the metrics of a run are more than a run that starts afresh."""
    for path in (stopped / "checkpoints").iterdir():
        (path / "state.json").write_bytes(b"{}")
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(InputError, match=r"all checkpoints in .* are damaged"):
        run_training(resume=stopped)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_settings_that_differ_are_refused(stopped):
    with pytest.raises(InputError, match=r"lr 0\.5, not .*; leave them out"):
        run_training(resume=stopped, settings={"lr": 0.5, "threads": 2})
    with pytest.raises(InputError, match="a run of 2 epochs cannot be shortened to 1"):
        run_training(resume=stopped, settings={"epochs": 1})


def test_a_run_may_become_longer(stopped, photos, tmp_path, quick):
    """The rate follows the longer run's schedule from where the run was."""
    run = run_training(resume=stopped, settings={"epochs": 4}, quiet=True)
    whole = run_training(photos, "auto", None, tmp_path / "whole", quick | {"epochs": 4}, quiet=True)
    assert [row["epoch"] for row in run.rows] == [1, 2, 3, 4]
    assert [row["lr"] for row in run.rows[1:]] == [row["lr"] for row in whole.rows[1:]]
    again = run_training(resume=stopped, settings={"epochs": 5}, quiet=True)
    assert len(again.rows) == 5


def test_a_folder_with_a_stopped_run_says_how_to_go_on(stopped, photos, quick):
    with pytest.raises(
        InputError, match=r"has a run that has not finished; go on with it: vitreous train --resume \S*/run; or --out"
    ):
        run_training(photos, "auto", None, stopped, quick)
    (stopped / "environment.json").write_text("{")
    with pytest.raises(InputError, match=r"does not say where the images are"):
        run_training(resume=stopped)
    run_training(photos, resume=stopped, quiet=True)
    with pytest.raises(InputError, match="already has a trained model"):
        run_training(photos, "auto", None, stopped, quick)


def test_a_finished_run_says_so(stopped):
    run_training(resume=stopped, quiet=True)
    with pytest.raises(Finished, match="is finished; predict with it, or set more epochs"):
        run_training(resume=stopped, quiet=True)


def test_other_images_are_refused(stopped, photos):
    shutil.copy(photos / "train/red/0.png", photos / "train/red/99.png")
    with pytest.raises(InputError, match="train images, and had"):
        run_training(resume=stopped)
    (photos / "train/red/0.png").unlink()
    with pytest.raises(InputError, match="names or labels of the train images have changed"):
        run_training(resume=stopped)
    (photos / "train/red/99.png").rename(photos / "train/red/0.png")
    run_training(resume=stopped, quiet=True)


def test_images_may_move(stopped, photos, tmp_path):
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="photos"):
        run_training(resume=stopped)
    run_training(tmp_path / "elsewhere", resume=stopped, quiet=True)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        run_training(resume=tmp_path / "nothing")
    write_text(tmp_path / "a.txt", "")
    with pytest.raises(InputError, match="there is no run in"):
        run_training(resume=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_resuming_leaves_an_owned_folder_alone(stopped):
    owner = RunFolder.reopen(stopped)
    with pytest.raises(InputError, match="another process is writing to the folder"):
        run_training(resume=stopped)
    owner.release()
    run_training(resume=stopped, quiet=True)


@pytest.mark.parametrize(("place", "count"), [("micro-batch", 5), ("validation", 1), ("update", 2)])
def test_a_checkpoint_of_any_moment_goes_on(place, count, photos, tmp_path, quick, monkeypatch):
    """Those that are written when they are due, from which a killed run goes on."""
    run_training(photos, "auto", None, tmp_path / "whole", quick | CLASSES, quiet=True)
    settings = quick | CLASSES | {"checkpoint_minutes": 1e-9}  # always due
    with monkeypatch.context() as patch:
        patch.setattr(Saver, "save", lambda saver, state, step: saver.save_now(state, step))
        patch.setattr(
            Safeguard, "__exit__", lambda safeguard, *error: safeguard.stack.close()
        )  # as if the process had been killed
        stop_at(patch, place, count)
        with pytest.raises(Stopped):
            run_training(photos, "auto", None, tmp_path / "killed", settings, quiet=True)
    run_training(resume=tmp_path / "killed", settings={"checkpoint_minutes": "auto"}, quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_signal_in_the_test_is_not_lost(photos, tmp_path, quick, monkeypatch):
    """It may come while Python runs a finalizer, which ignores exceptions."""

    class Finalized:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    def working(display, what, done, count):
        if what == "testing":
            Finalized()

    monkeypatch.setattr(Display, "working", working)
    with pytest.raises(Stopped, match="SIGTERM"):
        run_training(photos, "auto", None, tmp_path / "run", quick, quiet=True)
    monkeypatch.undo()
    assert run_training(resume=tmp_path / "run", quiet=True).outcome is not None


def test_a_micro_batch_that_is_asked_for_is_taken(stopped):
    """Where memory was short, and the first one would not fit again."""
    run_training(resume=stopped, settings={"micro_batch": 2}, quiet=True)
    assert last_state(stopped)["learner"]["micro_batch"] == 2
    assert "micro_batch = 2" in (stopped / "recipe.toml").read_text()


def test_images_that_have_moved(stopped, photos, tmp_path):
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"if the images have moved, say where they are: vitreous train DATA --resume"):
        run_training(resume=stopped)
    run_training(tmp_path / "elsewhere", resume=stopped, quiet=True)
