"""timm's VisionTransformer: its files, and the config.json next to them on the hub."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vitreous.checkpoints.families.shared.family import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from vitreous.checkpoints.families.shared.holds import Holds
from vitreous.checkpoints.families.shared.reading import Reading, Shapes
from vitreous.checkpoints.families.timm.arguments import (
    GLOBAL_POOLS,
    arguments_of,
    meaning_of,
    pooling_fields,
    size_fields,
)
from vitreous.checkpoints.families.timm.stem import HYBRIDS, ROOT, unsupported_stem
from vitreous.checkpoints.families.timm.table import ALL, TimmNaming, TimmTable
from vitreous.checkpoints.files.layout import CONFIG
from vitreous.data.preprocessing import INTERPOLATIONS, Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError


class Timm(TimmTable):
    """timm's own files; on the hub, a safetensors file with a config.json that names the architecture."""

    name = "timm"
    title = "timm"
    resampling = "bicubic_antialias"
    tables = (ALL, ())
    holds = Holds(
        gelu=("exact", "tanh", "quick"),
        norm_eps=(1e-6, 1e-5),
        mlp=("mlp", "swiglu"),
        layer_scale=(False, True),
        pre_norm=(False, True),
        class_token=(True, False),
        distillation_token=(False, True),
        registers=(False, True),
        pooling=("class_token", "mean", "attention"),
        norm_after_pooling=(False, True),
        norm=("layer", "rms"),
        norm_site=("before", "after"),
        final_norm=(True, False),
        embedding_norm=(False, True),
        qkv_bias=("all", "none"),
        query_key_norm=("none", "head"),
        attention_inner_norm=(False, True),
        mlp_inner_norm=(False, True),
        dense_bias=(True, False),
        stem=(False, True),
        stem_eps=("timm",),
    )

    def unsupported(self, config: ViTConfig) -> list[str]:
        c = config
        fixed = ARCHITECTURES[architecture(c)]
        after = c.norm_site == "after" and c.layer_scale is not None
        return (
            super().unsupported(c)
            + unsupported_stem(c)
            + [f"{name} {getattr(c, name)} in {architecture(c)}" for name in fixed if getattr(c, name) != fixed[name]]
            + ["LayerScale with norms after attention and MLP"] * after
            + [f"attention pooling beside {part}" for part in unlike_pooling(c)]
            + ["registers with a distillation token"] * (c.distillation_token and c.registers > 0)
        )

    def read(self, shapes: Shapes, reading: Reading) -> TimmNaming:
        if any(re.search(r"(^|[./])blocks\.0\.gamma_1$", key) for key in shapes):
            cause = "the file has the keys of DeiT-III (gamma_1), which timm's models with rotary positions share"
            raise InputError(cause, "set the family to deit if it is DeiT-III's; else add its config.json")
        naming = super().read(shapes, reading)
        fields = reading.fields
        unscaled = fields["layer_scale"] is None and not fields["class_token"] and fields["qkv_bias"] == "none"
        if unscaled and fields["norm"] == "layer" and "norm_site" not in reading.known:
            cause = "the keys do not record whether norms are before attention and MLP, or after (timm's rpn models)"
            raise InputError(cause, "add its config.json, or set norm_site=before or norm_site=after")
        if (unlike := unlike_pooling(reading.config())) and "pooling_heads" not in reading.known:
            cause = f"the file has attention pooling beside {' and '.join(unlike)}, whose layers there are not recorded"
            hint = "add its config.json; or set pooling_heads and gelu if it is of timm's Eva module"
            raise InputError(cause, hint)
        for name, value in open_choices(reading.config()).items():
            reading.guess(name, value, "as in timm's VisionTransformer; the keys do not record it")
        return naming

    def usual_naming(self, config: ViTConfig) -> TimmNaming:
        slotless = config.position_embedding == "learned" and not config.position_class_slot
        rows = () if slotless and not config.distillation_token else ALL
        gated = SEPARATE if architecture(config) == AIM else TimmNaming.gated
        return TimmNaming(rows=rows, positioned=config.position_embedding != "none", gated=gated)

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        if config.embedding_norm:  # AIMv2
            return Preprocessing(config.image_size, "crop", 1.0, "bicubic", mean=CLIP_MEAN, std=CLIP_STD)
        if config.mlp_inner_norm:  # BEiT-3
            return Preprocessing(config.image_size, "crop", 1.0, "bicubic", mean=IMAGENET_MEAN, std=IMAGENET_STD)
        return Preprocessing(config.image_size, "crop", 0.9, "bicubic")

    def fields_from(self, config_json: Mapping[str, Any]) -> dict[str, Any]:
        fields = super().fields_from(config_json)
        name = str(config_json.get("architecture", ""))
        if re.match(NAMES, name):
            fields |= {"gelu": "exact", "position_class_slot": not re.search(NO_ROWS, name)}
            fields |= {"norm_eps": 1e-5 if re.search(COARSE, name) else 1e-6}
            fields |= {"norm_site": "after" if "_rpn_" in name else "before"}
        fields |= {key: value for pattern, own in EXCEPTIONS if re.match(pattern, name) for key, value in own.items()}
        arguments = arguments_of(config_json, (*READ, *IN_KEYS, *HARMLESS))
        fields |= size_fields(arguments)
        if "norm_layer" in arguments:
            fields["norm"] = meaning_of("norm_layer", arguments["norm_layer"], NORMS)
            fields["norm_eps"] = 1e-6  # of timm's norms by name
        if "act_layer" in arguments:
            gelu = meaning_of("act_layer", arguments["act_layer"], GATES if re.match(SWIGLU, name) else ACTIVATIONS)
            fields["gelu"] = gelu or fields["gelu"]
        if "no_embed_class" in arguments:
            fields["position_class_slot"] = not arguments["no_embed_class"]
        if "pos_embed" in arguments and arguments["pos_embed"] in ("", "none"):
            fields["position_embedding"] = "none"
        pooling, whole = pooling_fields(arguments, config_json), arguments.get("pool_include_prefix")
        whole = name == "test_vit3" if whole is None else whole
        if whole is True and pooling.get("pooling") == "mean":
            cause = (
                "config.json has pool_include_prefix with global_pool 'avg': a mean over all tokens, not the patches"
            )
            raise InputError(cause, "use a model with pool_include_prefix=False, or with another global_pool")
        if pooling.get("pooling") == "attention" and whole is not True:  # read if there are no tokens but patches
            return fields
        return fields | pooling

    def preprocessing_from(
        self, config_json: Mapping[str, Any], preprocessor_json: Mapping[str, Any]
    ) -> Preprocessing | None:
        pretrained = pretrained_of(config_json)
        if "input_size" not in pretrained:
            return None
        try:
            channels, height, width = pretrained["input_size"]
            return Preprocessing(
                (height, width),
                meaning_of("crop_mode", pretrained.get("crop_mode") or "center", CROPS),
                float(pretrained.get("crop_pct") or 0.875),
                meaning_of(
                    "interpolation", pretrained.get("interpolation") or "bicubic", {n: n for n in INTERPOLATIONS}
                ),
                mean=tuple(map(float, pretrained.get("mean") or IMAGENET_MEAN)),
                std=tuple(map(float, pretrained.get("std") or IMAGENET_STD)),
                channels=channels,
            )
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            cause = f"config.json's pretrained_cfg does not describe a preprocessing: {error}"
            raise InputError(cause, "correct it, or remove it to use the default") from error

    def class_names_from(self, config_json: Mapping[str, Any]) -> tuple[str, ...] | None:
        pretrained = pretrained_of(config_json)
        names = config_json.get("label_names") or pretrained.get("label_names") or pretrained.get("labels")
        if isinstance(names, dict):  # by index
            names = [names.get(str(i)) for i in range(len(names))]
        return tuple(map(str, names)) if isinstance(names, list) and None not in names else None

    def notes(self, config: ViTConfig, config_json: Mapping[str, Any]) -> list[str]:
        c = config
        if "architecture" in config_json or c.position_embedding != "learned" or c.embedding_norm or c.mlp_inner_norm:
            return []
        return ["DeiT and DINO files may have the same keys: set the family to deit or dino if this is one"]

    def config_files(
        self, config: ViTConfig, preprocessing: Preprocessing, class_names: Sequence[str] | None
    ) -> dict[str, Any]:
        c, p = config, preprocessing
        usual = self.usual_naming(c)
        slotless = usual.rows == ()
        hidden = c.mlp_dim * (2 if c.mlp == "swiglu" and len(usual.gated) == 2 else 1)
        arguments: dict[str, Any] = {
            "img_size": [side + cut for side, cut in zip(c.image_size, p.trim, strict=True)],
            "patch_size": list(c.patch_size),
            "in_chans": c.channels,
            "embed_dim": c.width,
            "depth": c.depth,
            "num_heads": c.num_heads,
            "mlp_ratio": ratio(hidden, c.width),
            "init_values": c.layer_scale,
            "pre_norm": c.pre_norm,
            "class_token": c.class_token,
            "reg_tokens": c.registers,
            "pos_embed": "none" if c.position_embedding == "none" else "learn",
            "no_embed_class": slotless,
            "global_pool": GLOBAL_POOLS[c.pooling],
            "fc_norm": c.norm_after_pooling,
            "final_norm": c.final_norm,
            "qkv_bias": c.qkv_bias == "all",
            "qk_norm": c.query_key_norm == "head",
            "proj_bias": c.dense_bias,
            "scale_attn_norm": c.attention_inner_norm,
            "scale_mlp_norm": c.mlp_inner_norm,
        }
        if c.pooling == "attention":
            arguments["pool_include_prefix"] = c.prefix_tokens > 0
        if c.norm == "rms" and architecture(c) != AIM:
            arguments["norm_layer"] = "rmsnorm"
        if c.mlp == "mlp":
            arguments["act_layer"] = {gelu: name for name, gelu in ACTIVATIONS.items()}[c.gelu]
        pretrained = {
            "input_size": [p.channels, *p.whole_size],
            "fixed_input_size": True,
            "interpolation": p.interpolation,
            "crop_pct": p.crop_fraction,
            "crop_mode": "squash" if p.resize == "squash" else "center",
            "mean": list(p.mean),
            "std": list(p.std),
            "num_classes": c.num_classes,
            "first_conv": "patch_embed.proj" if c.stem_blocks is None else f"{ROOT[bool(c.stem_blocks)]}conv",
            "classifier": ["head", "head_dist"] if c.distillation_token else "head",
        }
        names = {} if class_names is None else {"label_names": list(class_names)}
        whole = {
            "architecture": architecture(c),
            "num_classes": c.num_classes,
            "num_features": c.width,
            "global_pool": GLOBAL_POOLS[c.pooling],
            "model_args": arguments,
            "pretrained_cfg": pretrained | names,
        }
        return {CONFIG: whole}


