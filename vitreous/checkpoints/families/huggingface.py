"""transformers' ViT, DeiT, CLIP and SigLIP.

All have a body (embeddings, encoder, final norm) and something behind it. The names of a body are ViT's on disk, ViT's
in memory since transformers 5.9 (DeiT has the same), or those of CLIP and SigLIP.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from vitreous.checkpoints.families.family import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Dialect,
    Family,
    Holds,
    Reading,
    Shapes,
    block_count,
    classifier,
    drop,
    prefixes,
    shape_of,
)
from vitreous.checkpoints.families.huggingface_config import (
    CLIP,
    DEFAULTS,
    DEIT,
    GELUS,
    PREPROCESSOR,
    SIGLIP,
    VIT,
    class_names_of,
    config_json,
    fields_of,
    model_of,
    preprocessing_of,
    preprocessor_json,
)
from vitreous.checkpoints.families.key_map import Rule, both, constant, joined, patch_convolution, rule
from vitreous.checkpoints.families.tokens import CLASS, DISTILLATION, REGISTERS, TokenKeys, token_rules
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError


class Names(NamedTuple):
    """How a body spells its keys; those of a block stand behind `block` and the block's number."""

    patch: str
    class_token: str
    positions: str
    block: str
    attention_norm: str
    qkv: tuple[str, ...]
    out: str
    mlp_norm: str
    fc1: str
    fc2: str
    norm: str

    @property
    def landmarks(self) -> tuple[str, ...]:
        """Keys that every file with these names has."""
        block = self.block.format(0)
        parts = self.patch, f"{block}{self.attention_norm}", f"{block}{self.qkv[0]}", self.norm
        return tuple(f"{part}.weight" for part in parts)


DISK = Names(
    "embeddings.patch_embeddings.projection",
    "embeddings.cls_token",
    "embeddings.position_embeddings",
    "encoder.layer.{}.",
    "layernorm_before",
    ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "attention.output.dense",
    "layernorm_after",
    "intermediate.dense",
    "output.dense",
    "layernorm",
)
MEMORY = DISK._replace(
    block="layers.{}.",
    qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    out="attention.o_proj",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
)
TOWER = Names(
    "embeddings.patch_embedding",
    "embeddings.class_embedding",
    "embeddings.position_embedding.weight",
    "encoder.layers.{}.",
    "layer_norm1",
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.out_proj",
    "layer_norm2",
    "mlp.fc1",
    "mlp.fc2",
    "post_layernorm",
)
DISTILLATION_TOKEN = "embeddings.distillation_token"
BODIES = {VIT: "vit.", DEIT: "deit.", CLIP: "vision_model.", SIGLIP: "vision_model."}
CLASSIFIERS = ("classifier", "cls_classifier", "visual_projection")
ROWS = (CLASS, DISTILLATION, REGISTERS)  # tokens that have rows in the table of positions

HOLDS = {
    VIT: Holds(gelu=None, norm_eps=None, hidden=(False, True)),
    DEIT: Holds(
        gelu=None, norm_eps=None, distillation_token=(False, True), registers=(False, True), hidden=(False, True)
    ),
    CLIP: Holds(
        gelu=None,
        norm_eps=None,
        pre_norm=(True,),
        patch_bias=(False,),
        classifier_bias=(False,),
        rectangles=(False,),
    ),
    SIGLIP: Holds(gelu=None, norm_eps=None, class_token=(False,), pooling=("attention", "mean"), rectangles=(False,)),
}


@dataclass(frozen=True)
class HuggingFaceDialect(Dialect):
    """How one file spells its keys; the prefix stands in front of the body and of the classifier.

    Args:
        body: in front of the body alone.
        in_memory: whether ViT and DeiT have the names that they have in memory; else those on disk.
    """

    body: str = ""
    in_memory: bool = False


