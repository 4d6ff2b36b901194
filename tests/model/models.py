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
    # Later architectures, each with one departure from the paper or a few that come together.
    "hybrid, timm's epsilons": {"stem_blocks": (1, 1), "stem_width": 32, "patch_size": 1, "image_size": 64}
    | {"stem_eps": "timm"},
    "RMS norms, no biases, norm of the patches": NO_CLASS
    | {"norm": "rms", "qkv_bias": "none", "dense_bias": False, "mlp": "swiglu", "embedding_norm": True},
    "norms after the branches": {"norm_site": "after", "qkv_bias": "none", "layer_scale": 0.1},
    "no final norm": {"final_norm": False},
    "no bias of the keys, inner norms, rotary": {"qkv_bias": "no_key", "attention_inner_norm": True}
    | {"mlp_inner_norm": True, "mlp": "swiglu", "rotary": "eva02", "rotary_grid": (3, 5)},
    "norms of q and k": {"query_key_norm": "head"},
    "norms of q and k over all heads": {"query_key_norm": "width", "norm": "rms"},
    "rotary, centered": {"position_embedding": "none", "rotary": "dinov3", "registers": 2, "qkv_bias": "no_key"},
    "rotary, mixed": {"rotary": "mixed", "position_class_slot": False},
    "rotary, angles of the class token": {"rotary": "mlcd", "position_embedding": "none", "pre_norm": True},
    "rotary, axial": NO_CLASS | {"rotary": "axial", "final_norm": False},
    "rotary, attention pooling with other sizes": NO_CLASS
    | {"pooling": "attention", "pooling_heads": 4, "pooling_mlp_dim": 64, "rotary": "perception", "pre_norm": True},
    "relative biases": {"position_embedding": "relative_bias", "position_site": "every_layer", "qkv_bias": "no_key"},
    "relative biases, shared, mean pooling": NO_CLASS
    | {"position_embedding": "relative_bias", "position_site": "shared"},
    "class token and mean": {"pooling": "class_token_and_mean"},
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
