import json
import math
import re
import tomllib
from pathlib import Path

import pytest
import torch

from vitreous.checkpoints.store import load_model
from vitreous.data.images import decode_image
from vitreous.data.sampling import epoch_order
from vitreous.data.sources.open import FileLoader, open_data
from vitreous.support.errors import InputError
from vitreous.training import learner, loop, validation
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.run import train

FILES = {
    "recipe.toml", "environment.json", "metrics.jsonl", "results.csv", "results.png", "confusion_matrix.csv",
    "confusion_matrix.png", "per_class.csv", "bad_files.csv", "model.safetensors", "train_batch.png",
}  # fmt: skip


def rows_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_folder(photos, tmp_path, quick):
    run = train(photos, out=tmp_path / "out", settings=quick)
    assert {path.name for path in run.folder.iterdir()} == FILES
    *epochs, test = rows_of(run.folder)
    assert epochs == run.rows
    assert [(row["epoch"], row["step"]) for row in epochs] == [(1, 3), (2, 6)]
    assert set(epochs[0]) == {
        "epoch", "step", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "images_per_second",
        "data_wait", "memory_bytes", "seconds",
    }  # fmt: skip
    assert all(0 <= row[key] <= 1 for row in epochs for key in ("train_accuracy", "val_accuracy"))
    assert test["test_accuracy"] == run.outcome.accuracy
    assert len(run.outcome.labels) == 12

    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["classes"] == ["blue", "green", "red"]
    assert environment["images"] == {"train": 33, "validation": 3, "test": 12}


def test_the_file_is_the_whole_model(photos, tmp_path, quick):
    run = train(photos, out=tmp_path / "out", settings=quick | {"epochs": 8, "lr": 3e-3})
    stored = load_model(run.folder / "model.safetensors")
    assert stored.class_names == ("blue", "green", "red")
    split = open_data(photos).test
    images = stored.preprocessing([split.load(i) for i in range(len(split))])
    predictions = stored.model(images).argmax(1)
    assert predictions.tolist() == run.outcome.predictions.tolist()
    assert run.outcome.accuracy > 0.9, "the colors are learned"
    assert stored.metadata["epoch"] == run.best["epoch"]


def test_its_recipe_does_the_same_again(photos, tmp_path, quick):
    first = train(photos, out=tmp_path / "first", settings=quick)
    recipe = tomllib.loads((first.folder / "recipe.toml").read_text())
    assert Recipe.from_dict(recipe) == first.recipe
    again = train(photos, recipe=first.folder / "recipe.toml", out=tmp_path / "again")
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
        runs.append(train("digits", recipe="digits", out=tmp_path / str(number), settings=changed, quiet=True))
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
    run = train(photos, out=tmp_path / "out", settings=settings, quiet=True)
    fresh = train(photos, out=tmp_path / "still", settings=settings | {"lr": 1e-12}, quiet=True)
    assert not same_weights(run, fresh)
    assert {row["epoch"] for row in run.rows} == {1, 2}
    assert run.rows[-1]["lr"] < 0.01
    assert run.recipe.optimizer.algorithm == algorithm


def test_other_losses_run(photos, tmp_path, quick):
    settings = quick | {"loss": "sigmoid", "class_weights": "balanced"}
    run = train(photos, out=tmp_path / "out", settings=settings, quiet=True)
    plain = train(photos, out=tmp_path / "plain", settings=quick, quiet=True)
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
    runs = [train(photos, out=tmp_path / str(n), settings=quick | views | {"workers": n}, quiet=True) for n in (0, 2)]
    plain = train(photos, out=tmp_path / "plain", settings=quick, quiet=True)
    assert same_weights(*runs)
    assert not same_weights(runs[0], plain)


def test_the_average_is_kept_and_training_goes_on_as_without(photos, tmp_path, quick):
    plain, averaged = (
        train(photos, out=tmp_path / str(decay), settings=quick | {"ema_decay": decay}, quiet=True)
        for decay in (0.0, 0.9)
    )
    assert [row["train_loss"] for row in plain.rows] == [row["train_loss"] for row in averaged.rows]
    assert [row["val_loss"] for row in plain.rows] != [row["val_loss"] for row in averaged.rows]
    assert not same_weights(plain, averaged)


