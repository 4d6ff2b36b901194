"""A full disk during a run: what can be written is written, nothing is half written, and the run says what failed."""

import json
import resource
from collections.abc import Iterator

import pytest

from vitreous.checkpoints.store import load_model
from vitreous.support.errors import InputError
from vitreous.training import loop
from vitreous.training.records.folder import METRICS, RunFolder
from vitreous.training.run import run_training


@pytest.fixture
def limit() -> Iterator:
    """Limits the size of files from now on, in bytes; a write beyond it fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def at_save(monkeypatch, number: int, action) -> None:
    """Calls the action before a run saves a model for the n-th time."""
    save, calls = loop.save_model, []

    def save_model(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            action()
        save(*arguments)

    monkeypatch.setattr(loop, "save_model", save_model)


def test_the_first_model_cannot_be_written(photos, tmp_path, quick, monkeypatch, limit):
    """The error is about the disk, and nothing is left."""
    at_save(monkeypatch, 1, lambda: limit(1000))
    with pytest.raises(InputError, match=r"cannot write '.*model\.safetensors'.*; choose a folder with free space"):
        run_training(photos, out=tmp_path / "out", settings=quick | {"checkpoint_minutes": 60}, quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("size", "tables"),
    [(0, set()), (2000, {"bad_files.csv", "results.csv", "per_class.csv", "confusion_matrix.csv"})],
)
def test_a_later_model_cannot_be_written(size, tables, photos, tmp_path, quick, monkeypatch, limit):
    """The earlier one is kept, and is the one that is tested."""
    finished, finish = [], loop.finish

    def finish_and_keep(learner, log, pause):
        finished.append(finish(learner, log, pause))
        return finished[-1]

    monkeypatch.setattr("vitreous.training.run.finish", finish_and_keep)
    monkeypatch.setattr("vitreous.training.records.log.is_better", lambda row, best, keep_by: True)
    at_save(monkeypatch, 2, lambda: limit(size))
    with pytest.raises(InputError, match=r"cannot write '.*model\.safetensors'"):
        run_training(photos, out=tmp_path / "out", settings=quick | {"epochs": 3}, quiet=True)
    limit(resource.RLIM_INFINITY)
    assert {path.name for path in (tmp_path / "out").iterdir()} == tables | {
        *("model.safetensors", "recipe.toml", "environment.json", "metrics.jsonl", "train_batch.png", "checkpoints")
    }
    (result,) = finished
    assert result.best["epoch"] == 1
    assert len(result.outcome.labels) == 12
    assert load_model(tmp_path / "out/model.safetensors").metadata["epoch"] == 1
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1] * (2 if tables else 1)  # the epoch, and the test of its model


def test_a_line_of_metrics_is_written_whole_or_not_at_all(tmp_path, limit):
    folder = RunFolder.create(tmp_path / "run")
    folder.append_metrics({"epoch": 1})
    written = (folder.path / METRICS).read_bytes()
    limit(len(written) + 5)
    with pytest.raises(InputError, match=r"cannot write '.*metrics\.jsonl': .*; choose a writable folder"):
        folder.append_metrics({"epoch": 2})
    limit(resource.RLIM_INFINITY)
    assert (folder.path / METRICS).read_bytes() == written
    folder.release()


def test_a_folder_that_vanishes_is_named_in_one_line(photos, tmp_path, quick, monkeypatch):
    """Not by what the test of its model then misses; and no part of it comes back."""
    out = tmp_path / "out"
    monkeypatch.setattr("vitreous.training.records.log.is_better", lambda row, best, keep_by: True)
    at_save(monkeypatch, 2, lambda: out.rename(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match=r"cannot write '.*model\.safetensors': No such file or directory"):
        run_training(photos, out=out, settings=quick | {"epochs": 3}, quiet=True)
    assert not out.exists()
