"""First weights are drawn as the paper's code draws them."""

import math
from pathlib import Path

import pytest
import torch

from vitreous.model.initialization import fill_at_random
from vitreous.model.variants import variant
from vitreous.model.vit import VisionTransformer


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return VisionTransformer.from_variant("Ti/16", hidden_dim=192, depth=2, registers=4, distillation_token=False)


def uniform_std(fan_in, fan_out):
    return math.sqrt(6 / (fan_in + fan_out)) / math.sqrt(3)


def test_standard_deviations(model):
    block = model.encoder.blocks[0]
    q, k, v = block.attention.qkv.weight.chunk(3)
    for part in (q, k, v, block.attention.out.weight):  # each by itself, not over the stacked fan-out
        assert part.std().item() == pytest.approx(uniform_std(192, 192), rel=0.02)
    assert block.mlp.fc1.weight.std().item() == pytest.approx(uniform_std(192, 768), rel=0.02)
    assert block.mlp.fc2.weight.std().item() == pytest.approx(uniform_std(192, 768), rel=0.02)
    assert block.mlp.fc1.bias.std().item() == pytest.approx(1e-6, rel=0.1)
    assert model.patch_embedding.projection.weight.std().item() == pytest.approx(768**-0.5, rel=0.02)
    assert model.head.hidden.weight.std().item() == pytest.approx(192**-0.5, rel=0.02)
    assert model.position_embedding.embedding.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.registers.std().item() == pytest.approx(1e-6, rel=0.15)


def test_zeros_and_ones(model):
    zero = [model.class_token, *model.head.classifier.parameters(), model.patch_embedding.projection.bias]
    zero += [model.encoder.blocks[0].attention.qkv.bias, model.encoder.blocks[0].attention.out.bias]
    assert all((p == 0).all() for p in zero)
    assert (model.encoder.norm.weight == 1).all()
    assert (model.encoder.norm.bias == 0).all()


def test_positions_without_a_class_slot_are_big_visions():
    c = variant("Ti/16", class_token=False, pooling="mean", position_class_slot=False, depth=1)
    assert VisionTransformer(c).position_embedding.embedding.std().item() == pytest.approx(192**-0.5, rel=0.02)


def test_no_two_blocks_start_equal():
    blocks = VisionTransformer.from_variant("Ti/16", depth=4).encoder.blocks
    for name, first in blocks[0].named_parameters():
        if name.endswith("weight") and "norm" not in name:
            others = [dict(block.named_parameters())[name] for block in blocks[1:]]
            assert all(not torch.equal(first, other) for other in others)


def test_a_hybrids_units_start_as_their_shortcuts():
    stem = VisionTransformer.from_variant("R26+S/32", depth=1).stem
    assert all((unit.norm3.weight == 0).all() for stage in stem.stages for unit in stage)


def test_filled_at_random_nothing_is_zero_and_logits_vary():
    model = VisionTransformer.from_variant("mu/16", num_classes=7, image_size=32)
    before = torch.random.get_rng_state()
    fill_at_random(model, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all((p != 0).all() for p in model.parameters())
    logits = model.eval()(torch.randn(8, 3, 32, 32))
    assert logits.std(0).min() > 0.1


def test_every_initializer_is_in_one_place():
    """Besides, cost.py names those that a model without memory skips."""
    users = [path.name for path in Path("vitreous/model").glob("*.py") if "nn.init." in path.read_text("utf-8")]
    assert sorted(users) == ["cost.py", "initialization.py"]