def test_the_callers_random_numbers_are_left_alone(photos, tmp_path, quick):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(photos, out=tmp_path / "out", settings=quick, quiet=True)
    assert torch.equal(torch.rand(3), expected)


def test_the_best_on_validation_is_kept(photos, tmp_path, quick, monkeypatch):
    """Of equal accuracies the one with the lower loss; test is read once, by that model."""
    accuracies = iter([(1.0, 0.5), (0.9, 0.75), (0.8, 0.75), (0.85, 0.75), (0.1, 0.7)])  # loss, accuracy
    saved, splits = [], []
    evaluate, save_model = validation.evaluate, loop.save_model

    def pretend(model, task, split, bad_files, micro_batch):
        splits.append(split.name)
        if split.name == "test":
            return evaluate(model, task, split, bad_files, micro_batch)
        return validation.Score(*next(accuracies))

    def save(path, model, preprocessing, class_names, metadata):
        saved.append(metadata["epoch"])
        save_model(path, model, preprocessing, class_names, metadata)

    monkeypatch.setattr(loop, "evaluate", pretend)
    monkeypatch.setattr(validation, "evaluate", pretend)
    monkeypatch.setattr(loop, "save_model", save)
    run = train(photos, out=tmp_path / "out", settings=quick | {"epochs": 5}, quiet=True)
    assert saved == [1, 2, 3]
    assert run.best["epoch"] == 3
    assert splits == ["validation"] * 5 + ["test"]


def test_without_a_test_split_validation_is_told(photos, tmp_path, quick, capsys):
    run = train(photos / "train", out=tmp_path / "out", settings=quick)
    assert run.split == "validation"
    assert len(rows_of(run.folder)) == 2
    assert "validation accuracy" in capsys.readouterr().out


