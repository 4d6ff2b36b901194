"""`vitreous train`."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.classifier import load
from vitreous.cli.app import run
from vitreous.training.interruption import AGAIN, STOPPING_SOON

QUICK = [
    *("--set", "epochs=2", "--set", "batch_size=512", "--set", "depth=1", "--set", "warmup_epochs=0"),
    *("--set", "threads=1"),
]


def test_trains_on_the_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["train", "digits", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "digits: 10 classes" in printed
    assert "epoch 2/2" in printed
    assert (tmp_path / "runs/digits/model.safetensors").is_file()
    assert run(["train", "digits", *QUICK]) == 2
    err = capsys.readouterr().err
    assert "the folder 'runs/digits' already has a trained model" in err
    assert (
        "hint: predict with it: vitreous predict runs/digits IMAGES; or train another model: --out runs/digits-2" in err
    )


def photos(folder: Path) -> None:
    """Noise in two classes with names that a shell would split."""
    noise = np.random.default_rng(0)
    for name in ("a cat's", "dogs & co"):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            pixels = noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number} $HOME.png")


def test_a_model_of_12_bit_photos_knows_their_range(tmp_path, monkeypatch, capsys):
    """Two classes that differ by brightness: with all of 16 bits as the range, both would be black."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    for name, brightness in (("bright", 2800), ("dark", 1000)):
        for place, count in ((f"photos/{name}", 24), ("new", 1)):
            Path(place).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = noise.normal(brightness, 300, (8, 8)).clip(0, 4095).astype(np.uint16)
                pixels[0, 0] = 4000
                Image.fromarray(pixels).save(f"{place}/{name}{number}.png")
    settings = ("--set", "epochs=12", "--set", "batch_size=16", "--set", "depth=1", "--set", "max_pixels=2e8")
    assert run(["train", "photos", *settings, "--set", "threads=1", "--set", "warmup_epochs=1"]) == 0
    recipe = Path("runs/photos/recipe.toml").read_text()
    assert "max_value = 4095" in recipe
    assert "max_pixels = 200000000" in recipe
    capsys.readouterr()
    assert run(["predict", "runs/photos", "new", "--csv"]) == 0
    rows = [line.split(",")[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["new/bright0.png", "bright"], ["new/dark0.png", "dark"]]
    assert load("runs/photos").preprocessing.max_value == 4095


@pytest.mark.parametrize(
    ("data", "settings", "commands"),
    [
        ("my photos", (), ["predict", "inspect", "explain"]),
        ("my photos", ("--set", "goal=masked_patch", "--set", "patch_dropout=0"), ["train", "inspect"]),
        ("digits", (), ["inspect"]),
    ],
)
def test_the_next_commands_run_as_printed(data, settings, commands, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "my photos")
    small = ("--model", "mu/4", "--set", "image_size=8", "--set", "batch_size=512", *settings)
    assert run(["train", data, *QUICK[:2], "--set", "warmup_epochs=0", "--set", "threads=1", *small]) == 0
    out = capsys.readouterr().out
    printed = re.findall(r"^  vitreous (.*)$", out.partition("next:\n")[2], re.MULTILINE)
    assert [line.split()[0] for line in printed] == commands
    for line in printed:
        assert run(shlex.split(line)) == 0, line


@pytest.mark.parametrize(
    ("arguments", "cause", "hint"),
    [
        (["digits", "--set", "lrr=1"], "there is no recipe key 'lrr'", "did you mean 'lr'?"),
        (["digits", "--set", "lr"], "--set 'lr' is not KEY=VALUE", "write it like --set lr=1e-3"),
        (["digits", "--set", "lr=-1"], "the recipe's optimizer.lr is -1", "it should be greater than 0"),
        (["digits", "--model", "Tii/2"], "there is no variant 'Tii/2'", ""),
        (["digits", "--recipe", "agureg"], "there is no recipe 'agureg'", "did you mean 'augreg'?"),
        (["digits", "--recipe", "augreg+medium9"], "there is no augreg option 'medium9'", "medium1"),
        (["digits", "--init", "pretrained", "--model", "G/14"], "no AugReg weights of the variant", "B/16"),
        (["no/such/folder"], "'no/such/folder' does not exist", "check the path"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, arguments, cause, hint):
    monkeypatch.chdir(tmp_path)
    assert run(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert cause in error
    assert hint in error
    assert len(error.splitlines()) <= 2
    assert [*tmp_path.iterdir()] == []


# A shell starts what runs in its background with SIGINT ignored, and so would be this test's own process.
INTERRUPTIBLE = """
import signal, sys
from vitreous.cli.app import main

signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


def test_an_interrupt_is_one_line(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "train", "digits", *QUICK, "--set", "epochs=1000"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if line.startswith("epoch"):
                process.send_signal(signal.SIGINT)
                break
        try:
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()  # nothing, if it has ended
    assert process.returncode == 130
    assert error.splitlines() == [f"{STOPPING_SOON}{AGAIN}", "stopped"]
    assert (tmp_path / "runs/digits/model.safetensors").is_file()
