"""Mistakes that rearrange or repeat are named: reshapes for transposes, one layer for two, a skip connection inside."""

import pytest
import torch
from torch import nn

from tests.inspection.comparison.models import X, small
from tests.inspection.comparison.variants import Added, Patches, Variant
from vitreous.inspection.comparison.compare import compare
from vitreous.model.attention import SelfAttention
from vitreous.model.initialization import fill_at_random
from vitreous.model.mlp import MLP
from vitreous.model.patch_embedding import PatchEmbedding

HEADS = "encoder.blocks.0.attention:scaled_dot_product_attention"
OUT = "encoder.blocks.0.attention.out"
WRONG = {  # parts of the variant, first different stage, kind of the difference, words of the cause
    "patches reshaped": ({"patches": "reshaped"}, "patch_embedding", "order", "reshapes the convolution's output"),
    "patches by column": ({"patches": "by column"}, "patch_embedding", "order", "column by column"),
    "q, k, v reshaped": ({"attention": "reshaped"}, HEADS, "value", "reshapes to heads without moving"),
    "reshaped twice": ({"attention": "reshaped twice"}, HEADS, "value", "reshapes to heads and back without"),
    "joined by reshape": ({"attention": "joined by reshape"}, OUT, "order", "joins the heads without moving"),
    "joined by channel": ({"attention": "joined by channel"}, OUT, "order", "joins the heads as (head_dim, heads)"),
    "interleaved": ({"attention": "interleaved"}, HEADS, "value", "splits and joins the width as (head_dim, heads)"),
    "3 first": ({"attention": "3 first"}, HEADS, "value", "to (batch, 3, heads, tokens, head_dim) without"),
    "batch second": ({"attention": "batch second"}, HEADS, "value", "to (3, batch, heads, tokens, head_dim) without"),
    "tokens third": ({"attention": "tokens third"}, HEADS, "value", "to (batch, heads, tokens, 3, head_dim) without"),
    "attention adds": ({"block": "attention adds"}, "encoder.blocks.0.attention", "value", "input of its attention"),
    "attention adds alone": ({"block": "attention adds alone"}, "encoder.blocks.0:add", "value", "adds normalized"),
    "MLP adds": ({"block": "mlp adds"}, "encoder.blocks.0.mlp", "value", "adds the input of its MLP inside it"),
    "first norm twice": ({"block": "first norm twice"}, "encoder.blocks.0.mlp_norm", "value", "before the MLP as well"),
    "second norm twice": (
        {"block": "second norm twice"}, "encoder.blocks.0.attention_norm", "value", "before the attention as well"
    ),
    "one block": ({"model": "one block"}, "encoder.blocks.0.attention_norm", "value", "runs its last block 2 times"),
    "first block": ({"model": "first block"}, "encoder.blocks.1.attention_norm", "value", "its first block 2 times"),
    "mean, then norm": ({"model": "mean, then norm"}, "head.pooling", "value", "the mean of the patches to"),
    "dropout": ({"block": "dropout"}, "encoder.blocks.0.mlp_norm", "value", "random in evaluation mode"),
    "class token per image": ({"model": "class token per image"}, "class_token", "value", "cls has a row for each"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_named_at_its_place(mistake):
    parts, stage, kind, words = WRONG[mistake]
    reference = small()
    torch.manual_seed(0)  # of the dropout
    result = compare(Variant(reference, **parts), reference, X)
    assert not result.equal
    assert result.first_difference.stage == stage
    assert result.first_difference.kind == kind
    assert result.cause.startswith("Your")
    assert words in result.cause
    assert "something else" not in result.cause
    assert all(match.stage.path != stage for match in result.stages)


@pytest.mark.parametrize(
    ("model", "words"),
    [("mean, then norm", "normalizes after the pooling"), ("mean of all, then norm", "normalizes after the pooling")],
)
@pytest.mark.parametrize("class_token", [False, True])
def test_pooling_before_the_norm_is_named(model, words, class_token):
    reference = small(pooling="mean", class_token=class_token)
    result = compare(Variant(reference, model=model), reference, X)
    assert words in result.cause
    assert ("the mean of all tokens" in result.cause) == (class_token and "all" in model)
    assert result.first_difference.stage == "head.pooling"


def layer_and_input(kind):
    layer, x = {
        "attention": (SelfAttention(48, 4), torch.randn(2, 5, 48)),
        "mlp": (MLP(48, 96), torch.randn(2, 5, 48)),
        "linear": (nn.Linear(48, 48), torch.randn(2, 5, 48)),
    }[kind]
    fill_at_random(layer)
    return layer, x


@pytest.mark.parametrize("kind", ["attention", "mlp", "linear"])
def test_a_skip_connection_inside_a_layer_is_named(kind):
    layer, x = layer_and_input(kind)
    result = compare(Added(layer), layer, x)
    assert result.first_difference.stage == ""
    assert result.cause.startswith("Yours adds")
    assert "inside" in result.cause
    result = compare(layer, Added(layer), x)
    assert not result.equal
    assert result.cause.startswith("The reference adds")
    assert "inside" in result.cause


def test_a_reshaped_convolution_alone_is_named():
    reference = PatchEmbedding(8, 48)
    fill_at_random(reference)
    assert compare(Patches(reference, "conv"), reference, X).equal
    result = compare(Patches(reference, "reshaped"), reference, X)
    assert not result.equal
    assert result.first_difference.kind == "order"
    assert result.first_difference.stage == ""
    assert "flatten(2).transpose(1, 2)" in result.cause


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (lambda x: x.permute(0, 2, 3, 1), "in the same order; only their shape differs: flatten(1, 2)."),
        (lambda x: x.flatten(2), "in another layout: reorder the axes to 2×16×48."),
    ],
)
def test_a_feature_map_that_only_needs_another_shape_is_named(last, words):
    reference = PatchEmbedding(8, 48)
    fill_at_random(reference)
    conv = Patches(reference, "conv").conv
    conv.register_forward_hook(lambda module, args, output: last(output))
    result = compare(conv, reference, torch.randn(2, 3, 32, 32))
    assert not result.equal
    assert result.cause == f"The values are the same{', ' if 'only' in words else ' '}{words}"
    assert result.first_difference.kind == "shape"
    assert "(output)" not in str(result).partition("First different")[0]


def test_a_reshape_in_two_foreign_models_is_named():
    ours = small()
    mine, reference = Variant(ours, patches="reshaped"), Variant(ours)
    result = compare(mine, reference, X)
    assert result.first_difference.kind == "order"
    assert "transpose, do not reshape" in result.cause


def test_equal_rows_of_a_class_token_per_image_are_noted():
    reference = small()
    mine = Variant(reference, model="class token per image")
    mine.cls.data = reference.class_token.data.repeat(2, 1, 1)
    result = compare(mine, reference, X)
    assert result.equal
    assert "cls has a row for each of these 2 images" in str(result)
    assert compare(Variant(reference), reference, X).note == ""


def test_dropout_leaves_the_models_and_the_reference_alone():
    reference = small(dropout=0.5).train()
    assert compare(Variant(reference), reference, X).equal
    result = compare(reference, Variant(reference, block="dropout"), X)
    assert result.cause.startswith("The reference is random")
    assert all(module.training for module in reference.modules())
