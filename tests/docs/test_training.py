"""docs/training.md: its tables have every recipe, option, value and file, and its commands can be run."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from tests.docs.test_documents import rows
from tests.test_repository import launched, shell_commands
from vitreous.checkpoints.sources.pretrained import KNOWN
from vitreous.cli import app
from vitreous.cli.app import read_settings
from vitreous.data.sources.open import open_data
from vitreous.training.objectives.goals import OBJECTIVES
from vitreous.training.planning import budget
from vitreous.training.planning import defaults as choices
from vitreous.training.planning.defaults import resolve_recipe
from vitreous.training.planning.plan import MOST_WORKERS, choose_recipe, named_recipe
from vitreous.training.recipe.files import built_in, options_of
from vitreous.training.recipe.recipe import LEAVES, Recipe
from vitreous.training.recipe.sections import DataSection
from vitreous.training.timing import FASTER

ROOT = Path(__file__).parents[2]
DOCUMENT = "docs/training.md"
TEXT = (ROOT / DOCUMENT).read_text(encoding="utf-8")
MINE = re.findall(r"^```toml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
ELSEWHERE = {  # not written by a run on the digits and a CPU
    "metrics": {"mfu"},  # on a GPU
    "folder": {"tensorboard/"},  # if it is requested
}


def names(cell: str) -> list[str]:
    """What a cell has in code."""
    return re.findall(r"`([^`]+)`", cell)


def first_cells(table: str) -> set[str]:
    """The names in the first column of a table."""
    return {name for cells in rows(DOCUMENT, table) for name in names(cells[0])}


# ---- tables


def test_every_recipe_has_a_row_with_its_options():
    table = rows(DOCUMENT, "recipes")
    documented = {
        names(name)[0]: [word for word in names(options) if word.startswith("+")] for name, _, options in table
    }
    assert documented == {name: [f"+{option}" for option in options_of(path)] for name, path in built_in().items()}
    assert len(table) == len(documented)


def shown(value: object) -> str:
    """A default as the tables have it: as TOML, numbers in their shortest form."""
    if value is None:
        return "–"
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def words_of(annotation: object) -> set[str]:
    """The words that a leaf's type allows, except "auto"."""
    if isinstance(annotation, str):
        return {annotation} - {"auto"}
    return {word for part in get_args(annotation) for word in words_of(part)}


@pytest.mark.parametrize("section", Recipe.model_fields)
def test_every_value_has_a_row_with_its_default_and_its_choices(section):
    table = rows(DOCUMENT, section)
    fields = type(Recipe.model_fields[section].default).model_fields
    assert [(cells[0], cells[1]) for cells in table] == [
        (f"`{name}`", shown(field.default)) for name, field in fields.items()
    ]
    for (name, _, meaning), field in zip(table, fields.values(), strict=True):
        words = {*OBJECTIVES} if name == "`goal`" else words_of(field.annotation)
        assert words <= set(names(meaning)), name


def test_the_choices_of_a_type_are_found():
    assert words_of(DataSection.model_fields["resize"].annotation) == {"squash", "crop"}
    assert words_of(int | None) == set()


def test_the_automatic_choices_have_their_numbers():
    texts = {what: how for what, how, _ in rows(DOCUMENT, "chosen")}
    (large, s, _), (middle, ti, _), (_, _, small) = choices.SIZES
    expected = {
        "size, from scratch": [
            f"{small['depth']} blocks of width {small['width']}; {ti} from {middle:,} images on, {s} from {large:,}"
        ],
        "patch, from scratch": [f"{choices.LARGEST_PATCH} at most", f"{choices.SMALLEST_GRID} patches"],
        "image size": [f"{choices.LARGEST_SIDE} pixels at most"],
        "batch": [
            f"{choices.STEPS_PER_EPOCH} updates, from {choices.SMALLEST_BATCH} to {choices.LARGEST_BATCH}",
        ],
        "epochs": [
            f"{Recipe.load('finetune').schedule.epochs} with weights",
            f"at least until {budget.LEAST_SEEN:,} images are seen",
            f"{choices.SEEN:,} images are seen, from {choices.FEWEST_EPOCHS} to {choices.MOST_EPOCHS}",
        ],
        "time, from scratch": [
            f"{budget.MINUTES:g} minutes",
            f"on {budget.SIDES[0]} pixels first, on {budget.FIRST_SIDE} if",
            f"{budget.SIDES[2]} and {budget.SIDES[3]} pixels",
        ],
        "workers": [f"{MOST_WORKERS} at most"],
        "threads": [f"{FASTER - 1:.0%}".replace("%", " % faster")],
    }
    assert [(what, part) for what, parts in expected.items() for part in parts if part not in texts[what]] == []


