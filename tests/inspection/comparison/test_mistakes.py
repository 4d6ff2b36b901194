"""Every usual mistake is found and named."""

import copy

import pytest
import torch
from torch import nn

from tests.inspection.comparison.learner import learners_copy
from tests.inspection.comparison.models import X, changed_copy, edited, small
from vitreous.inspection.comparison.compare import compare
from vitreous.inspection.comparison.diagnosis import attempt, made
from vitreous.inspection.comparison.mistakes import mistakes_in
from vitreous.model.attention import SelfAttention
from vitreous.model.initialization import fill_at_random
from vitreous.model.vit import VisionTransformer

LEARNERS = {
    "exact gelu": ("encoder.blocks.0.mlp.activation", "exact GELU"),
    "eps": ("encoder.blocks.0.attention_norm", "eps = 0.001"),
    "q and v swapped": ("encoder.blocks.0.attention:scaled_dot_product_attention", "v, k, q"),
    "qkv transposed": ("encoder.blocks.0.attention:scaled_dot_product_attention", "transposed"),
    "no scale": ("encoder.blocks.0.attention:scaled_dot_product_attention", "not divide"),
    "full width": ("encoder.blocks.0.attention:scaled_dot_product_attention", "where the reference divides by √D_h."),
    "softmax over queries": ("encoder.blocks.0.attention:scaled_dot_product_attention", "over the queries"),
    "heads not moved back": ("encoder.blocks.0.attention.out", "joins the heads without moving"),
    "batch second": ("encoder.blocks.0.attention:scaled_dot_product_attention", "batch_first=True"),
    "post-norm": ("encoder.blocks.0.attention_norm", "post-norm"),
    "no residual": ("encoder.blocks.0:add", "no skip connection (residual) around the attention"),
    "class token last": ("class_token", "after the patches"),
    "positions before class token": ("class_token", "before the class token"),
    "no positions": ("position_embedding", "adds no positions"),
    "no final norm": ("encoder.norm", "no norm after the last block"),
    "mean": ("head.pooling", "the mean of the patches"),
    "softmax": ("", "softmax of the logits"),
}


@pytest.mark.parametrize("mistake", LEARNERS)
def test_a_mistake_in_a_foreign_model_is_named(mistake):
    reference = small()
    result = compare(learners_copy(reference, mistake), reference, X)
    stage, words = LEARNERS[mistake]
    assert not result.equal
    assert result.first_difference.stage == stage
    assert result.cause.startswith("Yours")
    assert words in result.cause
    assert words in str(result)


def test_either_side_may_be_ours():
    mine = small()
    result = compare(mine, learners_copy(mine, "exact gelu"), X)
    assert result.cause.startswith("The reference uses the exact GELU")


def interleave(model):
    for block in model.encoder.blocks:
        for tensor in block.attention.qkv.parameters():
            heads = tensor.unflatten(0, (4, 3, 12)).transpose(0, 1).flatten(0, 2)
            tensor.copy_(heads.clone())


def transpose_out(model):
    for block in model.encoder.blocks:
        block.attention.out.weight.copy_(block.attention.out.weight.mT.clone())


def flatten_patches_otherwise(model):
    kernel = model.patch_embedding.projection.weight
    kernel.copy_(kernel.unflatten(1, (8, 8, 3)).permute(0, 3, 1, 2).flatten(1).clone())


def reverse_channels(model):
    kernel = model.patch_embedding.projection.weight
    kernel.copy_(kernel.unflatten(1, (3, 8, 8)).flip(1).flatten(1))


def no_bias(layer):
    def change(model):
        for block in model.encoder.blocks:
            block.get_submodule(layer).bias.zero_()

    return change


