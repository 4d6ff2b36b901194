"""The config.json of timm's Eva module: its architectures and arguments, read and written."""

import re
from collections.abc import Mapping
from typing import Any

from vitreous.checkpoints.families.timm.arguments import (
    GLOBAL_POOLS,
    arguments_of,
    no_vit,
    pooling_fields,
    size_fields,
)
from vitreous.checkpoints.families.timm.plain import ratio
from vitreous.model.config import ViTConfig, as_pair, check_count
from vitreous.support.errors import InputError

MODULE = r"eva_giant_|eva02_|vit_pe_|vit_.*_(rope|dinov3|lingbot|sapiens2)(_|$)"  # its architectures
GROUPED = r"_sapiens2(_|$)"  # those with grouped-query attention
WIDE_EPS = r"vit_pe_|vit_.*_(dinov3|lingbot)(_|$)"  # those with eps 1e-5

# Rotary positions: our name, and timm's arguments where they differ from the module's defaults.
ROPE = {
    "rope_type": "cat",
    "rope_grid_indexing": "ij",
    "rope_grid_offset": 0.0,
    "rope_temperature": 10000.0,
    "rope_rotate_half": False,
}
ROTARIES: dict[str, dict[str, Any]] = {
    "eva02": {},
    "axial": {"rope_grid_indexing": "xy", "rope_temperature": 100.0},
    "perception": {"rope_grid_indexing": "xy", "rope_grid_offset": 1.0},
    "perception_giant": {"rope_grid_indexing": "xy"},
    "mixed": {"rope_type": "mixed", "rope_grid_indexing": "xy", "rope_temperature": 10.0},
    "dinov3": {"rope_type": "dinov3", "rope_temperature": 100.0, "rope_rotate_half": True},
}
ON_A_GRID = ("eva02", "axial", "perception", "perception_giant")  # the kinds that ref_feat_shape scales


def rotary(kind: str, grid: int | None = None) -> dict[str, Any]:
    """The arguments of a kind of rotary positions."""
    return {"use_rot_pos_emb": True, "ref_feat_shape": grid} | ROTARIES[kind]


# timm's arguments by a pattern of the architecture's name, where they differ from the module's defaults and the file's
# keys do not show them. All patterns that match count, in this order.
ARCHITECTURES: tuple[tuple[str, dict[str, Any]], ...] = (
    (r".*_tiny_", {"num_heads": 3}),
    (r".*_small_", {"num_heads": 6}),
    (r".*_mediumd?_", {"num_heads": 8}),
    (r".*_betwixt_", {"num_heads": 10}),
    (r".*_base_", {"num_heads": 12}),
    (r".*_large_|.*_giant_|.*_gigantic_|.*_enormous_", {"num_heads": 16}),
    (r".*_huge_plus_", {"num_heads": 20}),
    (r".*_giant_patch16_lingbot", {"num_heads": 24}),
    (r".*_7b_", {"num_heads": 32}),
    (r"eva02_(tiny|small|base|large)_", rotary("eva02", 16)),
    (r"eva02_enormous_", {"use_post_norm": True}),
    (r"eva.*_clip_", {"global_pool": "token"}),
    (r"vit_.*_rope_reg\d_gap_", rotary("eva02", 16) | {"use_abs_pos_emb": False}),
    (r"vit_pe_", rotary("perception", 32)),
    (r"vit_pe_core_(tiny|small|large)_", {"ref_feat_shape": 24}),
    (r"vit_pe_core_base_", {"ref_feat_shape": 14}),
    (r"vit_pe_.*_gigantic_", {"rope_grid_offset": 0.0}),
    (r"vit_pe_core_", {"global_pool": "map", "attn_pool_num_heads": 8}),
    (r"vit_.*_rope_(ape_)?\d", rotary("axial") | {"global_pool": "token"}),
    (r"vit_.*_rope_mixed_", rotary("mixed") | {"global_pool": "token"}),
    (r"vit_.*_rope_(mixed_)?\d", {"use_abs_pos_emb": False}),
    (r"vit_.*_ape_", {"no_embed_class": True}),
    (r"vit_.*_(dinov3|lingbot)", rotary("dinov3") | {"use_abs_pos_emb": False}),
    (r"vit_.*_lingbot", {"global_pool": "token"}),
)
DEFAULTS = {"global_pool": "avg", "use_rot_pos_emb": False, "use_abs_pos_emb": True} | ROPE

READ = (
    *("no_embed_class", "use_post_norm", "attn_pool_num_heads"),
    *("use_abs_pos_emb", "use_rot_pos_emb", "ref_feat_shape", *ROPE),
)
IN_KEYS = (  # visible in the file's keys or shapes
    *("qkv_fused", "qk_norm", "swiglu_mlp", "swiglu_align_to", "scale_mlp", "scale_attn_inner", "attn_type"),
    *("class_token", "num_reg_tokens", "use_pre_transformer_norm", "use_post_transformer_norm", "use_fc_norm"),
    "attn_pool_mlp_ratio",
)
HARMLESS = (  # only for training
    *("rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords", "head_init_scale"),
)
IDLE = {"attn_only_layer_scale": False}  # harmless with this value only
NULLABLE = ("ref_feat_shape", "attn_pool_num_heads")


