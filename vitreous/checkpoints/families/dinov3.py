"""Meta's DINOv3 files (arXiv 2508.10104): DINOv2's table with rotary positions instead of a learned table.

The layout is that of facebookresearch/dinov3: registers are storage tokens, SwiGLU's first layer is in two parts, and
the bias of queries, keys and values comes with a mask that is zero for the keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitreous.checkpoints.families.meta import MetaTable
from vitreous.checkpoints.families.shared.family import IMAGENET_MEAN, IMAGENET_STD, shape_of
from vitreous.checkpoints.families.shared.holds import Holds
from vitreous.checkpoints.families.shared.key_map import Layout, Rule
from vitreous.checkpoints.families.shared.reading import Reading, Shapes
from vitreous.checkpoints.families.shared.rules import prefixed
from vitreous.checkpoints.families.shared.split import Split, divided, merged
from vitreous.checkpoints.families.timm.table import TimmNaming, TimmTable
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError

BASE = 100.0  # of the periods
PERIODS = "rope_embed.periods"
ROUNDING = 2.0**-8  # relative, of periods in bfloat16
IMAGE_SIZE = (256, 256)  # of the authors' evaluation


def without_keys(parts: Sequence[Tensor]) -> list[Tensor]:
    """The biases of queries and values, from all three and their mask. Raises InputError if the keys have one too."""
    query, key, value = (parts[0] * parts[1]).chunk(3)
    if key.any():
        raise InputError("the mask of attn.qkv.bias leaves a bias of the keys", "only files with none can be read")
    return [torch.cat([query, value])]


def with_keys(parts: Sequence[Tensor]) -> list[Tensor]:
    """All three biases, that of the keys zero, and their mask."""
    query, value = parts[0].chunk(2)
    zeros, ones = torch.zeros_like(query), torch.ones_like(query)
    return [torch.cat([query, zeros, value]), torch.cat([ones, zeros, ones])]


BIAS = Split("attn.qkv.bias", ("attn.qkv.bias", "attn.qkv.bias_mask"), Layout(without_keys, with_keys))
SPLITS = (
    Split("register_tokens", ("storage_tokens",)),
    *(Split(f"mlp.w12.{name}", (f"mlp.w1.{name}", f"mlp.w2.{name}")) for name in ("weight", "bias")),
)


class DINOv3(MetaTable):
    """DINOv3, of any size: the backbone."""

    name = "dinov3"
    title = "DINOv3"
    mask_token = True
    naming = TimmNaming(
        registers="register_tokens", gated=("mlp.w12", "mlp.w3"), rows=(), positioned=False, masked=True
    )
    drops = (
        *TimmTable.drops,
        (r"local_cls_norm\.", "the norm of small crops, used in training alone"),
        (r"projectors\.", "projections to other teachers, used in training alone"),
    )
    holds = Holds(
        norm_eps=(1e-5,),
        qkv_bias=("no_key", "none"),
        mlp=("mlp", "swiglu"),
        layer_scale=(True,),
        registers=(False, True),
        positions=("none",),
        rotary=("dinov3",),
        classifier=(False,),
        rectangles=(False,),
    )

    def claims(self, shapes: Shapes) -> bool:
        own = any(key.endswith((PERIODS, "storage_tokens")) for key in shapes)
        return own and not self.missing_keys(shapes)

    def read(self, shapes: Shapes, reading: Reading) -> TimmNaming:
        prefix = self.prefix(shapes)
        width = shape_of(shapes, f"{prefix}patch_embed.proj.weight", 4)[0]
        heads = width // (4 * shape_of(shapes, f"{prefix}{PERIODS}", 1)[0])
        facts = {"rotary": "dinov3", "position_embedding": "none", "num_heads": heads}
        usual = {"norm_eps": 1e-5, "image_size": IMAGE_SIZE} | facts
        nested = replace(reading, known=usual | dict(reading.known), fields={}, guesses=[], dropped={})
        biased = any(key.endswith(BIAS.parts[1]) for key in shapes)
        naming = super().read(merged(shapes, SPLITS), nested)
        reading.fields |= nested.fields | facts
        reading.guess("norm_eps", 1e-5, "DINOv3's default")
        reading.guess("image_size", IMAGE_SIZE, "that of the authors' evaluation; there is no position table")
        reading.guesses += nested.guesses
        reading.dropped |= nested.dropped
        reading.fields["qkv_bias"] = "no_key" if biased else "none"
        return naming

    def rules(self, config: ViTConfig, naming: TimmNaming) -> list[Rule]:
        table = divided(super().rules(config, naming), (*SPLITS, BIAS))
        return [*table, *prefixed(naming.prefix, [Rule((), (PERIODS,), periods_layout(config.head_dim))])]

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return Preprocessing(config.image_size, "squash", 1.0, "bilinear", mean=IMAGENET_MEAN, std=IMAGENET_STD)

    def notes(self, config: ViTConfig, config_json: Mapping[str, Any]) -> list[str]:
        return [
            "the authors' code reads the rotary periods from the file, rounded to bfloat16; here they are exact, as in "
            "timm and transformers"
        ]


def periods(head_dim: int) -> Tensor:
    """The periods of DINOv3's rotary positions, in units of half the image: base^(i / (D_h / 4))."""
    count = head_dim // 4
    return BASE ** (torch.arange(count, dtype=torch.float32) / count)


def periods_layout(head_dim: int) -> Layout:
    """The periods, which are not a parameter of ours: checked when read, computed when written."""

    def check(parts: Sequence[Tensor]) -> list[Tensor]:
        expected = periods(head_dim)
        found = parts[0].float()
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=ROUNDING, atol=0.0):
            raise InputError(f"{PERIODS} are not those of base {BASE:g}", "only published DINOv3 models can be read")
        return []

    return Layout(check, lambda parts: [periods(head_dim)])
