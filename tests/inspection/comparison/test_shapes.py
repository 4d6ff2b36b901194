"""Differences in shape: depth, width, hidden layer, tokens, layout."""

import pytest
import torch
from torch import nn

from tests.inspection.comparison.learner import learners_copy
from tests.inspection.comparison.models import X, small
from vitreous.inspection.comparison.compare import compare
from vitreous.model.initialization import fill_at_random
from vitreous.model.mlp import MLP, SwiGLU
from vitreous.model.patch_embedding import PatchEmbedding
from vitreous.model.vit import VisionTransformer


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("foreign", [False, True])
def test_another_depth_is_named(depth, foreign):
    reference = small()
    mine = small(depth=depth)
    mine.load_state_dict(
        {k: v for k, v in (mine.state_dict() | reference.state_dict()).items() if k in mine.state_dict()}
    )
    result = compare(learners_copy(mine) if foreign else mine, reference, X)
    assert result.first_difference.kind == "shape"
    assert f"{depth} blocks, the reference 2" in result.cause


@pytest.mark.parametrize("foreign", [False, True])
def test_another_width_is_named(foreign):
    mine = small(width=32)
    result = compare(learners_copy(mine) if foreign else mine, small(), X)
    assert result.first_difference.kind == "shape"
    assert result.first_difference.stage == "patch_embedding.projection"
    assert "yours has 32 numbers, the reference 48; check the width." in result.cause


@pytest.mark.parametrize(
    ("layer", "numbers"), [(MLP, "40 numbers, the reference 96"), (SwiGLU, "80 numbers, the reference 192")]
)
def test_another_hidden_layer_is_named(layer, numbers):
    result = compare(layer(24, 40), layer(24, 96), torch.randn(2, 5, 24))
    assert result.first_difference.stage == "fc1"
    assert result.cause == f"The last axis differs: yours has {numbers}; check mlp_dim."
    assert "width" not in result.cause


def test_another_mlp_dim_of_a_whole_model_is_named():
    reference, mine = small(), small(mlp_dim=56)
    state = reference.state_dict()
    own = mine.state_dict()
    mine.load_state_dict({k: state[k] if state[k].shape == v.shape else v for k, v in own.items()})
    result = compare(mine, reference, X)
    assert result.first_difference.stage == "encoder.blocks.0.mlp.fc1"
    assert "yours has 56 numbers, the reference 96; check mlp_dim." in result.cause


def test_the_output_of_an_mlp_is_not_its_hidden_layer():
    mine = nn.Sequential(nn.Linear(24, 96), nn.GELU(), nn.Linear(96, 30))
    result = compare(mine, MLP(24, 96), torch.randn(2, 5, 24))
    assert not result.equal
    assert "mlp_dim" not in (result.cause or "")


@pytest.mark.parametrize("shape", [(2, 5, 24), (5, 24)])
def test_plain_layers_get_no_advice_about_the_width(shape):
    result = compare(nn.Linear(24, 40), nn.Linear(24, 96), torch.randn(shape))
    assert result.cause == "The last axis differs: yours has 40 numbers, the reference 96."


def test_a_token_too_few_is_named():
    reference = small()
    mine = VisionTransformer(reference.config.replace(class_token=False, pooling="mean", position_class_slot=False))
    state = reference.state_dict()
    state["position_embedding.embedding"] = state["position_embedding.embedding"][:, 1:]
    del state["class_token"]
    mine.load_state_dict(state)
    result = compare(mine, reference, X)
    assert result.first_difference.kind == "missing"
    assert result.first_difference.stage == "class_token"


def test_another_layout_is_no_mistake():
    reference = PatchEmbedding(8, 48)
    fill_at_random(reference)
    convolution = nn.Conv2d(3, 48, 8, 8)
    with torch.no_grad():
        convolution.weight.copy_(reference.projection.weight.view_as(convolution.weight))
        convolution.bias.copy_(reference.projection.bias)
    result = compare(convolution, reference, X)
    assert result.first_difference.kind == "shape"
    assert "another layout" in result.cause
