"""Which models a family's format can hold."""

from dataclasses import dataclass
from typing import Any

from vitreous.model.config import ViTConfig

QKV_BIASES = {
    "all": "biases of query, key and value",
    "no_key": "biases of query and value but not of key",
    "none": "no biases of query, key and value",
}
QUERY_KEY_NORMS = {
    "none": "no norms of query and key",
    "head": "norms of query and key over each head",
    "width": "norms of query and key over all heads",
}
POSITIONS = {
    "none": "no positions",
    "learned": "learned positions",
    "learned_2d": "learned positions of rows and columns",
    "sincos_2d": "sine and cosine positions",
    "relative": "relative positions",
    "relative_bias": "relative biases",
}
POOLINGS = {
    "class_token": "class token pooling",
    "mean": "mean pooling",
    "attention": "attention pooling",
    "class_token_and_mean": "pooling of class token and mean",
}
ROTARY_WORDS = {
    "none": "no rotary positions",
    "eva02": "EVA-02's rotary positions",
    "axial": "axial rotary positions",
    "perception": "Perception Encoder's rotary positions",
    "perception_giant": "the rotary positions of Perception Encoder G",
    "mixed": "mixed rotary positions",
    "dinov3": "DINOv3's rotary positions",
    "mlcd": "MLCD's rotary positions",
}
STEM_EPS = {"google": "Google's epsilons in the stem", "timm": "timm's epsilons in the stem"}


@dataclass(frozen=True)
class Holds:
    """The values of each architectural choice that a family's format can hold; None means any.

    The defaults are what every family holds.
    """

    gelu: tuple[str, ...] | None = ("exact",)
    norm_eps: tuple[float, ...] | None = (1e-6,)
    mlp: tuple[str, ...] = ("mlp",)
    layer_scale: tuple[bool, ...] = (False,)
    pre_norm: tuple[bool, ...] = (False,)
    patch_bias: tuple[bool, ...] = (True, False)  # a missing bias is written as zeros
    stem: tuple[bool, ...] = (False,)
    class_token: tuple[bool, ...] = (True,)
    distillation_token: tuple[bool, ...] = (False,)
    registers: tuple[bool, ...] = (False,)
    positions: tuple[str, ...] = ("learned", "learned_2d", "sincos_2d", "none")  # a table can hold each of them
    pooling: tuple[str, ...] = ("class_token",)
    norm_after_pooling: tuple[bool, ...] | None = (False,)
    hidden: tuple[bool, ...] = (False,)
    classifier: tuple[bool, ...] = (True, False)
    classifier_bias: tuple[bool, ...] = (True, False)  # a missing bias is written as zeros
    rectangles: tuple[bool, ...] = (True, False)  # image or patch
    channels: tuple[int, ...] | None = None
    norm: tuple[str, ...] = ("layer",)
    norm_site: tuple[str, ...] = ("before",)
    final_norm: tuple[bool, ...] = (True,)
    embedding_norm: tuple[bool, ...] = (False,)
    qkv_bias: tuple[str, ...] = ("all",)
    query_key_norm: tuple[str, ...] = ("none",)
    attention_inner_norm: tuple[bool, ...] = (False,)
    mlp_inner_norm: tuple[bool, ...] = (False,)
    dense_bias: tuple[bool, ...] = (True,)
    rotary: tuple[str, ...] = ("none",)
    rotary_grid: tuple[bool, ...] = (False,)
    stem_eps: tuple[str, ...] = ("google",)
    pooling_sizes: tuple[bool, ...] = (False,)  # attention pooling with sizes of its own

    def unsupported(self, c: ViTConfig) -> list[str]:
        """Names the parts of a model that the format cannot hold."""
        choices: dict[str, tuple[Any, str]] = {
            "gelu": (c.gelu if c.mlp == "mlp" or c.pooling == "attention" else None, f"{c.gelu} GELU"),
            "norm_eps": (c.norm_eps, f"eps {c.norm_eps:g}"),
            "mlp": (c.mlp, "SwiGLU" if c.mlp == "swiglu" else "the plain MLP"),
            "layer_scale": _part(c.layer_scale is not None, "LayerScale"),
            "pre_norm": _part(c.pre_norm, "a norm before the encoder"),
            "patch_bias": _part(c.patch_bias, "a bias of the patch projection"),
            "stem": _part(c.stem_blocks is not None, "a ResNet stem"),
            "class_token": _part(c.class_token, "a class token"),
            "distillation_token": _part(c.distillation_token, "a distillation token"),
            "registers": _part(c.registers > 0, "registers"),
            "positions": (c.position_embedding, POSITIONS[c.position_embedding]),
            "pooling": (c.pooling, POOLINGS[c.pooling]),
            # After pooling a single token, the norm gives the same result as before.
            "norm_after_pooling": (
                c.norm_after_pooling if c.pooling == "mean" and c.final_norm else None,
                f"the final norm {'after' if c.norm_after_pooling else 'before'} mean pooling",
            ),
            "hidden": _part(c.hidden_dim is not None, "a tanh hidden layer in the head"),
            "classifier": _part(c.num_classes > 0, "a classifier"),
            "classifier_bias": (
                c.classifier_bias if c.num_classes else None,
                _part(c.classifier_bias, "a bias of the classifier")[1],
            ),
            "rectangles": (
                len({*c.image_size}) > 1 or len({*c.patch_size}) > 1,
                f"images of {c.image_size[0]}×{c.image_size[1]} in patches of {c.patch_size[0]}×{c.patch_size[1]}",
            ),
            "channels": (c.channels, f"{c.channels} channels"),
            "norm": (c.norm, "RMSNorm" if c.norm == "rms" else "LayerNorm"),
            "norm_site": (c.norm_site, f"norms {c.norm_site} attention and MLP"),
            "final_norm": _part(c.final_norm, "a final norm"),
            "embedding_norm": _part(c.embedding_norm, "a norm of the patches"),
            "qkv_bias": (c.qkv_bias, QKV_BIASES[c.qkv_bias]),
            "query_key_norm": (c.query_key_norm, QUERY_KEY_NORMS[c.query_key_norm]),
            "attention_inner_norm": _part(c.attention_inner_norm, "a norm inside attention"),
            "mlp_inner_norm": _part(c.mlp_inner_norm, "a norm inside the MLP"),
            "dense_bias": _part(c.dense_bias, "biases after attention and in the MLP"),
            "rotary": (c.rotary, ROTARY_WORDS[c.rotary]),
            "stem_eps": (c.stem_eps if c.stem_blocks is not None else None, STEM_EPS[c.stem_eps]),
            "rotary_grid": _part(c.rotary_grid is not None, "rotary positions scaled to a grid"),
            "pooling_sizes": _part(
                c.pooling == "attention" and (c.pooling_heads, c.pooling_mlp_dim) != (None, None),
                "attention pooling with sizes of its own",
            ),
        }
        unsupported = []
        for name, (value, description) in choices.items():
            supported = getattr(self, name)
            if value is not None and supported is not None and value not in supported:
                unsupported.append(description)
        # Relative positions and biases are always inside.
        inside = c.position_site != "stem" and c.position_embedding not in ("relative", "relative_bias")
        return unsupported + (["positions inside the encoder"] if inside else [])


def _part(present: bool, name: str) -> tuple[bool, str]:
    """Whether a part is present, and the words for that."""
    return present, name if present else f"no {name.removeprefix('a ')}"
