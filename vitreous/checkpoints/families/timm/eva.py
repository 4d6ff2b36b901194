"""timm's Eva module: EVA, EVA-02, Perception Encoder, DINOv3, LingBot-Vision, and ViTs with rotary positions.

Its files have the keys of timm's VisionTransformer, with some layers in parts. Neither the kind of rotary positions
nor the place of the norms is in the keys: the architecture that config.json names decides.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from vitreous.checkpoints.families.shared.family import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    shape_of,
)
from vitreous.checkpoints.families.shared.holds import ROTARY_WORDS, Holds
from vitreous.checkpoints.families.shared.key_map import Rule, rule
from vitreous.checkpoints.families.shared.reading import Reading, Shapes
from vitreous.checkpoints.families.shared.rules import prefixed
from vitreous.checkpoints.families.shared.split import Split, divided, merged
from vitreous.checkpoints.families.timm.eva_config import ON_A_GRID, ROTARIES, architecture, arguments_for, fields_of
from vitreous.checkpoints.families.timm.plain import Timm
from vitreous.checkpoints.families.timm.table import TimmNaming, TimmTable
from vitreous.checkpoints.files.layout import CONFIG
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError

SPLIT_QKV = Split("attn.qkv.weight", ("attn.q_proj.weight", "attn.k_proj.weight", "attn.v_proj.weight"))
SPLIT_QKV_BIAS = Split("attn.qkv.bias", ("attn.q_proj.bias", "attn.v_proj.bias"))
OWN_BIAS = Split("attn.qkv.bias", ("attn.q_bias", "attn.v_bias"))
SPLIT_GATE = tuple(Split(f"mlp.fc1.{name}", (f"mlp.fc1_g.{name}", f"mlp.fc1_x.{name}")) for name in ("weight", "bias"))
SPLITS = (SPLIT_QKV, SPLIT_QKV_BIAS, OWN_BIAS, *SPLIT_GATE)
KEY_BIAS = "attn.k_proj.bias"  # only in Sapiens2
KEYLESS = ("blocks.0.attn.q_bias", "blocks.0.attn.q_proj.bias")  # biases of q and v alone
EVA_WIDTHS = {1408: "before", 1792: "after"}  # the place of the norms in EVA's giant and in EVA-02-CLIP's enormous
HALF = (0.5, 0.5, 0.5)
OWN_KEYS = r"(^|[./])(blocks\.0\.(attn\.(q_bias|q_proj\.weight)|gamma_1)|rope\.freqs)$"


@dataclass(frozen=True)
class EvaNaming(TimmNaming):
    """How a file of the Eva or Beit module names its keys.

    Args:
        splits: the layers that it has in parts.
    """

    scales: tuple[str, ...] = ("gamma_1", "gamma_2")
    splits: tuple[Split, ...] = ()


class TimmEva(Timm):
    """Files of timm's Eva module."""

    pools_prefix = True
    holds = Holds(
        norm_eps=(1e-6, 1e-5),
        norm_site=("before", "after"),
        final_norm=(True, False),
        qkv_bias=("all", "no_key", "none"),
        query_key_norm=("none", "head"),
        attention_inner_norm=(False, True),
        mlp=("mlp", "swiglu"),
        mlp_inner_norm=(False, True),
        layer_scale=(False, True),
        pre_norm=(False, True),
        class_token=(True, False),
        registers=(False, True),
        rotary=("none", "eva02", "axial", "perception", "perception_giant", "mixed", "dinov3"),
        rotary_grid=(False, True),
        pooling=("class_token", "mean", "attention"),
        norm_after_pooling=(False, True),
        pooling_sizes=(False, True),
    )

    def claims(self, shapes: Shapes) -> bool:
        return any(re.search(OWN_KEYS, key) for key in shapes) and not self.missing_keys(shapes)

    def missing_keys(self, shapes: Shapes) -> list[str]:
        return super().missing_keys(merged(shapes, SPLITS))

    def spelling(self, inner: Shapes, prefix: str) -> TimmNaming:
        return TimmTable.spelling(self, inner, prefix)  # gamma_1 is the usual name here

    def read(self, shapes: Shapes, reading: Reading) -> EvaNaming:
        prefix = self.prefix(shapes)
        file = {key.removeprefix(prefix): shape for key, shape in shapes.items()}
        if any(key.endswith(KEY_BIAS) for key in file):
            cause = "the file has a bias of k in a layer of its own, as Sapiens2 has for its grouped-query attention"
            raise InputError(cause, "only models with a key and a value for each query can be read")
        splits = tuple(split for split in SPLITS if f"blocks.0.{split.parts[0]}" in file)
        rotary = reading.known.get("rotary") or rotary_of(file)
        guesses = usual_fields(rotary, file, reading.known)
        usual = {name: value for name, (value, _) in guesses.items()} | shown_fields(rotary, file)
        nested = replace(reading, known=usual | dict(reading.known), fields={}, guesses=[], dropped={})
        naming = TimmTable.read(self, merged(shapes, splits), nested)
        reading.fields |= nested.fields | shown_fields(rotary, file)
        for name, (value, why) in guesses.items():
            reading.guess(name, value, why)
        reading.guesses += nested.guesses
        reading.dropped |= nested.dropped
        if rotary != "mixed":  # whose frequencies are in the file
            reading.guess("rotary", rotary, "as in timm's models with these keys")
        if may_follow(reading.fields):
            reading.guess("norm_site", "before", "as in timm's models with rotary positions")
        if rotary in ("perception", "perception_giant"):
            sizes = zip(reading.fields["image_size"], reading.fields["patch_size"], strict=True)
            reading.guess("rotary_grid", tuple(side // step for side, step in sizes), "that of the position table")
        if OWN_BIAS in splits or SPLIT_QKV_BIAS in splits:
            reading.fields["qkv_bias"] = "no_key"
        return EvaNaming(**vars(naming), splits=splits)

    def unsupported(self, config: ViTConfig) -> list[str]:
        c = config
        after = c.norm_site == "after"
        return (
            self.holds.unsupported(c)
            + ["a bias of the patch projection with a norm before the encoder"] * (c.pre_norm and c.patch_bias)
            + ["LayerScale with norms after attention and MLP"] * (after and c.layer_scale is not None)
            + ["norms of query and key with norms after attention and MLP"] * (after and c.query_key_norm != "none")
            + [f"{ROTARY_WORDS[c.rotary]} scaled to a grid"] * (c.rotary not in ON_A_GRID and c.rotary_grid is not None)
        )

    def usual_naming(self, config: ViTConfig) -> EvaNaming:
        usual = super().usual_naming(config)
        gated = config.mlp == "swiglu"
        separate = gated and config.mlp_inner_norm and config.qkv_bias != "all"  # EVA-02, base and larger
        splits = [*(SPLIT_GATE if separate_gate(config) else ()), *((SPLIT_QKV,) if separate else ())]
        if config.qkv_bias == "no_key":
            splits.append(SPLIT_QKV_BIAS if separate else OWN_BIAS)
        rows, positioned = usual.rows, usual.positioned
        return EvaNaming(rows=rows, positioned=positioned, splits=tuple(splits))

    def rules(self, config: ViTConfig, naming: TimmNaming) -> list[Rule]:
        assert isinstance(naming, EvaNaming)
        table = super().rules(config, naming)
        if config.rotary == "mixed":
            table += prefixed(naming.prefix, [rule("rotary.frequencies", "rope.freqs")])
        pooling = f"{naming.prefix}attn_pool."  # whose layers are never in parts
        splits = [() if r.theirs[0].startswith(pooling) else naming.splits for r in table]
        return [part for r, own in zip(table, splits, strict=True) for part in divided([r], own)]

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        whole, large = 1.0, 1.0 if is_large(config) else 0.9
        resize: Literal["crop", "squash"] = "squash" if config.rotary == "none" and is_large(config) else "crop"
        match config.rotary:
            case "dinov3":
                crop, mean, std = whole, IMAGENET_MEAN, IMAGENET_STD
            case "perception" | "perception_giant":
                crop, mean, std = whole, HALF, HALF
            case "axial" | "mixed":
                crop, mean, std = large, IMAGENET_MEAN, IMAGENET_STD
            case "eva02" if config.position_embedding == "none":  # timm's own, with registers
                crop, mean, std = 0.95, HALF, HALF
            case _:  # EVA and EVA-02
                crop, mean, std = large, CLIP_MEAN, CLIP_STD
        return Preprocessing(config.image_size, resize, crop, "bicubic", mean=mean, std=std)

    def notes(self, config: ViTConfig, config_json: Mapping[str, Any]) -> list[str]:
        return []  # no other family has these keys

    def fields_from(self, config_json: Mapping[str, Any]) -> dict[str, Any]:
        return fields_of(config_json) if "architecture" in config_json else {}

    def config_files(
        self, config: ViTConfig, preprocessing: Preprocessing, class_names: Sequence[str] | None
    ) -> dict[str, Any]:
        files = super().config_files(config, preprocessing, class_names)
        shared = {name: files[CONFIG]["model_args"][name] for name in ("img_size", "patch_size", "in_chans")}
        separate_qkv = SPLIT_QKV in self.usual_naming(config).splits
        own = arguments_for(config, separate_qkv, separate_gate(config))
        return files | {CONFIG: files[CONFIG] | {"architecture": architecture(config), "model_args": shared | own}}


def is_large(c: ViTConfig) -> bool:
    """Whether images are larger than 224 pixels, where published models use all of the image instead of a crop."""
    return min(c.image_size) > 224


def separate_gate(c: ViTConfig) -> bool:
    """Whether the gate and the value of SwiGLU have layers of their own: in EVA-02's base and larger, and in DINOv3."""
    return c.mlp == "swiglu" and (c.mlp_inner_norm or (c.rotary == "dinov3" and c.norm_site == "before"))


def may_follow(fields: Mapping[str, Any]) -> bool:
    """Whether the norms may come after attention and MLP, for all that the keys show; nothing is said of it yet."""
    return "norm_site" not in fields and fields["layer_scale"] is None and fields["query_key_norm"] == "none"


def rotary_of(file: Shapes) -> str:
    """The kind of rotary positions that the keys of a file without config.json show.

    Raises:
        InputError: the keys are those of several architectures.
    """
    no_key, table = any(key in file for key in KEYLESS), "pos_embed" in file
    if "rope.freqs" in file:
        return "mixed"
    if "reg_token" in file and not table:
        return "dinov3" if "cls_token" in file else "eva02"  # timm's own vit_*_rope_reg*_gap have no class token
    if no_key and table:
        fc1, fc2 = file.get("blocks.0.mlp.fc1.weight"), file["blocks.0.mlp.fc2.weight"]
        return "eva02" if fc1 is None or fc1[0] != fc2[1] else "none"
    choices = f"set rotary to {', '.join(ROTARIES)} or none"
    if table and "blocks.0.gamma_1" in file:
        cause = "the file has the keys of DeiT-III (gamma_1), which timm's models with rotary positions share"
        raise InputError(cause, f"set the family to deit if it is DeiT-III's; else add its config.json, or {choices}")
    cause = "the file's keys do not record whether its positions are rotary, and of which kind"
    raise InputError(cause, f"add its config.json, or {choices}")


def shown_fields(rotary: str, file: Shapes) -> dict[str, Any]:
    """The fields that the keys of a file show once the kind of rotary positions is known."""
    fields: dict[str, Any] = {"rotary": rotary}
    if "pos_embed" not in file and rotary != "none":
        fields["position_embedding"] = "none"
    if "rope.freqs" in file:
        fields["num_heads"] = shape_of(file, "rope.freqs", 4)[2]
    return fields


def usual_fields(rotary: str, file: Shapes, known: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """The fields that no key shows, as published for this kind of rotary positions, each with the reason.

    Raises:
        InputError: two published architectures differ in a field that is not known.
    """
    width, _, *patch = shape_of(file, "patch_embed.proj.weight", 4)
    size = {} if "pos_embed" in file else {"image_size": tuple(max(1, 256 // side) * side for side in patch)}
    pooled = "attn_pool.latent" in file
    match rotary:
        case "dinov3":
            fields = {"norm_eps": 1e-5, "pooling": "mean"} | heads_of_dinov3(width) | size
            return {name: (value, "as in timm's DINOv3") for name, value in fields.items()}
        case "eva02":
            fields = {"rotary_grid": (16, 16), "norm_eps": 1e-6} | size
            return {
                name: (value, "as in EVA-02" if size == {} else "as in timm's vit_*_rope_reg*")
                for name, value in fields.items()
            }
        case "perception" | "perception_giant":
            heads = {"num_heads": 16} if rotary == "perception_giant" else {}
            fields = heads | ({"pooling_heads": 8} if pooled else {"pooling": "mean"})
            return {name: (value, "as in Perception Encoder") for name, value in fields.items()}
        case "none" if "norm_site" not in known:
            if width not in EVA_WIDTHS:
                cause = "the file does not record whether its norms come before or after attention and MLP"
                raise InputError(cause, "add its config.json, or set norm_site to before or after")
            site = EVA_WIDTHS[width]
            return {
                "norm_site": (site, f"as in EVA of width {width}"),
                "num_heads": (16, f"as in EVA of width {width}"),
            }
    return {}


def heads_of_dinov3(width: int) -> dict[str, int]:
    """The number of heads of a published DINOv3: 64 numbers in each, in the 7B model 128."""
    head_dim = 128 if width >= 4096 else 64
    return {} if width % head_dim else {"num_heads": width // head_dim}
