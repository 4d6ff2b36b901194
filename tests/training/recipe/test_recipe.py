import dataclasses
import tomllib
from itertools import takewhile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError
from vitreous.support.text import toml_value
from vitreous.training.recipe.files import built_in
from vitreous.training.recipe.recipe import Recipe


def line(call, *arguments) -> str:
    """The one line that bad input ends with."""
    with pytest.raises(InputError) as error:
        call(*arguments)
    assert str(error.value).isprintable()
    assert error.value.hint
    return str(error.value)


def test_leaf_names_are_unique():
    leaves = [leaf for field in Recipe.model_fields.values() for leaf in type(field.default).model_fields]
    assert len(leaves) == len(set(leaves)) > 30


def test_the_model_section_has_every_choice_of_the_architecture():
    from_data = {"num_classes", "channels"}
    from_objective = {"mask_token"}
    fields = {field.name for field in dataclasses.fields(ViTConfig)}
    section = set(type(Recipe().model).model_fields)
    assert section == fields - from_data - from_objective | {"variant", "init", "weights", "head"}


@pytest.mark.parametrize("name", built_in())
def test_a_built_in_recipe_is_complete(name: str):
    recipe = Recipe.load(name)
    assert Recipe.from_dict(tomllib.loads(recipe.to_toml())) == recipe
    header = "\n".join(takewhile(lambda line: line.startswith("#"), built_in()[name].read_text().splitlines()))
    for label in ("Command:", "Hardware:", "Hours:", "Expected:"):
        assert f"# {label}" in header
    assert f"vitreous train {'digits' if name == 'digits' else 'photos/'}" in header


def test_a_file_is_read(tmp_path: Path):
    (tmp_path / "mine.toml").write_text("[optimizer]\nlr = 3e-4\n[model]\nimage_size = [32, 64]\n")
    recipe = Recipe.load(tmp_path / "mine.toml")
    assert recipe.optimizer.lr == 3e-4
    assert recipe.model.image_size == (32, 64)
    assert recipe.schedule == Recipe().schedule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimizer]\nlrr = 1", "there is no recipe key 'lrr'; did you mean 'lr'?"),
        ("[optimzer]\nlr = 1", "there is no recipe section 'optimzer'; did you mean 'optimizer'?"),
        ("[model]\nlr = 1", "there is no recipe key 'model.lr'; did you mean 'optimizer.lr'?"),
        ("lr = 1", "the recipe key 'lr' is outside its section; put it below [optimizer]"),
        ("optimizer = 1", "the recipe's 'optimizer' is 1; it must be a table, [optimizer]"),
        ("[optimizer]\nlr = 0.0", "the recipe's optimizer.lr is 0.0; it should be greater than 0"),
        ("[optimizer]\nlr = nan", "the recipe's optimizer.lr is nan; it should be"),
        ("[optimizer]\nlr = inf", "the recipe's optimizer.lr is inf; it should be a finite number"),
        ("[optimizer]\nlr = 'fast'", "the recipe's optimizer.lr is 'fast'; it should be a valid number"),
        ("[data]\ncache = 'yes'", "the recipe's data.cache is 'yes'; it should be true or false"),
        ("[data]\ncache = 1", "the recipe's data.cache is 1; it should be true or false"),
        ("[schedule]\nepochs = true", "the recipe's schedule.epochs is True; it should be a valid integer"),
        ("[schedule]\nepochs = 1.0", "the recipe's schedule.epochs is 1.0; it should be a valid integer"),
        ("[data]\nbatch_size = 'big'", "data.batch_size is 'big'; it should be a valid integer or 'auto'"),
        (
            "[model]\npooling = 'max'",
            "'max'; it should be 'class_token', 'mean', 'attention' or 'class_token_and_mean'",
        ),
        ("[augmentation]\ncrop_scale = [1.0]", "augmentation.crop_scale is [1.0]; it should be a pair of numbers"),
        ("[optimizer]\nbetas = {}", "the recipe's optimizer.betas is {}; it should be a list of numbers"),
        ("[model]\nvariant = '" + "x" * 5000 + "'\nwidth = 'x'", "the recipe's model.width is 'x'"),
        ("[data]\nbatch_size = '" + "x" * 5000 + "'", "the recipe's data.batch_size is 'xxxx"),
        ("[optimizer\nlr = 1", "is not TOML"),
        ("a = " + "[" * 5000, "is not TOML"),
        ("\x00", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str):
    (tmp_path / "bad.toml").write_text(text)
    printed = line(Recipe.load, tmp_path / "bad.toml")
    assert message in printed.replace(str(tmp_path), "")
    assert len(printed) < 1000


