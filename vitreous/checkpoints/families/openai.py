"""CLIP's image tower in OpenAI's and OpenCLIP's files (arXiv 2103.00020), with or without the text tower."""

import re
from collections.abc import Iterator

from vitreous.checkpoints.families.shared.family import (
    CLIP_MEAN,
    CLIP_STD,
    Family,
    Naming,
    block_count,
    prefixes,
    shape_of,
)
from vitreous.checkpoints.families.shared.holds import Holds
from vitreous.checkpoints.families.shared.key_map import TRANSPOSED, Rule, both, patch_convolution, rule
from vitreous.checkpoints.families.shared.reading import Reading, Shapes
from vitreous.checkpoints.families.shared.rules import BlockKeys, block_rules, prefixed
from vitreous.checkpoints.families.shared.tokens import CLASS, TokenKeys, token_rules
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig

BLOCK = "transformer.resblocks.{}."
LAYERS = BlockKeys("ln_1", ("attn.in_proj_{}",), "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
TOWER = "visual."


class CLIP(Family):
    """OpenAI's CLIP: a norm before the encoder, and a projection, which becomes a classifier without bias.

    The text tower has the same names as the image tower; only the prefix differs.
    """

    name = "clip"
    title = "OpenAI's CLIP"
    kinds = ("pickle", "safetensors")
    patch_keys = ("conv1.weight",)
    bodies = (TOWER,)
    required_keys = ("conv1.weight", "class_embedding", "positional_embedding", "ln_pre.weight", "ln_post.weight")
    drops = (
        (r"(transformer|token_embedding|ln_final|text_projection|text)\.", "the text tower"),
        (r"(positional_embedding|text_projection|logit_scale|logit_bias|attn_mask)$", "the text tower"),
        (r"(input_resolution|context_length|vocab_size)$", "sizes, not weights"),
    )
    holds = Holds(
        gelu=("quick",),
        norm_eps=(1e-5,),
        pre_norm=(True,),
        patch_bias=(False,),
        classifier=(True,),
        classifier_bias=(False,),
        rectangles=(False,),
        channels=(3,),
    )
    naming = Naming(TOWER)

    def read(self, shapes: Shapes, reading: Reading) -> Naming:
        prefix = prefixes(shapes, self.required_keys)[0]
        inner = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        if re.search(rf"(^|[./]){re.escape(TOWER)}$", prefix):
            rest = {key: shape for key, shape in shapes.items() if not key.startswith(prefix)}
            reading.drop(rest, prefix.removesuffix(TOWER), self.drops)
        fields = reading.fields
        fields["width"], fields["channels"], height, width = shape_of(inner, "conv1.weight", 4)
        fields["patch_size"] = height, width
        fields["depth"] = block_count(inner, r"transformer\.resblocks\.(\d+)\.")
        fields["mlp_dim"] = shape_of(inner, f"{BLOCK.format(0)}mlp.c_fc.weight", 2)[0]
        fields["num_classes"] = shape_of(inner, "proj", 2)[1] if "proj" in inner else 0
        fields |= {"pre_norm": True, "patch_bias": False, "classifier_bias": "proj" not in inner}
        reading.guess_image_size(shape_of(inner, "positional_embedding", 2)[0] - 1, (height, width))
        reading.guess("gelu", "quick", "OpenAI's code; some OpenCLIP models use exact GELU")
        reading.guess("norm_eps", 1e-5, "OpenAI's code")
        reading.guess_heads(fields["width"], fields["depth"])
        fields["position_resampling"] = "bicubic_antialias"
        return Naming(prefix)

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return Preprocessing(config.image_size, "crop", 1.0, "bicubic", mean=CLIP_MEAN, std=CLIP_STD)

    def rules(self, config: ViTConfig, naming: Naming) -> list[Rule]:
        return prefixed(naming.prefix, _tower_rules(config))


def _tower_rules(c: ViTConfig) -> Iterator[Rule]:
    """The image tower."""
    layout = patch_convolution(*c.patch_size, c.channels)
    yield rule("patch_embedding.projection.weight", "conv1.weight", layout=layout)
    yield from token_rules(c, TokenKeys("positional_embedding", "class_embedding", rows=(CLASS,), flat=True))
    yield from both("encoder.pre_norm", "ln_pre")
    for i in range(c.depth):
        yield from block_rules(i, BLOCK.format(i), LAYERS)
    yield from both("head.norm" if c.norm_after_pooling else "encoder.norm", "ln_post")
    if c.num_classes:
        yield rule("head.classifier.weight", "proj", layout=TRANSPOSED)