def test_the_tables_of_a_run_are_what_it_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = ("epochs=1", "batch_size=512", "depth=1", "threads=1")
    assert app.run(["train", "digits", *(word for setting in quick for word in ("--set", setting))]) == 0
    folder = tmp_path / "runs/digits"
    assert first_cells("folder") - ELSEWHERE["folder"] == {path.name + "/" * path.is_dir() for path in folder.iterdir()}
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert first_cells("metrics") - ELSEWHERE["metrics"] == {key for line in lines for key in json.loads(line)}


# ---- commands


def documented() -> list[list[str]]:
    """The commands `vitreous train` of these documents and the recipes' headers, as words, without torchrun."""
    texts = [TEXT, *((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/scale.md"))]
    headers = [line.partition("Command:")[2] for path in built_in().values() for line in path.read_text().splitlines()]
    texts.append("```sh\n" + "\n".join(filter(None, map(str.strip, headers))) + "\n```\n")
    commands = [launched(words) for text in texts for words in shell_commands(text)]
    return [list(words) for words in dict.fromkeys(map(tuple, commands)) if words[:2] == ("vitreous", "train")]


def option(words: list[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words else None


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """A folder with what the documents' commands name: the example recipe, runs, a file of weights."""
    monkeypatch.chdir(tmp_path)
    [text] = MINE
    (tmp_path / "mine.toml").write_text(text)
    for name in ("photos", "masked", "pretrained", "in21k"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "B_16.npz").touch()
    monkeypatch.setattr("vitreous.training.planning.weights.default_weights", lambda notify: None)
    return tmp_path


@pytest.mark.parametrize("words", documented(), ids=" ".join)
def test_what_a_command_asks_for_exists(words, mine):
    """Recipe, options, settings and variant exist; and if it starts from scratch, the model can be made."""
    settings = read_settings([value for word, value in pairwise(words) if word == "--set"])
    settings |= {} if option(words, "--init") is None else {"init": option(words, "--init")}
    model = option(words, "--model") or "auto"
    named = named_recipe(option(words, "--recipe"), model, settings, words[2] == "digits")
    recipe, weights = choose_recipe(named, model, settings, print)
    assert settings.keys() <= LEAVES.keys()
    if weights is not None:
        assert weights in KNOWN or Path(weights).exists()
    else:
        short = recipe.with_settings({"steps": 2, "warmup_steps": 0})
        digits = open_data("digits")
        like_photos = replace(digits, channels=3, flip_ok=True, native_size=(256, 256))
        _, config, _ = resolve_recipe(short, digits if words[2] == "digits" else like_photos)
        assert config.num_classes == (10 if recipe.objective.goal == "classes" else 0)


def test_the_example_recipe_changes_what_it_says(mine):
    base, own, both = (Recipe.load(name) for name in ("small-data", "mine.toml", "mine.toml+long+averaged"))
    assert (own.augmentation.randaugment_layers, own.optimizer.lr) == (2, 5e-4)
    assert (own.augmentation.mixup, own.schedule) == (base.augmentation.mixup, base.schedule)
    assert (both.schedule.epochs, both.schedule.warmup_epochs, both.averaging.ema_decay) == (400, 20, 0.999)
    assert both.optimizer == own.optimizer