def test_a_large_file_is_rejected_unread(tmp_path: Path):
    (tmp_path / "large.toml").write_bytes(b"#" * 10_000_000)
    assert "is larger than 1,048,576 bytes" in line(Recipe.load, tmp_path / "large.toml")


def test_a_file_of_other_bytes_is_rejected(tmp_path: Path):
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    assert "is not TOML" in line(Recipe.load, tmp_path / "bytes.toml")


def test_a_missing_file_is_named(tmp_path: Path):
    assert "there is no recipe 'digts'; did you mean 'digits'?" in line(Recipe.load, "digts")
    assert "No such file" in line(Recipe.load, tmp_path / "none.toml")
    assert "is not a file" in line(Recipe.load, tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("1e-3", 1e-3), ("inf", float("inf")), ("true", True), ("[0.5, 1]", [0.5, 1]),
        ("(64, 96)", [64, 96]), ("(64,96)", [64, 96]), ("(a)", "(a)"), ("()", []), ("(1)]\n[x](", "(1)]\n[x]("),
        ("'S/16'", "S/16"), ("S/16", "S/16"), ("auto", "auto"), ("", ""), ("1\n[x]", "1\n[x]"),
    ],
)  # fmt: skip
def test_values_on_the_command_line(text: str, value: object):
    assert toml_value(text) == value


def test_settings_by_leaf_or_path():
    recipe = Recipe().with_settings({"lr": "1e-4", "run.seed": "3", "crop_scale": [0.5, 0.9], "flip": "false"})
    assert recipe.optimizer.lr == 1e-4
    assert recipe.run.seed == 3
    assert recipe.augmentation.crop_scale == (0.5, 0.9)
    assert recipe.augmentation.flip is False
    assert Recipe().optimizer.lr == 1e-3, "the first is as it was"


def test_many_pixels_are_written_as_people_write_them():
    assert Recipe().with_settings({"max_pixels": "2e8"}).data.max_pixels == 200_000_000
    for value in ("2.5", "0", "-2e8", "inf", "true"):
        assert "max_pixels" in line(Recipe().with_settings, {"max_pixels": value})


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lrr", "did you mean 'lr'?"),
        ("optimizer.lrr", "did you mean 'lr'?"),
        ("data.lr", "did you mean 'optimizer.lr'?"),
        ("optimizer", "there is no recipe key 'optimizer'"),
        ("", "there is no recipe key ''"),
        (".lr", "did you mean 'optimizer.lr'?"),
    ],
)
def test_a_setting_that_does_not_exist_is_named(key: str, message: str):
    assert message in line(Recipe().with_settings, {key: "1"})


def test_another_variant_comes_in_its_own_shape():
    recipe = (
        Recipe().with_settings({"image_size": 8, "width": 64, "depth": 4, "pooling": "attention"}).with_variant("Ti/2")
    )
    config = recipe.config(num_classes=10, channels=1)
    assert (config.width, config.depth, config.num_heads, config.patch_size) == (192, 12, 3, (2, 2))
    assert config.pooling == "attention", "what is no shape is kept"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "Tii/8"}, "there is no variant 'Tii/8'"),
        ({"variant": "Ti/8", "image_size": 60}, "60×60 image does not divide into 8×8 patches; the nearest"),
        ({"variant": "Ti/8", "image_size": 64, "num_heads": 5}, "num_heads is 5, which does not divide width 192"),
        ({"variant": "Ti/8", "image_size": 64, "class_token": False}, "pool by 'mean' or 'attention'"),
    ],
)
def test_fields_that_contradict_each_other_are_named(settings: dict, message: str):
    recipe = Recipe().with_settings(settings)
    assert message in line(recipe.config, 3, 3)