NO_ROWS = (  # architectures whose class token and registers have no rows in the position table
    r"^(deit3|flexivit)_|_reg\d_(dinov2|tipsv2)|_radio_|^vit_(?!so150m)\w+_reg\d_gap_|_xp_"
)

# Config fields of architectures that differ from the rest, by a pattern of their name.
EXCEPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    (r".*quickgelu", {"gelu": "quick"}),
    (r"vit_(base_patch32|giantopt_patch16|so400m_patch16)_siglip", {"gelu": "tanh"}),
    (r"vit_large_patch16_siglip(_gap)?_512", {"gelu": "tanh"}),
    (r"vit_giantopt_patch16_siglip", {"num_heads": 16}),
    (r"vit_base_patch16_gap_224", {"num_heads": 16}),
    (r"test_vit2?$", {"num_heads": 2}),
    (r"test_vit[34]$", {"num_heads": 3}),
    *(
        (rf"aimv2_{size}_", {"num_heads": heads})
        for size, heads in (("large", 8), ("huge", 12), ("1b", 16), ("3b", 24))
    ),
)
NAMES = r"(vit|deit3?|flexivit|beit3|aimv2|eva_large)_|test_vit\d?$"  # architectures of this module
COARSE = r"_clip_|^beit3_|^aimv2_"  # those whose norms have eps 1e-5
NORMS = {"layernorm": "layer", "rmsnorm": "rms"}
AIM = "aimv2_large_patch14_224"
SEPARATE = ("mlp.fc1_g", "mlp.fc1_x", "mlp.fc2")  # its gate and value have layers of their own

