"""transformers' ViT, DeiT, CLIP and SigLIP.

All have a body (embeddings, encoder, final norm) and a head. A body has one of three sets of names: ViT's and DeiT's
on disk, theirs in memory since transformers 5.9, or those of CLIP and SigLIP.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from vitreous.checkpoints.families import huggingface_config
from vitreous.checkpoints.families.huggingface_config import CLIP, DEFAULTS, DEIT, GELUS, SIGLIP, VIT, model_of
from vitreous.checkpoints.families.shared.family import Family, Naming, block_count, prefixes, shape_of
from vitreous.checkpoints.families.shared.holds import Holds
from vitreous.checkpoints.families.shared.key_map import Rule, both, patch_convolution, rule
from vitreous.checkpoints.families.shared.reading import Reading, Shapes
from vitreous.checkpoints.families.shared.rules import BlockKeys, bias, block_rules, classifier, prefixed
from vitreous.checkpoints.families.shared.tokens import CLASS, DISTILLATION, REGISTERS, TokenKeys, token_rules
from vitreous.checkpoints.files.layout import CONFIG, PREPROCESSOR
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError


class Names(NamedTuple):
    """The names of a body's keys; those of a block's layers follow `block` with the block's number."""

    patch: str
    class_token: str
    positions: str
    block: str
    layers: BlockKeys
    norm: str

    @property
    def required_keys(self) -> tuple[str, ...]:
        """Keys that every file with these names has."""
        block = self.block.format(0)
        query = f"{block}{self.layers.qkv[0].format('weight')}"
        return (
            f"{self.patch}.weight",
            f"{block}{self.layers.attention_norm}.weight",
            query,
            f"{self.norm}.weight",
        )


