import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tests.model.models import SWITCHES, images_for, small_model
from vitreous.explain.attention_maps import (
    ExplicitAttention,
    attention_map,
    attention_maps,
    over_patches,
    readout,
    readout_name,
)
from vitreous.support.errors import InputError


class FusedCalls(TorchFunctionMode):
    """Counts the calls of fused attention."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func is F.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


def probe_by_hand(model, images):
    """The probe's attention, from equations 5 and 6."""
    pooling = model.head.pooling
    tokens = model.encode(images)
    width, heads = model.config.width, pooling.attention.num_heads
    weight, bias = pooling.attention.qkv.weight, pooling.attention.qkv.bias
    q = (pooling.probe[0] @ weight[:width].T + bias[:width]).unflatten(-1, (heads, -1))[0]  # heads head_dim
    k = (tokens @ weight[width : 2 * width].T + bias[width : 2 * width]).unflatten(-1, (heads, -1))
    return (torch.einsum("hd,bthd->bht", q, k) / q.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=1)


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_readout_is_what_the_head_reads(switch):
    """The mean of the tokens by their shares is the pooled token itself, but for attention pooling."""
    model = small_model(switch)
    images = images_for(model.config)
    shares = readout(model, images)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(3))
    tokens = model.encoder.norm(model.tokens(images, [-1])[0])
    assert not torch.allclose(tokens[0], tokens[1])
    if model.config.pooling == "attention":
        with torch.no_grad():
            torch.testing.assert_close(shares, probe_by_hand(model, images))
        assert not torch.allclose(shares[0], shares[1], atol=1e-4)
        return
    read = torch.einsum("bt,btd->bd", shares, tokens)
    both = model.config.distillation_token
    expected = tokens[:, :2].mean(dim=1) if both else model.head.pooling(tokens)
    if model.config.pooling == "class_token_and_mean":
        expected = expected.unflatten(1, (2, -1)).mean(dim=1)  # half of either
    torch.testing.assert_close(read, expected)


def test_only_a_classifier_reads_the_distillation_token():
    model = small_model("distillation", num_classes=0)
    assert readout(model, images_for(model.config))[0, :3].tolist() == [1, 0, 0]
    assert readout_name(model.config) == "the class token"


def test_the_readout_has_a_name():
    names = {switch: readout_name(small_model(switch).config) for switch in SWITCHES}
    assert names["the paper's"] == names["registers"] == names["hybrid"] == "the class token"
    assert names["distillation"] == "the class and the distillation token"
    assert names["mean pooling"] == names["mean pooling beside a class token, norm after"] == "the mean of the patches"
    assert names["attention pooling"] == "the probe of the attention pooling"


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_query_is_a_row_of_the_map(switch):
    model = small_model(switch)
    images = images_for(model.config)
    rows, columns = model.grid(images)
    prefix = model.config.prefix_tokens
    maps = model.attention_weights(images)
    result = attention_maps(model, images, query=(1, 2))
    assert result.shape == (3, 3, 3, rows, columns)
    assert result.std(dim=0).min() > 0
    for block, weights in maps.items():
        torch.testing.assert_close(result[:, block].flatten(2), weights[:, :, prefix + columns + 2, prefix:])
    for token in range(prefix):
        result = attention_map(model, images, block=1, head=2, query=token)
        torch.testing.assert_close(result.flatten(1), maps[1][:, 2, token, prefix:])


@pytest.mark.parametrize("switch", SWITCHES)
def test_by_default_the_last_block_shows_what_the_head_reads(switch):
    model = small_model(switch)
    images = images_for(model.config)
    mean = model.attention_weights(images)[2].mean(dim=1)
    expected = torch.einsum("bq,bqt->bt", readout(model, images), mean)
    result = attention_map(model, images)
    torch.testing.assert_close(result, over_patches(model, images, expected))
    with_prefix = result.sum(dim=(1, 2)) + expected[:, : model.config.prefix_tokens].sum(dim=1)
    torch.testing.assert_close(with_prefix, torch.ones(3))


def test_blocks_are_in_the_given_order():
    model = small_model()
    images = images_for(model.config)
    every = attention_maps(model, images)
    chosen = attention_maps(model, images, [-1, 0])
    torch.testing.assert_close(chosen, every[:, [2, 0]])
    torch.testing.assert_close(attention_map(model, images, block=-2), every[:, 1].mean(dim=1))
    torch.testing.assert_close(attention_map(model, images, block=1, head=0), every[:, 1, 0])


def test_another_image_size_has_another_grid():
    model = small_model("registers")
    images = torch.randn(2, 3, 24, 48)
    assert attention_map(model, images, query=(2, 5)).shape == (2, 3, 6)
    with pytest.raises(InputError, match="rows go from 0 to 2, columns from 0 to 5"):
        attention_map(model, images, query=(3, 5))


@pytest.mark.parametrize(
    ("switch", "arguments", "message"),
    [
        ("the paper's", {"block": 3}, "there is no block 3; this model has blocks 0 to 2"),
        ("the paper's", {"block": -4}, "there is no block -4; this model has blocks 0 to 2"),
        ("the paper's", {"head": 3}, "there is no head 3; this model has heads 0 to 2"),
        ("the paper's", {"head": -1}, "there is no head -1; this model has heads 0 to 2"),
        ("the paper's", {"query": (0, 4)}, r"there is no patch \(0, 4\); rows go from 0 to 3, columns from 0 to 3"),
        ("the paper's", {"query": (-1, 0)}, r"there is no patch \(-1, 0\)"),
        ("registers", {"query": 5}, "there is no token 5; tokens 0 to 4 precede the patches; name a patch as"),
        ("registers", {"query": -1}, "there is no token -1"),
        ("mean pooling", {"query": 0}, "there is no token 0; no token precedes the patches"),
    ],
)
def test_unknown_blocks_heads_queries_and_classes_are_errors(switch, arguments, message):
    model = small_model(switch)
    with pytest.raises(InputError, match=message):
        attention_map(model, images_for(model.config), **arguments)


def test_no_block_is_an_error():
    model = small_model()
    with pytest.raises(InputError, match="no block is named; this model has blocks 0 to 2"):
        attention_maps(model, images_for(model.config), [])


def test_attention_stays_fused_and_goes_no_further_than_it_must():
    model = small_model()
    images = images_for(model.config)
    with FusedCalls() as fused:
        attention_map(model, images, block=1)
    assert fused.count == 2


@pytest.mark.parametrize("switch", SWITCHES)
def test_explicit_attention_gives_the_same_logits(switch):
    model = small_model(switch)
    images = images_for(model.config)
    with torch.no_grad():
        expected = model(images)
        with ExplicitAttention() as explicit:
            result = model(images)
    assert (expected[0] - expected[1]).abs().max() > 1e-2
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    for weights, block in zip(explicit.maps, model.attention_weights(images).values(), strict=False):
        torch.testing.assert_close(weights, block[:, :, : weights.shape[2]])
    assert len(explicit.maps) == 3 + (model.config.pooling == "attention")
    with FusedCalls() as fused:
        model(images)
    assert fused.count == len(explicit.maps)


def test_half_precision_gives_numbers_in_single():
    model = small_model().to(torch.bfloat16)
    images = images_for(model.config).to(torch.bfloat16)
    result = attention_map(model, images)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, attention_map(small_model(), images.float()), rtol=0.2, atol=0.02)
