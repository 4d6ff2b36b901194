"""Validation and test: which epoch is kept, and what it is scored on."""

import math

import pytest

from vitreous.data.images import decode_image
from vitreous.data.sources.folders import FileLoader
from vitreous.training import loop
from vitreous.training.objectives.objective import Score
from vitreous.training.records.log import is_better
from vitreous.training.run import run_training


def test_the_best_on_validation_is_kept(photos, tmp_path, quick, monkeypatch):
    """Of equal accuracies the one with the lower loss; test is read once, by that model."""
    scores = iter([(1.0, 0.5), (0.9, 0.75), (0.8, 0.75), (0.85, 0.75), (0.1, 0.7)])  # loss, accuracy
    saved, splits = [], []
    evaluate, save_model = loop.evaluate, loop.save_model

    def pretend(learner, model, split, bad_files, progress):
        splits.append(split.name)
        if split.name == "test":
            return evaluate(learner, model, split, bad_files)
        return Score(*next(scores))

    def save(path, model, preprocessing, class_names, metadata):
        saved.append(metadata["epoch"])
        save_model(path, model, preprocessing, class_names, metadata)

    monkeypatch.setattr(loop, "evaluate", pretend)
    monkeypatch.setattr(loop, "save_model", save)
    run = run_training(photos, out=tmp_path / "out", settings=quick | {"epochs": 5}, quiet=True)
    assert saved == [1, 2, 3]
    assert run.best["epoch"] == 3
    assert splits == ["validation"] * 5 + ["test"]


def test_without_a_test_split_the_accuracy_is_of_validation(photos, tmp_path, quick, capsys):
    run = run_training(photos / "train", out=tmp_path / "out", settings=quick)
    assert run.split == "validation"
    assert len(run.rows) == 2
    assert "validation accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("better", "worse"),
    [((0.5, 0.6), (0.5, math.nan)), ((0.5, 0.6), (0.9, math.inf)), ((0.6, 9.0), (0.5, 0.1)), ((0.5, 0.5), (0.5, 0.6))],
)
def test_which_epoch_is_better(better, worse):
    good, bad = ({"val_accuracy": accuracy, "val_loss": loss} for accuracy, loss in (better, worse))
    assert is_better(good, bad)
    assert not is_better(bad, good)
    assert not is_better(good, good)
    assert is_better(bad, None) is math.isfinite(worse[1])


def test_every_test_image_is_read_once(photos, tmp_path, quick, monkeypatch):
    read = []
    monkeypatch.setattr(
        FileLoader, "__call__", lambda self, i: read.append(self.names[i]) or decode_image(self.file(i))
    )
    run = run_training(photos, out=tmp_path / "out", settings=quick, quiet=True)
    assert sorted(name for name in read if name.startswith("test/")) == sorted(run.data.test.names)
    outcome = run.outcome
    assert (outcome.labels == run.data.test.labels[outcome.places]).all()
    assert outcome.classes.shape == outcome.probabilities.shape == (12, 3)
    assert outcome.probabilities.sum(1) == pytest.approx(1.0)
