"""docs/results.md holds what the results say, and its commands are right."""

from dataclasses import replace

import numpy as np
import pytest
import typer.main
from PIL import Image

from experiments import curves, deletion, document, probe, timm_script
from experiments.results import Point, Result
from experiments.runner import ROOT, Runner, result_path
from experiments.table import TABLE, Experiment, Goal, Levels, Run, find, words
from vitreous.cli import app
from vitreous.data.sources.digits import DIGITS
from vitreous.training.recipe.recipe import Recipe

RUNNER = Runner(TABLE, data=None)
RESULTS = sorted((ROOT / "experiments" / "results").rglob("*.json"))
RUNS = [(experiment, run) for experiment in TABLE for run in experiment.runs]
NAMES = [f"{experiment.name}/{run.name}" for experiment, run in RUNS]
PARSERS = {
    "experiments.deletion": deletion.parser,
    "experiments.probe": probe.parser,
    "experiments.timm_script": timm_script.parser,
}
DOCUMENT = (ROOT / document.DOCUMENT).read_text(encoding="utf-8")


# ---- the document, the results and the table that are there


@pytest.mark.parametrize("experiment", TABLE, ids=lambda experiment: experiment.name)
def test_the_document_is_what_the_results_say(experiment):
    results = document.finished(RUNNER, experiment)
    part = document.part(RUNNER, experiment, results)
    assert document.replaced(DOCUMENT, experiment.name, part) == DOCUMENT, "run `python -m experiments --document`"
    picture = document.picture(ROOT, experiment)
    assert picture.exists() == document.has_curves(experiment, results)
    if picture.exists():
        assert curves.drawn_from(picture) == curves.digest(results, experiment)
        assert picture.stat().st_size < 60_000


def test_every_result_is_of_a_run_in_the_table():
    known = {
        result_path(ROOT, experiment.name, run.name, seed) for experiment, run in RUNS for seed in run.seeds
    }  # fmt: skip
    assert set(RESULTS) <= known
    assert {path.stem for path in (ROOT / document.PICTURES).glob("*.png")} <= {one.name for one in TABLE}


def test_the_results_agree_with_themselves_and_the_table():
    for path in RESULTS:
        result = Result.read(path)
        experiment, run = find(f"{path.parent.name}/{path.stem.rpartition('-seed')[0]}")
        assert result.command == RUNNER.shown(experiment, run, result.seed), f"{path}: another command"
        assert 0 <= result.accuracy <= 1
        assert result.count is None or result.accuracy == result.correct / result.count
        seeds = document.finished(RUNNER, experiment)[run.name]
        assert {one.recipe for one in seeds} == {result.recipe}, f"{path}: another seed had another recipe"


def test_names_are_unique_and_lead_somewhere():
    assert len({experiment.name for experiment in TABLE}) == len(TABLE)
    assert len(set(NAMES)) == len(NAMES)
    for experiment, run in RUNS:
        assert len(set(run.seeds)) == len(run.seeds) > 0
        assert experiment.baseline is None or experiment.baseline in {one.name for one in experiment.runs}
        assert ("{needs}" in run.command) == (run.needs is not None)
        assert "{data}" in run.command
        if run.needs is not None:
            find(run.needs)


@pytest.mark.parametrize(("experiment", "run"), RUNS, ids=NAMES)
def test_every_command_parses(experiment, run):
    program, *arguments = RUNNER.shown(experiment, run, run.seeds[0])
    if program == "python":
        assert arguments[0] == "-m"
        parser = PARSERS[arguments[1]]()
        assert parser.parse_args(arguments[2:]).seed == run.seeds[0]
        return
    assert program == "vitreous"
    assert arguments[0] == "train"
    context = typer.main.get_command(app.app).make_context("vitreous", ["train", *arguments[1:]])
    given = context.command.get_command(context, "train").make_context("train", arguments[1:]).params
    recipe = Recipe.load(given["recipe"] or DIGITS)
    if given["model"] != "auto":
        recipe = recipe.with_weights(given["model"])
    assert recipe.with_settings(app.read_settings(given["settings"])).run.seed == run.seeds[0]


def test_words_replace_what_is_in_braces():
    run = Run("r", "vitreous train {data} --model {needs} --set crop_scale=[1,1]", needs="a/b")
    expected = "vitreous train photos/ --model runs/a --set crop_scale=[1,1] --set seed=3"
    assert words(run, 3, "photos/", "runs/a") == expected.split()
    assert words(Run("r", "python -m m {data}"), 1, "x") == ["python", "-m", "m", "x", "--seed", "1"]


# ---- what the document says of results


def made_up(seed: int, correct: int, seconds: float = 10.0, **others) -> Result:
    fields = {
        "command": ["x"], "seed": seed, "split": "test", "accuracy": correct / 200, "correct": correct, "count": 200,
        "best_epoch": 2, "wall_seconds": seconds, "cpu_seconds": None, "images_seen": 1000,
        "curve": [Point(1, 1.0, None, 2.0, 0.5), Point(2, 2.0, None, 1.0, None), Point(3, 3.0, None, 1.0, 0.7)],
        "levels": None, "host": {"cpu": "a cpu", "cores": 2, "device": "cpu", "torch": "2"}, "date": "2026-01-02T03:04",
        "version": "1", "recipe": "r",
    }  # fmt: skip
    return Result(**(fields | others))


