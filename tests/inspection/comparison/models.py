"""Small models to compare."""

import copy

import torch

from tests.inspection.test_trace import SMALL
from vitreous.model.config import ViTConfig
from vitreous.model.initialization import fill_at_random
from vitreous.model.vit import VisionTransformer

SHAPE = {"image_size": (16, 24), "patch_size": 8, "depth": 2}
X = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def small(**changes):
    model = VisionTransformer(ViTConfig(**SMALL | SHAPE | changes))
    fill_at_random(model)
    return model


def fresh(**changes):
    torch.manual_seed(0)
    return VisionTransformer(ViTConfig(**SMALL | SHAPE | changes))


def changed_copy(model, **changes):
    """The same weights in a model with another switch."""
    other = VisionTransformer(model.config.replace(**changes))
    other.load_state_dict(model.state_dict())
    return other


def edited(model, change):
    """A copy whose weights were edited."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        change(other)
    return other
