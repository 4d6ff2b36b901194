"""Positions: tables against hand values, resampling against scipy and PyTorch, every kind at every site."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vitreous.model.initialization import fill_at_random
from vitreous.model.position_embedding import (
    Learned2DPosition,
    LearnedPosition,
    PositionEmbedding,
    SinCos2DPosition,
    resample_grid,
    sincos_2d,
)
from vitreous.model.relative_position import RelativeBias, RelativePosition

sides = st.integers(2, 9)


@settings(deadline=None, max_examples=40)
@given(rows=sides, columns=sides, new_rows=sides, new_columns=sides)
def test_the_authors_resampling_is_scipys_zoom(rows, columns, new_rows, new_columns):
    table = 0.3 * torch.randn(rows * columns, 3)
    zoom = (new_rows / rows, new_columns / columns, 1)
    expected = ndimage.zoom(table.numpy().reshape(rows, columns, 3), zoom, order=1)
    ours = resample_grid(table, (rows, columns), (new_rows, new_columns), "bilinear_aligned")
    np.testing.assert_allclose(ours.numpy().reshape(expected.shape), expected, atol=1e-6)


@pytest.mark.parametrize(
    "method", ["bilinear", "bilinear_antialias", "bicubic", "bicubic_aligned", "bicubic_antialias", "bicubic_offset"]
)
def test_the_other_resamplings_differ_and_keep_constants(method):
    constant = torch.full((12, 2), 3.0)
    torch.testing.assert_close(resample_grid(constant, (3, 4), (5, 7), method), torch.full((35, 2), 3.0))
    table = torch.randn(64, 2)
    for size in ((5, 5), (11, 11)):
        ours = resample_grid(table, (8, 8), size, method)
        authors = resample_grid(table, (8, 8), size, "bilinear_aligned")
        assert ours.shape == authors.shape
        assert (ours - authors).abs().max() > 0.01


def timms(table, old, new):
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(table[None], list(new), list(old))[0]


def timms_for_npz(table, old, new):
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(table[None], list(new), list(old), interpolation="bilinear", antialias=False)[0]


def transformers_vits(table, old, new):
    from transformers import ViTConfig, ViTModel

    shape = {"hidden_size": table.shape[1], "num_hidden_layers": 0, "num_attention_heads": 1, "intermediate_size": 2}
    embeddings = ViTModel(ViTConfig(**shape, image_size=old[0], patch_size=1)).embeddings
    embeddings.position_embeddings = torch.nn.Parameter(table[None])
    return embeddings.interpolate_pos_encoding(torch.empty(1, 1 + math.prod(new), table.shape[1]), *new)[0]


def torchvisions(table, old, new):
    from torchvision.models.vision_transformer import interpolate_embeddings

    return interpolate_embeddings(new[0], 1, {"encoder.pos_embedding": table[None]})["encoder.pos_embedding"][0]


def dinos(table, old, new):
    """DINO's and DINOv2's formula: cubic convolution (A = -0.75) at (i + 0.5) / scale - 0.5, the border repeated."""

    def matrix(there, wanted):
        resize = np.zeros((wanted, there))
        for i in range(wanted):
            place = (i + 0.5) * there / (wanted + 0.1) - 0.5
            for j in range(math.floor(place) - 1, math.floor(place) + 3):
                d = abs(place - j)
                near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
                resize[i, min(max(j, 0), there - 1)] += near if d <= 1 else far
        return resize

    rows, columns = (matrix(*sides) for sides in zip(old, new, strict=True))
    image = table[1:].double().numpy().reshape(*old, -1)
    image = np.einsum("ri,cj,ijd->rcd", rows, columns, image)
    return torch.cat([table[:1], torch.from_numpy(image).float().flatten(0, 1)])


@pytest.mark.parametrize(
    ("peer", "method", "old", "news"),
    [
        (timms, "bicubic_antialias", (8, 8), [(11, 11), (5, 5), (4, 13)]),
        (timms, "bicubic_antialias", (6, 9), [(9, 6), (12, 3)]),
        (timms_for_npz, "bilinear", (6, 9), [(9, 9), (4, 4), (12, 3)]),
        (transformers_vits, "bicubic", (8, 8), [(11, 11), (5, 5), (4, 13)]),
        (torchvisions, "bicubic_aligned", (8, 8), [(11, 11), (5, 5)]),
        (dinos, "bicubic_offset", (8, 8), [(11, 11), (5, 5), (4, 13), (16, 4)]),
        (dinos, "bicubic_offset", (6, 9), [(9, 9), (4, 4), (12, 3)]),
    ],
)
def test_resampled_positions_equal_each_peers(peer, method, old, news):
    for new in news:
        layer = LearnedPosition(old, 6, resampling=method)
        table = torch.nn.init.normal_(layer.embedding, std=0.2)[0].detach()
        ours = layer.table(new).detach()
        torch.testing.assert_close(ours, peer(table, old, new).detach(), rtol=0, atol=1e-6)
        others = {"bilinear_aligned", "bicubic", "bicubic_offset"} - {method}
        for other in others:  # other methods differ by far more
            assert (resample_grid(table[1:], old, new, other) - ours[1:]).abs().max() > 1e-3


@settings(deadline=None, max_examples=40)
@given(old=st.integers(1, 64), new=st.integers(1, 64))
def test_the_scale_of_dino_gives_the_new_grid(old, new):
    assert resample_grid(torch.randn(old, 1), (old, 1), (new, 1), "bicubic_offset").shape == (new, 1)


def test_resampling_is_2d_also_where_the_grid_is_not_square():
    """A table that grows along rows only must not change along columns."""
    rows, columns = 3, 5
    table = torch.arange(rows).float().repeat_interleave(columns)[:, None]
    new = resample_grid(table, (rows, columns), (5, 2), "bilinear_aligned").reshape(5, 2)
    torch.testing.assert_close(new, torch.tensor([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0], [1.5, 1.5], [2.0, 2.0]]))


def test_learned_positions_keep_the_class_slot_and_resample_the_rest():
    layer = LearnedPosition((3, 4), 6, slots=1, prefix_tokens=1)
    fill_at_random(layer)
    table = layer.table((6, 6))
    assert torch.equal(table[0], layer.embedding[0, 0])
    assert torch.equal(table[1:], resample_grid(layer.embedding[0, 1:], (3, 4), (6, 6), "bilinear_aligned"))
    x = torch.randn(2, 13, 6)
    assert torch.equal(layer(x, (3, 4)), x + layer.embedding)


@pytest.mark.parametrize("slots", [0, 1, 2])
def test_tokens_without_a_slot_get_no_position(slots):
    layer = LearnedPosition((2, 2), 6, slots=slots, prefix_tokens=3)
    fill_at_random(layer)
    table = layer.table((2, 2))
    assert torch.equal(table[:slots], layer.embedding[0, :slots])
    assert (table[slots:3] == 0).all()
    assert torch.equal(table[3:], layer.embedding[0, slots:])


def test_learned_2d_positions_join_column_and_row_x_first():
    layer = Learned2DPosition((2, 3), 6, slots=1, prefix_tokens=1)
    fill_at_random(layer)
    table = layer.table((2, 3))
    assert torch.equal(table[0], layer.class_slot[0, 0])
    row, column = 1, 2
    assert torch.equal(table[1 + row * 3 + column], torch.cat([layer.x[0, column], layer.y[0, row]]))
    assert layer.table((4, 5)).shape == (21, 6)


@pytest.mark.parametrize(("exponent", "divisor"), [("big_vision", 3), ("mae", 4)])
def test_sincos_positions_are_their_formula(exponent, divisor):
    table = sincos_2d((3, 5), 16, exponent)
    row, column, i = 2, 4, 1
    frequency = 1 / 10_000 ** (i / divisor)
    expected = [f(n * frequency) for n in (column, row) for f in (math.sin, math.cos)]
    ours = table[row * 5 + column].reshape(4, 4)[:, i]
    torch.testing.assert_close(ours, torch.tensor(expected))


def test_sincos_positions_keep_nothing_in_the_state_and_adapt_to_every_grid():
    layer = SinCos2DPosition(16, prefix_tokens=1)
    assert not layer.state_dict()
    x = torch.zeros(1, 7, 16)
    assert torch.equal(layer(x, (2, 3))[0, 1:], sincos_2d((2, 3), 16))
    assert torch.equal(layer(torch.zeros(1, 7, 16), (3, 2))[0, 1:], sincos_2d((3, 2), 16))
    assert (layer(x, (2, 3))[0, 0] == 0).all()


def test_none_changes_nothing():
    x = torch.randn(1, 5, 6)
    assert PositionEmbedding()(x, (2, 2)) is x


def test_relative_positions_against_a_slow_plain_version():
    heads, head_dim, grid, prefix = 2, 3, (2, 2), 1
    layer = RelativePosition(grid, heads * head_dim, heads, prefix_tokens=prefix)
    fill_at_random(layer)
    q = torch.randn(1, heads, 5, head_dim)
    bias = layer.bias(grid, 0, q)
    offset_keys = layer.offset_keys[0].unflatten(-1, (heads, head_dim))
    prefix_keys = layer.prefix_keys[0].unflatten(-1, (heads, head_dim))
    for head in range(heads):
        for i in range(5):
            for j in range(5):
                key = offset_keys[i - j + 3] if i and j else prefix_keys[2 if i == j == 0 else 0 if i == 0 else 1]
                expected = (q[0, head, i] @ key[head]) / math.sqrt(head_dim)
                torch.testing.assert_close(bias[0, head, i, j], expected)
    torch.testing.assert_close(layer.bias(grid, 0, q[:, :, :1]), bias[:, :, :1])
    assert layer.bias((3, 3), 0, torch.randn(1, heads, 10, head_dim)).shape == (1, heads, 10, 10)


@pytest.mark.parametrize("prefix", [0, 2])
def test_relative_biases_against_a_slow_plain_version(prefix):
    heads, (rows, columns) = 2, (3, 2)
    layer = RelativeBias((rows, columns), heads, 2, "every_layer", prefix, "bilinear")
    fill_at_random(layer)
    tokens = prefix + rows * columns
    bias = layer.bias((rows, columns), 1, torch.randn(3, heads, tokens, 4))
    table, pairs = layer.biases[1], (2 * rows - 1) * (2 * columns - 1)
    assert len(table) == pairs + (3 if prefix else 0)
    for i in range(tokens):
        for j in range(tokens):
            if i < prefix or j < prefix:
                row = pairs + (2 if i < prefix and j < prefix else 0 if i < prefix else 1)
            else:
                (r, c), (other_r, other_c) = divmod(i - prefix, columns), divmod(j - prefix, columns)
                row = (r - other_r + rows - 1) * (2 * columns - 1) + c - other_c + columns - 1
            assert torch.equal(bias[0, :, i, j], table[row])
    assert torch.equal(layer.bias((rows, columns), 1, torch.randn(3, heads, 1, 4)), bias[:, :, :1])


@pytest.mark.parametrize("site", ["every_layer", "shared"])
def test_positions_inside_the_encoder_use_the_layers_own_table(site):
    layer = LearnedPosition((2, 2), 6, depth=3, site=site)
    fill_at_random(layer)
    x = torch.randn(2, 5, 6)
    assert layer(x, (2, 2)) is x
    positions = layer.for_blocks((2, 2))
    for block in range(3):
        assert positions(block).bias(x[:, None]) is None
        assert torch.equal(positions(block).tokens(x), x + layer.embedding[block if site == "every_layer" else 0])
