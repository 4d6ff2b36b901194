import copy

import pytest
import torch
from tests.explain.test_trace import SMALL, hooks
from torch import nn

from tests.inspection.comparison.learner import learners_copy
from vitreous.inspection.comparison.compare import compare
from vitreous.inspection.comparison.diagnosis import attempt, made
from vitreous.inspection.comparison.mistakes import mistakes_in
from vitreous.model.attention import SelfAttention
from vitreous.model.config import ViTConfig
from vitreous.model.encoder import EncoderBlock
from vitreous.model.initialization import fill_at_random
from vitreous.model.mlp import MLP, SwiGLU
from vitreous.model.patch_embedding import PatchEmbedding
from vitreous.model.vit import VisionTransformer

SHAPE = {"image_size": (16, 24), "patch_size": 8, "depth": 2}


def small(**changes):
    model = VisionTransformer(ViTConfig(**SMALL | SHAPE | changes))
    fill_at_random(model)
    return model


def changed_copy(model, **changes):
    """The same weights in a model with another switch."""
    other = VisionTransformer(model.config.replace(**changes))
    other.load_state_dict(model.state_dict())
    return other


X = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def test_equal_models_are_equal_and_left_alone():
    reference = small().train()
    mine = copy.deepcopy(reference)
    mine.encoder.blocks[1].eval()
    found = compare(mine, reference, X)
    assert found.equal
    assert found.first_difference is None
    assert found.cause is None
    assert all(match.error is not None for match in found.stages)
    assert hooks(mine) == hooks(reference) == []
    assert all(m.training for m in reference.modules())
    assert [b.training for b in mine.encoder.blocks] == [True, False]
    assert "Equal" in str(found)


@pytest.mark.parametrize("mistake", ["", "torch attention"])
def test_a_learners_model_with_other_names_is_equal(mistake):
    reference = small()
    assert compare(learners_copy(reference, mistake), reference, X).equal


LEARNERS = {
    "exact gelu": ("encoder.blocks.0.mlp.activation", "exact GELU"),
    "eps": ("encoder.blocks.0.attention_norm", "eps = 0.001"),
    "q and v swapped": ("encoder.blocks.0.attention:scaled_dot_product_attention", "v, k, q"),
    "qkv transposed": ("encoder.blocks.0.attention:scaled_dot_product_attention", "transposed"),
    "no scale": ("encoder.blocks.0.attention:scaled_dot_product_attention", "not divide"),
    "softmax over queries": ("encoder.blocks.0.attention:scaled_dot_product_attention", "over the queries"),
    "heads not moved back": ("encoder.blocks.0.attention.out", "joins the heads without moving"),
    "batch second": ("encoder.blocks.0.attention:scaled_dot_product_attention", "batch_first=True"),
    "post-norm": ("encoder.blocks.0.attention_norm", "post-norm"),
    "no residual": ("encoder.blocks.0:add", "no skip connection (residual) around the attention"),
    "class token last": ("class_token", "behind the patches"),
    "positions before class token": ("class_token", "before the class token"),
    "no positions": ("position_embedding", "adds no positions"),
    "no final norm": ("encoder.norm", "no norm behind the last block"),
    "mean": ("head.pooling", "the mean of the patches"),
    "softmax": ("", "softmax of the logits"),
}


@pytest.mark.parametrize("mistake", LEARNERS)
def test_a_learners_mistake_is_named(mistake):
    reference = small()
    found = compare(learners_copy(reference, mistake), reference, X)
    stage, words = LEARNERS[mistake]
    assert not found.equal
    assert found.first_difference.stage == stage
    assert found.cause.startswith("Yours")
    assert words in found.cause
    assert words in str(found)


def test_either_side_may_be_ours():
    mine = small()
    found = compare(mine, learners_copy(mine, "exact gelu"), X)
    assert found.cause.startswith("The reference uses the exact GELU")


