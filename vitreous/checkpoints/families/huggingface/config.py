"""Reads transformers' config.json."""

from collections.abc import Mapping
from typing import Any

from vitreous.checkpoints.families.huggingface.kinds import (
    CLIP,
    CLIP_ALIKE,
    DINOV3,
    GELUS,
    KINDS,
    SIGLIP2,
    TOWERS,
)
from vitreous.model.config import is_integer
from vitreous.support.errors import InputError


def vision_part(config_json: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The model_type and the fields of a config.json's image model."""
    model = str(config_json.get("model_type", ""))
    model, config = TOWERS.get(model, model), dict(config_json)
    if isinstance(config_json.get("vision_config"), dict):
        config = dict(config_json["vision_config"])
        older = config_json.get("vision_config_dict")  # overrides the other
        config |= older if isinstance(older, dict) else {}
        model = str(config.get("model_type", model))
    return CLIP if model in CLIP_ALIKE else model, config


def check_model_type(config_json: Mapping[str, Any]) -> None:
    """Raises InputError for a config.json of transformers whose model_type is not supported."""
    model, _ = vision_part(config_json)
    if "model_type" in config_json and model not in KINDS:
        cause = f"config.json has model_type {model!r}, which vitreous does not support"
        raise InputError(cause, f"supported are {', '.join(KINDS)}")


def fields_of(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ViTConfig that a config.json records and the keys of the weights do not.

    Raises:
        InputError: the model computes something that vitreous does not support.
    """
    check_model_type(config_json)
    model, given = vision_part(config_json)
    config = {name: value for name, value in given.items() if value is not None}
    if model in KINDS:
        config = dict(KINDS[model].defaults) | config
        _check_values(model, config)
    fields = _gelu(model, config)
    for theirs, ours in (("layer_norm_eps", "norm_eps"), ("rms_norm_eps", "norm_eps")):
        fields |= {ours: config[theirs]} if theirs in config else {}
    fields |= {"num_heads": config["num_attention_heads"]} if "num_attention_heads" in config else {}
    size = config.get("image_size")
    if model == SIGLIP2:
        fields["channels"] = config.get("num_channels", 3)
        size = _siglip2_size(config)
    if size is not None:
        fields["image_size"] = (size, size) if is_integer(size) else tuple(size) if isinstance(size, list) else size
    return fields


def _check_values(model: str, config: Mapping[str, Any]) -> None:
    """Raises InputError for a field whose value makes a model that vitreous cannot compute."""
    flat = {**config, **(config["rope_parameters"] if isinstance(config.get("rope_parameters"), dict) else {})}
    for name, valid in {**KINDS[model].required, "pooler_act": ("tanh",)}.items():
        if name in flat and flat[name] not in valid:
            hint = f"only {' or '.join(map(str, valid))} is supported"
            raise InputError(f"config.json has {name} {flat[name]!r}", hint)


def _gelu(model: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The GELU, if there is one; the gated MLPs of DINOv3 and AIMv2 have SiLU."""
    act = config.get("hidden_act")
    if model == DINOV3 and config.get("use_gated_mlp"):
        if act != "silu":
            raise InputError(f"config.json has a gated MLP with hidden_act {act!r}", "only silu is supported there")
        return {}
    if act is None or (model in KINDS and act in KINDS[model].required.get("hidden_act", ())):
        return {}
    if str(act) not in GELUS:
        raise InputError(f"config.json has hidden_act {act!r}", f"supported are {', '.join(GELUS)}")
    return {"gelu": GELUS[str(act)]}


def _siglip2_size(config: Mapping[str, Any]) -> Any:
    """The size of the image whose plain grid has as many patches as the table of positions; None if there is none."""
    patches, patch = config.get("num_patches"), config.get("patch_size")
    if not isinstance(patches, int) or not isinstance(patch, int):
        return None
    side = round(max(patches, 0) ** 0.5)
    return side * patch if side**2 == patches else None


def notes_of(config_json: Mapping[str, Any]) -> list[str]:
    """Remarks for users on a model with this config.json."""
    model, _ = vision_part(config_json)
    if model == SIGLIP2:
        return ["SigLIP 2 keeps the aspect ratio of each image; here all have one size, as in the other SigLIPs"]
    return []


def class_names_of(config_json: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The class names in the order of their ids; None for transformers' placeholders, or if ids are missing."""
    labels = config_json.get("id2label")
    if not isinstance(labels, dict):
        return None
    named = {str(i): str(name) for i, name in labels.items()}
    if any(str(i) not in named for i in range(len(named))):
        return None
    names = tuple(named[str(i)] for i in range(len(named)))
    return None if names == placeholders(len(names)) else names


def placeholders(count: int) -> tuple[str, ...]:
    """Transformers' names of unnamed classes."""
    return tuple(f"LABEL_{i}" for i in range(count))
