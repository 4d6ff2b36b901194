"""What goes wrong in a run: bad input, broken images, interrupts and steps without a finite loss."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from vitreous.checkpoints.store import load_model
from vitreous.data.sampling import epoch_order
from vitreous.data.sources.open import open_data
from vitreous.support.errors import InputError
from vitreous.training import learner, run
from vitreous.training.run import run_training


def rows_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_broken_images_are_skipped_and_listed(photos, tmp_path, quick, capsys):
    (photos / "train/red/0.png").write_bytes(b"no image")
    (photos / "test/blue/0.png").write_bytes(b"")
    run = run_training(photos, out=tmp_path / "out", settings=quick | {"max_bad_fraction": 0.2})
    listed = (run.folder / "bad_files.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in listed[1:]] == ["test/blue/0.png", "train/red/0.png"]
    assert len(run.outcome.labels) == 11
    out = capsys.readouterr().out
    assert "broken and left out: 1 of 33 train, 1 of 12 test images; see " in out
    assert "2 broken images were left out" in out


def test_one_broken_image_of_few_stops_nothing(photos, tmp_path, quick, capsys):
    (photos / "train/red/0.png").write_bytes(b"no image")
    run_training(photos, out=tmp_path / "out", settings=quick)
    assert "1 broken image was left out" in capsys.readouterr().out


def test_too_many_broken_images_stop_the_run(photos, tmp_path, quick):
    """Their list stays in the folder, and the next run may replace it."""
    for number in range(6):
        (photos / f"train/red/{number}.png").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(InputError, match=r"5 of the 33 train images are broken.*max_bad_fraction"):
            run_training(photos, out=tmp_path / "out", settings=quick, quiet=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bad_files.csv"]
    assert "train/red/0.png" in (tmp_path / "out/bad_files.csv").read_text()
    run_training(photos, out=tmp_path / "out", settings=quick | {"max_bad_fraction": 0.5}, quiet=True)


def test_no_model_is_kept_whose_loss_is_not_finite(photos, tmp_path, quick):
    with pytest.raises(InputError, match="had a finite loss"):
        run_training(
            photos, out=tmp_path / "out", settings=quick | {"lr": 1e30, "epochs": 1, "warmup_epochs": 0}, quiet=True
        )
    assert not (tmp_path / "out").exists()


def test_a_run_does_not_go_into_its_data(photos, quick, monkeypatch):
    monkeypatch.chdir(photos)
    for data, out in ((".", None), (photos, photos), (photos, "train/../new")):
        with pytest.raises(InputError, match=r"would be inside the data.*--out ") as error:
            run_training(data, out=out, settings=quick)
        assert sorted(path.name for path in photos.iterdir()) == ["test", "train"]
        assert not Path(error.value.hint.split()[-1]).resolve().is_relative_to(photos)
    assert (run_training(".", out="../out", settings=quick, quiet=True).folder / "model.safetensors").is_file()


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
        run_training(**{"data": photos, "out": tmp_path / "out"} | arguments)
    assert not (tmp_path / "out").exists()


def test_a_used_folder_is_left_as_it_is(photos, tmp_path, quick):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("precious")
    with pytest.raises(InputError, match="is not empty"):
        run_training(photos, out=tmp_path / "out", settings=quick)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_used_folder_is_refused_before_any_work(photos, tmp_path, quick, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_training("photos", settings=quick, quiet=True)
    monkeypatch.setattr(run, "make_plan", pytest.fail)
    with pytest.raises(InputError, match=r"'runs/photos' already has a trained model; .* --out runs/photos-2"):
        run_training("photos", settings=quick)
    with pytest.raises(InputError, match=r"'runs/photos' already has a trained model"):
        run_training("elsewhere", out="runs/photos", settings=quick)
    (tmp_path / "runs/photos").rename("runs/list")
    images = [(Image.new("RGB", (8, 8)), number % 2) for number in range(4)]
    for source in (images, (images, images), {"train": images, "val": images}):
        with pytest.raises(InputError, match=r"'runs/list' already has a trained model"):
            run_training(source, settings=quick)


def test_an_interrupt_leaves_whole_files(photos, tmp_path, quick, monkeypatch):
    steps = iter(range(4))

    def interrupted_step(*arguments, **options):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return train_step(*arguments, **options)

    train_step = learner.train_step
    monkeypatch.setattr(learner, "train_step", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        run_training(photos, out=tmp_path / "out", settings=quick, quiet=True)
    assert len(rows_of(tmp_path / "out")) == 1
    assert load_model(tmp_path / "out/model.safetensors").metadata["epoch"] == 1
    assert (tmp_path / "out/bad_files.csv").is_file()
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_run_without_a_finite_loss_is_an_error(photos, tmp_path, quick):
    with pytest.raises(InputError, match="no update had a finite loss and gradient; set a lower lr"):
        run_training(photos, out=tmp_path / "out", settings=quick | {"std": [1e-40] * 3}, quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_skipped_step_is_reported_and_the_run_goes_on(photos, tmp_path, quick, monkeypatch, capsys):
    def step(model, optimizer, objective, images, labels, **options):
        taken.append(len(labels))
        images = images * torch.nan if len(taken) == 2 else images
        return train_step(model, optimizer, objective, images, labels, **options)

    taken: list[int] = []
    train_step = learner.train_step
    monkeypatch.setattr(learner, "train_step", step)
    run = run_training(photos, out=tmp_path / "out", settings=quick)
    out = capsys.readouterr().out
    assert "epoch 1: skipped updates without a finite loss and gradient at steps 2; the first had train/" in out
    names = set(re.findall(r"train/\w+/\d+\.png", out))
    order = batches_of_epoch(photos, batch_size=16, epoch=1)
    assert names == set(order[1][:3])
    assert " … and 13 more" in out
    assert [row["step"] for row in run.rows] == [3, 6]
    assert all(math.isfinite(row["train_loss"]) for row in run.rows)


def batches_of_epoch(photos, batch_size: int, epoch: int) -> list[list[str]]:
    """The names of each batch of an epoch, by the documented order."""
    train = open_data(photos).train
    names = [train.names[place] for place in epoch_order(0, epoch, len(train)).tolist()]
    return [names[start : start + batch_size] for start in range(0, len(names), batch_size)]


@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_too_many_bad_steps_in_a_row_stop_the_run_and_name_the_batch(photos, tmp_path, quick, monkeypatch, most):
    """Reading the streak waits for the device, so it is read when an epoch ends; the message has the exact step."""

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
        run_training(photos, out=tmp_path / "out", settings=settings, quiet=True)
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
    run = run_training(photos, out=tmp_path / "out", settings=quick | {"batch_size": 6, "max_skipped": 3}, quiet=True)
    assert len(run.rows) == 2


def test_flipping_digits_is_rejected(tmp_path):
    with pytest.raises(InputError, match="flipping digits changes their meaning"):
        run_training("digits", out=tmp_path / "out", settings={"flip": True})
