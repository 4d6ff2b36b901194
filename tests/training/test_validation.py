"""Validation and test: which epoch is kept, and what it is scored on."""

import json
import math

import numpy as np
import pytest

from vitreous.checkpoints.store import load_model
from vitreous.data.decoding.images import decode_image
from vitreous.data.sources.trees.folders import FileLoader
from vitreous.evaluation.metrics import Outcome
from vitreous.support.errors import InputError
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
        return Score(*next(scores), count=1)

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
    assert is_better(good, bad, "accuracy")
    assert not is_better(bad, good, "accuracy")
    assert not is_better(good, good, "accuracy")
    assert is_better(bad, None, "accuracy") is math.isfinite(worse[1])


SCORES = ("loss", "accuracy", "balanced_accuracy", "macro_f1")


@pytest.mark.parametrize("keep_by", SCORES)
def test_each_score_may_decide(keep_by):
    """The better row is better in this score alone, and worse in all others."""
    good = {f"val_{name}": (0.4 if name == "loss" else 0.6) if name == keep_by else 0.5 for name in SCORES}
    bad = {f"val_{name}": (0.5 if name == keep_by else 0.4 if name == "loss" else 0.6) for name in SCORES}
    assert is_better(good, bad, keep_by)
    assert not is_better(bad, good, keep_by)
    assert not any(is_better(good, bad, other) for other in SCORES if other != keep_by)


def outcome_of(confusion: list[list[int]], loss: float) -> Outcome:
    """An outcome with these counts of true (row) and predicted classes."""
    pairs = [(i, j) for i, row in enumerate(confusion) for j, count in enumerate(row) for _ in range(count)]
    labels, predictions = np.array(pairs, np.int64).T
    return Outcome(np.arange(len(pairs)), labels, predictions[:, None], np.ones((len(pairs), 1), np.float32), loss)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, 1),
        ({"balanced_sampling": True}, 2),
        ({"class_weights": "balanced"}, 2),
        ({"balanced_sampling": True, "keep_by": "accuracy"}, 1),
        ({"keep_by": "balanced_accuracy"}, 2),
        ({"keep_by": "macro_f1"}, 2),
        ({"keep_by": "loss"}, 3),
        ({"keep_by": "loss", "patience": 1}, 1),
        ({"keep_by": "balanced_accuracy", "patience": 1}, 2),
    ],
    ids=str,
)
def test_what_is_kept_of_ten_to_one_classes(settings, kept, photos, tmp_path, quick, monkeypatch):
    """One epoch always answers the majority, one finds both classes, one has the lowest loss."""
    outcomes = iter([outcome_of([[20, 0], [2, 0]], 0.5), outcome_of([[17, 3], [0, 2]], 0.6),
                     outcome_of([[12, 8], [1, 1]], 0.4)])  # fmt: skip
    evaluate = loop.evaluate

    def pretend(learner, model, split, bad_files, progress):
        return next(outcomes) if split.name == "validation" else evaluate(learner, model, split, bad_files)

    monkeypatch.setattr(loop, "evaluate", pretend)
    run = run_training(photos, out=tmp_path / "out", settings=quick | {"epochs": 3} | settings, quiet=True)
    assert run.best["epoch"] == kept
    assert load_model(run.folder / "model.safetensors").metadata["epoch"] == kept
    assert run.recipe.schedule.keep_by != "auto"
    assert run.rows[0]["val_balanced_accuracy"] == 0.5
    assert run.rows[1]["val_balanced_accuracy"] == pytest.approx((0.85 + 1) / 2)
    test = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert test["test_balanced_accuracy"] == run.outcome.balanced_accuracy
    assert test["test_macro_f1"] == run.outcome.macro_f1


def test_without_classes_there_is_no_score_of_classes(photos, tmp_path, quick):
    settings = quick | {"goal": "masked_patch"}
    for name in ("balanced_accuracy", "macro_f1"):
        with pytest.raises(InputError, match=f"keep_by is '{name}', but the goal 'masked_patch' has no classes"):
            run_training(photos, out=tmp_path / "out", settings=settings | {"keep_by": name}, quiet=True)
    settings |= {"balanced_sampling": True}
    run = run_training(photos, out=tmp_path / "out", settings=settings, quiet=True)
    assert run.recipe.schedule.keep_by == "accuracy"
    assert not {"val_macro_f1", "val_balanced_accuracy"} & set(run.rows[0])


def test_every_test_image_is_tested_once(photos, tmp_path, quick, monkeypatch):
    read = []
    monkeypatch.setattr(
        FileLoader, "__call__", lambda self, i: read.append(self.names[i]) or decode_image(self.file(i))
    )
    run = run_training(photos, out=tmp_path / "out", settings=quick | {"check_images": "none"}, quiet=True)
    assert sorted(name for name in read if name.startswith("test/")) == sorted(run.data.test.names)
    outcome = run.outcome
    assert (outcome.labels == run.data.test.labels[outcome.places]).all()
    assert outcome.classes.shape == outcome.probabilities.shape == (12, 3)
    assert outcome.probabilities.sum(1) == pytest.approx(1.0)
