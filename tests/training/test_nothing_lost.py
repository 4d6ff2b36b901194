"""What breaks after the check of the images costs those images, never the results."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from vitreous.checkpoints.store import load_model
from vitreous.data.sources.open import open_data
from vitreous.data.sources.trees.folders import FileLoader
from vitreous.support.errors import InputError
from vitreous.training import loop, run
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.records import folder, pictures
from vitreous.training.records.folder import RunFolder
from vitreous.training.run import run_training

TABLES = {"results.csv", "results.png", "per_class.csv", "confusion_matrix.csv", "confusion_matrix.png"}


def bad_files(folder: Path) -> list[list[str]]:
    with (folder / "bad_files.csv").open(newline="") as file:
        return [*csv.reader(file)][1:]


def after_validation(monkeypatch, epoch: int, action) -> None:
    """Calls the action when the validation of an epoch has ended."""
    evaluate, epochs = loop.evaluate, []

    def evaluate_and_act(learner, model, split, bad, progress):
        result = evaluate(learner, model, split, bad, progress)
        epochs.append(split.name)
        if epochs == ["validation"] * epoch:
            action()
        return result

    monkeypatch.setattr(loop, "evaluate", evaluate_and_act)


# ---- found before training


def test_broken_images_of_every_split_are_met_once(photos, tmp_path, quick, monkeypatch, capsys):
    """They are left out before training: afterwards no loader is asked for them."""
    whole = (photos / "train/red/3.png").read_bytes()
    for name in ("train/red/3.png", "test/blue/1.png"):
        (photos / name).write_bytes(whole[:100])
    shutil.copytree(photos / "test", photos / "val")
    asked, load = [], FileLoader.__call__
    monkeypatch.setattr(FileLoader, "__call__", lambda self, i: asked.append(self.names[i]) or load(self, i))
    began, begin = [], run.begin
    monkeypatch.setattr(run, "begin", lambda *run: began.append(len(asked)) or begin(*run))
    result = run_training(photos, out=tmp_path / "out", settings=quick)
    assert [row[1] for row in bad_files(result.folder)] == ["test/blue/1.png", "train/red/3.png", "val/blue/1.png"]
    later = set(asked[began[0] :])
    assert {"train/red/2.png", "val/blue/0.png", "test/blue/0.png"} < later
    assert not later & {"train/red/3.png", "val/blue/1.png", "test/blue/1.png"}
    assert [len(split) for split in result.data.splits] == [35, 11, 11]
    environment = json.loads((result.folder / "environment.json").read_text())
    assert environment["images"] == {"train": 35, "validation": 11, "test": 11}
    assert environment["images_per_class"]["train"] == [12, 12, 11]
    assert "1 of 36 train, 1 of 12 validation, 1 of 12 test images; see " in capsys.readouterr().out


def test_the_list_is_written_before_training(photos, tmp_path, quick, monkeypatch):
    (photos / "train/red/3.png").write_bytes(b"")
    listed = []
    monkeypatch.setattr(run, "begin", lambda learner, log, source: listed.extend(bad_files(log.folder.path)))
    monkeypatch.setattr(run, "fit", lambda *run: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_training(photos, out=tmp_path / "out", settings=quick, quiet=True)
    assert listed == [["train", "train/red/3.png", "is empty"]]


@pytest.mark.parametrize("most", [0.01, 1.0])
def test_a_class_without_a_readable_training_image_is_named(most, photos, tmp_path, quick):
    for number in range(12):
        (photos / f"train/red/{number}.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"all training images of 'red' are broken; replace them, or remove .*folder"):
        run_training(photos, out=tmp_path / "out", settings=quick | {"max_bad_fraction": most}, quiet=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bad_files.csv"]
    assert len(bad_files(tmp_path / "out")) == 12


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_without_a_readable_image_is_named(split, photos, tmp_path, quick):
    shutil.copytree(photos / "test", photos / "val")
    images = [*(photos / split).rglob("*.png")]
    for path in images:  # whole headers, so that the data can be opened
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=rf"none of the {len(images)} (train|validation|test) images can be read"):
        run_training(photos, out=tmp_path / "out", settings=quick | {"max_bad_fraction": 1.0}, quiet=True)


@pytest.mark.parametrize(("folder", "split"), [("test", "test"), ("val", "validation")])
def test_a_held_out_class_without_a_readable_image_is_named(photos, tmp_path, quick, capsys, folder, split):
    if folder == "val":
        shutil.copytree(photos / "test", photos / "val")
    for path in (photos / folder / "red").iterdir():
        path.write_bytes(b"")
    run_training(photos, out=tmp_path / "out", settings=quick | {"max_bad_fraction": 0.5})
    assert capsys.readouterr().out.count(f"warning: no {split} image of 'red' could be read") == 1


@pytest.mark.parametrize(
    ("how", "trained_on"), [("none", 36), ("headers", 36), ("sample", 36), ("all", 35), ("auto", 35)]
)
def test_what_a_lesser_check_misses_is_met_in_training(how, trained_on, photos, tmp_path, quick):
    shutil.copytree(photos / "test", photos / "val")
    whole = (photos / "train/red/3.png").read_bytes()
    (photos / "train/red/3.png").write_bytes(whole[: len(whole) // 2])
    result = run_training(photos, out=tmp_path / "out", settings=quick | {"check_images": how}, quiet=True)
    assert len(result.data.train) == trained_on
    assert [row[1] for row in bad_files(result.folder)] == ["train/red/3.png"]
    assert result.recipe.data.check_images == ("all" if how == "auto" else how)
    assert Recipe.load(result.folder / "recipe.toml") == result.recipe


# ---- found later


def test_an_image_that_vanishes_before_the_test_is_counted(photos, tmp_path, quick, monkeypatch, capsys):
    after_validation(monkeypatch, 2, (photos / "test/red/0.png").unlink)
    result = run_training(photos, out=tmp_path / "out", settings=quick)
    assert len(result.outcome.labels) == 11
    assert [row[:2] for row in bad_files(result.folder)] == [["test", "test/red/0.png"]]
    assert "warning: 1 of the 12" not in capsys.readouterr().out


def test_a_test_with_too_many_broken_images_still_has_results(photos, tmp_path, quick, monkeypatch, capsys):
    after_validation(monkeypatch, 2, lambda: shutil.rmtree(photos / "test/red"))
    result = run_training(photos, out=tmp_path / "out", settings=quick)
    assert len(result.outcome.labels) == 8
    assert {path.name for path in result.folder.iterdir()} >= TABLES
    out = capsys.readouterr().out
    assert "8 images)" in out
    assert "warning: 4 of the 12 test images are broken, and not among these" in out
    assert "warning: no test image of 'red' could be read" in out


def test_a_test_that_cannot_be_read_at_all_costs_the_test_alone(photos, tmp_path, quick, monkeypatch, capsys):
    after_validation(monkeypatch, 2, lambda: shutil.rmtree(photos / "test"))
    result = run_training(photos, out=tmp_path / "out", settings=quick)
    assert result.outcome is None
    assert {path.name for path in result.folder.iterdir()} & TABLES == {"results.csv", "results.png"}
    assert load_model(result.folder / "model.safetensors").class_names == ("blue", "green", "red")
    assert len(bad_files(result.folder)) == 12
    out = capsys.readouterr().out
    assert f"warning: none of the test images can be read, so the model of epoch {result.best['epoch']} is" in out
    assert "validation loss" in out


@pytest.mark.parametrize(
    ("gone", "cause"),
    [("train", "of the 33 train images are broken"), ("validation", "3 of the 3 validation images are broken")],
)
def test_images_that_vanish_during_training_end_it_with_results(gone, cause, photos, tmp_path, quick, monkeypatch):
    """Of the epochs before, and of the model that was kept; the command still fails."""

    def remove() -> None:
        for name in splits[gone].names:
            (photos / name).unlink()

    splits = {split.name: split for split in open_data(photos).splits}
    after_validation(monkeypatch, 2, remove)
    with pytest.raises(InputError, match=cause):
        run_training(photos, out=tmp_path / "out", settings=quick | {"epochs": 4}, quiet=True)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files >= TABLES | {"model.safetensors", "bad_files.csv"}
    assert not any(name.startswith(".") for name in files)
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows[:2]] == [1, 2]
    assert "test_accuracy" in rows[-1]


def test_an_interrupt_of_the_test_keeps_model_and_epochs(photos, tmp_path, quick, monkeypatch):
    def interrupted(learner, log, pause):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_training(photos, out=tmp_path / "out", settings=quick, quiet=True)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files >= {"model.safetensors", "results.csv", "results.png", "metrics.jsonl", "bad_files.csv"}
    assert not any(name.startswith(".") for name in files)


def test_a_picture_that_cannot_be_drawn_costs_a_line(photos, tmp_path, quick, monkeypatch, capsys):
    def fails(figure, path):
        raise OSError("no space left on the disk")

    monkeypatch.setattr(pictures, "save", fails)
    result = run_training(photos, out=tmp_path / "out", settings=quick)
    assert {path.name for path in result.folder.iterdir()} & TABLES == {name for name in TABLES if "csv" in name}
    out = capsys.readouterr().out
    for name in ("train_batch.png", "results.png", "confusion_matrix.png"):
        assert out.count(f"warning: {name} could not be drawn: no space left on the disk") == 1


# ---- one owner


def test_the_folder_is_claimed_until_the_results_are_written(photos, tmp_path, quick, monkeypatch):
    refused, write = [], run.write_results

    def write_results(result, notify):
        with pytest.raises(InputError, match="another run is writing to the folder"):
            RunFolder.create(result.folder)
        refused.append(result.folder)
        write(result, notify)

    monkeypatch.setattr(run, "write_results", write_results)
    result = run_training(photos, out=tmp_path / "out", settings=quick, quiet=True)
    assert refused == [result.folder]
    assert not (result.folder / folder.LOCK).exists()