def test_broken_images_are_skipped_and_listed(photos, tmp_path, quick, capsys):
    (photos / "train/red/0.png").write_bytes(b"no image")
    (photos / "test/blue/0.png").write_bytes(b"")
    run = train(photos, out=tmp_path / "out", settings=quick | {"max_bad_fraction": 0.2})
    listed = (run.folder / "bad_files.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in listed[1:]] == ["test/blue/0.png", "train/red/0.png"]
    assert len(run.outcome.labels) == 11
    assert "2 broken images were skipped" in capsys.readouterr().out


def test_one_broken_image_of_few_stops_nothing(photos, tmp_path, quick, capsys):
    (photos / "train/red/0.png").write_bytes(b"no image")
    train(photos, out=tmp_path / "out", settings=quick)
    assert "1 broken image was skipped" in capsys.readouterr().out


def test_too_many_broken_images_stop_the_run(photos, tmp_path, quick):
    """What they are stays in the folder, and does not keep the next run out of it."""
    for number in range(6):
        (photos / f"train/red/{number}.png").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(InputError, match=r"train images are broken so far.*max_bad_fraction"):
            train(photos, out=tmp_path / "out", settings=quick, quiet=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bad_files.csv"]
    assert "train/red/0.png" in (tmp_path / "out/bad_files.csv").read_text()
    train(photos, out=tmp_path / "out", settings=quick | {"max_bad_fraction": 0.5}, quiet=True)


@pytest.mark.parametrize(
    ("better", "worse"),
    [((0.5, 0.6), (0.5, math.nan)), ((0.5, 0.6), (0.9, math.inf)), ((0.6, 9.0), (0.5, 0.1)), ((0.5, 0.5), (0.5, 0.6))],
)
def test_which_epoch_is_better(better, worse):
    good, bad = ({"val_accuracy": accuracy, "val_loss": loss} for accuracy, loss in (better, worse))
    assert loop.is_better(good, bad)
    assert not loop.is_better(bad, good)
    assert not loop.is_better(good, good)
    assert loop.is_better(bad, None) is math.isfinite(worse[1])


def test_no_model_is_kept_whose_loss_is_not_finite(photos, tmp_path, quick):
    with pytest.raises(InputError, match="had a finite loss"):
        train(photos, out=tmp_path / "out", settings=quick | {"lr": 1e30, "epochs": 1, "warmup_epochs": 0}, quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_run_does_not_go_into_its_data(photos, quick, monkeypatch):
    monkeypatch.chdir(photos)
    for data, out in ((".", None), (photos, photos), (photos, "train/../new")):
        with pytest.raises(InputError, match=r"would lie inside the data.*--out ") as error:
            train(data, out=out, settings=quick)
        assert sorted(path.name for path in photos.iterdir()) == ["test", "train"]
        assert not Path(error.value.hint.split()[-1]).resolve().is_relative_to(photos)
    assert (train(".", out="../out", settings=quick, quiet=True).folder / "model.safetensors").is_file()


def test_every_test_image_is_read_once(photos, tmp_path, quick, monkeypatch):
    read = []
    monkeypatch.setattr(
        FileLoader, "__call__", lambda self, i: read.append(self.names[i]) or decode_image(self.file(i))
    )
    run = train(photos, out=tmp_path / "out", settings=quick, quiet=True)
    assert sorted(name for name in read if name.startswith("test/")) == sorted(run.data.test.names)
    outcome = run.outcome
    assert (outcome.labels == run.data.test.labels[outcome.places]).all()
    assert outcome.classes.shape == outcome.probabilities.shape == (12, 3)
    assert outcome.probabilities.sum(1) == pytest.approx(1.0)


def test_digits_may_be_a_path(tmp_path, quick, monkeypatch):
    monkeypatch.chdir(tmp_path)
    del quick["variant"]
    run = train(Path("digits"), settings=quick, quiet=True)
    assert run.recipe.model.width == 64, "as its own recipe says"


def test_one_patch_is_warned_of(tmp_path, quick, capsys):
    settings = quick | {"variant": "mu/16", "image_size": 16}
    train("digits", out=tmp_path / "out", settings=settings | {"depth": 1, "epochs": 1, "warmup_epochs": 0})
    out = capsys.readouterr().out
    assert "warning: one patch is the whole image" in out
    assert "1 block of width" in out
    assert "1 epoch on cpu" in out


@pytest.mark.parametrize(
    "arguments",
    [
        {"settings": {"lrr": 1}},
        {"settings": {"crop_scale": [0.9, 0.5]}},
        {"settings": {"mean": [0.5]}},
        {"settings": {"device": "warp"}},
        {"settings": {"device": "meta"}},
        {"settings": {"validation_fraction": 1.5}},
        {"settings": {"epochs": 3, "warmup_epochs": 3}},
        {"model": "Tii/8"},
        {"recipe": "palin"},
        {"data": "nowhere"},
    ],
    ids=str,
)
def test_bad_input_makes_no_folder(photos, tmp_path, arguments: dict):
    with pytest.raises(InputError):
        train(**{"data": photos, "out": tmp_path / "out"} | arguments)
    assert not (tmp_path / "out").exists()


def test_a_used_folder_is_left_as_it_is(photos, tmp_path, quick):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("precious")
    with pytest.raises(InputError, match="is used"):
        train(photos, out=tmp_path / "out", settings=quick)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_the_folder_is_named_after_the_data(photos, tmp_path, quick, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(train("photos/", settings=quick, quiet=True).folder) == "runs/photos"


def test_an_interrupt_leaves_whole_files(photos, tmp_path, quick, monkeypatch):
    steps = iter(range(4))

    def interrupted_step(*arguments, **options):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return train_step(*arguments, **options)

    train_step = learner.train_step
    monkeypatch.setattr(learner, "train_step", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        train(photos, out=tmp_path / "out", settings=quick, quiet=True)
    assert len(rows_of(tmp_path / "out")) == 1
    assert load_model(tmp_path / "out/model.safetensors").metadata["epoch"] == 1
    assert (tmp_path / "out/bad_files.csv").is_file()
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_run_that_learns_nothing_says_so(photos, tmp_path, quick):
    with pytest.raises(InputError, match="no update had a finite loss and gradient; set a lower lr"):
        train(photos, out=tmp_path / "out", settings=quick | {"std": [1e-40] * 3}, quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_skipped_step_is_told_and_the_run_goes_on(photos, tmp_path, quick, monkeypatch, capsys):
    def step(model, optimizer, objective, images, labels, **options):
        taken.append(len(labels))
        images = images * torch.nan if len(taken) == 2 else images
        return train_step(model, optimizer, objective, images, labels, **options)

    taken: list[int] = []
    train_step = learner.train_step
    monkeypatch.setattr(learner, "train_step", step)
    run = train(photos, out=tmp_path / "out", settings=quick)
    told = "epoch 1: loss or gradient not finite, weights left as they were, at steps 2; the first of them had train/"
    out = capsys.readouterr().out
    assert told in out
    names = set(re.findall(r"train/\w+/\d+\.png", out))
    order = batches_of_epoch(photos, batch_size=16, epoch=1)
    assert names == set(order[1][:3])
    assert "and 13 more" in out
    assert [row["step"] for row in run.rows] == [3, 6]
    assert all(math.isfinite(row["train_loss"]) for row in run.rows)


def batches_of_epoch(photos, batch_size: int, epoch: int) -> list[list[str]]:
    """The names of each batch of an epoch, by the documented order."""
    train = open_data(photos).train
    names = [train.names[place] for place in epoch_order(0, epoch, len(train)).tolist()]
    return [names[start : start + batch_size] for start in range(0, len(names), batch_size)]


@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_too_many_bad_steps_in_a_row_stop_the_run_and_name_the_batch(photos, tmp_path, quick, monkeypatch, most):
    """Each look waits for the device, so there is one when an epoch ends; told is the step that was one too many."""

    def step(model, optimizer, objective, images, labels, **options):
        taken.append(len(labels))
        images = images * torch.nan if len(taken) > 7 else images
        return train_step(model, optimizer, objective, images, labels, **options)

    taken: list[int] = []
    train_step = learner.train_step
    monkeypatch.setattr(learner, "train_step", step)
    settings = quick | {"epochs": 5, "batch_size": 6, "max_skipped": most}
    with pytest.raises(
        InputError, match=rf"no finite loss or gradient in {most} steps in a row; the last, step"
    ) as error:
        train(photos, out=tmp_path / "out", settings=settings, quiet=True)
    stopped = int(re.search(r"step (\d+)", error.value.cause)[1])
    assert stopped == 7 + most
    epoch, number = divmod(stopped - 1, 6)
    first, *_ = batches_of_epoch(photos, batch_size=6, epoch=epoch + 1)[number]
    assert first in error.value.cause
    assert load_model(tmp_path / "out/model.safetensors").metadata["epoch"] <= 2


def test_fewer_bad_steps_in_a_row_do_not_stop_the_run(photos, tmp_path, quick, monkeypatch):
    def step(model, optimizer, objective, images, labels, **options):
        taken.append(len(labels))
        images = images * torch.nan if len(taken) % 3 else images
        return train_step(model, optimizer, objective, images, labels, **options)

    taken: list[int] = []
    train_step = learner.train_step
    monkeypatch.setattr(learner, "train_step", step)
    run = train(photos, out=tmp_path / "out", settings=quick | {"batch_size": 6, "max_skipped": 3}, quiet=True)
    assert len(run.rows) == 2


def test_lines_where_there_is_no_terminal(photos, tmp_path, quick, capsys):
    train(photos, out=tmp_path / "out", settings=quick)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("3 classes, 33 images to learn from, 3 to validate, 12 to test")
    assert (
        "8×8 pixels in 4×4-pixel patches (a grid of 2×2), flipped, batches of 16, 2 epochs on cpu in float32"
        in lines[1]
    )
    assert [line.split()[:2] for line in lines[2:4]] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert lines[4].startswith("test accuracy ")
    assert "95 % interval" in lines[4]
    assert not any("\x1b" in line for line in lines)


def test_quiet_is_quiet(photos, tmp_path, quick, capsys):
    train(photos, out=tmp_path / "out", settings=quick, quiet=True)
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""


def test_a_flipped_digit_is_refused(tmp_path):
    with pytest.raises(InputError, match="flipped digits are other ones"):
        train("digits", out=tmp_path / "out", settings={"flip": True})
