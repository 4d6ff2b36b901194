"""Ordinary training checkpoints: one model is found and the rest listed; of several the caller chooses."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import transformers
from torch import Tensor, nn

from tests.checkpoints.families.test_openai import as_openai
from tests.checkpoints.families.test_openai import peer as clip_peer
from tests.checkpoints.families.test_timm import peer as timm_peer
from tests.checkpoints.peers import TINY, assert_same_function, filled, images_of
from tests.classifiers import small_classifier
from vitreous.checkpoints.load import load_checkpoint
from vitreous.cli.app import run
from vitreous.support.errors import InputError

BLOCK = re.compile(r"(blocks|layers|layer)\.\w*\d+\.")
HEADS = {"num_heads": TINY["num_heads"]}


def torchvision_peer() -> nn.Module:
    return filled(torchvision.models.VisionTransformer(32, 8, 2, 4, 64, 128, num_classes=5))


def transformers_peer() -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, image_size=32, patch_size=8,
        num_labels=5, layer_norm_eps=1e-6,
    )  # fmt: skip
    return filled(transformers.ViTForImageClassification(config))


PEERS = {"timm": timm_peer, "torchvision": torchvision_peer, "transformers": transformers_peer, "CLIP": clip_peer}


def state_of(kind: str, model: nn.Module) -> dict[str, Tensor]:
    return as_openai(model) if kind == "CLIP" else dict(model.state_dict())


def output_of(kind: str, model: nn.Module):
    names = {"transformers": "logits", "CLIP": "image_embeds"}
    return (lambda images: getattr(model(images), names[kind])) if kind in names else model


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def optimizer_state() -> dict[str, Any]:
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def lightning(state: Mapping[str, Tensor]) -> dict[str, Any]:
    callbacks = {
        "EarlyStopping{'monitor': 'loss'}": {"wait_count": 0, "best_score": torch.tensor(0.5)},
        "ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "kth_value": torch.tensor(0.1), "dirpath": "x"},
    }
    return {
        "epoch": 3,
        "global_step": 90,
        "pytorch-lightning_version": "2.5",
        "state_dict": prefixed("model.", state) | {"loss.weight": torch.ones(5), "metric.confmat": torch.ones(5, 5)},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}},
        "callbacks": callbacks,
        "optimizer_states": [optimizer_state()],
        "lr_schedulers": [{"last_epoch": 3}],
        "hyper_parameters": {"lr": 1e-3},
    }


# A training script's checkpoint of a model's state dict, and what the report must say of the rest.
CHECKPOINTS = {
    "the usual three": (
        lambda s: {"model_state_dict": s, "optimizer_state_dict": optimizer_state(), "epoch": 3},
        ("state of a training run", "not a tensor"),
    ),
    "Lightning": (
        lightning,
        ("state of a training run", "beside the model, whose keys begin with 'state_dict/model.'"),
    ),
    "torchvision's reference": (
        lambda s: {
            "model": s,
            "optimizer": optimizer_state(),
            "lr_scheduler": {"last_epoch": 3, "_last_lr": [0.1]},
            "epoch": 3,
            "args": argparse.Namespace(lr=0.1, output_dir=Path("runs"), data_path="/data"),
            "scaler": {"scale": 1.0},
        },
        ("state of a training run", "not a tensor"),
    ),
    "transformers' two": (
        lambda s: {"model": s, "optimizer": optimizer_state()},
        ("state of a training run",),
    ),
    "AveragedModel": (
        lambda s: prefixed("module.", s) | {"n_averaged": torch.tensor(7)},
        ("beside the model, whose keys begin with 'module.'",),
    ),
    "DDP of a compiled model": (lambda s: {"state_dict": prefixed("module._orig_mod.", s)}, ()),
    "a compiled DDP": (lambda s: prefixed("_orig_mod.module.", s), ()),
    "compiled blocks": (
        lambda s: {
            re.sub(r"(blocks|layers|layer|resblocks)(\.\w*\d+\.)", r"\1\2_orig_mod.", k): t for k, t in s.items()
        },
        (),
    ),
    "metrics of numpy": (
        lambda s: {"model": s, "best": np.float64(0.9), "loss": np.float32(1), "curve": np.arange(4.0)},
        ("left out: best, loss, curve (not a tensor)",),
    ),
    "a model in a larger one": (
        lambda s: prefixed("net.vit.", s) | {"net.neck.weight": torch.ones(2, 2)},
        ("beside the model, whose keys begin with 'net.vit.'",),
    ),
}


@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("case", CHECKPOINTS)
def test_the_model_of_a_training_checkpoint_is_found_and_the_rest_is_listed(case, kind, tmp_path):
    wrap, reasons = CHECKPOINTS[case]
    theirs = PEERS[kind]()
    for old in (False, True):
        path = tmp_path / f"{old}.pth"
        torch.save(wrap(state_of(kind, theirs)), path, _use_new_zipfile_serialization=not old)
        read = load_checkpoint(path, norm_eps=1e-5 if kind == "CLIP" else 1e-6, **HEADS)
        assert_same_function(output_of(kind, theirs), read.model, images_of(read.model.config))
        for reason in reasons:
            assert reason in str(read.report)
        if not reasons:
            assert read.report is not None
            assert read.report.dropped == {}


# Several models in one file: the part to ask for, and the prefix that messages show.
SEVERAL = {
    "student and teacher": (lambda a, b: prefixed("student.", a) | prefixed("teacher.", b), ("student", "teacher")),
    "an average beside the weights": (
        lambda a, b: {"state_dict": prefixed("model.", a) | prefixed("ema.module.", b)},
        ("state_dict/model", "state_dict/ema.module"),
    ),
    "torchvision's average": (
        lambda a, b: {"model": a, "model_ema": prefixed("module.", b) | {"n_averaged": torch.tensor(3)}},
        ("model", "model_ema/module"),
    ),
    "a teacher inside the model": (lambda a, b: a | prefixed("teacher.", b), (".", "teacher")),
}


@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("case", SEVERAL)
def test_of_several_models_the_caller_chooses_one(case, kind, tmp_path):
    wrap, parts = SEVERAL[case]
    theirs = PEERS[kind]()
    first = state_of(kind, theirs)
    path = tmp_path / "m.pth"
    second = {key: tensor.roll(1, 0) if tensor.ndim else tensor for key, tensor in first.items()}
    torch.save(wrap(first, second), path)
    eps = 1e-5 if kind == "CLIP" else 1e-6
    with pytest.raises(InputError, match="holds 2 models") as caught:
        load_checkpoint(path, norm_eps=eps, **HEADS)
    assert all(repr(part) in caught.value.cause and f"--part {part}" in caught.value.hint for part in parts)
    found = [load_checkpoint(path, part=part, norm_eps=eps, **HEADS) for part in parts]
    assert_same_function(output_of(kind, theirs), found[0].model, images_of(found[0].model.config))
    weights = [one.model.state_dict()["patch_embedding.projection.weight"] for one in found]
    assert torch.equal(weights[1], weights[0].roll(1, 0))
    for part, other in (parts, parts[::-1]):
        report = str(load_checkpoint(path, part=part, norm_eps=eps, **HEADS).report)
        assert f"another model, which part {other!r} takes" in report


def test_a_part_that_is_not_there_is_an_error_with_those_that_are(tmp_path):
    state = timm_peer().state_dict()
    torch.save({"student": state, "teacher": state}, tmp_path / "m.pth")
    with pytest.raises(InputError, match="no model whose keys begin with 'stud'") as caught:
        load_checkpoint(tmp_path / "m.pth", part="stud", **HEADS)
    assert caught.value.hint == "choose one: --part student or --part teacher (part= in Python)"
    for part in ("student", "student/"):
        assert load_checkpoint(tmp_path / "m.pth", part=part, **HEADS).report is not None
    torch.save({"a": torch.ones(2)}, tmp_path / "none.pth")
    with pytest.raises(InputError, match="no model whose keys begin with 'a'"):
        load_checkpoint(tmp_path / "none.pth", part="a")
    small_classifier().save(tmp_path / "ours.safetensors")
    with pytest.raises(InputError, match="already stores its config"):
        load_checkpoint(tmp_path / "ours.safetensors", part="a")


# The prefixes in a file, what the caller asks for, and the one that is meant; None if several are.
ASKED = [
    (("model.", "model.ema."), "model", "model."),
    (("model.", "model.ema."), "model.ema", "model.ema."),
    (("model.", "model.ema."), "ema", "model.ema."),
    (("", "teacher."), ".", ""),
    (("state_dict/student.", "state_dict/teacher."), "student", "state_dict/student."),
    (("state_dict/student.", "state_dict/teacher."), "state_dict/student", "state_dict/student."),
    (("state_dict/student.net.", "state_dict/teacher.net."), "student", "state_dict/student.net."),
    (("state_dict/student.", "state_dict/student.ema."), "student", "state_dict/student."),
    (("a/student.", "b/student."), "student", None),
    (("state_dict/student.", "state_dict/teacher."), "state_dict", None),
]


@pytest.mark.parametrize(("roots", "part", "meant"), ASKED)
def test_a_part_is_the_exact_prefix_or_else_a_segment_that_one_model_has(roots, part, meant, tmp_path):
    state = timm_peer().state_dict()
    tensors = {f"{root}{key}": tensor + i for i, root in enumerate(roots) for key, tensor in state.items()}
    torch.save(tensors, tmp_path / "m.pth")
    if meant is None:
        with pytest.raises(InputError, match="holds 2 models, whose keys begin with"):
            load_checkpoint(tmp_path / "m.pth", part=part, **HEADS)
        return
    read = load_checkpoint(tmp_path / "m.pth", part=part, **HEADS)
    assert torch.equal(read.model.state_dict()["class_token"], state["cls_token"] + roots.index(meant))


@pytest.mark.parametrize("wrap", ["", "model."])
def test_a_wrong_part_of_a_file_with_one_model(wrap, tmp_path):
    torch.save(prefixed(wrap, timm_peer().state_dict()), tmp_path / "m.pth")
    with pytest.raises(InputError, match=r"m\.pth holds one model, and its keys do not begin with 'ema'") as caught:
        load_checkpoint(tmp_path / "m.pth", part="ema", **HEADS)
    assert caught.value.hint == "leave out --part (part= in Python)"


@pytest.mark.parametrize("head", ["head", "head.fc", "fc", "classifier", "model.fc"])
@pytest.mark.parametrize("root", ["backbone.", "state_dict/backbone.", "teacher/backbone."])
def test_a_classifier_beside_the_model_is_named(root, head, tmp_path):
    outside = root.removesuffix("backbone.")
    beside = {f"{outside}{head}.weight": torch.ones(5, 64), f"{outside}{head}.bias": torch.ones(5)}
    others = {f"{outside}neck.weight": torch.ones(5, 64), f"{outside}fc2.weight": torch.ones(64, 5)}
    torch.save(prefixed(root, timm_peer(num_classes=0).state_dict()) | beside | others, tmp_path / "m.pth")
    report = load_checkpoint(tmp_path / "m.pth", **HEADS).report
    assert report is not None
    assert {key for key, why in report.dropped.items() if why == "a classifier beside the model (not read)"} == {
        *beside
    }


@pytest.mark.parametrize("names", [("student", "teacher"), ("teacher",), ("student",)])
def test_the_classifier_of_a_student_or_teacher_is_read(names, tmp_path):
    theirs = timm_peer()
    state = theirs.state_dict()
    torch.save(
        {name: state if name == names[-1] else {key: tensor + 1 for key, tensor in state.items()} for name in names},
        tmp_path / "m.pth",
    )
    read = load_checkpoint(tmp_path / "m.pth", **HEADS)
    assert_same_function(theirs, read.model, images_of(read.model.config))
    assert read.report is not None
    assert "projection head" not in str(read.report)


def test_what_is_unknown_inside_the_model_is_still_an_error(tmp_path):
    state = timm_peer().state_dict() | {"blocks.0.adapter.weight": torch.ones(2, 2)}
    torch.save({"model_state_dict": state, "epoch": 3}, tmp_path / "m.pth")
    with pytest.raises(InputError, match=r"model_state_dict/blocks\.0\.adapter\.weight is unexpected"):
        load_checkpoint(tmp_path / "m.pth", **HEADS)


def test_the_command_line_takes_a_part(tmp_path, capsys):
    theirs = timm_peer()
    state = theirs.state_dict()
    path, out = str(tmp_path / "m.pth"), str(tmp_path / "out.safetensors")
    torch.save({"model": state, "ema": {key: tensor + 1 for key, tensor in state.items()}}, path)
    command = ["export", path, "--to", "timm", "--out", out, "--set", "num_heads=4"]
    assert run(command) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[0].endswith("holds 2 models, whose keys begin with 'model', 'ema'")
    assert error[1] == "hint: choose one: --part model or --part ema (part= in Python)"
    assert run([*command, "--part", "ema"]) == 0
    assert "left out: model/cls_token" in capsys.readouterr().out
    assert torch.equal(load_checkpoint(out, **HEADS).model.state_dict()["class_token"], state["cls_token"] + 1)
