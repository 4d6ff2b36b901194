"""docs/results.md holds what the results say, its commands are right, and `make results` runs what is not finished."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer.main
from PIL import Image

from experiments import __main__ as program
from experiments import curves, deletion, document, image_sets, probe, timm_script
from experiments.results import Point, Result, read_matrix
from experiments.runner import ROOT, Runner, check_same, result_path
from experiments.table import TABLE, Experiment, Goal, Levels, Run, find, words
from vitreous.checkpoints.store import save_model
from vitreous.cli import app
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sources.open import DIGITS, open_data
from vitreous.model.initialization import fill_at_random
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
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
        assert result.command == RUNNER.shown(experiment, run, result.seed), f"{path}: the table has another by now"
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


def test_what_was_not_run_says_so():
    _, _, one, two = cells(document.accuracy_table(PAIR, {"two": [made_up(0, 150)]}))
    assert one[:2] == ["`one`", "not run yet"]
    assert two[4] == "", "nothing to be beside"
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


def test_levels_are_drawn_where_they_have_an_axis(tmp_path):
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


# ---- running

QUICK = "vitreous train {data} --set steps=2 --set threads=1"
TINY = (
    Experiment("tiny", "Tiny", "Does it run?", "digits", (Run("two-steps", QUICK, seeds=(4,)),)),
    Experiment("bad", "Bad", "Does it fail?", "digits", (Run("fails", QUICK + " --set lr=-1", seeds=(0,)),)),
    Experiment("far", "Far", "Is it there?", "no-such-set", (Run("absent", QUICK, seeds=(0,)),)),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with nothing but the document's marks."""
    path = tmp_path / document.DOCUMENT
    path.parent.mkdir()
    path.write_text("before\n" + "".join(f"<!-- {one.name} -->\n<!-- /{one.name} -->\n" for one in TINY) + "after\n")
    return tmp_path


def run(root: Path, *arguments: str) -> int:
    return program.main([*arguments, "--data", str(root)], TINY, root)


def test_a_run_leaves_its_result_and_is_kept(root, capsys):
    assert run(root, "--only", "tiny") == 0
    path = result_path(root, "tiny", "two-steps", 4)
    result = Result.read(path)
    assert shlex.join(result.command) == "vitreous train digits --set steps=2 --set threads=1 --set seed=4"
    folder = root / "runs" / "results" / "tiny" / "two-steps-seed4"
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert (result.split, result.count, result.seed, result.images_seen) == ("test", 359, 4, 64)
    assert result.accuracy == last["test_accuracy"] == result.correct / 359
    assert (result.correct, 359) == read_matrix(folder / "confusion_matrix.csv")
    assert 0 < result.curve[0].seconds < result.wall_seconds
    assert result.cpu_seconds > 0
    assert [point.epoch for point in result.curve] == [1]
    assert str(root) not in path.read_text()
    text = (root / document.DOCUMENT).read_text()
    assert f"**{100 * result.accuracy:.1f} %**" in text
    assert text.startswith("before\n<!-- tiny -->\n## Tiny\n")
    assert text.endswith("<!-- /far -->\nafter\n")
    assert (root / document.PICTURES / "tiny.png").exists()
    assert text.count("not run yet") == 2
    assert {one.name for one in path.parent.parent.iterdir()} == {"tiny"}, "ONLY chooses"

    written = path.stat().st_mtime_ns
    assert run(root, "--only", "tiny") == 0
    assert "seed 4: kept" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == written
    path.unlink()  # a finished folder without a result: handed in, or finished unseen
    assert run(root, "--only", "tiny") == 0
    adopted = Result.read(path)
    assert adopted == replace(result, wall_seconds=adopted.curve[0].seconds, cpu_seconds=None, curve=adopted.curve)

    with pytest.raises(InputError, match="steps = 2, and not 3"):
        check_same(folder, ["vitreous", "train", "digits", "--set", "steps=3"])
    other = replace(TINY[0], runs=(Run("two-steps", QUICK + " --set lr=1e-3", seeds=(4,)),))
    assert Runner((other,), None, root).result(other, other.runs[0], 4) is None, "the table has another command by now"


@pytest.mark.parametrize(("only", "cause"), [("bad", "optimizer.lr"), ("far", "no-such-set")])
def test_a_run_that_fails_leaves_no_result(root, capsys, only, cause):
    assert run(root, "--only", only) == 1
    assert cause in capsys.readouterr().err
    assert not (root / "experiments").exists()
    assert "not run yet" in (root / document.DOCUMENT).read_text()


def test_an_experiment_that_does_not_exist(root, capsys):
    assert run(root, "--only", "tinny") == 2
    assert "tiny, bad, far" in capsys.readouterr().err


