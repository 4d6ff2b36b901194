"""The same function in another layout is equal, and a mistake in it is found at its place."""

import pytest
import torch
from torch import nn

from tests.inspection.comparison.models import small
from tests.inspection.comparison.variants import Variant
from vitreous.inspection.comparison.compare import compare
from vitreous.inspection.comparison.matching import Value, same
from vitreous.inspection.comparison.ordering import reordering

RIGHT = {
    "convolution, fused qkv": {},
    "convolution, channels last": {"patches": "channels last"},
    "unfold and linear": {"patches": "unfold"},
    "linear, pixels last": {"patches": "pixels last"},
    "separate q, k, v": {"attention": "separate"},
    "qkv packed by head": {"attention": "packed by head"},
    "einsum, heads second to last": {"attention": "einsum"},
    "heads folded into the batch": {"attention": "folded"},
    "torch attention": {"attention": "torch"},
    "torch attention, sequence first": {"attention": "torch sequence first"},
    "norm and skip inside the branches": {"block": "branches"},
}
SHAPES = {  # as many tokens as heads or images, so that axes can be mixed up by their size
    "7 tokens": {},
    "4 tokens, 4 heads": {"image_size": (16, 16), "class_token": False, "pooling": "mean"},
    "2 tokens, 2 images": {"image_size": (8, 16), "class_token": False, "pooling": "mean"},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", RIGHT)
def test_a_right_model_in_another_layout_is_equal(layout, shape):
    reference = small(**SHAPES[shape])
    x = torch.randn(2, 3, *reference.config.image_size)
    result = compare(Variant(reference, **RIGHT[layout]), reference, x)
    assert result.equal
    assert not torch.allclose(*reference.eval()(x))
    unmatched = {m.stage.path for m in result.stages if m.error is None}
    assert not [path for path in unmatched if path.endswith(("mlp", "add", "add.2", "attention.out", "norm"))]


@pytest.mark.parametrize("shape", list(SHAPES)[:2])
@pytest.mark.parametrize("layout", RIGHT)
def test_a_mistake_in_another_layout_is_found_at_its_place(layout, shape):
    reference = small(**SHAPES[shape])
    x = torch.randn(2, 3, *reference.config.image_size)
    result = compare(Variant(reference, **RIGHT[layout], exact=True), reference, x)
    assert result.first_difference.stage == "encoder.blocks.0.mlp.activation"
    assert result.cause.startswith("Yours uses the exact GELU")
    assert "something else" not in result.cause


def shuffled(x, axis):
    return x.index_select(axis, torch.arange(x.shape[axis]).flip(0))


TOKENS = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(2))
HEADS = torch.randn(2, 4, 6, 3, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("reference", "other"),
    [
        (TOKENS, TOKENS.transpose(0, 1)),
        (TOKENS, TOKENS.mT.unflatten(2, (2, 3))),  # a feature map
        (TOKENS, TOKENS.unflatten(1, (2, 3))),
        (TOKENS, TOKENS.flatten(0, 1)),
        (HEADS, HEADS.transpose(1, 2)),
        (HEADS, HEADS.transpose(1, 2).flatten(2)),
        (HEADS, HEADS.flatten(0, 1)),
        (TOKENS, TOKENS.unflatten(2, (2, 4)).transpose(1, 2)),
        (TOKENS[:1], TOKENS[0]),
    ],
)
def test_whole_axes_may_move_join_and_split(reference, other):
    for one, two in ((reference, other), (other, reference)):
        assert same(Value(one), Value(two), 1e-5).absolute == 0
        assert reordering(Value(one), Value(two), 1e-5) is None


@pytest.mark.parametrize(
    ("reference", "other", "order"),
    [
        (TOKENS, TOKENS.mT.reshape(2, 6, 8), "mixed"),
        (TOKENS.mT.unflatten(2, (2, 3)), TOKENS.mT.reshape(2, 6, 8), "mixed"),
        (HEADS, HEADS.reshape(2, 6, 12), "mixed"),
        (HEADS, HEADS.reshape(2, 6, 4, 3).transpose(1, 2), "mixed"),
        (TOKENS[:, :, :6], TOKENS[:, :, :6].mT, "mixed"),
        (TOKENS, shuffled(TOKENS, 1), "tokens"),
        (TOKENS, shuffled(TOKENS, 0), "tokens"),
        (TOKENS, TOKENS.unflatten(1, (2, 3)).transpose(1, 2).flatten(1, 2), "tokens"),
        (TOKENS, shuffled(TOKENS, 2), "channels"),
        (HEADS, HEADS.permute(0, 2, 3, 1).flatten(2), "channels"),
    ],
)
def test_the_same_numbers_in_another_order_are_not_equal(reference, other, order):
    assert same(Value(reference), Value(other.clone()), 1e-5) is None
    assert reordering(Value(reference), Value(other.clone()), 1e-5) == order
    assert reordering(Value(reference), Value(other + 0.01 * torch.randn(other.shape)), 1e-5) is None


def test_other_numbers_of_one_distribution_are_not_the_same_in_another_order():
    one, two = torch.randn(2, 64, 512)
    two = (two - two.mean()) / two.std() * one.std() + one.mean()
    assert reordering(Value(one), Value(two), 0.1) is None
    assert reordering(Value(torch.ones(4, 8)), Value(torch.ones(4, 8)), 0.1) is None


@pytest.mark.parametrize("named", [False, True])
def test_a_layer_that_reorders_its_output_is_different(named):
    class Reshaped(nn.Linear):
        def forward(self, x):
            return super().forward(x).mT.reshape(2, 6, 48)

    reference = nn.Sequential(nn.Linear(24, 48)) if named else nn.Linear(24, 48)
    mine = nn.Sequential(Reshaped(24, 48)) if named else Reshaped(24, 48)
    mine.load_state_dict(reference.state_dict())
    for one, other in ((mine, reference), (reference, mine)):
        result = compare(one, other, torch.randn(2, 6, 24))
        assert not result.equal
        assert result.first_difference.kind == "order"
        assert "transpose, do not reshape" in result.cause
        assert "the same numbers in another order" in str(result)
