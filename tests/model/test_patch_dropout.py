import pytest
import torch

from vitreous.model.config import ViTConfig
from vitreous.model.patch_embedding import PatchDropout
from vitreous.model.vit import VisionTransformer


@pytest.mark.parametrize(("rate", "kept"), [(0.5, 8), (0.75, 4), (0.1, 14), (0.999, 1)])
@pytest.mark.parametrize("prefix", [0, 2])
def test_keeps_the_prefix_and_a_share_of_the_patches_in_order(rate: float, kept: int, prefix: int):
    numbers = torch.arange(float(prefix + 16)).expand(50, -1)[:, :, None]
    rows = PatchDropout(rate, prefix)(numbers)[:, :, 0]
    assert rows.shape == (50, prefix + kept)
    assert (rows[:, :prefix] == numbers[:, :prefix, 0]).all()
    assert (rows.diff(dim=1) > 0).all(), "in their order, none twice"
    if kept > 1:
        assert len({tuple(row) for row in rows.tolist()}) > 10, "each image has its own"


def test_every_patch_is_kept_as_often():
    numbers = torch.arange(16.0).expand(4000, -1)[:, :, None]
    counts = PatchDropout(0.25)(numbers).flatten().int().bincount() / 4000
    assert (counts - 0.75).abs().max() < 0.04


def test_evaluation_sees_all():
    layer = PatchDropout(0.9).eval()
    x = torch.randn(2, 16, 3)
    assert layer(x) is x
    assert PatchDropout(0.0)(x) is x


@pytest.mark.parametrize("pooling", ["class_token", "mean", "attention"])
def test_a_model_trains_on_fewer_tokens(pooling: str):
    fields = {"width": 16, "depth": 2, "mlp_dim": 32, "num_heads": 2, "image_size": 32, "patch_size": 8}
    model = VisionTransformer(ViTConfig(**fields, num_classes=3, pooling=pooling, patch_dropout=0.75, hidden_dim=5))
    torch.nn.init.normal_(model.head.classifier.weight)
    images = torch.randn(3, 3, 32, 32)
    seen = []
    model.encoder.blocks[0].register_forward_hook(lambda block, inputs, output: seen.append(inputs[0].shape[1]))
    first, second = model(images), model(images)
    assert seen == [5, 5]
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(images), model(images))
    assert seen[2:] == [17, 17]


def test_positions_inside_the_encoder_are_refused():
    with pytest.raises(ValueError, match="position_site must be 'stem'"):
        ViTConfig(patch_dropout=0.5, position_site="shared")
