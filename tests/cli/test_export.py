"""`vitreous export`: from any family to any other, with its reports and files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.peers import assert_same_tensors
from tests.classifiers import changed
from tests.cli.exporting import CROP, NAMES, SQUASH, export, ours, peer, photos, write_models
from vitreous.checkpoints.export import effect
from vitreous.checkpoints.families.recognize import FAMILIES, OURS
from vitreous.classifier import load
from vitreous.cli.export import ChannelChoice, ResamplingChoice, Target, size
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.adapt import ChannelMethod
from vitreous.model.config import Resampling
from vitreous.support.errors import InputError


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A current folder with theirs.safetensors (timm) and ours.safetensors."""
    monkeypatch.chdir(tmp_path)
    write_models(tmp_path)
    return tmp_path


# ---- there and back


def test_a_tour_of_all_formats_keeps_every_bit(here):
    export("theirs.safetensors", "--to", "google", "--out", "google.npz", "--set", "gelu=tanh")
    export("google.npz", "--to", "huggingface", "--out", "hub")
    export("hub", "--to", "vitreous", "--out", "mine.safetensors")
    export("mine.safetensors", "--to", "timm", "--out", "back.safetensors")
    assert_same_tensors(load_file("back.safetensors"), load_file("theirs.safetensors"))


@pytest.mark.parametrize("preprocessing", [SQUASH, CROP], ids=["squash", "crop"])
@pytest.mark.parametrize("family", ["huggingface", "timm"])
def test_class_names_and_preprocessing_survive_a_folder(family, preprocessing, here, capsys):
    rounding = "down" if family == "huggingface" and preprocessing is CROP else "even"
    preprocessing = replace(preprocessing, crop_rounding=rounding)
    mine = changed(ours(), preprocessing=preprocessing)
    mine.save("mine.safetensors")
    export("mine.safetensors", "--to", family, "--out", "folder")
    assert "not recorded" not in capsys.readouterr().out
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


# ---- the report


def test_the_report_lists_what_was_read_guessed_left_out_and_written(here, capsys):
    moments = {f"moment {i}": torch.randn(3) for i in range(5)}
    torch.save({"model": peer().state_dict(), "optimizer": moments, "epoch": 3}, "run.pth")
    export("run.pth", "--to", "timm", "--out", "out.safetensors", "--family", "timm", "--set", "gelu=tanh")
    out, error = capsys.readouterr()
    first, *lines = out.splitlines()
    assert first.startswith("read 32 tensors, ")
    assert first.endswith(" parameters, from run.pth (timm)")
    assert "  guessed: num_heads = 3 (width / 64)" in lines
    assert not any("guessed: gelu" in line for line in lines)
    shown = [f"optimizer/moment {i}" for i in range(3)]
    assert f"  left out: {', '.join(shown)} and 2 more (state of a training run)" in lines
    assert "  left out: epoch (not a tensor)" in lines
    assert "wrote 32 tensors to out.safetensors (timm, float32)" in lines
    assert error == ""


def test_json_lists_every_key_that_was_left_out(here, capsys):
    moments = {f"moment {i}": torch.randn(3) for i in range(5)}
    torch.save({"model": peer().state_dict(), "optimizer": moments}, "run.pth")
    export("run.pth", "--to", "timm", "--out", "out", "--family", "timm", "--channels", "1", "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["read"]["dropped"] == {f"optimizer/moment {i}": "state of a training run" for i in range(5)}
    assert {"field": "num_heads", "value": 3, "why": "width / 64"} in report["read"]["guessed"]
    assert report["adapted"] == ["patch projection averaged from 3 channels to 1, scaled by 3/1"]
    assert report["written"]["files"] == ["out/model.safetensors", "out/config.json"]
    assert report["written"]["tensors"] == 32


def test_a_parameter_without_a_place_is_reported(here, capsys):
    ours(mask_token=True).save("masked.safetensors")
    export("masked.safetensors", "--to", "torchvision", "--out", "out.pth")
    out = capsys.readouterr().out
    assert out.startswith("read masked.safetensors (vitreous)\n")
    assert "  left out: mask_token (the format has no place for it, and it does not affect the output)" in out
    export("masked.safetensors", "--to", "timm", "--out", "out", "--json")
    assert json.loads(capsys.readouterr().out)["written"]["dropped"].keys() == {"mask_token"}


def test_what_a_file_does_not_record_is_reported_and_a_folder_records_it(here, capsys):
    mine = ours(num_heads=2, gelu="tanh", image_size=(16, 64))
    mine = changed(mine, preprocessing=CROP.adapted((16, 64), 3), metadata={"license": "CC-BY-NC-4.0"})
    mine.save("mine.safetensors")
    export("mine.safetensors", "--to", "timm", "--out", "out.safetensors")
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  not recorded in the file, set it when loading: num_heads=2, gelu=tanh, image_size=(16, 64)",
        "  not recorded in the file, preprocessing: crop_fraction=0.875, interpolation=bilinear, "
        "mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)",
        "  not recorded in the file: the names of the 5 classes",
        "  not recorded in the file: the license, CC-BY-NC-4.0",
    ]
    given = {"num_heads": 2, "gelu": "tanh", "image_size": (16, 64)}
    images = torch.randn(3, 3, 16, 64)
    with torch.no_grad():
        expected = mine.model(images)
        assert torch.allclose(load("out.safetensors", "cpu", **given).model(images), expected, atol=1e-5)
        export("mine.safetensors", "--to", "timm", "--out", "folder")
        assert capsys.readouterr().out.splitlines()[2:] == ["  not recorded in the file: the license, CC-BY-NC-4.0"]
        assert torch.allclose(load("folder", "cpu").model(images), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "preprocessing", "field"),
    [
        ("timm", Preprocessing((32, 32), antialias=False), "antialias=False"),
        ("timm", replace(CROP, crop_rounding="down"), "crop_rounding=down"),
        ("timm", Preprocessing((32, 32), max_value=4095), "max_value=4095"),
        ("huggingface", CROP, "crop_rounding=even"),  # its image processor rounds half pixels down
    ],
)
def test_only_fields_that_a_familys_json_cannot_hold_are_reported(family, preprocessing, field, here, capsys):
    changed(ours(), preprocessing=preprocessing).save("mine.safetensors")
    export("mine.safetensors", "--to", family, "--out", "folder")
    assert f"  not recorded in the file, preprocessing: {field}\n" in capsys.readouterr().out


