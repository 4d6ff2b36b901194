"""`vitreous export`: errors are two lines and change nothing."""

import errno
import os
from pathlib import Path

import pytest

from tests.classifiers import changed
from tests.cli.exporting import NAMES, contents, export, ours, write_models
from vitreous.classifier import load
from vitreous.cli.app import run
from vitreous.data.preprocessing import Preprocessing


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A current folder with theirs.safetensors (timm) and ours.safetensors."""
    monkeypatch.chdir(tmp_path)
    write_models(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            "ours.safetensors --to google --out new",
            ["cannot hold exact GELU", "choose a format that can hold the model: vitreous, "],
        ),
        ("ours.safetensors --to dino --out new/deep", ["DINO cannot hold a classifier"]),
        ("ours.safetensors --to tim --out new", ["'tim' is not one of 'vitreous', 'google'"]),
        ("ours.safetensors --to timm --out new.npz", ["timm has no .npz files", "use .safetensors"]),
        ("ours.safetensors --to vitreous --out new.pth", ["safetensors, not .pth"]),
        ("ours.safetensors --to timm --out theirs.safetensors", ["'theirs.safetensors' already exists", "--force"]),
        ("ours.safetensors --to timm --out full", ["'full' already exists", "--force"]),
        (
            "ours.safetensors --to timm --out nowhere/new.pth",
            ["'nowhere/new.pth': No such file", "choose a writable folder"],
        ),
        ("ours.safetensors --to timm --out theirs.safetensors/new", ["cannot write the folder", "Not a directory"]),
        (
            "ours.safetensors --to timm --out new --set num_heads=4",
            ["already stores its config", "leave out"],
        ),
        ("theirs.safetensors --to timm --out new --set num_heads", ["--set 'num_heads' is not KEY=VALUE"]),
        (
            "theirs.safetensors --to timm --out new --set heads=3",
            ["no ViTConfig field 'heads'", "'num_heads'"],
        ),
        ("theirs.safetensors --to timm --out new --set num_heads=x", ["num_heads is 'x'"]),
        ("theirs.safetensors --to timm --out new --set num_heads=7", ["does not divide width 192"]),
        ("theirs.safetensors --to timm --out new --set image_size=40", ["position_embedding", "(1, 17, 192)"]),
        ("theirs.safetensors --to timm --out new --set class_token=false", ["class_token is False"]),
        ("theirs.safetensors --to timm --out new --family tim", ["no family 'tim'", "did you mean 'timm'"]),
        (
            "theirs.safetensors --to timm --out new --family google",
            ["is not a checkpoint of", "leave out the family"],
        ),
        ("B/16 --to timm --out new", ["B/16 is a model variant", "train it first"]),
        ("nowhere --to timm --out new", ["there is no model at nowhere", "give a run's folder"]),
        ("notes.txt --to timm --out new", ["notes.txt is not a model file"]),
        ("cut.safetensors --to timm --out new", ["cut.safetensors cannot be read", "copy or download it again"]),
        ("noise.pth --to timm --out new", ["noise.pth cannot be read"]),
        ("ours.safetensors --to timm --out new --image-size 30", ["30×30", "32×32"]),
        ("ours.safetensors --to timm --out new --image-size 32x32x3", ["'32x32x3' is not a size"]),
        ("ours.safetensors --to timm --out new --image-size 80000", ["image_size is 80000", "8,192 is the most"]),
        ("ours.safetensors --to timm --out new --image-size 16x8200", ["image_size is (16, 8200)", "8,192 is"]),
        ("ours.safetensors --to timm --out new --patch-size 7", ["into 7×7 patches"]),
        ("ours.safetensors --to timm --out new --classes -1", ["num_classes is -1", "at least 0"]),
        ("ours.safetensors --to timm --out new --classes 1000000000000", ["1,000,000 is the most"]),
        ("ours.safetensors --to timm --out new --channels 0", ["channels is 0", "at least 1"]),
        ("ours.safetensors --to timm --out new --channels 2000", ["channels is 2000", "1,024 is the most"]),
        ("ours.safetensors --to timm --out new --channel-method mean", ["'mean' is not one of 'average', 'repeat'"]),
        ("theirs.safetensors --to timm --out new --set device=cpu", ["'device' is not a config field"]),
        ("ours.safetensors --to timm --out new --resampling cubic", ["'cubic' is not one of 'bilinear_aligned'"]),
        ("ours.safetensors --to timm --out new --dtype float8", ["'float8' is not one of 'float32'"]),
    ],
)
def test_an_error_is_two_lines_and_changes_nothing(arguments, words, here, capsys):
    (here / "full").mkdir()
    (here / "full/notes.txt").write_text("mine")
    (here / "notes.txt").write_text("mine")
    (here / "cut.safetensors").write_bytes((here / "theirs.safetensors").read_bytes()[:-100])
    (here / "noise.pth").write_bytes(bytes(range(256)))
    before = contents(here)
    assert run(["export", *arguments.split()]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    lines = error.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), error
    for part in words:
        assert part in error
    assert contents(here) == before


def test_an_unsupported_preprocessing_is_refused_before_anything_is_written(here, capsys):
    changed(ours(), preprocessing=Preprocessing((32, 32), antialias=False)).save("mine.safetensors")
    before = contents(here)
    assert run(["export", "mine.safetensors", "--to", "huggingface", "--out", "new/deep"]) == 2
    assert "without antialias" in capsys.readouterr().err
    assert contents(here) == before


@pytest.mark.parametrize("out", ["new/deep", "new.safetensors", "new.pth", "full"])
def test_a_full_disk_changes_nothing(out, here, monkeypatch, capsys):
    """The disk is full when the weights are flushed."""
    (here / "full").mkdir()
    (here / "full/config.json").write_text("{}")
    before = contents(here)

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_room)
    for target in ("timm", "vitreous") if out != "new.pth" else ("timm",):
        assert run(["export", "ours.safetensors", "--to", target, "--out", out, "--force"]) == 2
        error = capsys.readouterr().err
        assert "No space left on device" in error
        assert "choose a writable folder with free space" in error
        assert contents(here) == before


def test_a_disk_that_is_full_for_the_last_file_changes_nothing(here, monkeypatch, capsys):
    before = contents(here)

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("vitreous.checkpoints.export.write_json", no_room)
    assert run(["export", "ours.safetensors", "--to", "timm", "--out", "new/deep"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == (
        "error: cannot write the folder 'new/deep': No space left on device"
    )
    assert contents(here) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no read-only folder")
@pytest.mark.parametrize("out", ["/proc/new", "/proc/new.safetensors"])
@pytest.mark.parametrize("target", ["timm", "vitreous"])
def test_a_read_only_folder_is_an_error(out, target, here, capsys):
    assert run(["export", "ours.safetensors", "--to", target, "--out", out]) == 2
    error = capsys.readouterr().err
    assert f"'{out}'" in error
    assert "choose a writable folder with free space" in error


def test_force_replaces_what_is_there_and_leaves_the_rest(here, capsys):
    export("theirs.safetensors", "--to", "timm", "--out", "folder")
    Path("folder/notes.txt").write_text("mine")
    export("ours.safetensors", "--to", "timm", "--out", "folder", "--force")
    assert load("folder", "cpu").class_names == NAMES
    assert Path("folder/notes.txt").read_text() == "mine"
    export("ours.safetensors", "--to", "timm", "--out", "theirs.safetensors", "--force")
    assert load("theirs.safetensors", "cpu", num_heads=4).model.config.width == 64


def test_weights_are_not_written_next_to_others_that_would_be_read_instead(here, capsys):
    Path("mine").mkdir()
    ours(gelu="tanh").save("mine/model.safetensors")
    before = contents(here)
    assert run(["export", "mine", "--to", "google", "--out", "mine", "--force"]) == 2
    assert "the folder 'mine' has other weights: model.safetensors" in capsys.readouterr().err
    assert contents(here) == before
