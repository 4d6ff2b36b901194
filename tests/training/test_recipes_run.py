"""Every built-in recipe and each of its options starts with one command, and trains."""

from itertools import takewhile

import pytest
import torch

from vitreous.checkpoints.store import load_model, save_model
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.model.initialization import fill_at_random
from vitreous.model.vit import VisionTransformer
from vitreous.training.recipe.files import built_in, options_of
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.run import run_training

NAMES = [name for recipe, path in built_in().items() for name in (recipe, *(f"{recipe}+{o}" for o in options_of(path)))]
TINY = {"variant": "mu/4", "image_size": 8}  # the shape; the rest of the recipe's model stays
SHORT = {"batch_size": 17, "steps": 2, "warmup_steps": 0, "threads": 1, "workers": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """A tiny trained model, from which recipes of fine-tuning start."""
    config = ViTConfig(width=32, depth=2, mlp_dim=64, num_heads=2, image_size=8, patch_size=4, num_classes=3)
    model = VisionTransformer(config)
    fill_at_random(model)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(path, model, Preprocessing((8, 8)), ("red", "green", "other"))
    return str(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_runs_two_steps(name: str, photos, tmp_path, weights):
    data = "digits" if name == "digits" else photos
    recipe = Recipe.load(name)
    if recipe.model.init == "pretrained":
        run = run_training(data, weights, name, tmp_path / "out", SHORT | {"image_size": 12}, quiet=True)
    else:
        settings = SHORT | ({} if name == "digits" else TINY)
        run = run_training(data, recipe=name, out=tmp_path / "out", settings=settings, quiet=True)
    assert run.rows[-1]["step"] == 2
    ours, theirs = run.recipe.model_dump(), recipe.model_dump()
    for section in ("augmentation", "objective", "optimizer", "averaging"):
        differing = {leaf for leaf in theirs[section] if ours[section][leaf] != theirs[section][leaf]}
        assert differing <= {"flip"}, "the run did what the recipe says"
    for leaf in ("pooling", "position_embedding", "dropout", "stochastic_depth", "patch_dropout"):
        assert ours["model"][leaf] == theirs["model"][leaf]
    stored = load_model(run.folder / "model.safetensors")
    assert (stored.class_names is None) == (recipe.objective.goal == "masked_patch")
    assert all(tensor.isfinite().all() for tensor in stored.model.state_dict().values())


@pytest.mark.parametrize("name", built_in())
def test_a_header_has_command_hardware_hours_and_result(name: str):
    header = "\n".join(takewhile(lambda line: line.startswith("#"), built_in()[name].read_text().splitlines()))
    command, *others = (
        header.partition(f"# {word}:")[2].strip() for word in ("Command", "Hardware", "Hours", "Expected")
    )
    assert command.startswith(f"vitreous train {'digits' if name == 'digits' else 'photos/'}")
    assert name in ("digits", "small-data", "finetune") or f"--recipe {name}" in command.partition("\n")[0]
    assert all(others), "hardware, hours and the expected result"


@pytest.mark.parametrize(
    ("name", "model", "values"),
    [
        ("paper-jft", None, {"lr": 8e-4, "epochs": 7, "weight_decay": 0.1, "dropout": 0.0, "decay": "linear"}),
        ("paper-jft", "L/32", {"lr": 6e-4, "epochs": 7}),
        ("paper-jft", "L/16", {"lr": 4e-4, "epochs": 14}),
        ("paper-jft+short", "L/16", {"lr": 4e-4, "epochs": 7}),
        ("paper-jft", "H/14", {"lr": 3e-4, "epochs": 14}),
        ("paper-imagenet21k", "L/16", {"lr": 1e-3, "epochs": 90, "weight_decay": 0.03, "dropout": 0.1}),
        ("paper-imagenet21k+short", "L/16", {"epochs": 30, "decay": "linear"}),
        ("paper-imagenet", None, {"lr": 3e-3, "epochs": 300, "weight_decay": 0.3, "clip_norm": 1.0, "decay": "cosine"}),
    ],
)
def test_the_rows_of_table_3(name: str, model: str | None, values: dict):
    recipe = Recipe.load(name, model)
    leaves = {leaf: value for section in recipe.model_dump().values() for leaf, value in section.items()}
    assert {leaf: leaves[leaf] for leaf in values} == values
    assert (leaves["batch_size"], leaves["warmup_steps"], leaves["betas"]) == (4096, 10_000, (0.9, 0.999))
    assert leaves["image_size"] == 224


@pytest.mark.parametrize(
    ("option", "steps"), [("imagenet", 20_000), ("cifar", 10_000), ("pets", 500), ("flowers", 500), ("vtab", 2500)]
)
def test_the_rows_of_table_4(option: str, steps: int):
    recipe = Recipe.load(f"paper-finetune+{option}")
    assert recipe.schedule.steps == steps
    assert (recipe.optimizer.algorithm, recipe.optimizer.momentum, recipe.optimizer.weight_decay) == ("sgd", 0.9, 0)
    assert (recipe.data.batch_size, recipe.model.image_size, recipe.optimizer.clip_norm) == (512, 384, 1.0)
    assert Recipe.load(f"paper-finetune+{option}+polyak").averaging.ema_decay == 0.9999


AUGREG = {
    "none": (0, 0, 0), "light1": (2, 0, 0), "light2": (2, 10, 0.2), "medium1": (2, 15, 0.2), "medium2": (2, 15, 0.5),
    "strong1": (2, 20, 0.5), "strong2": (2, 20, 0.8),
}  # fmt: skip


@pytest.mark.parametrize("strength", AUGREG)
def test_the_strengths_of_augreg(strength: str):
    for names, rate in ((f"augreg+{strength}", 0.0), (f"augreg+regularized+{strength}", 0.1)):
        recipe = Recipe.load(names)
        views = recipe.augmentation
        layers, magnitude, mixup = AUGREG[strength]
        assert (views.randaugment_layers, views.mixup) == (layers, mixup)
        assert not layers or views.randaugment_magnitude == magnitude
        assert (recipe.model.dropout, recipe.model.stochastic_depth) == (rate, rate)


def test_a_model_of_the_paper_has_a_hidden_layer_of_its_own_width():
    for name, width in (("B/16", 768), ("L/16", 1024), ("Ti/16", 192)):
        config = Recipe.load("paper-imagenet", name).with_variant(name).config(10, 3)
        assert (config.width, config.hidden_dim) == (width, width)


def test_masked_patches_then_classes(photos, tmp_path):
    """The paper's way: no labels first, then the weights with a new head."""
    first = run_training(photos, recipe="masked-patch", out=tmp_path / "first", settings=SHORT | TINY, quiet=True)
    assert first.outcome is None
    assert not (first.folder / "confusion_matrix.png").exists()
    second = run_training(
        photos, str(first.folder), out=tmp_path / "second", settings=SHORT | {"lr": 1e-12}, quiet=True
    )
    assert second.recipe.model.weights == str(first.folder)
    assert len(second.outcome.labels) == 12
    before, after = (load_model(run.folder / "model.safetensors").model for run in (first, second))
    assert before.mask_token is not None
    assert after.mask_token is None
    torch.testing.assert_close(before.encoder.blocks[0].mlp.fc1.weight, after.encoder.blocks[0].mlp.fc1.weight)
    assert after.config.num_classes == 3