def edited(model, change):
    """A copy whose weights were edited."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        change(other)
    return other


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
def test_a_converters_mistake_is_named(edit):
    change, stage, words = EDITS[edit]
    reference = small()
    found = compare(edited(reference, change), reference, X)
    assert found.first_difference.stage.endswith(stage)
    assert found.first_difference.kind == "value"
    assert words in found.cause


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
def test_a_switch_that_weights_do_not_show_is_named(fields, changes, words):
    reference = small(**fields)
    assert words in compare(changed_copy(reference, **changes), reference, X).cause


def test_the_resampling_of_positions_is_named():
    reference = small()
    mine = changed_copy(reference, position_resampling="bicubic_antialias")
    larger = torch.randn(2, 3, 40, 32)
    found = compare(mine, reference, larger)
    assert found.first_difference.stage == "position_embedding"
    assert "resamples the positions by 'bicubic_antialias'" in found.cause


def test_norm_behind_the_pooling_is_named():
    reference = small(pooling="mean", class_token=False)
    mine = VisionTransformer(reference.config.replace(norm_after_pooling=True))
    state = {k.replace("encoder.norm", "head.norm"): v for k, v in reference.state_dict().items()}
    mine.load_state_dict(state)
    found = compare(mine, reference, X)
    assert found.first_difference.kind == "missing"
    assert found.first_difference.stage == "encoder.norm"
    assert "norms behind the pooling" in found.cause


def test_a_mistake_in_one_block_is_found_there():
    reference = small()
    mine = copy.deepcopy(reference)
    mine.encoder.blocks[1].mlp.activation = nn.ReLU()
    found = compare(mine, reference, X)
    assert found.first_difference.stage == "encoder.blocks.1.mlp.activation"
    assert found.cause.startswith("Only in encoder.blocks.1: yours uses ReLU")


def test_the_first_of_two_mistakes_is_named():
    reference = small()
    mine = edited(changed_copy(reference, gelu="exact"), lambda m: m.head.classifier.weight.add_(0.1))
    found = compare(mine, reference, X)
    assert "exact GELU" in found.cause
    assert "something else differs" in found.cause


def test_what_no_mistake_explains_is_said_so():
    reference = small()
    mine = edited(reference, lambda m: m.encoder.blocks[0].mlp.fc1.weight.add_(0.01))
    found = compare(mine, reference, X)
    assert found.cause is None
    assert found.first_difference.stage == "encoder.blocks.0.mlp.fc1"
    assert found.first_difference.absolute > 0.01
    assert "No usual mistake" in str(found)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("foreign", [False, True])
def test_another_depth_is_named(depth, foreign):
    reference = small()
    mine = small(depth=depth)
    mine.load_state_dict(
        {k: v for k, v in (mine.state_dict() | reference.state_dict()).items() if k in mine.state_dict()}
    )
    found = compare(learners_copy(mine) if foreign else mine, reference, X)
    assert found.first_difference.kind == "shape"
    assert f"{depth} blocks, the reference 2" in found.cause


@pytest.mark.parametrize("foreign", [False, True])
def test_another_width_is_named(foreign):
    mine = small(width=32)
    found = compare(learners_copy(mine) if foreign else mine, small(), X)
    assert found.first_difference.kind == "shape"
    assert found.first_difference.stage == "patch_embedding.projection"
    assert "width differs" in found.cause


@pytest.mark.parametrize("layer", [MLP, SwiGLU])
def test_another_hidden_layer_is_not_another_width(layer):
    found = compare(layer(24, 40), layer(24, 96), torch.randn(2, 5, 24))
    assert found.first_difference.stage == "fc1"
    assert "mlp_dim" in found.cause
    assert "width" not in found.cause


def test_another_mlp_dim_of_a_whole_model_is_named():
    reference, mine = small(), small(mlp_dim=56)
    state = reference.state_dict()
    own = mine.state_dict()
    mine.load_state_dict({k: state[k] if state[k].shape == v.shape else v for k, v in own.items()})
    found = compare(mine, reference, X)
    assert found.first_difference.stage == "encoder.blocks.0.mlp.fc1"
    assert "(mlp_dim): yours has 56 numbers" in found.cause


def test_the_output_of_an_mlp_is_not_its_hidden_layer():
    mine = nn.Sequential(nn.Linear(24, 96), nn.GELU(), nn.Linear(96, 30))
    found = compare(mine, MLP(24, 96), torch.randn(2, 5, 24))
    assert "mlp_dim" not in (found.cause or "")


def test_nothing_is_said_of_a_width_where_nothing_is_known():
    found = compare(nn.Linear(24, 40), nn.Linear(24, 96), torch.randn(2, 5, 24))
    assert found.cause == "The last axis differs: yours has 40 numbers, that of the reference 96."


def fresh(**changes):
    torch.manual_seed(0)
    return VisionTransformer(ViTConfig(**SMALL | SHAPE | changes))


@pytest.mark.parametrize("images", [1, 2])
def test_fresh_models_are_compared_before_their_classifiers(images):
    reference, x = fresh(), X[:images]
    assert not reference.eval()(x).any()
    found = compare(fresh(), reference, x)
    assert found.equal
    assert "all zero" in str(found)
    assert "head.pooling" in found.note
    assert all(match.error is not None for match in found.stages if match.stage.value.any())

    found = compare(fresh(depth=3), reference, x)
    assert not found.equal
    assert "3 blocks, the reference 2" in found.cause
    assert "all zero" in str(found)

    found = compare(fresh(gelu="exact"), reference, x)
    assert not found.equal
    assert found.first_difference.stage == "encoder.blocks.0.mlp.activation"
    assert found.cause.startswith("Yours uses the exact GELU")
    assert "something else" not in found.cause

    torch.manual_seed(1)
    found = compare(VisionTransformer(reference.config), reference, x)
    assert not found.equal
    assert found.cause is None


def test_a_fresh_model_of_a_learner_is_compared_before_its_classifier():
    reference = fresh()
    assert compare(learners_copy(reference), reference, X).equal
    found = compare(learners_copy(reference, "exact gelu"), reference, X)
    assert not found.equal
    assert found.cause.startswith("Yours uses the exact GELU")
    assert compare(reference, learners_copy(reference, "exact gelu"), X).cause.startswith("The reference uses")


def test_a_fresh_model_is_not_a_trained_one():
    reference = small()
    mine = edited(reference, lambda m: [p.zero_() for p in m.head.classifier.parameters()])
    for one, other in ((mine, reference), (reference, mine)):
        found = compare(one, other, X)
        assert not found.equal
        assert found.first_difference.stage == "head.classifier"
        assert found.note == ""


def test_logits_that_are_only_a_bias_hide_differences():
    def biased(**changes):
        return edited(fresh(**changes), lambda m: m.head.classifier.bias.copy_(torch.arange(7.0) - 3))

    reference = biased(num_classes=7)
    found = compare(biased(num_classes=7, gelu="exact"), reference, X)
    assert not found.equal
    assert "constant" in found.note
    assert compare(biased(num_classes=7), reference, X).equal


def test_zero_throughout_says_little():
    reference = edited(nn.Linear(24, 24), lambda m: [p.zero_() for p in m.parameters()])
    found = compare(copy.deepcopy(reference), reference, torch.randn(2, 24))
    assert found.equal
    assert "says little" in str(found)


def test_a_token_too_few_is_named():
    reference = small()
    mine = VisionTransformer(reference.config.replace(class_token=False, pooling="mean", position_class_slot=False))
    state = reference.state_dict()
    state["position_embedding.embedding"] = state["position_embedding.embedding"][:, 1:]
    del state["class_token"]
    mine.load_state_dict(state)
    found = compare(mine, reference, X)
    assert found.first_difference.kind == "missing"
    assert found.first_difference.stage == "class_token"


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


def test_a_layout_is_told_from_a_mistake():
    reference = PatchEmbedding(8, 48)
    fill_at_random(reference)
    convolution = nn.Conv2d(3, 48, 8, 8)
    with torch.no_grad():
        convolution.weight.copy_(reference.projection.weight.view_as(convolution.weight))
        convolution.bias.copy_(reference.projection.bias)
    found = compare(convolution, reference, X)
    assert found.first_difference.kind == "shape"
    assert "another layout" in found.cause


def test_torch_s_attention_and_its_axes():
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
    mine.batch_first = False
    assert "batch_first=True" in compare(Wrapped(mine), reference, x).cause


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"pooling": "mean", "position_embedding": "sincos_2d", "class_token": False, "hidden_dim": 48},
        {"mlp": "swiglu", "layer_scale": 0.5, "pre_norm": True, "registers": 2},
        {"pooling": "attention", "position_embedding": "learned_2d"},
    ],
)
def test_every_mistake_changes_the_copy_and_not_the_model(fields):
    model = small(**fields).eval()
    x = torch.randn(5, 3, 24, 40)  # another grid, so that resampling is seen
    expected = model(x)
    mistakes = [mistake for kind in mistakes_in(model) for mistake in kind]
    copies = [made(mistake, model) for mistake in mistakes]
    assert None not in copies
    outputs = {mistake.says: attempt(copied, (x,)) for mistake, copied in zip(mistakes, copies, strict=True) if copied}
    same = [
        says for says, y in outputs.items() if y is not None and y.shape == expected.shape and torch.equal(y, expected)
    ]
    assert same == []
    assert torch.equal(model(x), expected)
    assert len(outputs) == len(mistakes) > 40


def test_bad_requests_say_what_is_wanted():
    with pytest.raises(ValueError, match="no input"):
        compare(nn.Identity(), nn.Identity())

    class Silent(nn.Module):
        def forward(self, x):
            return None

    with pytest.raises(ValueError, match="returned no tensor"):
        compare(Silent(), nn.Identity(), X)


def test_text_is_safe_to_show():
    reference, mine = nn.Sequential(), nn.Sequential()
    for model in (reference, mine):
        model.add_module("<i>\x1b[1m", nn.Linear(24, 24))
    found = compare(mine, reference, X)
    assert "\x1b" not in str(found)
    assert "<i>" not in found._repr_html_()


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
