"""`vitreous list`."""

import json

import pytest

from vitreous.cli import list as list_command
from vitreous.cli.app import run


def test_models_have_the_papers_numbers(monkeypatch, capsys):
    monkeypatch.setattr("vitreous.model.variants.NAMES", ("Ti/16", "B/16"))
    assert run(["list", "models", "--json"]) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    assert [*rows] == ["Ti/16", "B/16"]
    base = rows["B/16"]
    assert [base[key] for key in ("width", "depth", "mlp_dim", "heads")] == [768, 12, 3072, 12]  # Table 1
    assert base["parameters"] == 86_567_656
    assert base["GFLOPs"] == pytest.approx(35.13, abs=0.01)  # 17.56 G multiply-adds


def test_sources_have_the_digits(capsys):
    assert run(["list", "sources"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["source", "what"]
    assert lines[1].startswith("digits ")


def test_recipes_are_those_of_the_folder(monkeypatch, tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text("# A tiny run: seconds on a CPU.\n# More.\n[model]\n")
    monkeypatch.setattr("vitreous.training.recipe.RECIPES", tmp_path)
    assert run(["list", "recipes"]) == 0
    assert capsys.readouterr().out.splitlines() == ["recipe  what", "tiny    A tiny run: seconds on a CPU."]


def test_no_recipes_are_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("vitreous.training.recipe.RECIPES", tmp_path)
    assert run(["list", "recipes"]) == 0
    assert capsys.readouterr().out == "there are none\n"


def test_a_table_aligns_text_left_and_numbers_right():
    rows = [{"name": "a", "count": 1, "share": 0.5}, {"name": "long", "count": 12345, "share": 10.0}]
    assert list_command.table(rows).splitlines() == [
        "name   count  share",
        "a          1   0.50",
        "long  12,345  10.00",
    ]
