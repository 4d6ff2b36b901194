"""Equal models are equal; outputs that hide differences do not."""

import copy

import pytest
import torch
from torch import nn

from tests.inspection.comparison.learner import learners_copy
from tests.inspection.comparison.models import X, edited, fresh, small
from tests.inspection.test_trace import hooks
from vitreous.inspection.comparison.compare import compare
from vitreous.model.attention import SelfAttention
from vitreous.model.encoder import EncoderBlock
from vitreous.model.initialization import fill_at_random
from vitreous.model.mlp import MLP
from vitreous.model.patch_embedding import PatchEmbedding
from vitreous.model.vit import VisionTransformer


def test_equal_models_are_equal_and_left_alone():
    reference = small().train()
    mine = copy.deepcopy(reference)
    mine.encoder.blocks[1].eval()
    result = compare(mine, reference, X)
    assert result.equal
    assert result.first_difference is None
    assert result.cause is None
    assert all(match.error is not None for match in result.stages)
    assert hooks(mine) == hooks(reference) == []
    assert all(m.training for m in reference.modules())
    assert [b.training for b in mine.encoder.blocks] == [True, False]
    assert "Equal" in str(result)


@pytest.mark.parametrize("mistake", ["", "torch attention"])
def test_a_foreign_model_with_other_names_is_equal(mistake):
    reference = small()
    assert compare(learners_copy(reference, mistake), reference, X).equal


@pytest.mark.parametrize("images", [1, 2])
def test_fresh_models_are_compared_before_their_classifiers(images):
    reference, x = fresh(), X[:images]
    assert not reference.eval()(x).any()
    result = compare(fresh(), reference, x)
    assert result.equal
    assert "all zero" in str(result)
    assert "head.pooling" in result.note
    assert all(match.error is not None for match in result.stages if match.stage.value.any())

    result = compare(fresh(depth=3), reference, x)
    assert not result.equal
    assert "3 blocks, the reference 2" in result.cause
    assert "all zero" in str(result)

    result = compare(fresh(gelu="exact"), reference, x)
    assert not result.equal
    assert result.first_difference.stage == "encoder.blocks.0.mlp.activation"
    assert result.cause.startswith("Yours uses the exact GELU")
    assert "something else" not in result.cause

    torch.manual_seed(1)
    result = compare(VisionTransformer(reference.config), reference, x)
    assert not result.equal
    assert result.cause is None


def test_a_fresh_model_of_a_learner_is_compared_before_its_classifier():
    reference = fresh()
    assert compare(learners_copy(reference), reference, X).equal
    result = compare(learners_copy(reference, "exact gelu"), reference, X)
    assert not result.equal
    assert result.cause.startswith("Yours uses the exact GELU")
    assert compare(reference, learners_copy(reference, "exact gelu"), X).cause.startswith("The reference uses")


def test_a_fresh_model_is_not_a_trained_one():
    reference = small()
    mine = edited(reference, lambda m: [p.zero_() for p in m.head.classifier.parameters()])
    for one, other in ((mine, reference), (reference, mine)):
        result = compare(one, other, X)
        assert not result.equal
        assert result.first_difference.stage == "head.classifier"
        assert result.note == ""


def test_logits_that_are_only_a_bias_hide_differences():
    def biased(**changes):
        return edited(fresh(**changes), lambda m: m.head.classifier.bias.copy_(torch.arange(7.0) - 3))

    reference = biased(num_classes=7)
    result = compare(biased(num_classes=7, gelu="exact"), reference, X)
    assert not result.equal
    assert "the same for every image" in result.note
    assert compare(biased(num_classes=7), reference, X).equal


