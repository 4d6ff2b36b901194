"""Commands on files of other families: what was guessed and left out is printed on stderr, and nothing else."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.checkpoints.peers import filled
from tests.classifiers import small_classifier
from vitreous.classifier import load
from vitreous.cli.app import run


def peer(**changes):
    """A random timm model."""
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 192, "depth": 2, "num_heads": 3, "num_classes": 5}
    return filled(timm.create_model("vit_base_patch16_224", **(arguments | changes)))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A current folder with files of timm, one without a head, of ours, and photo.png."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    save_file(peer().state_dict(), "theirs.safetensors")
    save_file(peer(num_classes=0).state_dict(), "bare.safetensors")
    torch.save({"model": peer().state_dict(), "optimizer": {"a": torch.ones(2), "b": torch.ones(2)}}, "run.pth")
    small_classifier(gelu="exact").save("ours.safetensors")
    load("ours.safetensors", "cpu").export("hub", "huggingface")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    return tmp_path


COMMANDS = [["predict", "{}", "photo.png", "--json"], ["inspect", "{}", "--json"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_guesses_and_dropped_keys_are_one_line_each(command, here, capsys):
    for model in ("theirs.safetensors", "run.pth"):
        assert run([word.format(model) for word in command]) == 0
        out, error = capsys.readouterr()
        json.loads(out)
        report = load(model, "cpu").report
        assert report is not None
        assert error.splitlines() == report.remarks()
        assert "guessed: num_heads = 3 (width / 64)" in error
        assert ("left out: optimizer/a, optimizer/b (state of a training run)" in error) == (model == "run.pth")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("model", ["ours.safetensors", "hub"])
def test_a_complete_file_prints_no_remarks(model, command, here, capsys):
    assert run([word.format(model) for word in command]) == 0
    out, error = capsys.readouterr()
    json.loads(out)
    assert error == ""


def test_control_characters_in_keys_are_escaped(here, capsys):
    torch.save({"model": peer().state_dict(), "optimizer": {"\x1b[31m\n": torch.ones(2)}}, "escapes.pth")
    assert run(["predict", "escapes.pth", "photo.png"]) == 0
    error = capsys.readouterr().err
    assert "left out: optimizer/\\x1b[31m\\n (" in error
    assert "\x1b" not in error


def test_a_model_without_a_head_suggests_training_one(here, capsys):
    for options in ([], ["--json"], ["--csv"]):
        assert run(["predict", "bare.safetensors", "photo.png", *options]) == 2
        out, error = capsys.readouterr()
        *_, cause, hint = error.splitlines()
        assert out == ""
        assert cause == "error: this model has no head: it gives features, not classes"
        assert hint == "hint: train a head first: vitreous train photos/ --model THIS_MODEL"


def test_classes_without_names_are_numbered(here, capsys):
    assert run(["predict", "theirs.safetensors", "photo.png", "--csv"]) == 0
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["class_name"] in {f"class {i}" for i in range(5)}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_fields_that_a_file_does_not_record_can_be_set(command, here, capsys):
    options = ["--set", "num_heads=6", "--set", "gelu=tanh"]
    assert run([*(word.format("theirs.safetensors") for word in command), *options]) == 0
    out, error = capsys.readouterr()
    assert "num_heads" not in error
    assert "gelu" not in error
    assert "(timm's default)" in error
    [row, *_] = json.loads(out) if command[0] == "predict" else [{}]
    if row:
        [other] = load("theirs.safetensors", "cpu", num_heads=6, gelu="tanh")("photo.png")
        [guessed] = load("theirs.safetensors", "cpu")("photo.png")
        assert row["probability"] == pytest.approx(other.probability, abs=1e-6)
        assert abs(other.probability - guessed.probability) > 1e-4
    assert run([*(word.format("theirs.safetensors") for word in command), "--family", "deit"]) == 0
    assert "guessed: gelu = exact (DeiT's default)" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--family", "tim"], ["no family 'tim'", "did you mean 'timm'"]),
        (["--family", "google"], ["is not a checkpoint of Google", "leave out the family"]),
        (["--set", "heads=3"], ["no ViTConfig field 'heads'", "did you mean 'num_heads'"]),
        (["--set", "num_heads"], ["--set 'num_heads' is not KEY=VALUE"]),
        (["--set", "source=x"], ["'source' is not a config field", "num_heads"]),
        (["--set", "num_heads=7"], ["does not divide width 192"]),
    ],
)
def test_a_wrong_option_is_two_lines(command, options, words, here, capsys):
    assert run([*(word.format("theirs.safetensors") for word in command), *options]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert len(error.splitlines()) <= 2
    for part in words:
        assert part in error


@pytest.mark.parametrize("model", ["theirs.safetensors", "run.pth", "hub", "hub/model.safetensors", "ours.safetensors"])
def test_inspect_takes_every_model_that_load_takes(model, here, capsys):
    assert run(["inspect", model, "--image", "photo.png", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    loaded = load(model, "cpu")
    assert summary["fresh_weights"] is False
    assert summary["total_parameters"] == sum(p.numel() for p in loaded.model.parameters())
    assert summary["stages"][0]["output_shape"] == [1, 3, *loaded.preprocessing.image_size]
    logits = loaded.model(loaded.preprocessing([Image.open("photo.png")]))
    assert summary["stages"][-1]["statistics"]["max"] == pytest.approx(logits.max().item(), abs=1e-4)


def test_a_tilde_is_the_home_folder(here, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(here))
    for command in COMMANDS:
        assert run([word.format("~/ours.safetensors") for word in command]) == 0


@pytest.mark.parametrize(
    "name", ["hf:", "timm:a/b", "torchvision:resnet50", "google:B", "http://host/x.npz", "foo:bar"]
)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_name_that_does_not_exist_is_two_lines(command, name, here, capsys):
    assert run([word.format(name) for word in command]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert 1 <= len(error.splitlines()) <= 2
    assert error.startswith("error: ")
