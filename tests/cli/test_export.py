"""`vitreous export`: from any family to any other, what it tells, what it refuses, and what it leaves behind."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.checkpoints.peers import assert_same_tensors, filled
from tests.classifiers import small_classifier
from vitreous.checkpoints.convert import FAMILIES, OURS
from vitreous.checkpoints.report import effect
from vitreous.classifier import Classifier, load
from vitreous.cli.app import run
from vitreous.cli.export import ChannelWays, Target, Ways, size
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.adapt import ChannelMethod
from vitreous.model.config import Resampling
from vitreous.support.errors import InputError

NAMES = ("cat", "L'été à la mer", 'a/b: "c"', "猫 🐈", "---")
SQUASH = Preprocessing((32, 32), "squash", 1.0, "bicubic", True, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
CROP = Preprocessing((32, 32), "crop", 0.875, "bilinear", True, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def peer(**changes):
    """A model of timm's, every parameter at random."""
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 192, "depth": 2, "num_heads": 3, "num_classes": 5}
    return filled(timm.create_model("vit_base_patch16_224", **(arguments | {"act_layer": "gelu_tanh"} | changes)))


def ours(**changes) -> Classifier:
    """A classifier of ours whose eps and GELU most families hold."""
    fields = {"width": 64, "num_heads": 4, "image_size": 32, "patch_size": 8, "gelu": "exact"} | changes
    made = small_classifier(NAMES[: fields.get("num_classes", len(NAMES))] or None, **fields)
    made.preprocessing = made.preprocessing.adapted((32, 32), fields.get("channels", 3))
    return made


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A current folder with theirs.safetensors, of timm, and ours.safetensors."""
    monkeypatch.chdir(tmp_path)
    save_file(peer().state_dict(), "theirs.safetensors")
    ours().save("ours.safetensors")
    return tmp_path


def export(*arguments: str) -> None:
    assert run(["export", *arguments]) == 0


def contents(folder: Path) -> dict[str, bytes | None]:
    """All that is below a folder, with what it holds."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def photos(count: int = 4) -> list[Image.Image]:
    noise = np.random.default_rng(0)
    return [Image.fromarray(noise.integers(0, 256, (40 + i, 50 - i, 3), dtype=np.uint8)) for i in range(count)]


# ---- there and back


def test_around_all_formats_and_back_every_bit_is_the_same(here):
    export("theirs.safetensors", "--to", "google", "--out", "google.npz", "--set", "gelu=tanh")
    export("google.npz", "--to", "huggingface", "--out", "hub")
    export("hub", "--to", "vitreous", "--out", "mine.safetensors")
    export("mine.safetensors", "--to", "timm", "--out", "back.safetensors")
    assert_same_tensors(load_file("back.safetensors"), load_file("theirs.safetensors"))