class HuggingFace(Family):
    """transformers: ViTModel, DeiTModel, CLIPVisionModel and SiglipVisionModel, and what puts a head on them.

    DeiT with one classifier has a distillation token that no classifier reads: it is one more token beside the patches,
    which is what a register is, and is held as one.
    """

    name = "huggingface"
    title = "transformers"
    landmarks = DISK.landmarks
    drops: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"(text_model\.|text_projection\.|logit_scale$|logit_bias$)", "the text tower"),
        (r"(.*\.)?position_ids$", "the numbers of the positions, in their order"),
        (
            r"(decoder\.0\.(weight|bias)$|(vit\.|deit\.)?embeddings\.mask_token$)",
            "decoder and mask token of masked pre-training",
        ),
        (r"decoder\.(decoder_\w+\.|decoder_pos_embed$|mask_token$)", "MAE's decoder"),
    )
    holds = HOLDS[VIT]
    dialects = HuggingFaceDialect

    def strangers(self, shapes: Shapes) -> list[str]:
        """As for every family, for the names that come nearest."""
        _, _, missing = spelling(shapes)
        return missing

    def read(self, shapes: Shapes, reading: Reading) -> HuggingFaceDialect:
        names, prefix, _ = spelling(shapes)
        body = next((body for body in BODIES.values() if re.search(rf"(^|[./]){re.escape(body)}$", prefix)), "")
        root = prefix.removesuffix(body)
        drops = self.drops
        if any(f"{root}{name}.weight" in shapes for name in CLASSIFIERS[:2]):
            drops = (*drops, (rf"{re.escape(body)}(pooler|head)\.", "a pooling that the classifier does not read"))
        left = drop(reading, shapes, root, drops)
        inner = {key.removeprefix(body): shape for key, shape in left.items()}
        if names is TOWER and "pre_layrnorm.weight" in inner and "classifier.weight" in inner:
            cause = "CLIP's image classifier reads the mean of patches that no norm has seen"
            raise InputError(cause, "only its encoder could be read: save that alone, as a CLIPVisionModel")
        self.read_shapes(inner, names, reading)
        self.read_head(inner, reading)
        self.read_tokens(inner, names, reading)
        self.guess(reading, SIGLIP if names is TOWER else VIT)
        return HuggingFaceDialect(root, body, in_memory=names is MEMORY)

    def read_shapes(self, inner: Shapes, names: Names, reading: Reading) -> None:
        """Patches, widths and depth."""
        fields, first = reading.fields, names.block.format(0)
        fields["width"], fields["channels"], *patch = shape_of(inner, f"{names.patch}.weight", 4)
        fields["patch_size"] = tuple(patch)
        fields["patch_bias"] = f"{names.patch}.bias" in inner
        fields["depth"] = block_count(inner, re.escape(names.block).replace(r"\{\}", r"(\d+)"))
        fields["mlp_dim"] = shape_of(inner, f"{first}{names.fc1}.weight", 2)[0]
        fields["pre_norm"] = "pre_layrnorm.weight" in inner
        if f"{first}{names.qkv[0]}.bias" not in inner:
            raise InputError("the file has no biases of query, key and value", "only models that have them can be read")

    def read_head(self, inner: Shapes, reading: Reading) -> None:
        """Classifier and the pooler's hidden layer."""
        fields = reading.fields
        found = next((name for name in CLASSIFIERS if f"{name}.weight" in inner), None)
        fields["num_classes"] = 0 if found is None else shape_of(inner, f"{found}.weight", 2)[0]
        fields["classifier_bias"] = found is None or f"{found}.bias" in inner
        fields["hidden_dim"] = shape_of(inner, "pooler.dense.weight", 2)[0] if "pooler.dense.weight" in inner else None

    def read_tokens(self, inner: Shapes, names: Names, reading: Reading) -> None:
        """Tokens in front of the patches, pooling, and image size."""
        fields = reading.fields
        extra = DISTILLATION_TOKEN in inner
        read = "distillation_classifier.weight" in inner or not (fields["num_classes"] or fields["hidden_dim"])
        fields["class_token"] = fields["position_class_slot"] = names.class_token in inner
        fields["distillation_token"], fields["registers"] = extra and read, int(extra and not read)
        if "head.probe" in inner:
            fields["pooling"] = "attention"
        elif fields["class_token"] or fields["num_classes"]:
            fields["pooling"] = "class_token" if fields["class_token"] else "mean"
        else:
            reading.guess("pooling", "mean", "there is no head to say it; transformers gives the tokens alone")
        *_, length, _ = shape_of(inner, names.positions, 2 if names is TOWER else 3)
        reading.guess_image_size(length - fields["class_token"] - extra, fields["patch_size"])

    def guess(self, reading: Reading, model: str) -> None:
        """What a config.json would say."""
        fields = reading.fields
        defaults = DEFAULTS[CLIP if fields["pre_norm"] else model]
        reading.guess("gelu", GELUS[defaults["hidden_act"]], "transformers' default")
        reading.guess("norm_eps", defaults["layer_norm_eps"], "transformers' default")
        reading.guess_heads(fields["width"], fields["depth"])
        fields["position_resampling"] = "bicubic"

    def lacking(self, config: ViTConfig) -> list[str]:
        model, classes = model_of(config), config.num_classes > 0
        lacking = HOLDS[model].lacking(config)
        if model in (VIT, DEIT):
            lacking += ["a tanh hidden layer beside a classifier"] * (config.hidden_dim is not None and classes)
            lacking += [f"{config.registers} registers"] * (config.registers > 1)
            lacking += ["registers beside a distillation token"] * (config.distillation_token and config.registers > 0)
        elif model == SIGLIP:
            lacking += ["a classifier behind attention pooling"] * (config.pooling == "attention" and classes)
            lacking += ["mean pooling without a classifier"] * (config.pooling == "mean" and not classes)
        return lacking

    def plain_dialect(self, config: ViTConfig) -> HuggingFaceDialect:
        model = model_of(config)
        headless = model in (VIT, DEIT) and not config.num_classes
        return HuggingFaceDialect(body="" if headless else BODIES[model])

    def rules(self, config: ViTConfig, dialect: HuggingFaceDialect) -> list[Rule]:
        names = TOWER if model_of(config) in (CLIP, SIGLIP) else MEMORY if dialect.in_memory else DISK
        body = [*embedding_rules(config, names), *encoder_rules(config, names), *pooling_rules(config)]
        # A body without a prefix is one without a classifier; it may have been given one.
        inside = dialect.body or self.plain_dialect(config).body if config.num_classes else dialect.body
        return [*behind(dialect.prefix + inside, body), *behind(dialect.prefix, classifier_rules(config))]

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        size = config.image_size
        match model_of(config):
            case "deit":  # transformers squashes to 256 × 256 before it cuts out 224 × 224
                squash = Preprocessing(size, "squash", 0.875, "bicubic", mean=IMAGENET_MEAN, std=IMAGENET_STD)
                return replace(squash, crop_rounding="down")
            case "clip_vision_model":
                crop = Preprocessing(size, "crop", 1.0, "bicubic", mean=CLIP_MEAN, std=CLIP_STD)
                return replace(crop, crop_rounding="down")
            case "siglip_vision_model":
                return Preprocessing(size, interpolation="bicubic")
            case _:
                return Preprocessing(size)

    def fields_from(self, belongings: Mapping[str, Any]) -> dict[str, Any]:
        return fields_of(belongings)

    def preprocessing_from(
        self, belongings: Mapping[str, Any], preprocessor: Mapping[str, Any]
    ) -> Preprocessing | None:
        return preprocessing_of(belongings, preprocessor)

    def class_names_from(self, belongings: Mapping[str, Any]) -> tuple[str, ...] | None:
        return class_names_of(belongings)

    def belongings(
        self, config: ViTConfig, preprocessing: Preprocessing, class_names: Sequence[str] | None
    ) -> dict[str, Any]:
        return {
            "config.json": config_json(config, preprocessing, class_names),
            PREPROCESSOR: preprocessor_json(config, preprocessing),
        }