DISK = Names(
    "embeddings.patch_embeddings.projection",
    "embeddings.cls_token",
    "embeddings.position_embeddings",
    "encoder.layer.{}.",
    BlockKeys(
        "layernorm_before",
        ("attention.attention.query.{}", "attention.attention.key.{}", "attention.attention.value.{}"),
        "attention.output.dense",
        "layernorm_after",
        "intermediate.dense",
        "output.dense",
    ),
    "layernorm",
)
MEMORY = DISK._replace(
    block="layers.{}.",
    layers=DISK.layers._replace(
        qkv=("attention.q_proj.{}", "attention.k_proj.{}", "attention.v_proj.{}"),
        out="attention.o_proj",
        fc1="mlp.fc1",
        fc2="mlp.fc2",
    ),
)
TOWER = Names(
    "embeddings.patch_embedding",
    "embeddings.class_embedding",
    "embeddings.position_embedding.weight",
    "encoder.layers.{}.",
    BlockKeys(
        "layer_norm1",
        ("self_attn.q_proj.{}", "self_attn.k_proj.{}", "self_attn.v_proj.{}"),
        "self_attn.out_proj",
        "layer_norm2",
        "mlp.fc1",
        "mlp.fc2",
    ),
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
class HuggingFaceNaming(Naming):
    """How a file names its keys.

    Args:
        body: further prefix of the body.
        in_memory: whether ViT and DeiT have their in-memory names, not those on disk.
    """

    body: str = ""
    in_memory: bool = False


class HuggingFace(Family):
    """transformers' ViTModel, DeiTModel, CLIPVisionModel and SiglipVisionModel, with or without a head.

    DeiT with one classifier has a distillation token that no classifier reads; it is loaded as a register.
    """

    name = "huggingface"
    title = "transformers"
    has_json = True
    required_keys = DISK.required_keys
    patch_keys = (f"{DISK.patch}.weight", f"{TOWER.patch}.weight")
    bodies = tuple(dict.fromkeys(BODIES.values()))
    drops: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"(text_model\.|text_projection\.|logit_scale$|logit_bias$)", "the text tower"),
        (r"(.*\.)?position_ids$", "position indices"),
        (r"(decoder\.0\.(weight|bias)$|(vit\.|deit\.)?embeddings\.mask_token$)", "masked pre-training"),
        (r"decoder\.(decoder_\w+\.|decoder_pos_embed$|mask_token$)", "MAE's decoder"),
    )
    holds = HOLDS[VIT]

    def missing_keys(self, shapes: Shapes) -> list[str]:
        """As for every family, for the nearest set of names."""
        _, _, missing = nearest_names(shapes)
        return missing

    def read(self, shapes: Shapes, reading: Reading) -> HuggingFaceNaming:
        names, prefix, _ = nearest_names(shapes)
        body = next((body for body in BODIES.values() if re.search(rf"(^|[./]){re.escape(body)}$", prefix)), "")
        root = prefix.removesuffix(body)
        drops = self.drops
        if any(f"{root}{name}.weight" in shapes for name in CLASSIFIERS[:2]):
            drops = (*drops, (rf"{re.escape(body)}(pooler|head)\.", "a pooling layer that the classifier does not use"))
        remaining = reading.drop(shapes, root, drops)
        inner = {key.removeprefix(body): shape for key, shape in remaining.items()}
        if names is TOWER and "pre_layrnorm.weight" in inner and "classifier.weight" in inner:
            cause = "CLIPForImageClassification pools patches without a norm, which vitreous cannot compute"
            raise InputError(cause, "save its encoder alone, as a CLIPVisionModel")
        self.read_shapes(inner, names, reading)
        self.read_head(inner, reading)
        self.read_tokens(inner, names, reading)
        self.guess(reading, SIGLIP if names is TOWER else VIT)
        return HuggingFaceNaming(root, body, in_memory=names is MEMORY)

    def read_shapes(self, inner: Shapes, names: Names, reading: Reading) -> None:
        """Patches, widths and depth."""
        fields, first = reading.fields, names.block.format(0)
        fields["width"], fields["channels"], *patch = shape_of(inner, f"{names.patch}.weight", 4)
        fields["patch_size"] = tuple(patch)
        fields["patch_bias"] = f"{names.patch}.bias" in inner
        fields["depth"] = block_count(inner, re.escape(names.block).replace(r"\{\}", r"(\d+)"))
        fields["mlp_dim"] = shape_of(inner, f"{first}{names.layers.fc1}.weight", 2)[0]
        fields["pre_norm"] = "pre_layrnorm.weight" in inner
        if f"{first}{names.layers.qkv[0].format('bias')}" not in inner:
            raise InputError("the file has no query, key and value biases", "only models with them can be read")

    def read_head(self, inner: Shapes, reading: Reading) -> None:
        """Classifier and the pooler's hidden layer."""
        fields = reading.fields
        classifier = next((name for name in CLASSIFIERS if f"{name}.weight" in inner), None)
        fields["num_classes"] = 0 if classifier is None else shape_of(inner, f"{classifier}.weight", 2)[0]
        fields["classifier_bias"] = classifier is None or f"{classifier}.bias" in inner
        fields["hidden_dim"] = shape_of(inner, "pooler.dense.weight", 2)[0] if "pooler.dense.weight" in inner else None

    def read_tokens(self, inner: Shapes, names: Names, reading: Reading) -> None:
        """Tokens before the patches, pooling, and image size."""
        fields = reading.fields
        extra = DISTILLATION_TOKEN in inner
        is_read = "distillation_classifier.weight" in inner or not (fields["num_classes"] or fields["hidden_dim"])
        fields["class_token"] = fields["position_class_slot"] = names.class_token in inner
        fields["distillation_token"], fields["registers"] = extra and is_read, int(extra and not is_read)
        if "head.probe" in inner:
            fields["pooling"] = "attention"
        elif fields["class_token"] or fields["num_classes"]:
            fields["pooling"] = "class_token" if fields["class_token"] else "mean"
        else:
            reading.guess("pooling", "mean", "there is no head; transformers returns the tokens")
        *_, length, _ = shape_of(inner, names.positions, 2 if names is TOWER else 3)
        reading.guess_image_size(length - fields["class_token"] - extra, fields["patch_size"])

    def guess(self, reading: Reading, model: str) -> None:
        """Fields that only a config.json records."""
        fields = reading.fields
        defaults = DEFAULTS[CLIP if fields["pre_norm"] else model]
        reading.guess("gelu", GELUS[defaults["hidden_act"]], "transformers' default")
        reading.guess("norm_eps", defaults["layer_norm_eps"], "transformers' default")
        reading.guess_heads(fields["width"], fields["depth"])
        fields["position_resampling"] = "bicubic"

    def unsupported(self, config: ViTConfig) -> list[str]:
        model, classes = model_of(config), config.num_classes > 0
        unsupported = HOLDS[model].unsupported(config)
        if model in (VIT, DEIT):
            unsupported += ["a tanh hidden layer before a classifier"] * (config.hidden_dim is not None and classes)
            unsupported += [f"{config.registers} registers"] * (config.registers > 1)
            unsupported += ["registers with a distillation token"] * (
                config.distillation_token and config.registers > 0
            )
        elif model == SIGLIP:
            unsupported += ["a classifier after attention pooling"] * (config.pooling == "attention" and classes)
            unsupported += ["mean pooling without a classifier"] * (config.pooling == "mean" and not classes)
        return unsupported

    def usual_naming(self, config: ViTConfig) -> HuggingFaceNaming:
        model = model_of(config)
        headless = model in (VIT, DEIT) and not config.num_classes
        return HuggingFaceNaming(body="" if headless else BODIES[model])

    def rules(self, config: ViTConfig, naming: HuggingFaceNaming) -> list[Rule]:
        names = TOWER if model_of(config) in (CLIP, SIGLIP) else MEMORY if naming.in_memory else DISK
        body = [*_embedding_rules(config, names), *_encoder_rules(config, names), *_pooling_rules(config)]
        return [*prefixed(naming.prefix + naming.body, body), *prefixed(naming.prefix, _classifier_rules(config))]

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return huggingface_config.default_preprocessing(config)

    def fields_from(self, config_json: Mapping[str, Any]) -> dict[str, Any]:
        return huggingface_config.fields_of(config_json)

    def preprocessing_from(
        self, config_json: Mapping[str, Any], preprocessor_json: Mapping[str, Any]
    ) -> Preprocessing | None:
        return huggingface_config.preprocessing_of(config_json, preprocessor_json)

    def class_names_from(self, config_json: Mapping[str, Any]) -> tuple[str, ...] | None:
        return huggingface_config.class_names_of(config_json)

    def config_files(
        self, config: ViTConfig, preprocessing: Preprocessing, class_names: Sequence[str] | None
    ) -> dict[str, Any]:
        return {
            CONFIG: huggingface_config.config_json(config, preprocessing, class_names),
            PREPROCESSOR: huggingface_config.preprocessor_json(config, preprocessing),
        }