@given(
    lr=st.floats(1e-300, 1e300),
    clip_norm=st.floats(1e-300, allow_nan=False),
    seed=st.integers(0, 2**63 - 1),
    size=st.one_of(st.just("auto"), st.integers(1, 8192), st.tuples(st.integers(1, 512), st.integers(1, 512))),
    flip=st.sampled_from([True, False, "auto"]),
    variant=st.text(max_size=20),
)
def test_toml_and_back_is_the_same(**settings: object):
    recipe = Recipe.from_dict(
        {
            "optimizer": {key: settings[key] for key in ("lr", "clip_norm")},
            "run": {"seed": settings["seed"]},
            "model": {"image_size": settings["size"], "variant": settings["variant"]},
            "augmentation": {"flip": settings["flip"]},
        }
    )
    assert Recipe.from_dict(tomllib.loads(recipe.to_toml())) == recipe


def test_a_file_extends_a_built_in_recipe(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "digits"\n[optimizer]\nlr = 1e-4\n[schedule]\nepochs = 10\n')
    digits, mine = Recipe.load("digits"), Recipe.load(path)
    assert (mine.optimizer.lr, mine.schedule.epochs, mine.schedule.warmup_epochs) == (1e-4, 10, 2)
    assert (mine.model, mine.data, mine.optimizer.weight_decay) == (digits.model, digits.data, 0.5)
    assert "extends" not in mine.to_toml()


def test_the_extended_recipe_must_exist(tmp_path: Path):
    for text, message in (
        ('extends = "digts"', "no built-in recipe 'digts'; did you mean 'digits'"),
        ("extends = 3", "no built-in recipe '3'"),
        ('extends = "digits"\n[optimizr]\nlr = 1', "did you mean 'optimizer'"),
    ):
        (tmp_path / "mine.toml").write_text(text)
        assert message in line(Recipe.load, tmp_path / "mine.toml")


def test_the_row_of_the_variant_is_below_the_settings(tmp_path: Path):
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "paper-jft"\n[model]\nvariant = "H/14"\n')
    assert (Recipe.load(mine).optimizer.lr, Recipe.load(mine).schedule.epochs) == (3e-4, 14)
    mine.write_text('extends = "paper-jft"\n[optimizer]\nlr = 1e-5\n')
    recipe = Recipe.load(mine, "L/16")
    assert (recipe.optimizer.lr, recipe.schedule.epochs) == (1e-5, 14)
    mine.write_text('extends = "augreg"\n[options.mine.optimizer]\nlr = 2e-3\n')
    both = Recipe.load(f"{mine}+mine+light2")
    assert (both.optimizer.lr, both.augmentation.mixup) == (2e-3, 0.2)
    assert "did you mean 'light1'" in line(Recipe.load, "augreg+lihgt1")
    assert "has no options" in line(Recipe.load, "digits+light1")
    mine.write_text("options = 3\n")
    assert "are not tables" in line(Recipe.load, mine)


def test_a_file_extends_a_recipe_that_extends_another(tmp_path: Path):
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "paper-jft"\n[optimizer]\nmomentum = 0.5\n')
    recipe, jft, imagenet = Recipe.load(mine), Recipe.load("paper-jft"), Recipe.load("paper-imagenet")
    assert 'extends = "paper-imagenet"' in built_in()["paper-jft"].read_text()
    assert recipe == jft.with_settings({"momentum": 0.5})
    assert (recipe.data, recipe.objective) == (imagenet.data, imagenet.objective)
    assert (recipe.model.dropout, recipe.schedule.epochs, recipe.optimizer.lr) == (0.0, 7, 8e-4)


def test_a_new_length_overrides_the_old_one():
    jft = Recipe.load("paper-jft")
    assert jft.schedule.warmup_steps == 10_000
    short = jft.with_settings({"epochs": 10}).schedule
    assert (short.epochs, short.steps, short.warmup_steps, short.warmup_epochs) == (10, None, None, 2.0)
    steps = jft.with_settings({"steps": 1000}).schedule
    assert (steps.steps, steps.warmup_steps) == (1000, 200)
    tuned = Recipe.load("paper-finetune").with_settings({"epochs": 5, "warmup_epochs": 1}).schedule
    assert (tuned.steps, tuned.warmup_steps, tuned.epochs, tuned.warmup_epochs) == (None, None, 5, 1)
    assert Recipe.from_dict({"schedule": {"steps": 100}}).schedule.warmup_steps == 20