def spelling(shapes: Shapes) -> tuple[Names, str, list[str]]:
    """The names that come nearest, what stands in front of them, and the landmarks that are missing."""
    found = [
        (names, prefix, [mark for mark in names.landmarks if prefix + mark not in shapes])
        for names in (DISK, MEMORY, TOWER)
        for prefix in prefixes(shapes, names.landmarks)[:1]
    ]
    return min(found, key=lambda each: len(each[2]), default=(DISK, "", list(DISK.landmarks)))


def behind(prefix: str, rules: Iterable[Rule]) -> Iterator[Rule]:
    """The rules with a prefix in front of their keys."""
    for r in rules:
        yield r._replace(theirs=tuple(prefix + key for key in r.theirs))


def embedding_rules(c: ViTConfig, names: Names) -> Iterator[Rule]:
    """The rules in front of the encoder."""
    layout = patch_convolution(*c.patch_size, c.channels)
    yield rule("patch_embedding.projection.weight", f"{names.patch}.weight", layout=layout)
    if c.patch_bias:
        yield rule("patch_embedding.projection.bias", f"{names.patch}.bias")
    elif not c.pre_norm:
        yield Rule((), (f"{names.patch}.bias",), constant(0.0, c.width))
    yield from token_rules(
        c,
        TokenKeys(
            names.positions, names.class_token, DISTILLATION_TOKEN, DISTILLATION_TOKEN, ROWS, flat=names is TOWER
        ),
    )


