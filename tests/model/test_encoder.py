"""The encoder block equals PyTorch's; its switches do what they say."""

import pytest
import torch
from torch import nn

from vitreous.model.config import BlockOptions
from vitreous.model.encoder import Encoder, EncoderBlock, LayerScale, StochasticDepth
from vitreous.model.initialization import fill_at_random
from vitreous.model.mlp import MLP, QuickGELU, SwiGLU


def test_a_block_equals_pytorchs_encoder_layer():
    ours = EncoderBlock(48, 3, 96, options=BlockOptions(gelu="exact", norm_eps=1e-5))
    fill_at_random(ours)
    theirs = nn.TransformerEncoderLayer(48, 3, 96, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    names = {
        "self_attn.in_proj_weight": "attention.qkv.weight",
        "self_attn.in_proj_bias": "attention.qkv.bias",
        "self_attn.out_proj.weight": "attention.out.weight",
        "self_attn.out_proj.bias": "attention.out.bias",
        "linear1.weight": "mlp.fc1.weight",
        "linear1.bias": "mlp.fc1.bias",
        "linear2.weight": "mlp.fc2.weight",
        "linear2.bias": "mlp.fc2.bias",
        "norm1.weight": "attention_norm.weight",
        "norm1.bias": "attention_norm.bias",
        "norm2.weight": "mlp_norm.weight",
        "norm2.bias": "mlp_norm.bias",
    }
    state = ours.state_dict()
    theirs.load_state_dict({theirs_key: state[ours_key] for theirs_key, ours_key in names.items()})
    x = torch.randn(2, 7, 48)
    assert (ours(x) - x).std() > 0.5
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("read", [1, 2, 5])
def test_reading_the_first_tokens_equals_the_full_block(read):
    block = EncoderBlock(48, 3, 96, options=BlockOptions(layer_scale=0.5))
    fill_at_random(block)
    x = torch.randn(2, 7, 48)
    torch.testing.assert_close(block(x, read=read), block(x)[:, :read], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gelu", ["tanh", "exact", "quick"])
def test_the_three_gelus_are_their_formulas_and_differ(gelu):
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    expected = {
        "tanh": 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
        "exact": x * 0.5 * (1 + torch.erf(x / 2**0.5)),
        "quick": x / (1 + torch.exp(-1.702 * x)),
    }
    layer = MLP(4, 4, options=BlockOptions(gelu=gelu))
    shaped = x[None, :, None]
    torch.testing.assert_close(layer.activation(shaped), expected[gelu][None, :, None])
    for other in expected.keys() - {gelu}:
        assert (expected[gelu] - expected[other]).abs().max() > 1e-4


def test_an_unknown_gelu_is_refused(fresh_process):
    """In a process without beartype, which would refuse it first."""
    done = fresh_process("import vitreous as vt; vt.MLP(4, 4, options=vt.BlockOptions(gelu='relu'))")
    assert "InputError: gelu is 'relu'; it can be tanh, exact, quick" in done.stderr


def test_swiglu_is_its_formula():
    layer, x = SwiGLU(6, 10), torch.randn(2, 3, 6)
    fill_at_random(layer)
    a, b = layer.fc1(x)[..., :10], layer.fc1(x)[..., 10:]
    torch.testing.assert_close(layer(x), layer.fc2(a * torch.sigmoid(a) * b))


def test_dropout_stands_after_both_dense_layers_of_the_mlp():
    layer = MLP(64, 64, dropout=0.5)
    fill_at_random(layer)
    seen = []
    layer.fc2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    out = layer(torch.randn(4, 50, 64))
    for x in (seen[0], out):
        assert 0.45 < (x == 0).float().mean() < 0.55


def test_stochastic_depth_drops_whole_branches_and_keeps_the_mean():
    layer = StochasticDepth(0.25)
    x = torch.ones(4000, 2, 3)
    y = layer(x)
    per_image = y.flatten(1)
    assert ((per_image == 0).all(1) | torch.isclose(per_image, torch.tensor(4 / 3)).all(1)).all()
    assert y.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(layer.eval()(x), x)


def test_stochastic_depth_grows_linearly_with_depth():
    rates = [block.drop_path.rate for block in Encoder(8, 5, 2, 8, stochastic_depth=0.4).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_layer_scale_starts_at_its_value_and_scales_channels():
    layer = LayerScale(3, 0.1)
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(layer(x), 0.1 * x)


def test_checkpointed_activations_give_the_same_gradients():
    x = torch.randn(2, 5, 48)
    gradients = []
    for checkpointing in (False, True):
        encoder = Encoder(48, 3, 3, 96)
        fill_at_random(encoder)
        encoder.checkpoint_activations = checkpointing
        encoder(x).square().mean().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_a_block_that_does_not_exist_is_named():
    encoder = Encoder(8, 3, 2, 8)
    assert encoder.block_indices([0, -1, 2]) == [0, 2, 2]
    with pytest.raises(ValueError, match="there is no block 3; this model has blocks 0 to 2"):
        encoder.block_indices([3])


def test_quick_gelu_is_a_layer():
    assert isinstance(MLP(4, 4, options=BlockOptions(gelu="quick")).activation, QuickGELU)
