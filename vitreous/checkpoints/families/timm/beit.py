"""timm's Beit module: BEiT and BEiT v2, whose positions are learned biases of the attention logits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from vitreous.checkpoints.families.shared.family import shape_of
from vitreous.checkpoints.families.shared.holds import Holds
from vitreous.checkpoints.families.shared.key_map import Layout, Rule
from vitreous.checkpoints.families.shared.reading import Reading, Shapes
from vitreous.checkpoints.families.shared.rules import prefixed
from vitreous.checkpoints.families.timm import arguments as shared_arguments
from vitreous.checkpoints.families.timm.arguments import arguments_of, pooling_fields, size_fields
from vitreous.checkpoints.families.timm.eva import OWN_BIAS, SPLIT_GATE, EvaNaming, TimmEva, is_large
from vitreous.checkpoints.families.timm.table import TimmNaming
from vitreous.checkpoints.files.layout import CONFIG
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError

MODULE = r"beit(v2)?_"  # its architectures
TABLE = "attn.relative_position_bias_table"
SHARED = "rel_pos_bias.relative_position_bias_table"
EXTRA = 3  # rows of class to patch, patch to class, class to class
BIASES = "position_embedding.biases"
IN_KEYS = (  # visible in the file's keys or shapes
    *("swiglu_mlp", "scale_mlp", "use_abs_pos_emb", "use_rel_pos_bias", "use_shared_rel_pos_bias", "use_fc_norm"),
)
HARMLESS = ("head_init_scale",)  # only for training


class TimmBeit(TimmEva):
    """Files of timm's Beit module."""

    drops = (
        *TimmEva.drops,
        (r".*relative_position_index$", "indices into the bias tables, which are computed"),
        (r"mask_token$|lm_head\.", "for masked pre-training alone"),
    )
    holds = Holds(
        qkv_bias=("no_key", "none"),
        mlp=("mlp", "swiglu"),
        mlp_inner_norm=(False, True),
        layer_scale=(False, True),
        positions=(*Holds.positions, "relative_bias"),
        pooling=("class_token", "mean"),
        norm_after_pooling=(False, True),
    )

    def claims(self, shapes: Shapes) -> bool:
        biased = any(key.endswith((TABLE, SHARED)) for key in shapes)
        return biased and not self.missing_keys(shapes)

    def read(self, shapes: Shapes, reading: Reading) -> EvaNaming:
        prefix = self.prefix(shapes)
        inner = {key.removeprefix(prefix): shape for key, shape in shapes.items()}
        tables = {key: shape_of(inner, key, 2) for key in inner if key.endswith((f".{TABLE}", SHARED))}
        shared = SHARED in tables
        if shared and len(tables) > 1:
            raise InputError("the file has bias tables both in the blocks and for all", "only one kind can be read")
        if "pos_embed" in inner:
            raise InputError("the file has a position table and bias tables", "only one of the two can be read")
        rows, heads = next(iter(tables.values()))
        plain = {key: shape for key, shape in shapes.items() if key.removeprefix(prefix) not in tables}
        facts = FACTS | {"num_heads": heads, "position_embedding": "none", "image_size": (1, 1)}
        nested = replace(reading, known=dict(reading.known) | facts, fields={}, guesses=[], dropped={})
        naming = super().read(plain, nested)
        site = {"position_embedding": "relative_bias", "position_site": "shared" if shared else "every_layer"}
        reading.fields |= nested.fields | site
        reading.guesses += nested.guesses
        reading.dropped |= nested.dropped
        guess_grid(rows, reading)
        return naming

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return Preprocessing(config.image_size, "crop", 1.0 if is_large(config) else 0.9, "bicubic")

    def unsupported(self, config: ViTConfig) -> list[str]:
        return self.holds.unsupported(config)

    def usual_naming(self, config: ViTConfig) -> EvaNaming:
        splits = [
            *((OWN_BIAS,) if config.qkv_bias == "no_key" else ()),
            *(SPLIT_GATE if config.mlp == "swiglu" else ()),
        ]
        return EvaNaming(positioned=config.position_embedding not in ("none", "relative_bias"), splits=tuple(splits))

    def rules(self, config: ViTConfig, naming: TimmNaming) -> list[Rule]:
        if config.position_embedding != "relative_bias":
            return super().rules(config, naming)
        table = super().rules(config.replace(position_embedding="none", position_site="stem"), naming)
        keys = (
            [SHARED] if config.position_site == "shared" else [f"{naming.block(i)}{TABLE}" for i in range(config.depth)]
        )
        return [*table, *prefixed(naming.prefix, [Rule((BIASES,), tuple(keys), STACKED)])]

    def fields_from(self, config_json: Mapping[str, Any]) -> dict[str, Any]:
        arguments = arguments_of(config_json, (*IN_KEYS, *HARMLESS))
        given = {name: arguments.get(name, value) for name, value in POSITIONS.items()}
        fields = FACTS | ({} if any(given.values()) else {"position_embedding": "none"})
        fields |= {"norm_eps": 1e-6, "gelu": "exact"} | pooling_fields(arguments, config_json, "avg")
        return fields | size_fields(arguments)

    def config_files(
        self, config: ViTConfig, preprocessing: Preprocessing, class_names: Sequence[str] | None
    ) -> dict[str, Any]:
        files = super().config_files(config, preprocessing, class_names)
        c, whole = config, files[CONFIG]
        biased = c.position_embedding == "relative_bias"
        known = (*shared_arguments.READ, *shared_arguments.IN_KEYS, *IN_KEYS)
        arguments = {name: value for name, value in whole["model_args"].items() if name in known}
        arguments |= {
            "use_abs_pos_emb": c.position_embedding not in ("none", "relative_bias"),
            "use_rel_pos_bias": biased and c.position_site == "every_layer",
            "use_shared_rel_pos_bias": biased and c.position_site == "shared",
        }
        return files | {CONFIG: whole | {"architecture": "beit_base_patch16_224", "model_args": arguments}}


# The arguments of positions, with the values of all architectures.
POSITIONS = {"use_abs_pos_emb": False, "use_rel_pos_bias": True, "use_shared_rel_pos_bias": False}
FACTS: dict[str, Any] = {"rotary": "none", "norm_site": "before"}  # of every Beit
STACKED = Layout(lambda t: [torch.stack(list(t))], lambda t: list(t[0].unbind()))


def guess_grid(rows: int, reading: Reading) -> None:
    """Guesses a square grid from the rows of a bias table: one for each offset, and three for the class token.

    Raises:
        InputError: the offsets are not those of a square, and no image size is known.
    """
    offsets = rows - EXTRA
    extent = round(max(offsets, 0) ** 0.5)  # 2 R - 1
    if "image_size" not in reading.known and (extent**2 != offsets or extent % 2 == 0):
        raise InputError(f"a table of {rows} biases is not that of a square grid", "set image_size=(height, width)")
    reading.guess_image_size(((extent + 1) // 2) ** 2, reading.fields["patch_size"])
