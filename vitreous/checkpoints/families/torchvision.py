"""torchvision's VisionTransformer, under today's names and those of its published files."""

from collections.abc import Iterator
from dataclasses import dataclass

from vitreous.checkpoints.families.shared.family import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Family,
    Naming,
    block_count,
    prefixes,
    shape_of,
)
from vitreous.checkpoints.families.shared.holds import Holds
from vitreous.checkpoints.families.shared.key_map import Rule, both, patch_convolution, rule
from vitreous.checkpoints.families.shared.reading import Reading, Shapes
from vitreous.checkpoints.families.shared.rules import BlockKeys, bias, block_rules, classifier, prefixed
from vitreous.checkpoints.families.shared.tokens import CLASS, TokenKeys, token_rules
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig

BLOCK = "encoder.layers.encoder_layer_{}."
NEW, OLD = ("mlp.0", "mlp.3"), ("mlp.linear_1", "mlp.linear_2")
LAYERS = BlockKeys("ln_1", ("self_attention.in_proj_{}",), "self_attention.out_proj", "ln_2", *NEW)


@dataclass(frozen=True)
class TorchvisionNaming(Naming):
    """How a file names its keys.

    Args:
        mlp: names of the two MLP layers in a block.
    """

    mlp: tuple[str, ...] = NEW


class Torchvision(Family):
    """torchvision's vit_b_16 and the like. They always have a classifier and a position for the class token."""

    name = "torchvision"
    title = "torchvision"
    kinds = ("pickle", "safetensors")
    patch_keys = ("conv_proj.weight",)
    required_keys = (
        "conv_proj.weight",
        "class_token",
        "encoder.pos_embedding",
        f"{BLOCK.format(0)}self_attention.in_proj_weight",
        "encoder.ln.weight",
    )
    holds = Holds(hidden=(False, True), classifier=(True,), rectangles=(False,), channels=(3,))
    naming = TorchvisionNaming()

    def read(self, shapes: Shapes, reading: Reading) -> TorchvisionNaming:
        prefix = prefixes(shapes, self.required_keys)[0]
        inner = {key.removeprefix(prefix): shape for key, shape in shapes.items()}
        fields, first = reading.fields, BLOCK.format(0)
        mlp = OLD if f"{first}{OLD[0]}.weight" in inner else NEW
        fields["width"], fields["channels"], height, width = shape_of(inner, "conv_proj.weight", 4)
        fields["patch_size"] = height, width
        fields["depth"] = block_count(inner, r"encoder\.layers\.encoder_layer_(\d+)\.")
        fields["mlp_dim"] = shape_of(inner, f"{first}{mlp[0]}.weight", 2)[0]
        fields["num_classes"] = shape_of(inner, "heads.head.weight", 2)[0] if "heads.head.weight" in inner else 0
        hidden = "heads.pre_logits.weight"
        fields["hidden_dim"] = shape_of(inner, hidden, 2)[0] if hidden in inner else None
        reading.guess_image_size(shape_of(inner, "encoder.pos_embedding", 3)[1] - 1, (height, width))
        reading.guess("gelu", "exact", "torchvision's code")
        reading.guess("norm_eps", 1e-6, "torchvision's code")
        reading.guess_heads(fields["width"], fields["depth"])
        fields["position_resampling"] = "bicubic_aligned"
        return TorchvisionNaming(prefix, mlp)

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return Preprocessing(config.image_size, "crop", 0.875, mean=IMAGENET_MEAN, std=IMAGENET_STD)

    def rules(self, config: ViTConfig, naming: TorchvisionNaming) -> list[Rule]:
        table = [*_embedding_rules(config), *_encoder_rules(config, naming), *_head_rules(config)]
        return prefixed(naming.prefix, table)


def _embedding_rules(c: ViTConfig) -> Iterator[Rule]:
    """Patches, class token and positions."""
    layout = patch_convolution(*c.patch_size, c.channels)
    yield rule("patch_embedding.projection.weight", "conv_proj.weight", layout=layout)
    yield from bias("patch_embedding.projection.bias", "conv_proj.bias", c.patch_bias, c.width)
    yield from token_rules(c, TokenKeys("encoder.pos_embedding", "class_token", rows=(CLASS,)))


def _encoder_rules(c: ViTConfig, naming: TorchvisionNaming) -> Iterator[Rule]:
    for i in range(c.depth):
        yield from block_rules(i, BLOCK.format(i), LAYERS._replace(fc1=naming.mlp[0], fc2=naming.mlp[1]))
    yield from both("head.norm" if c.norm_after_pooling else "encoder.norm", "encoder.ln")


def _head_rules(c: ViTConfig) -> Iterator[Rule]:
    if c.hidden_dim is not None:
        yield from both("head.hidden", "heads.pre_logits")
    if c.num_classes:
        yield from classifier("head.classifier", "heads.head", c)
