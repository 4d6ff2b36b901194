"""timm's VisionTransformer: its files, and the config.json that lies beside them on the hub."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vitreous.checkpoints.family import IMAGENET_MEAN, IMAGENET_STD, Holds
from vitreous.checkpoints.timm_table import ALL, TimmDialect, TimmTable
from vitreous.data.preprocessing import INTERPOLATIONS, Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError


class Timm(TimmTable):
    """timm's own files: on the hub a safetensors file with a config.json that names the architecture."""

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
    )

    def lacking(self, config: ViTConfig) -> list[str]:
        eps = 1e-5 if config.pre_norm else 1e-6  # which of them follows from the architecture
        return (
            super().lacking(config)
            + [f"eps {config.norm_eps:g}"] * (config.norm_eps in (1e-6, 1e-5) and config.norm_eps != eps)
            + ["registers beside a distillation token"] * (config.distillation_token and config.registers > 0)
        )

    def plain_dialect(self, config: ViTConfig) -> TimmDialect:
        slotless = config.position_embedding == "learned" and not config.position_class_slot
        rows = () if slotless and not config.distillation_token else ALL
        return TimmDialect(rows=rows, positioned=config.position_embedding != "none")

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return Preprocessing(config.image_size, "crop", 0.9, "bicubic")

    def fields_from(self, belongings: Mapping[str, Any]) -> dict[str, Any]:
        name = str(belongings.get("architecture", ""))
        fields: dict[str, Any] = {}
        if re.match(r"(vit|deit|deit3)_", name):
            fields = {"gelu": "exact", "norm_eps": 1e-5 if "_clip_" in name else 1e-6}
        fields |= {key: value for pattern, odd in ODD_ONES if re.match(pattern, name) for key, value in odd.items()}
        arguments = belongings.get("model_args")
        arguments = arguments if isinstance(arguments, dict) else {}
        for theirs, ours in ARGUMENTS.items():
            if theirs in arguments:
                fields[ours] = tuple(arguments[theirs]) if isinstance(arguments[theirs], list) else arguments[theirs]
        if arguments.get("act_layer") in ACTIVATIONS:
            fields["gelu"] = ACTIVATIONS[arguments["act_layer"]]
        pool = arguments.get("global_pool", belongings.get("global_pool"))
        return fields | ({"pooling": POOLINGS[pool]} if pool in POOLINGS else {})

    def preprocessing_from(
        self, belongings: Mapping[str, Any], preprocessor: Mapping[str, Any]
    ) -> Preprocessing | None:
        told = belongings.get("pretrained_cfg")
        if not isinstance(told, dict) or "input_size" not in told:
            return None
        try:
            channels, height, width = told["input_size"]
            plain = [told.get(name) or default for name, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))]
            interpolation = told.get("interpolation") or "bicubic"
            return Preprocessing(
                (height, width),
                "squash" if told.get("crop_mode") == "squash" else "crop",
                float(told.get("crop_pct") or 0.875),
                interpolation if interpolation in INTERPOLATIONS else "bicubic",
                mean=tuple(map(float, plain[0])),
                std=tuple(map(float, plain[1])),
                channels=channels,
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"config.json's pretrained_cfg makes no preprocessing: {error}", "mend it") from error

    def class_names_from(self, belongings: Mapping[str, Any]) -> tuple[str, ...] | None:
        told = belongings.get("pretrained_cfg")
        names = belongings.get("label_names") or (told.get("label_names") if isinstance(told, dict) else None)
        if isinstance(names, dict):  # by number
            names = [names.get(str(i)) for i in range(len(names))]
        return tuple(map(str, names)) if isinstance(names, list) and None not in names else None

    def notes(self, belongings: Mapping[str, Any]) -> list[str]:
        if "architecture" in belongings:
            return []
        return ["DeiT's and DINO's own files may have the same keys; say family deit or dino where it is theirs"]

    def belongings(
        self, config: ViTConfig, preprocessing: Preprocessing, class_names: Sequence[str] | None
    ) -> dict[str, Any]:
        c, p = config, preprocessing
        slotless = self.plain_dialect(c).rows == ()
        hidden = c.mlp_dim * (2 if c.mlp == "swiglu" else 1)
        arguments: dict[str, Any] = {
            "img_size": list(c.image_size),
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
        }
        if c.mlp == "mlp":
            arguments["act_layer"] = {gelu: name for name, gelu in ACTIVATIONS.items()}[c.gelu]
        told = {
            "input_size": [p.channels, *p.image_size],
            "fixed_input_size": True,
            "interpolation": p.interpolation,
            "crop_pct": p.crop_fraction,
            "crop_mode": "squash" if p.resize == "squash" else "center",
            "mean": list(p.mean),
            "std": list(p.std),
            "num_classes": c.num_classes,
            "first_conv": "patch_embed.proj",
            "classifier": ["head", "head_dist"] if c.distillation_token else "head",
        }
        names = {} if class_names is None else {"label_names": list(class_names)}
        whole = {
            "architecture": architecture(c),
            "num_classes": c.num_classes,
            "num_features": c.width,
            "global_pool": GLOBAL_POOLS[c.pooling],
            "model_args": arguments,
            "pretrained_cfg": told | names,
        }
        return {"config.json": whole}


# What the architecture's name says and the keys do not, where it is not the rule.
ODD_ONES: tuple[tuple[str, dict[str, Any]], ...] = (
    (r".*quickgelu", {"gelu": "quick"}),
    (r"vit_(base_patch32|giantopt_patch16|so400m_patch16)_siglip", {"gelu": "tanh"}),
    (r"vit_large_patch16_siglip(_gap)?_512", {"gelu": "tanh"}),
    (r"vit_giantopt_patch16_siglip", {"num_heads": 16}),
    (r"vit_base_patch16_gap_224", {"num_heads": 16}),
    (r"test_vit2?$", {"num_heads": 2}),
    (r"test_vit3$", {"num_heads": 3}),
)
ARGUMENTS = {"img_size": "image_size", "num_heads": "num_heads"}
ACTIVATIONS = {"gelu": "exact", "gelu_tanh": "tanh", "quick_gelu": "quick"}
POOLINGS = {"token": "class_token", "avg": "mean", "map": "attention"}
GLOBAL_POOLS = {pooling: name for name, pooling in POOLINGS.items()}


def architecture(c: ViTConfig) -> str:
    """The architecture of timm's whose class and fixed choices are the model's; the rest are its arguments."""
    if c.distillation_token:
        return "deit_base_distilled_patch16_224"
    if c.mlp == "swiglu":
        return "vit_giant_patch14_dinov2"
    return "vit_base_patch16_clip_224" if c.pre_norm else "vit_base_patch16_224"


def ratio(hidden: int, width: int) -> float:
    """A factor that gives the hidden width when it is multiplied and cut to a whole number."""
    exact = hidden / width
    return exact if int(width * exact) == hidden else (hidden + 0.5) / width
