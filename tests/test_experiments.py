"""`make results`: it runs what is not finished, and the programs of the experiments work."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import __main__ as program
from experiments import deletion, document, image_sets, probe, timm_script
from experiments.results import Result, read_matrix
from experiments.runner import Runner, check_same, result_path
from experiments.table import Experiment, Run
from vitreous.checkpoints.store import save_model
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sources.digits import DIGITS
from vitreous.data.sources.open import open_data
from vitreous.model.initialization import fill_at_random
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError

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
    assert {one.name for one in path.parent.parent.iterdir()} == {"tiny"}, "--only selects"

    written = path.stat().st_mtime_ns
    assert run(root, "--only", "tiny") == 0
    assert "seed 4: kept" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == written
    path.unlink()  # a finished folder without a result: handed in, or finished unseen
    assert run(root, "--only", "tiny") == 0
    adopted = Result.read(path)
    assert adopted == replace(result, wall_seconds=adopted.curve[0].seconds, cpu_seconds=None, curve=adopted.curve)

    with pytest.raises(InputError, match="steps = 2, not 3"):
        check_same(folder, ["vitreous", "train", "digits", "--set", "steps=3"])
    other = replace(TINY[0], runs=(Run("two-steps", QUICK + " --set lr=1e-3", seeds=(4,)),))
    assert Runner((other,), None, root).result(other, other.runs[0], 4) is None, "the command in the table has changed"


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
    """Pictures of two colors, 9 each to train and 2 to test."""
    paint(tmp_path / "pizza_steak_sushi", {"train": 9, "test": 2})
    return tmp_path / "pizza_steak_sushi"


def paint(photos: Path, each: dict[str, int]) -> None:
    """Draws noisy pictures of two colors, with the given number per class in each split."""
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
    assert facts["levels"]["0"] > 0.5, "correctly classified images of two classes"
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
