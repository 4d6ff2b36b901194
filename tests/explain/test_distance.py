import itertools
import math

import pytest
import torch

from tests.model.models import SWITCHES, images_for, small_model
from vitreous.explain.distance import CONVENTIONS, attention_distance, distances, mean_distance

STRIDE = (8, 4)


def uniform_distance(grid, stride):
    """The mean distance of two places of a grid, from how often each offset of them occurs."""
    (rows, columns), (down, right) = grid, stride
    offsets = itertools.product(range(-rows + 1, rows), range(-columns + 1, columns))
    return sum(
        (rows - abs(r)) * (columns - abs(c)) * math.hypot(r * down, c * right) for r, c in offsets
    ) / (rows * columns) ** 2  # fmt: skip


def blind(model):
    """Lets every token look everywhere alike."""
    with torch.no_grad():
        for block in model.encoder.blocks:
            block.attention.qkv.weight[: 2 * model.config.width] = 0
            block.attention.qkv.bias[: 2 * model.config.width] = 0
    return model


def test_distances_are_between_centers():
    result = distances((2, 3), STRIDE)
    assert result[0, 1] == 4
    assert result[0, 3] == 8
    assert result[2, 3] == math.hypot(8, 8)  # (0, 2) to (1, 0)
    assert torch.equal(result, result.T)


def test_identity_has_no_distance():
    assert mean_distance(torch.eye(6).expand(2, 3, 6, 6), (2, 3), STRIDE).abs().max() == 0


@pytest.mark.parametrize("grid", [(1, 2), (2, 3), (5, 1), (4, 4)])
def test_uniform_attention_has_the_closed_form(grid):
    patches = grid[0] * grid[1]
    result = mean_distance(torch.full((1, 1, patches, patches), 1 / patches), grid, STRIDE)
    assert result.item() == pytest.approx(uniform_distance(grid, STRIDE), rel=1e-6)


def test_rows_of_patches_are_divided_by_their_sums_and_empty_ones_left_out():
    weights = torch.tensor([[0.0, 0.2], [0.0, 0.0]])[None, None]
    assert mean_distance(weights, (1, 2), STRIDE, "patches").item() == 4
    assert mean_distance(weights, (1, 2), STRIDE, "paper").item() == pytest.approx((0.2 * 4 + 0) / 2)


def test_a_head_that_looks_at_the_class_token_alone():
    alone = torch.zeros(1, 1, 2, 2)
    assert mean_distance(alone, (1, 2), STRIDE, "paper").item() == 0
    assert mean_distance(alone, (1, 2), STRIDE, "patches").isnan().all()
    almost = torch.tensor([[0.0, 1e-6], [1e-6, 0.0]])[None, None]
    assert mean_distance(almost, (1, 2), STRIDE, "paper").item() == pytest.approx(4e-6)
    assert mean_distance(almost, (1, 2), STRIDE, "patches").item() == pytest.approx(4)


@pytest.mark.parametrize("switch", ["the paper's", "registers", "mean pooling", "rectangles", "hybrid"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_model_that_looks_everywhere(switch, convention):
    model = blind(small_model(switch))
    result = attention_distance(model, images_for(model.config), convention)
    expected = uniform_distance(model.config.grid, model.config.token_stride)
    if convention == "paper":  # each token has the same weight
        expected *= math.prod(model.config.grid) / model.config.num_tokens
    torch.testing.assert_close(result, torch.full((3, 3, 3), expected))


def test_an_unknown_convention_is_refused(fresh_process):
    """In a process without beartype, which would refuse it first."""
    code = """
import torch, vitreous as vt
model = vt.VisionTransformer.from_variant("mu/16", depth=1, image_size=32)
try:
    vt.attention_distance(model, torch.zeros(1, 3, 32, 32), "pixels")
except vt.InputError as error:
    print(error.cause)
"""
    assert fresh_process(code).stdout.startswith("there is no convention 'pixels'")


@pytest.mark.parametrize("sharpness", [0.0, 10.0])
def test_a_model_in_which_each_patch_sees_itself(sharpness):
    model = small_model("mean pooling", num_heads=1, depth=1)
    [block] = model.encoder.blocks
    with torch.no_grad():
        model.patch_embedding.projection.weight.zero_()
        model.patch_embedding.projection.bias.zero_()
        model.position_embedding.embedding.copy_(torch.eye(16, 48)[None])  # each place its own channel
        block.attention_norm.weight.fill_(1)
        block.attention_norm.bias.zero_()
        block.attention.qkv.weight[:96] = sharpness * torch.eye(48).repeat(2, 1)
        block.attention.qkv.bias[:96] = 0
    result = attention_distance(model, images_for(model.config), "patches")
    expected = 0.0 if sharpness else uniform_distance((4, 4), (8, 8))
    torch.testing.assert_close(result, torch.full((3, 1, 1), expected), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("switch", SWITCHES)
def test_every_head_of_every_model_has_a_distance(switch, convention):
    model = small_model(switch)
    images = images_for(model.config)
    result = attention_distance(model, images, convention)
    assert result.shape == (3, 3, 3)
    assert result.std() > 0
    prefix, grid, stride = model.config.prefix_tokens, model.config.grid, model.config.token_stride
    between = model.attention_weights(images)[1][2, 1, prefix:]  # image 2, block 1, head 1, all keys
    places = [(r * stride[0], c * stride[1]) for r in range(grid[0]) for c in range(grid[1])]
    far = [
        sum(w * math.dist(place, other) for w, other in zip(row[prefix:], places, strict=True))
        / sum(row if convention == "paper" else row[prefix:])
        for place, row in zip(places, between.tolist(), strict=True)
    ]
    assert result[2, 1, 1].item() == pytest.approx(sum(far) / len(far), rel=1e-4)