def test_class_names_that_do_not_fit_are_reported(here, capsys):
    export("ours.safetensors", "--to", "huggingface", "--out", "hub")
    config = json.loads(Path("hub/config.json").read_text())
    del config["id2label"]["4"]
    Path("hub/config.json").write_text(json.dumps(config))
    capsys.readouterr()
    export("hub", "--to", "timm", "--out", "out")
    assert "  left out: the names of 4 classes, because the model has 5\n" in capsys.readouterr().out


def test_control_characters_in_keys_are_escaped(here, capsys):
    tensors = peer().state_dict()
    torch.save({"model": tensors, "optimizer": {"\x1b[31m\n": torch.ones(2)}}, "run.pth")
    export("run.pth", "--to", "timm", "--out", "out.pth", "--family", "timm")
    assert "\x1b" not in capsys.readouterr().out


# ---- adaptation


def test_a_model_can_be_adapted(here, capsys):
    export(
        *("theirs.safetensors", "--to", "timm", "--out", "new", "--set", "gelu=tanh"),
        *("--image-size", "48x64", "--patch-size", "16x8", "--classes", "4", "--channels", "1"),
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("adapted: ")]
    assert lines == [
        "adapted: patch projection averaged from 3 channels to 1, scaled by 3/1",
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


def test_channels_can_be_repeated(here, capsys):
    export(*["theirs.safetensors", "--to", "vitreous", "--out", "new", "--channels", "6", "--channel-method", "repeat"])
    assert "adapted: patch projection repeated from 3 channels to 6, scaled by 3/6\n" in capsys.readouterr().out
    theirs, new = load("theirs.safetensors", "cpu"), load("new", "cpu")
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = theirs.model(images)
        assert expected.std(dim=0).mean() > 0.02
        assert torch.allclose(new.model(images.repeat(1, 2, 1, 1)), expected, atol=1e-5)
    export(*["theirs.safetensors", "--to", "vitreous", "--out", "averaged", "--channels", "6"])
    with torch.no_grad():
        assert not torch.allclose(load("averaged", "cpu").model(images.repeat(1, 2, 1, 1)), expected, atol=1e-2)


def test_the_resampling_can_be_chosen(here, capsys):
    export("ours.safetensors", "--to", "vitreous", "--out", "new", "--image-size", "64", "--resampling", "bicubic")
    assert "positions resampled from 4×4 to 8×8 (bicubic)" in capsys.readouterr().out
    assert load("new", "cpu").model.config.position_resampling == "bicubic"


def test_the_head_can_be_removed(here, capsys):
    export("ours.safetensors", "--to", "timm", "--out", "new", "--classes", "0")
    bare = load("new", "cpu")
    assert bare.model.config.num_classes == 0
    assert torch.allclose(bare.features(photos()), load("ours.safetensors", "cpu").features(photos()), atol=1e-6)


def test_preprocessing_may_have_another_size_than_the_positions(here):
    """Models may take larger images than their positions were trained for."""
    mine = changed(ours(), preprocessing=SQUASH.adapted((64, 48), 3))
    mine.save("mine.safetensors")
    export("mine.safetensors", "--to", "vitreous", "--out", "new.safetensors")
    assert load("new.safetensors", "cpu").preprocessing == mine.preprocessing


@pytest.mark.parametrize(
    ("text", "expected"), [(None, None), ("384", 384), ("48x64", (48, 64)), ("48X064", (48, 64)), ("48×64", (48, 64))]
)
def test_a_size_is_parsed(text, expected):
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "x", "0", "48x", "x48", "-3", "4.5", "48x0", "٣", "1e3", "1" * 5000])
def test_an_invalid_size_is_refused(text):
    with pytest.raises(InputError, match="is not a size"):
        size(text)


# ---- the choices of the command line, repeated there so that help starts fast


def test_the_choices_are_complete():
    assert {*get_args(Target)} == {*FAMILIES, OURS}
    assert {*get_args(ResamplingChoice)} == {*get_args(Resampling)}
    assert {*get_args(ChannelChoice)} == {*get_args(ChannelMethod)}