def fields_of(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """The config fields that a config.json of the Eva module records.

    Raises:
        InputError: an argument, or the architecture, is not supported.
    """
    name = str(config_json.get("architecture", ""))
    if re.search(GROUPED, name):
        cause = f"config.json has architecture {name!r}, which has grouped-query attention"
        raise InputError(cause, "only models with a key and a value for each query can be read")
    arguments = dict(DEFAULTS)
    for pattern, own in ARCHITECTURES:
        if re.match(pattern, name):
            arguments |= own
    usual_pool = str(arguments.pop("global_pool"))
    given = arguments_of(config_json, (*READ, *IN_KEYS, *HARMLESS), nullable=NULLABLE, idle=IDLE)
    arguments |= given
    fields: dict[str, Any] = {
        "gelu": "exact",
        "norm_eps": 1e-5 if re.match(WIDE_EPS, name) else 1e-6,
        "norm_site": "after" if arguments.get("use_post_norm") else "before",
        "position_class_slot": not arguments.get("no_embed_class"),
    }
    fields |= size_fields(arguments) | pooling_fields(given, config_json, usual_pool)
    try:
        if fields.get("pooling") == "attention":
            fields["pooling_heads"] = pooling_heads(arguments)
        return published_size(arguments, config_json) | fields | rotary_fields(arguments)
    except InputError as error:
        raise no_vit(error) from error


def pooling_heads(arguments: Mapping[str, Any]) -> int | None:
    """The heads of attention pooling; None for as many as in the blocks, which is timm's default."""
    heads = arguments.get("attn_pool_num_heads")
    if heads is None:
        return None
    check_count("attn_pool_num_heads", heads)
    return None if heads == arguments.get("num_heads") else heads


def rotary_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the positions. Raises InputError for rotary positions of another kind."""
    fields = {} if arguments["use_abs_pos_emb"] else {"position_embedding": "none"}
    if not arguments["use_rot_pos_emb"]:
        return fields | {"rotary": "none"}
    given = {name: arguments[name] for name in ROPE}
    if given["rope_type"] == "mixed":
        given["rope_temperature"] = ROTARIES["mixed"]["rope_temperature"]  # only of the initial frequencies
    for kind, own in ROTARIES.items():
        if given == ROPE | own:
            grid = arguments.get("ref_feat_shape") if kind in ON_A_GRID else None
            return fields | {"rotary": kind, "rotary_grid": None if grid is None else as_pair("ref_feat_shape", grid)}
    values = ", ".join(f"{name}={value!r:.100}" for name, value in given.items())
    raise InputError(f"rotary positions have {values}", f"supported are those of {', '.join(ROTARIES)}")


def published_size(arguments: Mapping[str, Any], config_json: Mapping[str, Any]) -> dict[str, Any]:
    """The image size of the published weights, if there is no position table to show that of the file."""
    pretrained = config_json.get("pretrained_cfg")
    size = pretrained.get("input_size") if isinstance(pretrained, dict) else None
    if arguments["use_abs_pos_emb"] or not isinstance(size, list | tuple) or len(size) != 3:
        return {}
    return {"image_size": as_pair("input_size", list(size[1:]))}


# The architecture to write for a kind of rotary positions: the arguments set all but its eps.
BASES = {
    "none": "eva_giant_patch14_224",
    "eva02": "eva02_base_patch14_224",
    "axial": "vit_base_patch16_rope_224",
    "perception": "vit_pe_core_base_patch16_224",
    "perception_giant": "vit_pe_core_gigantic_patch14_448",
    "mixed": "vit_base_patch16_rope_mixed_224",
    "dinov3": "vit_base_patch16_dinov3",
}
BY_EPS = {1e-6: BASES["none"], 1e-5: BASES["dinov3"]}


def architecture(c: ViTConfig) -> str:
    """The architecture of the Eva module with the model's eps, that of its rotary positions if possible."""
    own = BASES[c.rotary]
    return own if (1e-5 if re.match(WIDE_EPS, own) else 1e-6) == c.norm_eps else BY_EPS[c.norm_eps]


def arguments_for(c: ViTConfig, separate_qkv: bool, separate_gate: bool) -> dict[str, Any]:
    """All arguments of the Eva module for a model, except for image size, patches and channels.

    Args:
        c: the model's config.
        separate_qkv: whether queries, keys and values have layers of their own.
        separate_gate: whether the gate and the value of SwiGLU have.
    """
    pooled = c.pooling == "attention"
    return {
        "embed_dim": c.width,
        "depth": c.depth,
        "num_heads": c.num_heads,
        "qkv_bias": c.qkv_bias != "none",
        "qkv_fused": not separate_qkv,
        "qk_norm": c.query_key_norm == "head",
        "attn_type": "rope" if c.qkv_bias == "all" else "eva",  # only "rope" has a bias of k
        "mlp_ratio": ratio(c.mlp_dim, c.width),
        "swiglu_mlp": c.mlp == "swiglu",
        "swiglu_align_to": int(separate_gate),
        "scale_mlp": c.mlp_inner_norm,
        "scale_attn_inner": c.attention_inner_norm,
        "init_values": c.layer_scale,
        "use_post_norm": c.norm_site == "after",
        "use_pre_transformer_norm": c.pre_norm,
        "use_post_transformer_norm": c.final_norm and not c.norm_after_pooling,
        "use_fc_norm": c.final_norm and c.norm_after_pooling,
        "class_token": c.class_token,
        "num_reg_tokens": c.registers,
        "use_abs_pos_emb": c.position_embedding != "none",
        "no_embed_class": c.position_embedding == "learned" and not c.position_class_slot,
        "global_pool": GLOBAL_POOLS[c.pooling],
        "attn_pool_num_heads": (c.pooling_heads or c.num_heads) if pooled else None,
        "attn_pool_mlp_ratio": ratio(c.pooling_mlp_dim or c.mlp_dim, c.width) if pooled else None,
        "use_rot_pos_emb": c.rotary != "none",
        "ref_feat_shape": None if c.rotary_grid is None else list(c.rotary_grid),
    } | (ROPE | ROTARIES.get(c.rotary, {}))
