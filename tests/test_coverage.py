"""`make coverage` on a handful of names: what is equal, what is refused, and that a wrong reading is found."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.coverage import document
from benchmarks.coverage.families import FAMILIES, family_of
from benchmarks.coverage.outcome import Outcome, difference, fill, judged
from benchmarks.coverage.timm_names import by_kind, outcomes, published_names
from benchmarks.coverage.transformers_classes import outcome_of
from vitreous.checkpoints.families.timm import plain as timm_family
from vitreous.support.errors import InputError

EQUAL = (
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "deit_tiny_distilled_patch16_224.fb_in1k",
    "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m",
    "vit_small_patch14_reg4_dinov2.lvd142m",
    "test_vit2.r160_in1k",
)


@pytest.mark.parametrize("name", EQUAL)
def test_a_name_is_equal_in_both_directions(name: str):
    [outcome] = outcomes([name])
    assert (outcome.result, outcome.why, outcome.back) == ("equal", "", "equal")
    assert 0 < outcome.difference < 1e-5


@pytest.mark.parametrize("name", ["samvit_base_patch16.sa1b", "vit_base_patch16_sapiens2.fb"])
def test_a_name_is_refused_with_a_line(name: str):
    [outcome] = outcomes([name])
    assert outcome.result == "refused"
    assert outcome.why
    assert outcome.back is None


@pytest.mark.parametrize("name", ["ViTForImageClassification", "ViTMAEModel", "CLIPVisionModelWithProjection"])
def test_a_class_is_equal_in_both_directions(name: str):
    outcome = outcome_of(name)
    assert (outcome.result, outcome.back) == ("equal", "equal")
    assert 0 < outcome.difference < 1e-5


def test_names_of_one_kind_share_a_computation_but_not_their_preprocessing():
    names = ["deit_tiny_patch16_224.fb_in1k", "vit_tiny_patch16_224.augreg_in21k"]
    names += ["vit_tiny_patch16_224.augreg_in21k_ft_in1k", "vit_tiny_patch16_384.augreg_in21k_ft_in1k"]
    assert [len(group) for group in by_kind(names)] == [1, 2, 1]


def test_a_wrong_activation_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timm_family, "EXCEPTIONS", ((r"vit_tiny_patch16_224$", {"gelu": "quick"}),))
    [outcome] = outcomes(["vit_tiny_patch16_224.augreg_in21k_ft_in1k"])
    assert outcome.result == "different"
    assert re.fullmatch(r"outputs differ by \d\.\de-\d\d", outcome.why)
    assert outcome.difference > 1e-4


def test_wrong_heads_are_found_at_full_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timm_family, "EXCEPTIONS", ((r"vit_tiny_patch16_224$", {"num_heads": 4}),))
    [outcome] = outcomes(["vit_tiny_patch16_224.augreg_in21k_ft_in1k"])
    assert (outcome.result, outcome.why) == ("different", "at full size, num_heads is read as 4, not 3")


def test_a_wrong_preprocessing_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timm_family, "CROPS", {"center": "squash"})
    [outcome] = outcomes(["vit_tiny_patch16_224.augreg_in21k_ft_in1k"])
    assert outcome.result == "different"
    assert outcome.why.startswith("preprocessed pixels differ by ")


def test_every_published_name_has_a_family():
    names = published_names()
    assert len(names) > 400
    assert {family_of(name) for name in names} == {row for row in FAMILIES if row.names}
    with pytest.raises(KeyError):
        family_of("resnet50.a1_in1k")


def test_an_exception_is_a_finding_and_a_refusal_is_not():
    def fails(error: Exception) -> Outcome:
        raise error

    assert judged("a", lambda: fails(InputError("no such thing", "try another"))).result == "refused"
    outcome = judged("a", lambda: fails(KeyError("gone")))
    assert (outcome.result, outcome.why) == ("different", "KeyError: 'gone'")


def test_outputs_that_do_not_depend_on_the_image_show_nothing():
    same = torch.ones(2, 3)
    with pytest.raises(AssertionError, match="do not depend"):
        difference(same, same)
    varied = torch.tensor([[1.0, 2.0], [4.0, 3.0]])
    assert difference(varied + 0.4, varied) == pytest.approx(0.1)
    assert difference(varied[:, :1], varied) == math.inf
    assert difference(varied * math.nan, varied) == math.inf


def test_every_parameter_is_filled():
    model = fill(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv2d(3, 4, 2)))
    assert all(parameter.abs().min() > 0 for parameter in model.parameters())
    assert 0.2 < model[1].weight.min() < model[1].weight.max() < 1.8


OUTCOMES = (
    Outcome("deit_tiny_patch16_224.fb_in1k", "equal", "", 4e-7, "equal"),
    Outcome("deit_base_patch16_224.fb_in1k", "refused", "no *such* thing"),
    Outcome("deit_base_patch16_384.fb_in1k", "different", "outputs differ by 3.0e-01", 0.3),
)


def test_the_document_counts_by_family_and_names_what_is_refused(tmp_path: Path):
    table = document.table(OUTCOMES, [Outcome("DeiTModel", "equal", "", 1e-6, "refused", "no head")])
    [line] = [line for line in table.splitlines() if line.startswith("| DeiT")]
    assert (
        line == '| DeiT, DeiT III | `vt.load("meta:deit_tiny_patch16_224")` | 1 of 3, 1 different | 1 of 1 | `deit` |'
    )
    total = document.total("timm", "1.0", "names", OUTCOMES)
    assert total == "- timm 1.0: 3 names: 1 equal, 1 refused, 1 different; largest difference 4e-07; 1 exported back"
    assert document.refusals(OUTCOMES).splitlines() == [
        "- `deit_base_patch16_224`: no \\*such\\* thing",
        "- `deit_base_patch16_384`: different: outputs differ by 3.0e-01",
    ]
    path = tmp_path / "weights.md"
    path.write_text("before\n<!-- table -->\nold\n<!-- /table -->\nafter\n", encoding="utf-8")
    document.write({"table": "new\\1"}, path)
    assert path.read_text(encoding="utf-8") == "before\n<!-- table -->\nnew\\1\n<!-- /table -->\nafter\n"
    with pytest.raises(AssertionError, match="no marks for other"):
        document.write({"other": "new"}, path)