# ---- the image sets and programs of the experiments


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures of two colors, 9 each to learn from and 2 to test."""
    paint(tmp_path / "pizza_steak_sushi", {"train": 9, "test": 2})
    return tmp_path / "pizza_steak_sushi"


def paint(photos: Path, each: dict[str, int]) -> None:
    """Draws noisy pictures of two colors, so many of a class in each split."""
    noise = np.random.default_rng(0)
    for split, count in each.items():
        for name, color in (("blue", (40, 40, 200)), ("red", (200, 40, 40))):
            folder = photos / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = noise.normal(color, 30, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_subset_depends_on_the_names_alone(photos, tmp_path):
    image_sets.subset(photos, tmp_path / "a", each=4)
    chosen = files(tmp_path / "a")
    assert len(chosen) == 2 * 4 + 2 * 2
    assert [name for name in chosen if name.startswith("test")] == [f for f in files(photos) if f.startswith("test")]
    left_out = next(name for name in files(photos) if name.startswith("train/red") and name not in chosen)
    (photos / left_out).unlink()
    image_sets.subset(photos, tmp_path / "b", each=4)
    assert files(tmp_path / "b") == chosen
    assert (tmp_path / "b" / chosen[0]).read_bytes() == (photos / chosen[0]).read_bytes()


def test_an_image_set_is_made_once(photos, tmp_path):
    found = image_sets.find("pizza_steak_sushi_225", photos.parent, tmp_path)
    assert found == "runs/results/data/pizza_steak_sushi_225"
    assert files(tmp_path / found) == files(photos), "fewer than 75 of a class: all of them"
    shutil.rmtree(photos)
    assert image_sets.find("pizza_steak_sushi_225", None, tmp_path) == found
    with pytest.raises(InputError, match=r"cifar10_train\.zip, cifar10_test\.zip"):
        image_sets.find("cifar10", photos.parent, tmp_path)
    assert image_sets.find(DIGITS, None, tmp_path) == DIGITS


def test_cifar10_has_a_validation_split_of_its_own(photos, tmp_path):
    for split in ("train", "test"):
        shutil.make_archive(str(tmp_path / f"cifar10_{split}"), "zip", photos / split)
    held_out = open_data(photos).validation.names
    data = open_data(tmp_path / image_sets.find("cifar10", tmp_path, tmp_path))
    assert [name.removeprefix("validation/") for name in data.validation.names] == [
        name.removeprefix("train/") for name in held_out
    ]
    assert len(data.train) == 18 - len(held_out) == 16
    assert len(data.test) == 4


@pytest.mark.parametrize("fresh", [False, True])
def test_the_probe(photos, tmp_path, fresh):
    model = VisionTransformer.from_variant("mu/16", image_size=32, num_classes=0)
    fill_at_random(model, 0)
    save_model(tmp_path / "m.safetensors", model, Preprocessing((32, 32)), None, {})
    arguments = [str(photos), "--model", str(tmp_path / "m.safetensors"), "--out", str(tmp_path / "out")]
    probe.main(arguments + ["--fresh"] * fresh)
    facts = json.loads((tmp_path / "out" / "facts.json").read_text())
    assert list(facts["levels"]) == ["1", "5", "all"]
    assert facts["levels"]["all"] == facts["accuracy"] == facts["correct"] / 4
    assert facts["accuracy"] == 1.0, "the colors are far apart"


@pytest.mark.parametrize("scores", deletion.SCORES)
def test_deletion(photos, tmp_path, scores):
    model = VisionTransformer.from_variant("mu/16", image_size=32, num_classes=2)
    fill_at_random(model, 0)
    save_model(tmp_path / "m.safetensors", model, Preprocessing((32, 32)), open_data(photos).class_names, {})
    named = [str(photos), "--model", str(tmp_path / "m.safetensors"), "--scores", scores]
    deletion.main([*named, "--out", str(tmp_path / "out")])
    facts = json.loads((tmp_path / "out" / "facts.json").read_text())
    assert list(facts["levels"]) == ["0", "10", "20", "30", "40", "50", "60", "70", "80", "90", "100"]
    assert facts["levels"]["0"] > 0.5, "images that are named right, of two classes"
    assert facts["levels"]["0"] != facts["levels"]["100"]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # timm leaves closing to the garbage collector
def test_timm(tmp_path):
    paint(tmp_path / "data", {"train": 70, "validation": 3, "test": 2})
    timm_script.main([str(tmp_path / "data"), "--epochs", "2", "--out", str(tmp_path / "out")])
    facts = json.loads((tmp_path / "out" / "facts.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[0]["train_loss"] != rows[1]["train_loss"]
    assert facts["best_epoch"] in (1, 2)
    assert (facts["count"], facts["images_seen"], facts["split"]) == (4, 2 * 128, "test")