def nearest_names(shapes: Shapes) -> tuple[Names, str, list[str]]:
    """The nearest set of names, their prefix in the file, and the required keys that are missing."""
    candidates = [
        (names, prefix, [key for key in names.required_keys if prefix + key not in shapes])
        for names in (DISK, MEMORY, TOWER)
        for prefix in prefixes(shapes, names.required_keys)[:1]
    ]
    return min(candidates, key=lambda candidate: len(candidate[2]), default=(DISK, "", list(DISK.required_keys)))


def _embedding_rules(c: ViTConfig, names: Names) -> Iterator[Rule]:
    """Patches, tokens and positions."""
    layout = patch_convolution(*c.patch_size, c.channels)
    yield rule("patch_embedding.projection.weight", f"{names.patch}.weight", layout=layout)
    if c.patch_bias or not c.pre_norm:
        yield from bias("patch_embedding.projection.bias", f"{names.patch}.bias", c.patch_bias, c.width)
    extra = DISTILLATION_TOKEN  # the distillation token, or a register
    yield from token_rules(c, TokenKeys(names.positions, names.class_token, extra, extra, ROWS, flat=names is TOWER))


def _encoder_rules(c: ViTConfig, names: Names) -> Iterator[Rule]:
    """The blocks, and the norms before and after them."""
    if c.pre_norm:
        yield from both("encoder.pre_norm", "pre_layrnorm")
    for i in range(c.depth):
        yield from block_rules(i, names.block.format(i), names.layers)
    yield from both("head.norm" if c.norm_after_pooling else "encoder.norm", names.norm)


def _pooling_rules(c: ViTConfig) -> Iterator[Rule]:
    """SigLIP's attention pooling, and ViT's pooler."""
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


def _classifier_rules(c: ViTConfig) -> Iterator[Rule]:
    """The classifiers, which are outside the body."""
    if not c.num_classes:
        return
    if c.pre_norm:
        yield rule("head.classifier.weight", "visual_projection.weight")
    elif c.distillation_token:
        yield from classifier("head.classifier", "cls_classifier", c)
        yield from classifier("head.distillation", "distillation_classifier", c)
    else:
        yield from classifier("head.classifier", "classifier", c)
