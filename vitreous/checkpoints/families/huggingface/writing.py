"""Writes transformers' config.json, and names the keys of the file next to it."""

from collections.abc import Sequence
from typing import Any

from vitreous.checkpoints.families.huggingface.config import placeholders
from vitreous.checkpoints.families.huggingface.kinds import (
    AIMV2,
    BEIT,
    CLIP,
    DATA2VEC,
    DEIT,
    DINOV2,
    DINOV2_REGISTERS,
    DINOV3,
    GELUS,
    INTERNVL,
    KINDS,
    MLCD,
    SIGLIP,
    VIT,
    kind_for,
    mlp_ratio,
)
from vitreous.checkpoints.families.huggingface.rules import HuggingFaceNaming
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig

TOWERS = (CLIP, SIGLIP)  # whose files have the body's prefix even if there is no head
ALWAYS_MASKED = {DINOV2_REGISTERS: (1,), DINOV3: (1, 1)}  # kinds that always have a mask token, and its first axes
OPTIONAL_TABLE = (BEIT, DATA2VEC, INTERNVL)  # kinds that may have no table of positions
ACTS = {gelu: name for name, gelu in reversed(GELUS.items())}


def naming_of(c: ViTConfig) -> HuggingFaceNaming:
    """How transformers itself names the keys of a model."""
    kind = kind_for(c)
    positioned = kind not in (DINOV3, MLCD)
    if kind in OPTIONAL_TABLE:
        positioned = c.position_embedding not in ("none", "relative_bias")
    elif kind == AIMV2:
        positioned = not _is_native(c)
    axes = ALWAYS_MASKED.get(kind, (1,) if kind == DINOV2 else (1, 1))
    return HuggingFaceNaming(
        body=KINDS[kind].body if c.num_classes or kind in TOWERS else "",
        layout=KINDS[kind].layout,
        positioned=positioned,
        mask_shape=(*axes, c.width) if c.mask_token or kind in ALWAYS_MASKED else None,
        register_key=kind in ALWAYS_MASKED,
        after=kind == BEIT and c.pooling == "mean",
        unused_norm=kind == CLIP,
    )


def config_json(c: ViTConfig, p: Preprocessing, class_names: Sequence[str] | None) -> dict[str, Any]:
    """The config.json of a model that transformers can hold."""
    kind = kind_for(c)
    size = [side + cut for side, cut in zip(c.image_size, p.trim, strict=True)]
    square = size[0] == size[1] and c.patch_size[0] == c.patch_size[1]
    vision: dict[str, Any] = {
        "model_type": kind,
        "hidden_size": c.width,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.num_heads,
        "intermediate_size": c.mlp_dim,
        "hidden_act": ACTS[c.gelu],
        "layer_norm_eps": c.norm_eps,
        "image_size": size[0] if square else size,
        "patch_size": c.patch_size[0] if square else list(c.patch_size),
        "num_channels": c.channels,
    }
    vision |= _own_fields(kind, c)
    if kind in TOWERS and c.num_classes and c.pooling == "mean":
        outer = {"model_type": "clip" if kind == CLIP else "siglip", "vision_config": vision}
        return {"architectures": [f"{KINDS[kind].classes}ForImageClassification"]} | outer | labels(c, class_names)
    named = {"architectures": [_class_name(kind, c)]} | vision
    return named | (labels(c, class_names) if c.num_classes and kind != CLIP else {})


def _class_name(kind: str, c: ViTConfig) -> str:
    """The name of transformers' class."""
    classes = KINDS[kind].classes
    if kind in TOWERS:
        return f"{classes}VisionModel" + ("WithProjection" if c.num_classes else "")
    task = "ForImageClassification" if c.num_classes else "Model"
    return classes + task + ("WithTeacher" if c.num_classes and c.distillation_token else "")


def _own_fields(kind: str, c: ViTConfig) -> dict[str, Any]:
    """The fields that only this kind has."""
    gated, biased = c.mlp == "swiglu", c.qkv_bias == "all"
    if kind == CLIP:
        return {"projection_dim": c.num_classes} if c.num_classes and c.pooling != "mean" else {}
    if kind == SIGLIP:
        return {"vision_use_head": c.pooling == "attention"}
    if kind in (DINOV2, DINOV2_REGISTERS):
        own = {"use_mask_token": c.mask_token} if kind == DINOV2 else {"num_register_tokens": c.registers}
        return {"mlp_ratio": mlp_ratio(c), "qkv_bias": biased, "use_swiglu_ffn": gated} | own
    if kind == DINOV3:
        biases = {"query_bias": c.qkv_bias != "none", "key_bias": biased, "value_bias": c.qkv_bias != "none"}
        act = {"hidden_act": "silu"} if gated else {}
        return {"use_gated_mlp": gated, "num_register_tokens": c.registers, "rope_theta": 100.0} | biases | act
    if kind in (BEIT, DATA2VEC):
        return _beit_fields(c)
    if kind == INTERNVL:
        return {
            "use_mask_token": c.mask_token,
            "use_mean_pooling": not c.final_norm,
            "use_absolute_position_embeddings": c.position_embedding != "none",
            "norm_type": {"layer": "layer_norm", "rms": "rms_norm"}[c.norm],
            "use_qk_norm": c.query_key_norm == "width",
            "attention_bias": biased,
        }
    if kind == MLCD:
        return {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "axial"}}
    if kind == AIMV2:
        biases = {"qkv_bias": biased, "mlp_bias": c.dense_bias}
        return {
            "hidden_act": "silu",
            "rms_norm_eps": c.norm_eps,
            "use_head": False,
            "is_native": _is_native(c),
        } | biases
    pooler = {"pooler_output_size": c.hidden_dim, "pooler_act": "tanh"} if c.hidden_dim is not None else {}
    return {"qkv_bias": biased} | (pooler if kind in (VIT, DEIT) else {})


def _beit_fields(c: ViTConfig) -> dict[str, Any]:
    """The fields of BEiT and data2vec."""
    relative = c.position_embedding == "relative_bias"
    initial = 0.0 if c.layer_scale is None else max(c.layer_scale, 1e-6)  # 0 stands for no LayerScale
    return {
        "use_mask_token": c.mask_token,
        "use_mean_pooling": c.pooling == "mean",
        "use_absolute_position_embeddings": c.position_embedding == "learned",
        "use_relative_position_bias": relative and c.position_site == "every_layer",
        "use_shared_relative_position_bias": relative and c.position_site == "shared",
        "layer_scale_init_value": initial,
    }


def _is_native(c: ViTConfig) -> bool:
    """Whether AIMv2 computes its positions, for any image size."""
    return c.position_embedding == "sincos_2d" and c.sincos_exponent == "mae"


def labels(c: ViTConfig, class_names: Sequence[str] | None) -> dict[str, Any]:
    """The class names as in a config.json, which also sets the number of classes."""
    names = class_names if class_names is not None else placeholders(c.num_classes)
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
