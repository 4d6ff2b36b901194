"""What a run prints."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitreous.data.sources.open import open_data
from vitreous.evaluation.metrics import Outcome
from vitreous.model.vit import VisionTransformer
from vitreous.training.planning.budget import Budget
from vitreous.training.planning.plan import make_plan
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.records.folder import BadFiles, RunFolder
from vitreous.training.records.results import Run
from vitreous.training.records.summary import conclusion, introduction
from vitreous.training.run import run_training


def test_an_image_of_one_patch_gets_a_warning(tmp_path, quick, capsys):
    settings = quick | {"variant": "mu/16", "image_size": 16}
    run_training("digits", out=tmp_path / "out", settings=settings | {"depth": 1, "epochs": 1, "warmup_epochs": 0})
    out = capsys.readouterr().out
    assert "warning: one patch covers the whole image" in out
    assert "1 block of width" in out
    assert "1 epoch on cpu" in out


def test_the_lines_without_a_terminal(photos, tmp_path, quick, capsys):
    run_training(photos, out=tmp_path / "out", settings=quick)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("3 classes, 33 images to train, 3 to validate, 12 to test")
    assert lines[1] == "classes (train+val+test): blue 11+1+4, green 11+1+4, red 11+1+4"
    assert re.fullmatch(r"decoded all 48 images in \d+ s; none broken", lines[2])
    assert (
        "8×8 pixels in 4×4-pixel patches (a grid of 2×2), flipped, batches of 16, 2 epochs on cpu in float32"
        in lines[3]
    )
    assert lines.pop(4).startswith("warning: only 3 validation images, so ")
    assert [line.split()[:2] for line in lines[4:6]] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert lines[6].startswith("test accuracy ")
    assert "95 % interval" in lines[6]
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("chose_all", [True, False])
def test_what_to_expect_is_printed_where_size_and_length_were_chosen(chose_all, photos):
    plan = make_plan(photos, "auto", None, {"init": "random", "minutes": 0}, lambda line: None)
    plan = replace(plan, budget=Budget(15.0, 60.0, ("64×64 pixels", "9 epochs"), chose_all))
    lines = [*introduction(plan, VisionTransformer(plan.config), plan.batch_size)]
    assert [line.startswith("what to expect: ") for line in lines].count(True) == chose_all


def test_quiet_prints_nothing(photos, tmp_path, quick, capsys):
    run_training(photos, out=tmp_path / "out", settings=quick, quiet=True)
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""


@pytest.mark.parametrize(("left", "goal"), [(3, "classes"), (4, "classes"), (3, "masked_patch")])
def test_lopsided_validation_shows_the_balanced_accuracy_in_each_epoch(left, goal, photos, tmp_path, quick, capsys):
    shutil.copytree(photos / "train", photos / "val")
    for number in range(left, 12):
        (photos / f"val/red/{number}.png").unlink()
    run = run_training(photos, out=tmp_path / "out", settings=quick | {"goal": goal})
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    if (left, goal) == (3, "classes"):  # 12 are more than three times as many
        assert (
            f"val accuracy {run.rows[1]['val_accuracy']:6.1%}  balanced {run.rows[1]['val_balanced_accuracy']:6.1%}  "
            in lines[1]
        )
    else:
        assert not any("balanced" in line for line in lines)


# ---- the result


def finished(folder: Path, confusion: list[list[int]], settings: dict | None = None) -> Run:
    """A run that was tested with these counts of true (row) and predicted classes."""
    pairs = [(i, j) for i, row in enumerate(confusion) for j, count in enumerate(row) for _ in range(count)]
    labels, predictions = np.array(pairs, np.int64).T
    outcome = Outcome(np.arange(len(pairs)), labels, predictions[:, None], np.ones((len(pairs), 1), np.float32), 0.5)
    row = {"epoch": 7, "val_loss": 0.5, "val_accuracy": 0.9, "seconds": 61.0}
    data = replace(open_data("digits"), class_names=("cat", "dog", "fox"))
    return Run(
        folder, data, Recipe().with_settings({"keep_by": "accuracy"} | (settings or {})), [row], row, outcome, "test"
    )


def concluded(run: Run) -> list[str]:
    return [*conclusion(run, BadFiles(RunFolder(run.folder), 0.01))]


def test_the_accuracy_of_lopsided_classes_comes_with_the_balanced_one(tmp_path):
    line, model = concluded(finished(tmp_path, [[40, 0, 0], [4, 6, 0]]))
    assert ", 50 images), balanced accuracy 80.0%, by the model of epoch 7, after 1 min 01 s" in line
    assert model.startswith("model: ")
    assert "balanced" not in concluded(finished(tmp_path, [[30, 0], [4, 6]]))[0]


@pytest.mark.parametrize(
    ("keep_by", "words"), [("balanced_accuracy", "balanced accuracy"), ("macro_f1", "macro F1"), ("loss", "loss")]
)
def test_what_the_model_was_kept_for_is_said(tmp_path, keep_by, words):
    line, _ = concluded(finished(tmp_path, [[8, 2], [1, 9]], {"keep_by": keep_by}))
    assert f"by the model of epoch 7, the best by validation {words}, after" in line


@pytest.mark.parametrize(
    ("confusion", "settings", "expected"),
    [
        ([[40, 0], [4, 0]], {}, "this model answers 'cat' for every test image: set balanced_sampling=true"),
        ([[0, 0, 40], [0, 0, 4]], {}, "this model answers 'fox' for every test image: set balanced_sampling=true"),
        ([[40, 0], [4, 0]], {"class_weights": "balanced"}, "this model answers 'cat' for every test image: train"),
        ([[5, 0], [5, 0]], {}, "this model answers 'cat' for every test image: train"),
        ([[38, 2], [3, 1]], {}, "always answering 'cat' would be right as often as this model, or more (90.9%): set"),
        ([[2, 3], [2, 3]], {}, "always answering 'cat' would be right as often as this model, or more (50.0%): train"),
        ([[3, 2], [2, 3]], {}, None),
        ([[40, 0], [3, 1]], {}, None),
        ([[4, 0, 0]], {}, None),  # one class alone in the split says nothing
    ],
)  # fmt: skip
def test_a_model_that_knows_the_majority_alone_is_named(confusion, settings, expected, tmp_path):
    warnings = [line for line in concluded(finished(tmp_path, confusion, settings)) if line.startswith("warning: ")]
    assert len(warnings) == (expected is not None)
    if expected is not None:
        assert warnings[0].startswith(f"warning: {expected}")


@pytest.mark.parametrize(("count", "warned"), [(1, True), (9, True), (10, False)])
def test_few_images_to_validate_are_named(count, warned, photos, quick):
    plan = make_plan(photos, "auto", None, quick, lambda line: None)
    validation = plan.data.validation
    names, labels = (validation.names * 10)[:count], np.resize(validation.labels, count)
    plan = replace(plan, data=replace(plan.data, validation=replace(validation, names=names, labels=labels)))
    lines = [*introduction(plan, VisionTransformer(plan.config), 16)]
    word = "image" if count == 1 else "images"
    assert any(line.startswith(f"warning: only {count} validation {word}, so") for line in lines) == warned
