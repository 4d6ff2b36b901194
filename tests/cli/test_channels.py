"""Images of five bands through every command, as a user would type them."""

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from tests.data.satellites import satellite_folder
from vitreous.classifier import load
from vitreous.cli.app import run

SMALL = ("--set", "image_size=16", "--set", "epochs=1", "--set", "batch_size=8", "--set", "threads=1")
FRESH = ("--model", "mu/4", "--init", "random", *SMALL)
IMAGE = "satellite/val/water/0.tif"


@pytest.fixture
def satellite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return satellite_folder(tmp_path)


@pytest.fixture
def trained(satellite, capsys):
    assert run(["train", "satellite", *FRESH, "--out", "run"]) == 0
    return capsys.readouterr().out


def photos(folder):
    for split, count in (("train", 3), ("val", 2)):
        for place, name in enumerate(("field", "water")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng([place, number, count]).integers(0, 200, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")


def test_every_command_reads_five_bands(trained, tmp_path, capsys):
    printed = re.findall(r"^  vitreous (.*)$", trained.partition("next:\n")[2], re.MULTILINE)
    assert [line.split()[0] for line in printed] == ["predict", "inspect", "explain"]
    assert "--image" in printed[1]
    for line in printed:
        assert run(shlex.split(line)) == 0, line
    assert "filters shown as the mean of 5 channels" in capsys.readouterr().out
    assert "Held-out images as the model sees them, shown as the mean of 5 channels." in (
        tmp_path / "run/report.html"
    ).read_text(encoding="utf-8")
    assert run(["inspect", "run", "--image", IMAGE, "--html", "walk.html"]) == 0
    assert "5 channels, shown as the mean of the channels" in (tmp_path / "walk.html").read_text(encoding="utf-8")
    assert run(["features", "run", IMAGE, "--out", "features.npy"]) == 0
    assert np.load(tmp_path / "features.npy").shape == (1, load("run").model.config.width)


def test_check_names_the_channels(satellite, tmp_path, capsys):
    run(["check", "satellite", "--out", "checked"])
    assert "modes: 24 of 5 channels\n" in capsys.readouterr().out
    page = (tmp_path / "checked/check.html").read_text(encoding="utf-8")
    assert "Training images, spread evenly over each class, shown as the mean of 5 channels." in page


@pytest.mark.parametrize("family", ["vitreous", "timm", "huggingface", "google"])
def test_an_exported_model_gives_the_same_logits(trained, family, tmp_path, capsys):
    out = {"vitreous": "out.safetensors", "google": "out.npz"}.get(family, "out")
    assert run(["export", "run", "--to", family, "--out", out]) == 0
    ours, theirs = (load(path).model.state_dict() for path in ("run", out))
    assert ours["patch_embedding.projection.weight"].equal(theirs["patch_embedding.projection.weight"])
    capsys.readouterr()
    assert run(["predict", out, IMAGE, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)[0]["image"] == IMAGE
    assert ("this model takes images of 5 channels" in printed.err) == (family != "vitreous")


@pytest.mark.parametrize(("first", "second", "scale"), [(3, 5, "3/5"), (3, 1, "3/1"), (5, 3, "5/3")])
def test_fine_tuning_on_other_channels(first, second, scale, satellite, tmp_path, capsys):
    photos(tmp_path / "photos")
    folders = {3: "photos", 1: "photos", 5: "satellite"}
    assert run(["train", folders[first], *FRESH, "--out", "first"]) == 0
    settings = ("--set", "channels=1") if second == 1 else ()
    capsys.readouterr()
    assert run(["train", folders[second], "--model", "first", *SMALL, *settings, "--out", "second"]) == 0
    s = "s" * (first > 1)
    line = (
        f"from the weights of first; patch projection averaged from {first} channel{s} to {second}, scaled by {scale}"
    )
    assert line in capsys.readouterr().out
    classifier = load("second")
    assert classifier.model.config.channels == classifier.preprocessing.channels == second
    assert classifier.metadata["adapted"] == f"from {first} channels to {second}"
    assert f"channels = {second}" in (tmp_path / "second/recipe.toml").read_text()


def test_an_image_of_other_channels_is_one_line(trained, tmp_path, capsys):
    Image.new("RGB", (16, 16)).save("photo.png")
    assert run(["predict", "run", "photo.png"]) == 2
    first, *_ = capsys.readouterr().err.splitlines()
    assert first == "error: 'photo.png' has 3 channels, not 5; remove it, or train with channels=3"
    assert run(["inspect", "run", "--image", "photo.png"]) == 2
    assert "has 3 channels, not 5" in capsys.readouterr().err