EDITS = {
    "packing": (interleave, "attention.qkv", "(heads 3 head_dim)"),
    "transposed": (transpose_out, "attention.out", "weight of out transposed"),
    "patch order": (flatten_patches_otherwise, "patch_embedding.projection", "(height, width, channel)"),
    "bgr": (reverse_channels, "patch_embedding.projection", "reverse (BGR)"),
    "qkv bias": (no_bias("attention.qkv"), "attention.qkv", "no bias in qkv"),
    "fc2 bias": (no_bias("mlp.fc2"), "mlp.fc2", "no bias in fc2"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_mistake_in_converted_weights_is_named(edit):
    change, stage, words = EDITS[edit]
    reference = small()
    result = compare(edited(reference, change), reference, X)
    assert result.first_difference.stage.endswith(stage)
    assert result.first_difference.kind == ("order" if edit == "packing" else "value")
    assert words in result.cause


@pytest.mark.parametrize(
    ("fields", "changes", "words"),
    [
        ({}, {"gelu": "quick"}, "quick GELU"),
        ({"gelu": "exact"}, {"gelu": "tanh"}, "tanh approximation"),
        ({}, {"norm_eps": 1e-3}, "eps = 0.001"),
        ({}, {"num_heads": 2}, "2 attention heads"),
        ({"mlp": "swiglu", "layer_scale": 0.5}, {"num_heads": 6}, "6 attention heads"),
    ],
)
def test_a_setting_that_weights_do_not_show_is_named(fields, changes, words):
    reference = small(**fields)
    assert words in compare(changed_copy(reference, **changes), reference, X).cause


@pytest.mark.parametrize("kind", ["relative", "relative_bias"])
@pytest.mark.parametrize("site", ["every_layer", "shared"])
def test_missing_relative_positions_are_named(kind, site):
    reference = small(position_embedding=kind, position_site=site)
    mine = VisionTransformer(reference.config.replace(position_embedding="none", position_site="stem"))
    mine.load_state_dict(reference.state_dict(), strict=False)
    result = compare(mine, reference, X)
    wrong = "does not add relative positions to the attention's logits, where the reference does."
    assert result.cause.startswith(f"Yours {wrong}")


def test_another_number_of_heads_is_no_infinite_error():
    reference = small()
    result = compare(changed_copy(reference, num_heads=6), reference, X)
    assert result.first_difference.kind == "shape"
    assert "2×4×7×12 in the reference, 2×6×7×8 in yours" in str(result)


def test_the_resampling_of_positions_is_named():
    reference = small()
    mine = changed_copy(reference, position_resampling="bicubic_antialias")
    larger = torch.randn(2, 3, 40, 32)
    result = compare(mine, reference, larger)
    assert result.first_difference.stage == "position_embedding"
    assert "resamples the positions by 'bicubic_antialias'" in result.cause


def test_norm_after_the_pooling_is_named():
    reference = small(pooling="mean", class_token=False)
    mine = VisionTransformer(reference.config.replace(norm_after_pooling=True))
    state = {k.replace("encoder.norm", "head.norm"): v for k, v in reference.state_dict().items()}
    mine.load_state_dict(state)
    result = compare(mine, reference, X)
    assert result.first_difference.kind == "missing"
    assert result.first_difference.stage == "encoder.norm"
    assert "normalizes after the pooling" in result.cause


def test_a_mistake_in_one_block_is_found_there():
    reference = small()
    mine = copy.deepcopy(reference)
    mine.encoder.blocks[1].mlp.activation = nn.ReLU()
    result = compare(mine, reference, X)
    assert result.first_difference.stage == "encoder.blocks.1.mlp.activation"
    assert result.cause.startswith("Only in encoder.blocks.1: yours uses ReLU")


def test_the_first_of_two_mistakes_is_named():
    reference = small()
    mine = edited(changed_copy(reference, gelu="exact"), lambda m: m.head.classifier.weight.add_(0.1))
    result = compare(mine, reference, X)
    assert "exact GELU" in result.cause
    assert "something else differs" in result.cause


def test_no_cause_is_given_if_no_mistake_explains_the_difference():
    reference = small()
    mine = edited(reference, lambda m: m.encoder.blocks[0].mlp.fc1.weight.add_(0.01))
    result = compare(mine, reference, X)
    assert result.cause is None
    assert result.first_difference.stage == "encoder.blocks.0.mlp.fc1"
    assert result.first_difference.absolute > 0.01
    assert "No usual mistake" in str(result)


def test_batch_first_of_torchs_attention():
    reference = SelfAttention(48, 4)
    fill_at_random(reference)
    mine = nn.MultiheadAttention(48, 4, batch_first=True)
    with torch.no_grad():
        mine.in_proj_weight.copy_(reference.qkv.weight)
        mine.in_proj_bias.copy_(reference.qkv.bias)
        mine.out_proj.load_state_dict(reference.out.state_dict())

    class Wrapped(nn.Module):
        def __init__(self, attention):
            super().__init__()
            self.attention = attention

        def forward(self, x):
            return self.attention(x, x, x)

    x = torch.randn(3, 5, 48)
    assert compare(Wrapped(mine), reference, x).equal
    assert compare(mine, reference, x).equal
    assert compare(reference, mine, x).equal
    mine.batch_first = False
    assert "batch_first=True" in compare(Wrapped(mine), reference, x).cause
    assert "batch_first=True" in compare(mine, reference, x).cause


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"pooling": "mean", "position_embedding": "sincos_2d", "class_token": False, "hidden_dim": 48},
        {"mlp": "swiglu", "layer_scale": 0.5, "pre_norm": True, "registers": 2},
        {"pooling": "attention", "position_embedding": "learned_2d"},
        {"norm": "rms", "qkv_bias": "no_key", "query_key_norm": "head", "rotary": "dinov3", "embedding_norm": True},
        {"norm_site": "after", "final_norm": False, "query_key_norm": "width", "dense_bias": False},
        {"attention_inner_norm": True, "mlp_inner_norm": True, "mlp": "swiglu", "rotary": "mixed", "qkv_bias": "none"},
        {"position_embedding": "none", "pooling": "mean", "rotary": "axial", "final_norm": False},
    ],
)
def test_every_mistake_changes_the_copy_and_not_the_model(fields):
    model = small(**fields).eval()
    x = torch.randn(5, 3, 24, 40)  # another grid, so that resampling is seen
    expected = model(x)
    mistakes = [mistake for kind in mistakes_in(model) for mistake in kind]
    copies = [made(mistake, model) for mistake in mistakes]
    assert None not in copies
    outputs = {mistake.wrong: attempt(copied, (x,)) for mistake, copied in zip(mistakes, copies, strict=True) if copied}
    same = [
        wrong
        for wrong, y in outputs.items()
        if y is not None and y.shape == expected.shape and torch.equal(y, expected)
    ]
    assert same == []
    assert torch.equal(model(x), expected)
    assert len(outputs) == len(mistakes) > 40
