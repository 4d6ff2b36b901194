"""A run: what it leaves, and that it is reproducible."""

import json
import tomllib
from pathlib import Path

import pytest
import torch

from vitreous.checkpoints.store import load_model
from vitreous.data.sources.open import open_data
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.run import run_training

FILES = {
    "recipe.toml", "environment.json", "metrics.jsonl", "results.csv", "results.png", "confusion_matrix.csv",
    "confusion_matrix.png", "per_class.csv", "bad_files.csv", "model.safetensors", "train_batch.png", "checkpoints",
}  # fmt: skip


def rows_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_folder(photos, tmp_path, quick):
    run = run_training(photos, out=tmp_path / "out", settings=quick)
    assert {path.name for path in run.folder.iterdir()} == FILES
    *epochs, test = rows_of(run.folder)
    assert epochs == run.rows
    assert [(row["epoch"], row["step"]) for row in epochs] == [(1, 3), (2, 6)]
    assert set(epochs[0]) == {
        "epoch", "step", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy",
        "val_balanced_accuracy", "val_macro_f1", "images_per_second", "data_wait", "memory_bytes", "seconds",
    }  # fmt: skip
    shares = ("train_accuracy", "val_accuracy", "val_balanced_accuracy", "val_macro_f1")
    assert all(0 <= row[key] <= 1 for row in epochs for key in shares)
    assert test["test_accuracy"] == run.outcome.accuracy
    assert len(run.outcome.labels) == 12

    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["classes"] == ["blue", "green", "red"]
    assert environment["images"] == {"train": 33, "validation": 3, "test": 12}
    assert environment["images_per_class"] == {"train": [11, 11, 11], "validation": [1, 1, 1], "test": [4, 4, 4]}
    assert environment["notes"] == []


def test_the_file_is_the_whole_model(photos, tmp_path, quick):
    run = run_training(photos, out=tmp_path / "out", settings=quick | {"epochs": 8, "lr": 3e-3})
    stored = load_model(run.folder / "model.safetensors")
    assert stored.class_names == ("blue", "green", "red")
    split = open_data(photos).test
    images = stored.preprocessing([split.load(i) for i in range(len(split))])
    predictions = stored.model(images).argmax(1)
    assert predictions.tolist() == run.outcome.predictions.tolist()
    assert run.outcome.accuracy > 0.9, "the colors are learned"
    assert stored.metadata["epoch"] == run.best["epoch"]


def test_its_recipe_does_the_same_again(photos, tmp_path, quick):
    first = run_training(photos, out=tmp_path / "first", settings=quick)
    recipe = tomllib.loads((first.folder / "recipe.toml").read_text())
    assert Recipe.from_dict(recipe) == first.recipe
    again = run_training(photos, recipe=first.folder / "recipe.toml", out=tmp_path / "again")
    assert same_weights(first, again)


def same_weights(one, other) -> bool:
    a, b = (load_model(run.folder / "model.safetensors").model.state_dict() for run in (one, other))
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_same_seed_gives_the_same_bits(tmp_path, quick):
    settings = quick | {"dropout": 0.1, "batch_size": 256}
    runs = []
    for number, (workers, seed) in enumerate([(0, 0), (2, 0), (0, 1)]):
        torch.manual_seed(number)  # what the caller drew before must not matter
        changed = settings | {"workers": workers, "seed": seed}
        runs.append(run_training("digits", recipe="digits", out=tmp_path / str(number), settings=changed, quiet=True))
    assert same_weights(runs[0], runs[1])
    assert not same_weights(runs[0], runs[2])
    timed = ("images_per_second", "data_wait", "memory_bytes", "seconds")
    numbers = [[{k: v for k, v in row.items() if k not in timed} for row in run.rows] for run in runs]
    assert numbers[0] == numbers[1]
    assert numbers[0] != numbers[2]


@pytest.mark.parametrize("algorithm", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("decay", ["cosine", "linear", "rsqrt", "constant"])
def test_every_optimizer_and_schedule_runs(algorithm, decay, photos, tmp_path, quick):
    settings = quick | {"algorithm": algorithm, "decay": decay, "cooldown_epochs": 0.5, "lr": 0.01}
    run = run_training(photos, out=tmp_path / "out", settings=settings, quiet=True)
    fresh = run_training(photos, out=tmp_path / "still", settings=settings | {"lr": 1e-12}, quiet=True)
    assert not same_weights(run, fresh)
    assert {row["epoch"] for row in run.rows} == {1, 2}
    assert run.rows[-1]["lr"] < 0.01
    assert run.recipe.optimizer.algorithm == algorithm


def test_other_losses_run(photos, tmp_path, quick):
    settings = quick | {"loss": "sigmoid", "class_weights": "balanced"}
    run = run_training(photos, out=tmp_path / "out", settings=settings, quiet=True)
    plain = run_training(photos, out=tmp_path / "plain", settings=quick, quiet=True)
    assert run.rows[-1]["train_loss"] != plain.rows[-1]["train_loss"]
    assert run.recipe.objective.class_weights == "balanced"


MORE_VIEWS = {
    "randaugment": {"randaugment_layers": 2, "randaugment_magnitude": 15.0},
    "trivial": {"trivial_augment": True},
    "auto": {"auto_augment": True},
    "jitter and erasing": {"color_jitter": 0.4, "erasing": 0.5},
    "mixup": {"mixup": 0.2},
    "cutmix, each its own": {"cutmix": 1.0, "mix_per_sample": True},
    "both": {"mixup": 0.8, "cutmix": 1.0},
}


@pytest.mark.parametrize("views", MORE_VIEWS.values(), ids=list(MORE_VIEWS))
def test_stronger_augmentation_is_the_same_for_any_number_of_workers(views, photos, tmp_path, quick):
    runs = [
        run_training(photos, out=tmp_path / str(n), settings=quick | views | {"workers": n}, quiet=True) for n in (0, 2)
    ]
    plain = run_training(photos, out=tmp_path / "plain", settings=quick, quiet=True)
    assert same_weights(*runs)
    assert not same_weights(runs[0], plain)


def test_the_average_is_kept_and_training_goes_on_as_without(photos, tmp_path, quick):
    plain, averaged = (
        run_training(photos, out=tmp_path / str(decay), settings=quick | {"ema_decay": decay}, quiet=True)
        for decay in (0.0, 0.9)
    )
    assert [row["train_loss"] for row in plain.rows] == [row["train_loss"] for row in averaged.rows]
    assert [row["val_loss"] for row in plain.rows] != [row["val_loss"] for row in averaged.rows]
    assert not same_weights(plain, averaged)


def test_the_callers_random_numbers_are_left_alone(photos, tmp_path, quick):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run_training(photos, out=tmp_path / "out", settings=quick, quiet=True)
    assert torch.equal(torch.rand(3), expected)


def test_digits_may_be_a_path(tmp_path, quick, monkeypatch):
    monkeypatch.chdir(tmp_path)
    del quick["variant"]
    run = run_training(Path("digits"), settings=quick, quiet=True)
    assert run.recipe.model.width == 64, "from its own recipe"


def test_the_folder_is_named_after_the_data(photos, tmp_path, quick, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(run_training("photos/", settings=quick, quiet=True).folder) == "runs/photos"
