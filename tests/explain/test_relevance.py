import math

import pytest
import torch

from tests.model.models import SWITCHES, images_for, small_model
from vitreous.explain.attention_maps import readout
from vitreous.explain.relevance import gradient_attention, relevance, weighted_attention
from vitreous.model.attention import NO_POSITIONS
from vitreous.support.errors import InputError

TINY = {"width": 16, "depth": 2, "num_heads": 2, "mlp_dim": 8, "image_size": 16, "num_classes": 4}
CHECKED = (
    *("the paper's", "distillation", "registers", "mean pooling", "attention pooling", "relative"),
    *("hidden layer", "SwiGLU and LayerScale", "learned at every layer", "class token, norm after"),
)
WITH_CLASSES = [switch for switch, changes in SWITCHES.items() if changes.get("num_classes") != 0]
STEP = 1e-5


def attend(attention, x, queries, positions, change):
    """Equations 5 to 8 one by one, with a change added to A; returns the result and A."""
    q, k, v = attention.project(x, queries)
    logits = torch.einsum("bhqd,bhtd->bhqt", q, k) / math.sqrt(q.shape[-1])
    bias = positions.bias(q)
    a = torch.softmax(logits if bias is None else logits + bias, dim=-1)
    heads = torch.einsum("bhqt,bhtd->bqhd", a + change, v)
    return attention.out(heads.flatten(2)), a


def logits_of(model, images, changes):
    """The model's pass, written out, with a change added to every A; returns the logits and all A."""
    maps = []
    x = model.encoder.pre_norm(model.embed(images))
    positions = model.position_embedding.for_blocks(model.grid(images))
    for i, block in enumerate(model.encoder.blocks):
        x = positions(i).tokens(x)
        attended, a = attend(block.attention, block.attention_norm(x), None, positions(i), changes[i])
        maps.append(a)
        x = x + block.attention_scale(attended)
        x = x + block.mlp_scale(block.mlp(block.mlp_norm(x)))
    x = model.encoder.norm(x)
    if model.config.pooling != "attention":
        return model.head(x), maps
    pooling = model.head.pooling
    y, a = attend(pooling.attention, x, pooling.probe.expand(len(x), -1, -1), NO_POSITIONS, changes[-1])
    y = (y + pooling.mlp(pooling.norm(y)))[:, 0]
    return model.head.classifier(y), [*maps, a]


def slow_relevance(model, image, class_index):
    """Ā of every attention and the relevance of all tokens for a class, with gradients by finite differences."""
    with torch.no_grad():
        unchanged = [0.0] * (model.config.depth + 1)
        _, maps = logits_of(model, image, unchanged)
        weighted = []
        for i, a in enumerate(maps):
            count = a.numel()
            single = torch.eye(count, dtype=a.dtype).reshape(count, *a.shape[1:]) * STEP
            above, below = (
                logits_of(model, image.expand(count, -1, -1, -1), [*unchanged[:i], change, *unchanged[i + 1 :]])[0]
                for change in (single, -single)
            )
            gradient = ((above - below)[:, class_index] / (2 * STEP)).reshape(a.shape)
            weighted.append((gradient * a).clamp(min=0)[0].mean(dim=0))
    total = torch.eye(weighted[0].shape[-1], dtype=image.dtype)
    for block in weighted[: model.config.depth]:
        total = total + block @ total
    if model.config.pooling == "attention":
        return weighted, weighted[-1][0] @ total
    return weighted, readout(model, image)[0].to(total.dtype) @ total


@pytest.mark.parametrize("switch", CHECKED)
def test_relevance_agrees_with_finite_differences(switch):
    model = small_model(switch, **TINY).double()
    image = images_for(model.config, batch=1).double()
    prefix = model.config.prefix_tokens
    result = relevance(model, image, torch.tensor([2]))
    weighted, expected = slow_relevance(model, image, 2)
    assert expected[prefix:].std() > 1e-4
    torch.testing.assert_close(result.flatten().double(), expected[prefix:], rtol=1e-4, atol=1e-6)
    by_block = gradient_attention(model, image, 0, torch.tensor([2]))
    shares = readout(model, image)[0].double()
    torch.testing.assert_close(by_block.flatten().double(), (shares @ weighted[0])[prefix:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("switch", WITH_CLASSES)
def test_another_class_has_another_map(switch):
    model = small_model(switch)
    images = images_for(model.config)
    one, other = (relevance(model, images, torch.full((3,), k)) for k in (0, 5))
    assert one.shape == (3, *model.grid(images))
    assert one.min() >= 0
    assert (one - other).abs().amax(dim=(1, 2)).min() > 1e-4
    assert (one[0] - one[1]).abs().max() > 1e-4
    blocks = [gradient_attention(model, images, block, torch.full((3,), 0)) for block in (0, -1)]
    assert (blocks[0] - blocks[1]).abs().max() > 1e-5


def test_by_default_the_likeliest_class_is_meant():
    model = small_model()
    images = images_for(model.config, batch=8)
    top = model(images).argmax(dim=1)
    assert len(top.unique()) > 1
    torch.testing.assert_close(relevance(model, images), relevance(model, images, top))
    torch.testing.assert_close(gradient_attention(model, images), gradient_attention(model, images, -1, top))


def test_the_last_block_keeps_only_what_the_head_reads():
    shapes = {
        switch: [tuple(a.shape[1:]) for a in weighted_attention(small_model(switch), torch.randn(2, 3, 32, 32))]
        for switch in ("the paper's", "distillation", "mean pooling", "attention pooling")
    }
    assert shapes == {
        "the paper's": [(17, 17), (17, 17), (1, 17)],
        "distillation": [(18, 18), (18, 18), (2, 18)],
        "mean pooling": [(16, 16)] * 3,
        "attention pooling": [(16, 16)] * 3 + [(1, 16)],
    }


def test_checkpointed_activations_change_nothing():
    model = small_model()
    images = images_for(model.config)
    expected = relevance(model, images)
    model.encoder.checkpoint_activations = True
    torch.testing.assert_close(relevance(model, images), expected)
    assert model.encoder.checkpoint_activations


@pytest.mark.parametrize(
    ("changes", "classes", "message"),
    [
        ({"num_classes": 0}, [0, 0], "this model has no classifier; relevance needs a class"),
        ({}, [0, 7], "there is no class 7; this model has classes 0 to 6"),
        ({}, [-1, 0], "there is no class -1"),
    ],
)
def test_unknown_blocks_heads_queries_and_classes_are_errors(changes, classes, message):
    model = small_model(**changes)
    for analysis in (relevance, gradient_attention):
        with pytest.raises(InputError, match=message):
            analysis(model, images_for(model.config, batch=2), classes=torch.tensor(classes))
    with pytest.raises(InputError, match="there is no block 3"):
        gradient_attention(model, images_for(model.config), 3)
