"""The variants of a run: its length, its start, its objective, and how it computes."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.checkpoints.store import load_model
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training import loop
from vitreous.training.objectives.objective import Score
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.run import run_training


def weights_of(run) -> dict[str, torch.Tensor]:
    return load_model(run.folder / "model.safetensors").model.state_dict()


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- how long


@pytest.mark.parametrize(("steps", "epochs", "last"), [(1, 1, 1), (3, 1, 3), (4, 2, 4), (7, 3, 7)])
def test_a_run_may_be_counted_in_steps(photos, tmp_path, quick, steps: int, epochs: int, last: int):
    del quick["epochs"], quick["warmup_epochs"]
    run = run_training(photos, out=tmp_path / "out", settings=quick | {"steps": steps, "warmup_steps": 0}, quiet=True)
    assert [row["step"] for row in run.rows] == [min(3 * (i + 1), last) for i in range(epochs)]
    assert run.recipe.schedule.epochs == epochs
    assert run.rows[-1]["val_loss"] is not None


def test_steps_and_epochs_of_the_same_length_are_the_same_run(photos, tmp_path, quick):
    by_epochs = run_training(photos, out=tmp_path / "epochs", settings=quick, quiet=True)
    del quick["epochs"], quick["warmup_epochs"]
    by_steps = run_training(
        photos, out=tmp_path / "steps", settings=quick | {"steps": 6, "warmup_steps": 3}, quiet=True
    )
    assert same(weights_of(by_epochs), weights_of(by_steps))


def test_validation_may_be_less_frequent(photos, tmp_path, quick):
    run = run_training(photos, out=tmp_path / "out", settings=quick | {"epochs": 5, "evaluate_every": 2}, quiet=True)
    assert [row["val_loss"] is not None for row in run.rows] == [False, True, False, True, True]
    assert run.best["epoch"] in (2, 4, 5)
    often = run_training(photos, out=tmp_path / "often", settings=quick | {"epochs": 5}, quiet=True)
    assert [row["train_loss"] for row in run.rows] == [row["train_loss"] for row in often.rows], (
        "validation changes nothing"
    )
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["val_accuracy"] is None


def test_a_run_that_gets_no_better_ends_early(photos, tmp_path, quick, monkeypatch, capsys):
    accuracies = iter([0.5, 0.6, 0.6, 0.55, 0.6, 0.7, 0.9])
    evaluate = loop.evaluate

    def pretend(learner, model, split, bad_files, progress):
        return (
            Score(1.0, next(accuracies), 1)
            if split.name == "validation"
            else evaluate(learner, model, split, bad_files)
        )

    monkeypatch.setattr(loop, "evaluate", pretend)
    run = run_training(photos, out=tmp_path / "out", settings=quick | {"epochs": 7, "patience": 3})
    assert len(run.rows) == 5
    assert run.best["epoch"] == 2
    assert "stopping early: no better epoch in the last 3 validations" in capsys.readouterr().out


def test_epochs_are_chosen_by_the_number_of_images(photos, tmp_path, quick, monkeypatch):
    del quick["epochs"], quick["warmup_epochs"]
    monkeypatch.setattr("vitreous.training.planning.defaults.MOST_EPOCHS", 3)
    run = run_training(photos, out=tmp_path / "out", settings=quick, quiet=True)
    assert run.recipe.schedule.epochs == len(run.rows) == 3
    assert run.recipe.schedule.warmup_epochs == pytest.approx(0.6)


# ---- where from


@pytest.fixture
def trained(photos, tmp_path, quick) -> Path:
    """A run that learned the three colors."""
    settings = quick | {"epochs": 8, "lr": 3e-3}
    return run_training(photos, out=tmp_path / "trained", settings=settings, quiet=True).folder


def fourth_color(photos: Path) -> None:
    noise = np.random.default_rng(5)
    for split, count in (("train", 12), ("test", 4)):
        folder = photos / split / "gray"
        folder.mkdir()
        for number in range(count):
            pixels = noise.normal(120, 30, (12, 10, 1)).repeat(3, axis=2).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")


STILL = {
    "lr": 1e-12,
    "weight_decay": 0.0,
    "epochs": 1,
    "warmup_epochs": 0,
    "batch_size": 16,
    "threads": 1,
    "workers": 0,
}


def test_adding_a_class_keeps_the_rows_of_the_old_ones(photos, tmp_path, trained, capsys):
    fourth_color(photos)
    run = run_training(photos, str(trained), out=tmp_path / "more", settings=STILL)
    before, after = load_model(trained / "model.safetensors"), load_model(run.folder / "model.safetensors")
    assert after.class_names == ("blue", "gray", "green", "red")
    rows = [after.class_names.index(name) for name in before.class_names]
    old, new = before.model.head.classifier, after.model.head.classifier
    assert old.weight.abs().max() > 0.01
    torch.testing.assert_close(new.weight[rows], old.weight, atol=1e-9, rtol=0)
    assert new.weight[1].abs().max() < 1e-9
    out = capsys.readouterr().out
    assert "from the weights of trained; " in out
    assert "new classes: gray" in out
    assert run.recipe.model.weights == str(trained)
    assert run.recipe.model.init == "pretrained"
    again = run_training(photos, recipe=run.folder / "recipe.toml", out=tmp_path / "again", quiet=True)
    assert same(weights_of(run), weights_of(again)), "recipe.toml is enough"


def test_training_on_starts_from_the_kept_model(photos, tmp_path, trained):
    before = load_model(trained / "model.safetensors")
    run = run_training(photos, str(trained), out=tmp_path / "on", settings=STILL | {"layer_decay": 1.0}, quiet=True)
    after = load_model(run.folder / "model.safetensors")
    assert after.preprocessing == before.preprocessing
    images = before.preprocessing([Image.open(photos / f"test/{name}/0.png") for name in before.class_names])
    assert before.model(images).std() > 0.1
    torch.testing.assert_close(after.model(images), before.model(images), rtol=1e-4, atol=1e-5)


def test_the_shape_of_weights_cannot_be_changed(photos, tmp_path, trained, quick):
    for settings, message in (
        ({"width": 64}, "width"),
        ({"pooling": "class_token"}, "pooling"),
        ({"variant": "S/4"}, "S/4"),
    ):
        with pytest.raises(InputError, match=message):
            run_training(photos, str(trained), out=tmp_path / "out", settings=STILL | settings, quiet=True)
    with pytest.raises(InputError, match="init is 'random', but weights are given"):
        run_training(photos, str(trained), out=tmp_path / "out", settings=STILL, init="random", quiet=True)
    with pytest.raises(InputError, match="no AugReg weights of the variant 'mu/4' are known"):
        run_training(photos, "mu/4", out=tmp_path / "out", init="pretrained", quiet=True)
    with pytest.raises(InputError, match=r"there is no variant 'Tii/8'.*a run's folder, a weights file"):
        run_training(photos, "Tii/8", out=tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_recipe_from_scratch_takes_the_shape_of_weights(photos, tmp_path, trained):
    run = run_training(
        photos, str(trained), "plain-s16", tmp_path / "out", STILL | {"image_size": 12, "warmup_steps": 0}, quiet=True
    )
    config = load_model(run.folder / "model.safetensors").model.config
    assert (config.width, config.hidden_dim, config.image_size) == (32, None, (12, 12))


def test_a_linear_probe_moves_only_the_head(photos, tmp_path, trained, capsys):
    settings = {key: value for key, value in STILL.items() if key != "lr"} | {"epochs": 3}
    run = run_training(photos, str(trained), "linear-probe", tmp_path / "probe", settings)
    before, after = load_model(trained / "model.safetensors").model.state_dict(), weights_of(run)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"head.classifier.weight", "head.classifier.bias"}
    assert "0.00 M of them trained" in capsys.readouterr().out


def test_a_teacher_is_learned_from(photos, tmp_path, trained, quick):
    settings = quick | {"teacher": str(trained), "teacher_share": 1.0, "distillation": "soft", "epochs": 8, "lr": 3e-3}
    run = run_training(photos, out=tmp_path / "student", settings=settings, quiet=True)
    alone = run_training(photos, out=tmp_path / "alone", settings=quick | {"epochs": 8, "lr": 3e-3}, quiet=True)
    assert run.outcome.accuracy > 0.8
    assert not same(weights_of(run), weights_of(alone))
    token = settings | {
        "distillation_token": True,
        "class_token": True,
        "pooling": "class_token",
        "distillation": "hard",
    }
    run = run_training(photos, out=tmp_path / "token", settings=token | {"teacher_share": 0.5}, quiet=True)
    assert run.outcome.accuracy > 0.8
    assert "head.distillation.weight" in weights_of(run)


def test_a_teacher_of_other_classes_is_rejected(photos, tmp_path, trained, quick):
    fourth_color(photos)
    with pytest.raises(InputError, match="gray"):
        run_training(photos, out=tmp_path / "student", settings=quick | {"teacher": str(trained)}, quiet=True)
    assert not (tmp_path / "student").exists()


def test_a_zip_trains_as_its_folder_does(photos, tmp_path, quick, monkeypatch):
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(photos.rglob("*.png")):
            packed.write(path, path.relative_to(photos))
    monkeypatch.chdir(tmp_path)
    run = run_training("packed.zip", settings=quick | {"workers": 2}, quiet=True)
    assert str(run.folder) == "runs/packed"
    assert same(weights_of(run), weights_of(run_training(photos, out=tmp_path / "folder", settings=quick, quiet=True)))


def test_a_new_head_may_be_requested(photos, tmp_path, trained):
    kept = run_training(photos, str(trained), out=tmp_path / "kept", settings=STILL, quiet=True)
    new = run_training(photos, str(trained), out=tmp_path / "new", settings=STILL | {"head": "new"}, quiet=True)
    assert weights_of(kept)["head.classifier.weight"].abs().max() > 0.01
    assert weights_of(new)["head.classifier.weight"].abs().max() < 1e-9


def test_digits_from_weights_are_fine_tuned(tmp_path, quick):
    first = run_training(
        "digits", out=tmp_path / "first", settings={"steps": 2, "warmup_steps": 0, "threads": 1}, quiet=True
    )
    settings = {"steps": 2, "warmup_steps": 0, "threads": 1}
    second = run_training("digits", str(first.folder), out=tmp_path / "second", settings=settings, quiet=True)
    assert first.recipe.optimizer.weight_decay == 0.5
    assert second.recipe.optimizer.layer_decay == 0.75, "the recipe is finetune"
    assert second.recipe.data.mean == first.recipe.data.mean


def test_missing_data_and_models_are_reported_before_any_download(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "vitreous.training.planning.plan.choose_weights", lambda *arguments: pytest.fail("weights were requested")
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    for data, hint in ((empty, "FOLDER/CLASS/IMAGE"), ("nowhere", "check the path")):
        with pytest.raises(InputError, match=hint):
            run_training(data, quiet=True)
    with pytest.raises(InputError, match="there is no model at runs/none") as error:
        run_training(photos, "runs/none", quiet=True)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"goal": "masked_patch", "teacher": "runs/x"}, "which the goal 'masked_patch' does not use"),
        ({"goal": "masked_patch", "class_weights": "balanced"}, "which the goal 'masked_patch' does not use"),
        ({"class_weights": "balanced", "balanced_sampling": True}, "twice as much"),
        ({"frozen": "backbone"}, r'a list of names, such as \["backbone"\]'),
        ({"frozen": ["backbon"]}, "did you mean 'backbone'"),
    ],
)
def test_contradictions_are_rejected(photos, tmp_path, quick, settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        run_training(photos, out=tmp_path / "out", settings=quick | settings, quiet=True)
    assert not (tmp_path / "out").exists()


# ---- how


def test_validation_halves_its_batches_too(photos, tmp_path, quick, monkeypatch):
    whole = run_training(photos, out=tmp_path / "whole", settings=quick, quiet=True)
    forward, sizes = VisionTransformer.forward, []

    def small_device(self, images):
        if not self.training:
            if len(images) > 5:
                raise torch.OutOfMemoryError("full")
            sizes.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(VisionTransformer, "forward", small_device)
    run = run_training(photos, out=tmp_path / "out", settings=quick | {"batch_size": 16}, quiet=True)
    assert max(sizes) <= 5
    assert run.outcome.loss == pytest.approx(whole.outcome.loss, rel=0.2)
    assert len(run.outcome.labels) == 12


def test_the_recipe_of_a_run_has_the_choices_for_the_machine(photos, tmp_path, quick):
    quick = {key: value for key, value in quick.items() if key not in ("device", "threads", "workers")}
    run = run_training(photos, out=tmp_path / "out", settings=quick, quiet=True)
    section = Recipe.load(run.folder / "recipe.toml").run
    assert (section.device, section.precision, section.workers) == ("cpu", "float32", 0)
    assert isinstance(section.threads, int)
    assert run.recipe.data.micro_batch == 16


def test_tensorboard_gets_what_the_metrics_have(photos, tmp_path, quick, monkeypatch):
    run = run_training(photos, out=tmp_path / "out", settings=quick | {"tensorboard": True}, quiet=True)
    assert next((run.folder / "tensorboard").iterdir()).name.startswith("events.")
    broken = quick | {"tensorboard": True, "std": [1e-40] * 3}
    with pytest.raises(InputError, match="no update had a finite loss"):
        run_training(photos, out=tmp_path / "broken", settings=broken, quiet=True)
    assert not (tmp_path / "broken").exists()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"tensorboard is not installed; pip install '.\[logging\]'"):
        run_training(photos, out=tmp_path / "none", settings=quick | {"tensorboard": True}, quiet=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_checkpointed_activations_give_the_same_bits(precision, photos, tmp_path, quick):
    settings = quick | {"dropout": 0.1, "stochastic_depth": 0.1, "depth": 3, "precision": precision}
    runs = [
        run_training(photos, out=tmp_path / str(flag), settings=settings | {"checkpoint_activations": flag}, quiet=True)
        for flag in (False, True)
    ]
    assert same(*map(weights_of, runs))


def test_balanced_classes_are_seen_as_often(photos, tmp_path, quick):
    for number in range(2, 12):
        (photos / f"train/red/{number}.png").unlink()
    runs = [
        run_training(
            photos, out=tmp_path / str(n), settings=quick | {"balanced_sampling": True, "workers": n}, quiet=True
        )
        for n in (0, 2)
    ]
    assert same(*map(weights_of, runs))
    plain = run_training(photos, out=tmp_path / "plain", settings=quick, quiet=True)
    assert not same(weights_of(runs[0]), weights_of(plain))


def test_masks_are_the_same_for_any_number_of_workers(photos, tmp_path, quick):
    quick = {key: value for key, value in quick.items() if key not in ("variant", "image_size", "crop_scale")}
    shape = {"variant": "mu/4", "image_size": 8, "depth": 2}
    runs = [
        run_training(
            photos,
            recipe="masked-patch+small",
            out=tmp_path / str(n),
            settings=quick | shape | {"workers": n},
            quiet=True,
        )
        for n in (0, 2)
    ]
    assert same(*map(weights_of, runs))
    assert 0 <= runs[0].best["val_accuracy"] < 1
    settings = quick | shape | {"patch_dropout": 0.5}
    with pytest.raises(InputError, match="patch_dropout"):
        run_training(photos, recipe="masked-patch+small", out=tmp_path / "out", settings=settings, quiet=True)


def test_bfloat16_learns_too(photos, tmp_path, quick):
    run = run_training(
        photos, out=tmp_path / "out", settings=quick | {"precision": "bfloat16", "epochs": 8, "lr": 3e-3}, quiet=True
    )
    assert run.outcome.accuracy > 0.9
    assert all(tensor.dtype == torch.float32 for tensor in weights_of(run).values())
    assert json.loads((run.folder / "environment.json").read_text())["precision"] == "bfloat16"


def test_a_compiled_run_is_near_the_plain_one(tmp_path, fresh_process):
    """In a process without the checks of shapes, which the compiler cannot look into."""
    ended = fresh_process(
        f"""
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.run import run_training
settings = dict(variant="mu/8", image_size=16, epochs=1, warmup_epochs=0, batch_size=700, threads=1, depth=2)
one, two = (
    run_training("digits", "auto", "digits", f"{tmp_path}/{{flag}}", settings | dict(compile=flag), quiet=True)
    for flag in (False, True)
)
print(one.rows[0]["train_loss"], two.rows[0]["train_loss"], two.rows[0]["val_loss"])
""",
        timeout=400,
    )
    assert ended.returncode == 0, ended.stderr
    plain, compiled, validation = map(float, ended.stdout.split())
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert 0 < validation < 10