PLAIN = {"norm_eps": 1e-6, "norm_site": "before", "mlp": "mlp", "embedding_norm": False}

# What model_args cannot change, in the architectures that export names.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vit_base_patch16_224": {"norm_eps": 1e-6},
    "deit_base_distilled_patch16_224": PLAIN,
    "vit_base_patch16_clip_224": {"norm_eps": 1e-5, "norm": "layer"},
    "beit3_base_patch16_224": {"norm_eps": 1e-5, "norm": "layer"},
    "vit_giant_patch14_dinov2": {"norm_eps": 1e-6},
    "vit_base_patch16_rpn_224": {"norm_eps": 1e-6, "mlp": "mlp", "embedding_norm": False},
    **dict.fromkeys(HYBRIDS.values(), PLAIN | {"distillation_token": False}),
    AIM: {"norm_eps": 1e-5, "norm": "rms", "mlp": "swiglu", "embedding_norm": True},
}
SWIGLU = r"vit_giant_patch14_(reg\d_)?(dinov2|tipsv2)|aimv2_"  # the architectures whose MLP is gated
GATES = {"silu": None, "swish": None}  # activations of a gated MLP, which change nothing
READ = ("act_layer", "no_embed_class", "norm_layer", "pool_include_prefix")
IN_KEYS = (  # visible in the file's keys or shapes
    *("pos_embed", "class_token", "reg_tokens", "pre_norm", "final_norm", "fc_norm", "proj_bias"),
    *("qk_norm", "scale_attn_norm", "scale_mlp_norm"),
)
HARMLESS = ("weight_init", "fix_init")  # only for training
CROPS: dict[str, Literal["crop", "squash"]] = {"center": "crop", "squash": "squash"}
ACTIVATIONS = {"gelu": "exact", "gelu_tanh": "tanh", "quick_gelu": "quick"}