PAIR = Experiment(
    "pair", "Pair", "Which?", "digits", (Run("one", "vitreous train {data}"), Run("two", "x {data}")), "one"
)


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_table_of_accuracies():
    results = {"one": [made_up(0, 100), made_up(1, 120), made_up(2, 110)], "two": [made_up(1, 150)]}
    header, _, one, two = cells(document.accuracy_table(PAIR, results))
    row = dict(zip(header, one, strict=True))
    assert row["accuracy"] == "**55.0 %**"
    assert row["lowest to highest"] == "50.0 % to 60.0 %"
    assert row["95 % interval"] == "48.1 % to 61.7 %"  # Wilson's for 110 of 200
    assert row["of"] == "test, 200 images"
    assert (row["seeds"], row["seconds"], row["CPU seconds"], row["images seen"]) == ("0, 1, 2", "10", "", "1,000")
    row = dict(zip(header, two, strict=True))
    assert row["seeds"] == "1; 0, 2 not run yet"
    # Wilson: 75 % of 200 is 0.6857 to 0.8049. So -√((.75-.6857)²+(.6174-.55)²) and +√((.8049-.75)²+(.55-.4808)²).
    assert row["beside one (95 % interval)"] == "+20.0 (+10.7 to +28.8)"


def test_missing_runs_are_marked():
    _, _, one, two = cells(document.accuracy_table(PAIR, {"two": [made_up(0, 150)]}))
    assert one[:2] == ["`one`", "not run yet"]
    assert two[4] == "", "no baseline"
    part = document.part(Runner((PAIR,), None), PAIR, {})
    assert part.count("not run yet") == 2
    assert "png" not in part


def test_hidden_patches_have_no_interval():
    header, _, one, _ = cells(
        document.accuracy_table(PAIR, {"one": [replace(made_up(0, 20), count=None, correct=None)]})
    )
    row = dict(zip(header, one, strict=True))
    assert (row["95 % interval"], row["of"]) == ("", "test, hidden patches")


def test_a_goal_is_reached_by_accuracy_and_time():
    run = Run("one", "x", goal=Goal(0.5, 20))
    results = [made_up(0, 100), made_up(1, 99), made_up(2, 150, seconds=21)]
    assert document.goal_line(run, results) == "Goal: 50 % within 20 s: reached by 1 of 3 seeds."
    assert document.goal_line(run, []) == "Goal: 50 % within 20 s: not run yet."


def test_the_table_of_shots():
    shots = [
        {"1": 0.4, "5": 0.5, "10": 0.6, "25": 0.7, "all": 0.8},
        {"1": 0.5, "5": 0.5, "10": 0.6, "25": 0.7, "all": 0.8},
    ]
    results = {"one": [made_up(seed, 160, levels=one) for seed, one in enumerate(shots)]}
    levels = find("few-shot/random")[0].levels
    assert levels is not None
    header, _, one, two = cells(document.levels_table(PAIR.runs, levels, results))
    assert header == [
        "backbone",
        "1 a class",
        "5 a class",
        "10 a class",
        "25 a class",
        "all",
        "95 % interval",
        "of",
        "seeds",
    ]
    assert one[:3] == ["`one`", "45.0 % (40.0 % to 50.0 %)", "50.0 %"]
    assert one[-3] == "73.9 % to 85.0 %"  # Wilson's for 160 of 200
    assert two[1] == "not run yet"


def test_levels_with_an_axis_are_drawn(tmp_path):
    levels = Levels("scores", {"0": "none", "50": "half"}, "probability", with_interval=False, axis="deleted, %")
    experiment = replace(PAIR, levels=levels)
    results = {"one": [made_up(0, 160, levels={"0": 0.9, "50": 0.25})]}
    header, _, one, _ = cells(document.levels_table(PAIR.runs, levels, results))
    assert (header, one) == (
        ["scores", "none", "half", "of", "seeds"],
        ["`one`", "90.0 %", "25.0 %", "test, 200 images", "0; 1, 2 not run yet"],
    )
    assert curves.points(results["one"][0], experiment) == [(0.0, 0.9), (50.0, 0.25)]
    curves.draw(results, experiment, tmp_path / "p.png")
    assert curves.drawn_from(tmp_path / "p.png") == curves.digest(results, experiment)
    assert not document.has_curves(replace(PAIR, levels=replace(levels, axis=None)), results)


def test_a_picture_is_drawn_when_its_results_change(tmp_path):
    path, results = tmp_path / "p.png", {"one": [made_up(0, 1), made_up(1, 1)], "two": [made_up(0, 1)]}
    curves.draw(results, PAIR, path)
    assert curves.drawn_from(path) == curves.digest(results, PAIR)
    first = path.read_bytes()
    assert len(first) < 60_000
    changed = results | {"two": [made_up(0, 1, curve=[Point(1, 1.0, None, 1.0, 0.2), Point(3, 2.0, None, 1.0, 0.9)])]}
    curves.draw(changed, PAIR, path)
    assert path.read_bytes() != first
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10


def test_a_part_without_marks_is_an_error():
    with pytest.raises(AssertionError, match="marks of x"):
        document.replaced("<!-- y -->\n<!-- /y -->", "x", "text")


def test_a_result_is_read_as_it_was_written(tmp_path):
    made_up(0, 100).write(tmp_path / "a" / "r.json")
    assert Result.read(tmp_path / "a" / "r.json") == made_up(0, 100)
