"""The patch embedding is a strided convolution, written as the paper writes it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vitreous.model.patch_embedding import PatchEmbedding

sizes = st.integers(1, 6)


@settings(deadline=None, max_examples=40)
@given(rows=sizes, columns=sizes, height=sizes, width=sizes, channels=st.integers(1, 4))
def test_it_equals_a_strided_convolution(rows, columns, height, width, channels):
    layer = PatchEmbedding((height, width), 5, channels)
    images = torch.randn(2, channels, rows * height, columns * width)
    weight = layer.projection.weight.unflatten(1, (channels, height, width))
    expected = F.conv2d(images, weight, layer.projection.bias, stride=(height, width)).flatten(2).mT
    torch.testing.assert_close(layer(images), expected, rtol=1e-5, atol=1e-5)
    assert layer.grid(images) == (rows, columns)


def test_a_patch_is_flattened_channel_by_channel_row_by_row():
    images = torch.arange(2 * 4 * 6.0).reshape(1, 2, 4, 6)
    patches = PatchEmbedding((2, 3), 5, channels=2).patches(images)
    assert patches.shape == (1, 4, 12)
    second = images[0, :, 0:2, 3:6]  # reading order: the patch to the right
    assert torch.equal(patches[0, 1], second.flatten())


def test_memory_format_changes_nothing():
    layer = PatchEmbedding(4, 5)
    images = torch.randn(2, 3, 8, 12)
    assert torch.equal(layer(images), layer(images.to(memory_format=torch.channels_last)))


def test_wrong_images_are_named():
    layer = PatchEmbedding(16, 5)
    with pytest.raises(ValueError, match="1 channels; this model takes 3"):
        layer(torch.zeros(1, 1, 32, 32))
    with pytest.raises(ValueError, match=r"32×33 .* 32×32 and 32×48"):
        layer(torch.zeros(1, 3, 32, 33))


def test_without_bias():
    assert PatchEmbedding(4, 5, bias=False).projection.bias is None
