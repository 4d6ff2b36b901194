"""Meta's files: DeiT, DeiT-III, DINO, DINOv2 and MAE. They share timm's table under other names.

All have exact GELU, eps 1e-6 and ImageNet's mean and standard deviation.
"""

import math
import re

from vitreous.checkpoints.families.shared.family import IMAGENET_MEAN, IMAGENET_STD
from vitreous.checkpoints.families.shared.holds import Holds
from vitreous.checkpoints.families.shared.reading import Reading, Shapes, is_square
from vitreous.checkpoints.families.shared.tokens import CLASS, DISTILLATION
from vitreous.checkpoints.families.timm.table import TimmNaming, TimmTable
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig

SCALES = ("gamma_1", "gamma_2")  # DeiT-III's
PLAIN = (  # the keys of the paper's ViT, as all of Meta's families but DINOv2 have them
    r"cls_token|pos_embed|(patch_embed\.proj|norm|blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12]))\.(weight|bias)"
)
PLAIN_REQUIRED = (
    *("cls_token", "pos_embed", "patch_embed.proj.bias"),
    *(f"blocks.0.{name}" for name in ("norm1.bias", "attn.qkv.bias", "attn.proj.bias", "mlp.fc1.weight")),
)


class MetaTable(TimmTable):
    """What Meta's families have in common."""

    kinds = ("pickle", "safetensors")

    def is_plain(self, shapes: Shapes, own_keys: str) -> bool:
        """Whether a file has the keys of the paper's ViT and no others, so that its wrapper may decide the family.

        Args:
            shapes: of the file's tensors.
            own_keys: pattern of the keys that the family has besides.
        """
        prefix = self.prefix(shapes)
        inner = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        fc1, fc2 = (inner.get(f"blocks.0.mlp.{name}.weight", ()) for name in ("fc1", "fc2"))
        return (
            all(re.fullmatch(rf"{PLAIN}|{own_keys}", key) for key in inner)
            and all(key in inner for key in PLAIN_REQUIRED)
            and ("norm.weight" in inner) != ("fc_norm.weight" in inner)
            and list(fc1) == list(fc2)[::-1]  # else a gate
            and (len(self.tables) > 1 or not is_square(math.prod(inner["pos_embed"][:-1])))  # a row for the class token
        )

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return Preprocessing(config.image_size, "crop", 0.875, "bicubic", mean=IMAGENET_MEAN, std=IMAGENET_STD)


class DeiT(MetaTable):
    """DeiT and distilled DeiT (arXiv 2012.12877), DeiT-III (2204.07118); with the weights under `model`."""

    name = "deit"
    title = "DeiT"
    tables = ((CLASS, DISTILLATION), ())
    holds = Holds(layer_scale=(False, True), distillation_token=(False, True), rectangles=(False,))

    def claims(self, shapes: Shapes) -> bool:
        own_keys = any(re.match(r"model/(.*dist_token|(.*\.)?blocks\.0\.gamma_1)$", key) for key in shapes)
        wrapped = any(re.match(r"model/(module\.)?head\.weight$", key) for key in shapes)
        after = any(key.endswith("fc_norm.weight") for key in shapes)
        plain = self.is_plain(shapes, r"dist_token|blocks\.\d+\.gamma_[12]|head(_dist)?\.(weight|bias)")
        return super().claims(shapes) and plain and (own_keys or (wrapped and not after))

    def row_choices(self, naming: TimmNaming) -> tuple[tuple[str, ...], ...]:
        """As for every family; the class token of DeiT-III has no row."""
        return self.tables[::-1] if naming.scales == SCALES else self.tables

    def usual_naming(self, config: ViTConfig) -> TimmNaming:
        is_deit3 = config.layer_scale is not None  # its class token has no position
        return TimmNaming("model/", scales=SCALES, rows=() if is_deit3 else (CLASS, DISTILLATION))

    def unsupported(self, config: ViTConfig) -> list[str]:
        both = config.layer_scale is not None and config.distillation_token
        return super().unsupported(config) + ["LayerScale with a distillation token"] * both


class DINO(MetaTable):
    """DINO (arXiv 2104.14294): the backbone, or a full checkpoint with student and teacher."""

    name = "dino"
    title = "DINO"
    resampling = "bicubic_offset"
    drops = (
        *TimmTable.drops,
        (r"student/", "the student; the teacher is the model"),
        (r"(teacher/)?(module\.)?head\.(?!(fc\.)?(weight|bias)$)", "the projection head of self-supervised training"),
        (r"dino_loss/", "state of a training run"),
    )
    holds = Holds(classifier=(False,), rectangles=(False,))

    def claims(self, shapes: Shapes) -> bool:
        return (
            super().claims(shapes)
            and any(re.match(r"(teacher|student)/", key) for key in shapes)
            and self.is_plain(shapes, r"head\.(?!(fc\.)?(weight|bias)$).*")
        )


class DINOv2(MetaTable):
    """DINOv2 (arXiv 2304.07193), with or without registers (2309.16588), SwiGLU and blocks in chunks."""

    name = "dinov2"
    title = "DINOv2"
    mask_token = True
    naming = TimmNaming(registers="register_tokens", gated=("mlp.w12", "mlp.w3"), rows=(CLASS,), masked=True)
    drops = (
        *DINO.drops,
        (r"(teacher/|student/)?(module\.)?(dino_head|ibot_head)\.", "a projection head of self-supervised training"),
    )
    holds = Holds(
        mlp=("mlp", "swiglu"), layer_scale=(True,), registers=(False, True), classifier=(False,), rectangles=(False,)
    )

    def claims(self, shapes: Shapes) -> bool:
        own_keys = any(key.endswith(("register_tokens", ".mlp.w12.weight")) for key in shapes)
        masked = any(key.endswith("mask_token") and len(shape) == 2 for key, shape in shapes.items())
        chunked = any(re.search(r"blocks\.0\.0\.ls1\.gamma$", key) for key in shapes)
        return super().claims(shapes) and (own_keys or masked or chunked)

    def read(self, shapes: Shapes, reading: Reading) -> TimmNaming:
        naming = super().read(shapes, reading)
        # The authors' code resamples positions with an offset in the scale, except in models with registers.
        registers = reading.fields["registers"] > 0
        reading.fields["position_resampling"] = "bicubic_antialias" if registers else "bicubic_offset"
        return naming


class MAE(MetaTable):
    """MAE (arXiv 2111.06377): the encoder of a pre-training checkpoint, or a model fine-tuned from it."""

    name = "mae"
    title = "MAE"
    naming = TimmNaming("model/", rows=(CLASS, DISTILLATION))
    drops = (
        *TimmTable.drops,
        (r"decoder_", "the pre-training decoder"),
        (r"mask_token$", "the decoder's mask token"),
    )
    holds = Holds(pooling=("class_token", "mean"), norm_after_pooling=(True,), rectangles=(False,))

    def claims(self, shapes: Shapes) -> bool:
        decoder = any(re.search(r"(^|[./])decoder_embed\.weight$", key) for key in shapes)
        wrapped = [key for key in shapes if key.startswith("model/")]
        headless = not any(key.endswith("/head.weight") for key in wrapped)
        after = any(key.endswith("/fc_norm.weight") for key in wrapped)
        plain = self.is_plain(shapes, r"decoder_.*|mask_token|(fc_norm|head)\.(weight|bias)")
        return super().claims(shapes) and plain and (decoder or (bool(wrapped) and (headless or after)))