def encoder_rules(c: ViTConfig, names: Names) -> Iterator[Rule]:
    """The rules of the encoder's blocks, and of the norms before and behind them."""
    if c.pre_norm:
        yield from both("encoder.pre_norm", "pre_layrnorm")
    for i in range(c.depth):
        ours, theirs = f"encoder.blocks.{i}.", names.block.format(i)
        yield from both(f"{ours}attention_norm", f"{theirs}{names.attention_norm}")
        for name in ("weight", "bias"):
            parts = [f"{theirs}{part}.{name}" for part in names.qkv]
            yield rule(f"{ours}attention.qkv.{name}", *parts, layout=joined(3))
        yield from both(f"{ours}attention.out", f"{theirs}{names.out}")
        yield from both(f"{ours}mlp_norm", f"{theirs}{names.mlp_norm}")
        yield from both(f"{ours}mlp.fc1", f"{theirs}{names.fc1}")
        yield from both(f"{ours}mlp.fc2", f"{theirs}{names.fc2}")
    yield from both("head.norm" if c.norm_after_pooling else "encoder.norm", names.norm)


def pooling_rules(c: ViTConfig) -> Iterator[Rule]:
    """The rules of SigLIP's attention pooling, and of ViT's pooler."""
    if c.pooling == "attention":
        ours, theirs = "head.pooling.", "head."
        yield rule(f"{ours}probe", f"{theirs}probe")
        yield rule(f"{ours}attention.qkv.weight", f"{theirs}attention.in_proj_weight")
        yield rule(f"{ours}attention.qkv.bias", f"{theirs}attention.in_proj_bias")
        yield from both(f"{ours}attention.out", f"{theirs}attention.out_proj")
        yield from both(f"{ours}norm", f"{theirs}layernorm")
        yield from both(f"{ours}mlp.fc1", f"{theirs}mlp.fc1")
        yield from both(f"{ours}mlp.fc2", f"{theirs}mlp.fc2")
    if c.hidden_dim is not None:
        yield from both("head.hidden", "pooler.dense")


def classifier_rules(c: ViTConfig) -> Iterator[Rule]:
    """The rules of what stands outside the body."""
    if not c.num_classes:
        return
    if c.pre_norm:
        yield rule("head.classifier.weight", "visual_projection.weight")
    elif c.distillation_token:
        yield from classifier("head.classifier", "cls_classifier", c)
        yield from classifier("head.distillation", "distillation_classifier", c)
    else:
        yield from classifier("head.classifier", "classifier", c)