def test_zero_throughout_is_noted():
    reference = edited(nn.Linear(24, 24), lambda m: [p.zero_() for p in m.parameters()])
    result = compare(copy.deepcopy(reference), reference, torch.randn(2, 24))
    assert result.equal
    assert "says little" in str(result)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (SelfAttention(48, 4), (2, 5, 48)),
        (MLP(48, 96), (2, 5, 48)),
        (EncoderBlock(48, 4, 96), (2, 5, 48)),
        (PatchEmbedding(8, 48), (2, 3, 16, 24)),
        (nn.LayerNorm(48), (2, 5, 48)),
    ],
)
def test_single_layers(layer, shape):
    fill_at_random(layer)
    x = torch.randn(shape)
    assert compare(copy.deepcopy(layer), layer, x).equal
    other = edited(layer, lambda m: [p.mul_(1.5) for p in m.parameters()])
    assert not compare(other, layer, x).equal


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="no input"):
        compare(nn.Identity(), nn.Identity())

    class Silent(nn.Module):
        def forward(self, x):
            return None

    with pytest.raises(ValueError, match="returned no tensor"):
        compare(Silent(), nn.Identity(), X)
    with pytest.raises(ValueError, match=r"Ends returned an empty tensor, of shape \(0, 24\)"):
        compare(Ends(nn.Linear(24, 24), lambda x: x[:0]), nn.Linear(24, 24), torch.randn(2, 24))


class Ends(nn.Module):
    def __init__(self, layer, end):
        super().__init__()
        self.layer, self.activation, self.end = layer, nn.GELU(), end

    def forward(self, x):
        return self.end(self.activation(self.layer(x)))


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    "end",
    [
        *(lambda x: x.mT.reshape(x.shape), lambda x: x.transpose(0, 1).reshape(x.shape), lambda x: x.flatten()),
        *(lambda x: x.sum(), lambda x: x > 0, lambda x: (9 * x).long(), lambda x: x[:1] * 0),
        *(lambda x: x / 0, lambda x: x.roll(1, 1), lambda x: x.flip(-1), lambda x: x.reshape(8, 15)),
    ],
)
def test_whatever_a_model_returns_is_compared(end, named):
    layer, x = nn.Linear(12, 12), torch.randn(2, 5, 12)
    reference, mine = Ends(layer, lambda x: x), Ends(layer, end)
    mine = mine if named else nn.Sequential(mine)
    for one, other in ((mine, reference), (reference, mine)):
        result = compare(one, other, x)
        assert not result.equal
        assert result.first_difference.stage in ("", "0")
        assert "First different stage" in str(result)
    assert compare(mine, Ends(layer, end), x).equal


def test_text_is_safe_to_show():
    reference, mine = nn.Sequential(), nn.Sequential()
    for model in (reference, mine):
        model.add_module("<i>\x1b[1m", nn.Linear(24, 24))
    result = compare(mine, reference, X)
    assert "\x1b" not in str(result)
    assert "<i>" not in result._repr_html_()


def test_a_forward_that_goes_on_after_an_exception_is_compared():
    class Fails(nn.Module):
        def forward(self, x):
            raise RuntimeError("no")

    class GoesOn(nn.Module):
        def __init__(self):
            super().__init__()
            self.fails, self.layer = Fails(), nn.Linear(24, 24)

        def forward(self, x):
            try:
                return self.fails(x)
            except RuntimeError:
                return self.layer(x)

    mine, reference = GoesOn(), nn.Sequential(nn.Linear(24, 24))
    mine.layer.load_state_dict(reference[0].state_dict())
    assert compare(mine, reference, X).equal


@pytest.mark.parametrize(
    ("changed", "first", "last"),
    [
        ("fc1.bias", "Different from the first stage.", None),
        ("fc2.bias", "Different after 2 equal stages.", "Last equal stage: activation (GELU)."),
    ],
)
def test_a_comparison_prints_the_last_equal_and_the_first_different_stage(changed, first, last):
    reference = MLP(24, 96)
    mine = copy.deepcopy(reference)
    with torch.no_grad():
        mine.get_parameter(changed)[0] += 1
    lines = str(compare(mine, reference, torch.randn(2, 5, 24))).splitlines()
    assert lines[0] == first
    assert lines[1:-2] == ([last] if last else [])
    assert lines[-2].startswith(f"First different stage: {changed.removesuffix('.bias')} (dense ")
    assert ": max error 1, relative 0." in lines[-2]