@pytest.mark.parametrize("preprocessing", [SQUASH, CROP], ids=["squash", "crop"])
@pytest.mark.parametrize("family", ["huggingface", "timm"])
def test_class_names_and_preprocessing_survive_the_way_through_a_folder(family, preprocessing, here, capsys):
    mine = ours()
    rounding = "down" if family == "huggingface" and preprocessing is CROP else "even"
    mine.preprocessing = preprocessing = replace(preprocessing, crop_rounding=rounding)
    mine.save("mine.safetensors")
    export("mine.safetensors", "--to", family, "--out", "folder")
    assert "not said" not in capsys.readouterr().out
    export("folder", "--to", "vitreous", "--out", "back.safetensors")
    back = load("back.safetensors", "cpu")
    assert back.class_names == NAMES
    assert effect(back.preprocessing) == effect(preprocessing)
    expected = mine(photos())
    assert [p.top for p in back(photos())] == [p.top for p in expected]
    assert len({p.top for p in expected}) == 4
    assert_same_tensors(load_file("back.safetensors"), load_file("mine.safetensors"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_come_back_as_the_same_halves(dtype, here):
    halves = {key: tensor.to(getattr(torch, dtype)) for key, tensor in peer(act_layer="gelu").state_dict().items()}
    save_file(halves, "half.safetensors")
    export("half.safetensors", "--to", "vitreous", "--out", "mine.safetensors", "--dtype", dtype)
    assert {t.dtype for t in load_file("mine.safetensors").values()} == {getattr(torch, dtype)}
    export("mine.safetensors", "--to", "huggingface", "--out", "hub", "--dtype", dtype)
    export("hub", "--to", "timm", "--out", "back.safetensors", "--dtype", dtype)
    assert_same_tensors(load_file("back.safetensors"), halves)


def test_a_folder_may_have_a_dot_in_its_name(here):
    Path("my.run").mkdir()
    for family in ("vitreous", "timm"):
        export("ours.safetensors", "--to", family, "--out", "my.run", "--force")
        assert load("my.run", "cpu").class_names == NAMES


def test_a_folder_for_our_own_format_is_a_runs(here):
    export("theirs.safetensors", "--to", "vitreous", "--out", "new/run")
    assert [p.name for p in Path("new/run").iterdir()] == ["model.safetensors"]
    assert load("new/run", "cpu").metadata["family"] == "timm"


# ---- what it tells


def test_it_tells_what_was_read_guessed_left_out_and_written(here, capsys):
    moments = {f"moment {i}": torch.randn(3) for i in range(5)}
    torch.save({"model": peer().state_dict(), "optimizer": moments, "epoch": 3}, "run.pth")
    export("run.pth", "--to", "timm", "--out", "out.safetensors", "--family", "timm", "--set", "gelu=tanh")
    out, error = capsys.readouterr()
    first, *told = out.splitlines()
    assert first.startswith("read 32 tensors, ")
    assert first.endswith(" parameters, from run.pth (timm)")
    assert "  guessed: num_heads = 3 (width / 64)" in told
    assert not any("guessed: gelu" in line for line in told)
    shown = [f"optimizer/moment {i}" for i in range(3)]
    assert f"  left out: {', '.join(shown)} and 2 more (state of a training run)" in told
    assert "  left out: epoch (no tensor)" in told
    assert "wrote 32 tensors to out.safetensors (timm, float32)" in told
    assert error == ""


def test_json_holds_every_key_that_was_left_out(here, capsys):
    moments = {f"moment {i}": torch.randn(3) for i in range(5)}
    torch.save({"model": peer().state_dict(), "optimizer": moments}, "run.pth")
    export("run.pth", "--to", "timm", "--out", "out", "--family", "timm", "--channels", "1", "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["read"]["dropped"] == {f"optimizer/moment {i}": "state of a training run" for i in range(5)}
    assert {"field": "num_heads", "value": 3, "why": "width / 64"} in told["read"]["guessed"]
    assert told["adapted"] == ["patch projection averaged from 3 channels to 1"]
    assert told["written"]["files"] == ["out/model.safetensors", "out/config.json"]
    assert told["written"]["tensors"] == 32


def test_a_parameter_without_a_place_is_told(here, capsys):
    ours(mask_token=True).save("masked.safetensors")
    export("masked.safetensors", "--to", "torchvision", "--out", "out.pth")
    out = capsys.readouterr().out
    assert out.startswith("read masked.safetensors (vitreous)\n")
    assert "  left out: mask_token (it has no place there, and no part in the function)" in out
    export("masked.safetensors", "--to", "timm", "--out", "out", "--json")
    assert json.loads(capsys.readouterr().out)["written"]["dropped"].keys() == {"mask_token"}


def test_what_a_file_does_not_say_is_told_and_a_folder_says_it(here, capsys):
    mine = ours(num_heads=2, gelu="tanh", image_size=(16, 64))
    mine.preprocessing = CROP.adapted((16, 64), 3)
    mine.metadata["license"] = "CC-BY-NC-4.0"
    mine.save("mine.safetensors")
    export("mine.safetensors", "--to", "timm", "--out", "out.safetensors")
    told = capsys.readouterr().out.splitlines()[2:]
    assert told == [
        "  not said in the file, to be given when it is read: num_heads=2, gelu=tanh, image_size=(16, 64)",
        "  not said in the file, of how images are prepared: crop_fraction=0.875, interpolation=bilinear, "
        "mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)",
        "  not said in the file: the names of the 5 classes",
        "  not said in the file: the license, CC-BY-NC-4.0",
    ]
    given = {"num_heads": 2, "gelu": "tanh", "image_size": (16, 64)}
    images = torch.randn(3, 3, 16, 64)
    with torch.no_grad():
        expected = mine.model(images)
        assert torch.allclose(load("out.safetensors", "cpu", **given).model(images), expected, atol=1e-5)
        export("mine.safetensors", "--to", "timm", "--out", "folder")
        assert capsys.readouterr().out.splitlines()[2:] == ["  not said in the file: the license, CC-BY-NC-4.0"]
        assert torch.allclose(load("folder", "cpu").model(images), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "preprocessing", "told"),
    [
        ("timm", Preprocessing((32, 32), antialias=False), "antialias=False"),
        ("timm", replace(CROP, crop_rounding="down"), "crop_rounding=down"),
        ("huggingface", CROP, "crop_rounding=even"),  # its image processor rounds half pixels down
    ],
)
def test_of_a_preprocessing_only_what_a_familys_json_cannot_say_is_told(family, preprocessing, told, here, capsys):
    mine = ours()
    mine.preprocessing = preprocessing
    mine.save("mine.safetensors")
    export("mine.safetensors", "--to", family, "--out", "folder")
    assert f"  not said in the file, of how images are prepared: {told}\n" in capsys.readouterr().out


def test_names_of_other_classes_than_there_are_are_told(here, capsys):
    export("ours.safetensors", "--to", "huggingface", "--out", "hub")
    config = json.loads(Path("hub/config.json").read_text())
    del config["id2label"]["4"]
    Path("hub/config.json").write_text(json.dumps(config))
    capsys.readouterr()
    export("hub", "--to", "timm", "--out", "out")
    assert "  left out: the names of 4 classes, since there are 5\n" in capsys.readouterr().out


def test_what_a_file_says_of_itself_does_nothing_on_a_terminal(here, capsys):
    tensors = peer().state_dict()
    torch.save({"model": tensors, "optimizer": {"\x1b[31m\n": torch.ones(2)}}, "run.pth")
    export("run.pth", "--to", "timm", "--out", "out.pth", "--family", "timm")
    assert "\x1b" not in capsys.readouterr().out


# ---- what it refuses


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("ours.safetensors --to google --out new", ["cannot hold exact GELU", "export to another family"]),
        ("ours.safetensors --to dino --out new/deep", ["DINO cannot hold a classifier"]),
        ("ours.safetensors --to tim --out new", ["'tim' is not one of 'vitreous', 'google'"]),
        ("ours.safetensors --to timm --out new.npz", ["no weights in .npz files", "valid are .safetensors"]),
        ("ours.safetensors --to vitreous --out new.pth", ["safetensors, not .pth"]),
        ("ours.safetensors --to timm --out theirs.safetensors", ["'theirs.safetensors' exists already", "--force"]),
        ("ours.safetensors --to timm --out full", ["'full' exists already", "--force"]),
        ("ours.safetensors --to timm --out nowhere/new.pth", ["'nowhere/new.pth': No such file", "give a folder"]),
        ("ours.safetensors --to timm --out theirs.safetensors/new", ["cannot write the folder", "Not a directory"]),
        ("ours.safetensors --to timm --out new --set num_heads=4", ["says all by itself", "leave the fields"]),
        ("theirs.safetensors --to timm --out new --set num_heads", ["--set 'num_heads' is not KEY=VALUE"]),
        ("theirs.safetensors --to timm --out new --set heads=3", ["'heads' is no field", "did you mean 'num_heads'"]),
        ("theirs.safetensors --to timm --out new --set num_heads=x", ["num_heads is 'x'"]),
        ("theirs.safetensors --to timm --out new --set num_heads=7", ["does not divide width 192"]),
        ("theirs.safetensors --to timm --out new --set image_size=40", ["position_embedding", "(1, 17, 192)"]),
        ("theirs.safetensors --to timm --out new --set class_token=false", ["class_token is False"]),
        ("theirs.safetensors --to timm --out new --family tim", ["no family 'tim'", "did you mean 'timm'"]),
        ("theirs.safetensors --to timm --out new --family google", ["is no file of Google", "leave the family out"]),
        ("B/16 --to timm --out new", ["B/16 is the name of a shape", "train it first"]),
        ("nowhere --to timm --out new", ["there is no model at nowhere", "give a run's folder"]),
        ("notes.txt --to timm --out new", ["notes.txt is no model file"]),
        ("cut.safetensors --to timm --out new", ["cut.safetensors cannot be read", "copy or download it again"]),
        ("noise.pth --to timm --out new", ["noise.pth cannot be read"]),
        ("ours.safetensors --to timm --out new --image-size 30", ["30×30", "32×32"]),
        ("ours.safetensors --to timm --out new --image-size 32x32x3", ["'32x32x3' is no size"]),
        ("ours.safetensors --to timm --out new --image-size 80000", ["image_size is 80000", "8,192 is the most"]),
        ("ours.safetensors --to timm --out new --image-size 16x8200", ["image_size is (16, 8200)", "8,192 is"]),
        ("ours.safetensors --to timm --out new --patch-size 7", ["patches of 7×7"]),
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
def test_what_cannot_be_done_is_two_lines_and_leaves_everything_as_it_was(arguments, told, here, capsys):
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
    for words in told:
        assert words in error
    assert contents(here) == before


def test_a_preprocessing_that_transformers_has_not_is_refused_before_anything_is_written(here, capsys):
    mine = ours()
    mine.preprocessing = Preprocessing((32, 32), antialias=False)
    mine.save("mine.safetensors")
    before = contents(here)
    assert run(["export", "mine.safetensors", "--to", "huggingface", "--out", "new/deep"]) == 2
    assert "without antialias" in capsys.readouterr().err
    assert contents(here) == before


@pytest.mark.parametrize("out", ["new/deep", "new.safetensors", "new.pth", "full"])
def test_a_full_disk_leaves_everything_as_it_was(out, here, monkeypatch, capsys):
    """The weights are there, and the disk is full at the end of the writing."""
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


def test_a_disk_that_is_full_for_the_last_file_takes_the_others_back(here, monkeypatch, capsys):
    before = contents(here)

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("vitreous.checkpoints.export.write_json", no_room)
    assert run(["export", "ours.safetensors", "--to", "timm", "--out", "new/deep"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == (
        "error: cannot write the folder 'new/deep': No space left on device"
    )
    assert contents(here) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no folder that nobody may write to")
@pytest.mark.parametrize("out", ["/proc/new", "/proc/new.safetensors"])
@pytest.mark.parametrize("target", ["timm", "vitreous"])
def test_a_folder_that_cannot_be_written_is_told(out, target, here, capsys):
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


def test_weights_are_not_put_beside_others_that_would_be_read_in_their_place(here, capsys):
    Path("mine").mkdir()
    ours(gelu="tanh").save("mine/model.safetensors")
    before = contents(here)
    assert run(["export", "mine", "--to", "google", "--out", "mine", "--force"]) == 2
    assert "the folder 'mine' has other weights: model.safetensors" in capsys.readouterr().err
    assert contents(here) == before


# ---- adaptation


def test_a_model_is_adapted_on_its_way(here, capsys):
    export(
        *("theirs.safetensors", "--to", "timm", "--out", "new", "--set", "gelu=tanh"),
        *("--image-size", "48x64", "--patch-size", "16x8", "--classes", "4", "--channels", "1"),
    )
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("adapted: ")]
    assert told == [
        "adapted: patch projection averaged from 3 channels to 1",
        "adapted: patch projection resized from 8×8 to 16×8 pixels (pseudo-inverse of the bilinear resize)",
        "adapted: image size changed from 32×32 to 48×64",
        "adapted: positions resampled from 4×4 to 3×8 (bicubic_antialias)",
        "adapted: new classifier for 4 classes, all zero",
    ]
    adapted = load("new", "cpu")
    config = adapted.model.config
    assert (config.image_size, config.patch_size, config.num_classes, config.channels) == ((48, 64), (16, 8), 4, 1)
    assert (adapted.preprocessing.image_size, adapted.preprocessing.channels) == ((48, 64), 1)
    assert adapted.class_names is None
    by_hand = load("theirs.safetensors", "cpu", gelu="tanh").adapt(image_size=(48, 64), patch_size=(16, 8), channels=1)
    features = adapted.features(photos())
    assert torch.equal(features, by_hand.features(photos()))
    assert features.std(dim=0).mean() > 0.02
    peers = timm.create_model("local-dir:new", pretrained=True)
    with torch.no_grad():
        theirs = peers.eval().forward_head(peers.forward_features(adapted.preprocessing(photos())), pre_logits=True)
    assert torch.allclose(theirs, features, atol=1e-5)


def test_the_way_of_new_channels_can_be_said(here, capsys):
    export(*["theirs.safetensors", "--to", "vitreous", "--out", "new", "--channels", "6", "--channel-method", "repeat"])
    assert "adapted: patch projection repeated from 3 channels to 6\n" in capsys.readouterr().out
    theirs, new = load("theirs.safetensors", "cpu"), load("new", "cpu")
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = theirs.model(images)
        assert expected.std(dim=0).mean() > 0.02
        assert torch.allclose(new.model(images.repeat(1, 2, 1, 1)), expected, atol=1e-5)
    export(*["theirs.safetensors", "--to", "vitreous", "--out", "averaged", "--channels", "6"])
    with torch.no_grad():
        assert not torch.allclose(load("averaged", "cpu").model(images.repeat(1, 2, 1, 1)), expected, atol=1e-2)


def test_the_way_of_resampling_can_be_said(here, capsys):
    export("ours.safetensors", "--to", "vitreous", "--out", "new", "--image-size", "64", "--resampling", "bicubic")
    assert "positions resampled from 4×4 to 8×8 (bicubic)" in capsys.readouterr().out
    assert load("new", "cpu").model.config.position_resampling == "bicubic"


def test_the_head_can_be_taken_off(here, capsys):
    export("ours.safetensors", "--to", "timm", "--out", "new", "--classes", "0")
    bare = load("new", "cpu")
    assert bare.model.config.num_classes == 0
    assert torch.allclose(bare.features(photos()), load("ours.safetensors", "cpu").features(photos()), atol=1e-6)


def test_preprocessing_of_another_size_than_the_positions_stays(here):
    """Models may see larger images than their positions were made for."""
    mine = ours()
    mine.preprocessing = SQUASH.adapted((64, 48), 3)
    mine.save("mine.safetensors")
    export("mine.safetensors", "--to", "vitreous", "--out", "new.safetensors")
    assert load("new.safetensors", "cpu").preprocessing == mine.preprocessing


@pytest.mark.parametrize(
    ("text", "expected"), [(None, None), ("384", 384), ("48x64", (48, 64)), ("48X064", (48, 64)), ("48×64", (48, 64))]
)
def test_a_size_is_read(text, expected):
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "x", "0", "48x", "x48", "-3", "4.5", "48x0", "٣", "1e3", "1" * 5000])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="is no size"):
        size(text)


# ---- the choices of the command line, which are written there so that help starts fast


def test_the_choices_are_those_there_are():
    assert {*get_args(Target)} == {*FAMILIES, OURS}
    assert {*get_args(Ways)} == {*get_args(Resampling)}
    assert {*get_args(ChannelWays)} == {*get_args(ChannelMethod)}
