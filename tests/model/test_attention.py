"""Attention equals PyTorch's own, its map, and itself with fewer queries."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitreous.model.attention import BlockPositions, SelfAttention
from vitreous.model.initialization import fill_at_random


def random_attention(width=48, heads=3):
    layer = SelfAttention(width, heads)
    fill_at_random(layer)
    return layer


@settings(deadline=None, max_examples=25)
@given(heads=st.integers(1, 6), head_dim=st.integers(1, 16), tokens=st.integers(1, 20))
def test_it_equals_pytorchs_multihead_attention(heads, head_dim, tokens):
    ours = random_attention(heads * head_dim, heads)
    theirs = nn.MultiheadAttention(heads * head_dim, heads, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    x = torch.randn(2, tokens, heads * head_dim)
    expected, weights = theirs(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.weights(x), weights, rtol=1e-5, atol=1e-5)


def test_the_fused_pass_is_the_map_times_the_values():
    layer, x = random_attention(), torch.randn(2, 7, 48)
    _, _, v = layer.project(x)
    explicit = layer.out((layer.weights(x) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x), explicit, rtol=1e-5, atol=1e-5)


def test_rows_of_the_map_sum_to_one():
    weights = random_attention().weights(torch.randn(2, 7, 48) * 3)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 7))
    assert weights.std() > 0.05


def test_queries_can_be_the_first_few():
    layer, x = random_attention(), torch.randn(2, 7, 48)
    torch.testing.assert_close(layer(x, x[:, :2]), layer(x)[:, :2], rtol=1e-5, atol=1e-5)


def test_a_position_bias_is_added_to_the_logits():
    layer, x = random_attention(), torch.randn(2, 7, 48)
    bias = torch.randn(2, 3, 7, 7)

    class Biased(BlockPositions):
        def bias(self, q):
            return bias

    weights = layer.weights(x, Biased())
    unnormalized = layer.weights(x) * bias.exp()
    torch.testing.assert_close(weights, unnormalized / unnormalized.sum(-1, keepdim=True))
    _, _, v = layer.project(x)
    expected = layer.out((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x, positions=Biased()), expected)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="num_heads is 5, which does not divide width 48"):
        SelfAttention(48, 5)


def test_dropout_follows_the_output_projection():
    layer, x = SelfAttention(48, 3, dropout=0.5), torch.randn(2, 200, 48)
    fill_at_random(layer)
    trained, evaluated = layer(x), layer.eval()(x)
    zeros = (trained == 0).float().mean()
    assert 0.45 < zeros < 0.55
    torch.testing.assert_close(trained[trained != 0], (2 * evaluated)[trained != 0], rtol=1e-4, atol=1e-5)
