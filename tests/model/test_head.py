"""Pooling and the MLP head."""

import pytest
import torch

from vitreous.model.head import AttentionPooling, ClassTokenPooling, Head, MeanPooling
from vitreous.model.initialization import fill_at_random


def random_head(pooling, **switches):
    layer = Head(8, 5, pooling, **switches)
    fill_at_random(layer)
    return layer


def test_the_class_token_is_the_first():
    x = torch.randn(2, 4, 8)
    layer = random_head(ClassTokenPooling())
    torch.testing.assert_close(layer(x), layer.classifier(x[:, 0]))
    assert layer.read == 1


def test_the_mean_is_over_the_patches():
    x = torch.randn(2, 7, 8)
    layer = random_head(MeanPooling(prefix_tokens=3), norm=torch.nn.LayerNorm(8, eps=1e-6))
    torch.testing.assert_close(layer.representation(x), layer.norm(x[:, 3:].mean(1)))
    assert layer.read is None


def test_attention_pooling_is_its_formula():
    layer, x = AttentionPooling(8, 2, 16), torch.randn(2, 4, 8)
    fill_at_random(layer)
    q, _, _ = layer.attention.project(layer.probe.expand(2, -1, -1))
    _, k, v = layer.attention.project(x)
    y = ((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2)
    y = layer.attention.out(y)
    y = y + layer.mlp(layer.norm(y))
    torch.testing.assert_close(layer(x), y[:, 0])


def test_the_hidden_layer_has_a_tanh():
    x = torch.randn(2, 4, 8)
    layer = random_head(ClassTokenPooling(), hidden_dim=6)
    torch.testing.assert_close(layer(x), layer.classifier(torch.tanh(layer.hidden(x[:, 0]))))


def test_the_distillation_head_reads_the_second_token_and_is_averaged():
    x = torch.randn(2, 4, 8)
    layer = random_head(ClassTokenPooling(), distillation=True)
    first, second = layer.both(x)
    torch.testing.assert_close(first, layer.classifier(x[:, 0]))
    torch.testing.assert_close(second, layer.distillation(x[:, 1]))
    torch.testing.assert_close(layer(x), (first + second) / 2)
    assert layer.read == 2


def test_without_a_distillation_token_there_is_only_one():
    with pytest.raises(ValueError, match="distillation_token=True"):
        random_head(ClassTokenPooling()).both(torch.randn(2, 4, 8))


def test_without_a_classifier_the_representation_is_given():
    x = torch.randn(2, 4, 8)
    layer = Head(8, 0)
    assert torch.equal(layer(x), x[:, 0])
    assert not list(layer.parameters())


def test_a_new_classifier_is_zero_and_can_lack_its_bias():
    layer = Head(8, 5, bias=False)
    assert layer.classifier.bias is None
    assert (layer.classifier.weight == 0).all()