def pretrained_of(config_json: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pretrained_cfg of a config.json; older versions of timm wrote its entries at the top level."""
    flat = "architecture" in config_json and "pretrained_cfg" not in config_json
    pretrained = config_json if flat else config_json.get("pretrained_cfg")
    return pretrained if isinstance(pretrained, dict) else {}


def architecture(c: ViTConfig) -> str:
    """The timm architecture with the model's class and fixed choices; model_args set the rest."""
    if c.stem_blocks is not None:
        return HYBRIDS.get(c.stem_blocks, HYBRIDS[()])
    if c.distillation_token:
        return "deit_base_distilled_patch16_224"
    if c.norm_site == "after":
        return "vit_base_patch16_rpn_224"
    if c.embedding_norm or (c.norm == "rms" and c.norm_eps == 1e-5):
        return AIM
    if c.mlp == "swiglu":
        return "vit_giant_patch14_dinov2"
    if c.norm_eps == 1e-5:
        return "vit_base_patch16_clip_224" if c.pre_norm else "beit3_base_patch16_224"
    return "vit_base_patch16_224"


def unlike_pooling(c: ViTConfig) -> list[str]:
    """The parts of the blocks that VisionTransformer's attention pooling takes over, and ours does not.

    Ours has the paper's layers, as timm's Eva module; only the heads and the GELU are those of the blocks.
    """
    if c.pooling != "attention":
        return []
    return ["SwiGLU"] * (c.mlp == "swiglu") + ["RMSNorm"] * (c.norm == "rms")


def open_choices(c: ViTConfig) -> dict[str, str]:
    """The choices that another timm model with the same keys could have made otherwise.

    With LayerScale, the keys differ from those of norms after the branches and of rotary positions. Rotary positions
    also exclude what only VisionTransformer has: RMSNorm, distillation, a stem, and blocks without biases.
    """
    if c.layer_scale is not None:
        return {}
    alone = c.norm == "rms" or c.distillation_token or c.stem_blocks is not None or c.embedding_norm or not c.dense_bias
    return {"norm_site": "before"} | ({} if alone else {"rotary": "none"})


def ratio(hidden: int, width: int) -> float:
    """The mlp_ratio for which timm computes this hidden width."""
    exact = hidden / width
    return exact if int(width * exact) == hidden else (hidden + 0.5) / width
