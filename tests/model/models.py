"""Small models with every switch, for the tests of all packages."""

import torch

from vitreous.model.config import ViTConfig
from vitreous.model.initialization import fill_at_random
from vitreous.model.vit import VisionTransformer

SMALL = {
    "width": 48,
    "depth": 3,
    "mlp_dim": 96,
    "num_heads": 3,
    "image_size": 32,
    "patch_size": 8,
    "num_classes": 7,
}
NO_CLASS = {"class_token": False, "pooling": "mean"}

# One entry for each switch that a checkpoint family needs.
SWITCHES: dict[str, dict[str, object]] = {
    "the paper's": {},
    "exact GELU": {"gelu": "exact"},
    "quick GELU, pre-norm, no patch bias, no classifier bias": {
        "gelu": "quick",
        "pre_norm": True,
        "patch_bias": False,
        "classifier_bias": False,
    },
    "SwiGLU and LayerScale": {"mlp": "swiglu", "layer_scale": 0.1},
    "hidden layer": {"hidden_dim": 20},
    "distillation": {"distillation_token": True},
    "registers": {"registers": 4},
    "registers without class slot": {"registers": 2, "position_class_slot": False},
    "mean pooling": NO_CLASS,
    "mean pooling beside a class token, norm after": {"pooling": "mean", "norm_after_pooling": True},
    "class token, norm after": {"norm_after_pooling": True},
    "attention pooling": NO_CLASS | {"pooling": "attention"},
    "no positions": {"position_embedding": "none"},
    "learned without class slot": {"position_class_slot": False},
    "learned at every layer": {"position_site": "every_layer"},
    "learned, shared": {"position_site": "shared"},
    "2-D": {"position_embedding": "learned_2d"},
    "2-D at every layer": {"position_embedding": "learned_2d", "position_site": "every_layer"},
    "sincos": NO_CLASS | {"position_embedding": "sincos_2d"},
    "MAE's sincos with a class token": {"position_embedding": "sincos_2d", "sincos_exponent": "mae"},
    "sincos at every layer": {"position_embedding": "sincos_2d", "position_site": "shared"},
    "relative": {"position_embedding": "relative", "position_site": "every_layer"},
    "relative, shared, without class token": NO_CLASS | {"position_embedding": "relative", "position_site": "shared"},
    "rectangles": {"image_size": (32, 48), "patch_size": (8, 4)},
    "one channel": {"channels": 1},
    "five channels": {"channels": 5},
    "no classes": {"num_classes": 0},
    "hybrid": {"stem_blocks": (1, 1), "stem_width": 32, "patch_size": 1, "image_size": 64},
    "hybrid root": {"stem_blocks": (), "stem_width": 32, "patch_size": 4, "image_size": 64},
}


def small_config(switch: str = "the paper's", **overrides: object) -> ViTConfig:
    """The small config with one entry of SWITCHES."""
    return ViTConfig.from_dict(SMALL | SWITCHES[switch] | overrides)


def small_model(switch: str = "the paper's", seed: int = 0, **overrides: object) -> VisionTransformer:
    """A small model, every parameter at random, in evaluation mode."""
    model = VisionTransformer(small_config(switch, **overrides))
    fill_at_random(model, seed)
    return model.eval()


def images_for(config: ViTConfig, batch: int = 3, seed: int = 0) -> torch.Tensor:
    """Random images of the config's size."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, config.channels, *config.image_size, generator=generator)
