"""The table of keys that timm's files share with those of DeiT, DINO, DINOv2 and MAE."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from vitreous.checkpoints.families.shared.family import Family, Naming, block_count, prefixes, shape_of
from vitreous.checkpoints.families.shared.key_map import (
    QUERY_AND_REST,
    Rule,
    both,
    constant,
    patch_convolution,
    reshaped,
    rule,
)
from vitreous.checkpoints.families.shared.reading import Reading, Shapes
from vitreous.checkpoints.families.shared.rules import BlockKeys, bias, block_rules, classifier, layer, prefixed
from vitreous.checkpoints.families.shared.tokens import CLASS, DISTILLATION, REGISTERS, TokenKeys, token_rules
from vitreous.checkpoints.families.timm.stem import stem_fields, stem_rules, stride_of
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError

ALL = (CLASS, DISTILLATION, REGISTERS)
GATED = (("mlp.w12", "mlp.w3"), ("mlp.fc1_g", "mlp.fc1_x", "mlp.fc2"))  # DINOv2's and AIMv2's
LAYERS = BlockKeys(
    *("norm1", ("attn.qkv.{}",), "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"),
    *("attn.q_norm", "attn.k_norm", "attn.norm", "mlp.norm"),
)
ROW = reshaped((1, 1, -1), (1, -1))  # DINOv2's mask token
ROTARY = r"_rope(_|$)|^vit_pe_"  # timm's architectures with rotary positions, which have the same keys
OTHERS = r"attn\.(q_bias|relative_position_bias_table)$|(^|[./])(rope\.freqs|storage_tokens|rel_pos_bias\..*)$"


@dataclass(frozen=True)
class TimmNaming(Naming):
    """How a file with timm's table names its keys.

    Args:
        registers: key of the registers.
        scales: keys of the two LayerScales in a block.
        gated: keys of SwiGLU's layers in a block: two, or three if gate and value have layers of their own.
        rows: tokens before the patches that have rows in the position table.
        positioned: whether there is a position table.
        masked: whether there is a mask token.
        chunk: blocks per chunk if blocks are numbered in chunks, else 0.
    """

    registers: str = "reg_token"
    scales: tuple[str, ...] = ("ls1.gamma", "ls2.gamma")
    gated: tuple[str, ...] = ("mlp.fc1", "mlp.fc2")
    rows: tuple[str, ...] = ALL
    positioned: bool = True
    masked: bool = False
    chunk: int = 0

    def block(self, i: int) -> str:
        """The prefix of block i's keys."""
        return f"blocks.{i // self.chunk}.{i}." if self.chunk else f"blocks.{i}."


class TimmTable(Family):
    """What the families with timm's table have in common; they differ in naming and in what they hold.

    Attributes:
        resampling: of positions.
        tables: the tokens that may have rows in the position table, the usual ones first.
        pools_prefix: whether attention pooling reads the tokens before the patches too.
    """

    has_json = True
    naming = TimmNaming()
    patch_keys = ("patch_embed.proj.weight",)
    required_keys = (
        "patch_embed.proj.weight",
        "blocks.0.norm1.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.proj.weight",
    )
    drops: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"(optimizer|lr_scheduler|scheduler|scaler|amp_scaler|loss_scaler)/", "state of a training run"),
        (r"(state_dict_ema|model_ema|ema)/", "averaged weights; the trained ones are the model"),
    )
    resampling: ClassVar[str] = "bicubic"
    tables: ClassVar[tuple[tuple[str, ...], ...]] = ((CLASS, DISTILLATION),)
    pools_prefix: ClassVar[bool] = False

    def claims(self, shapes: Shapes) -> bool:
        """As for every family, but the keys of layers that only other modules have exclude a file."""
        return super().claims(shapes) and not any(re.search(OTHERS, key) for key in shapes)

    def missing_keys(self, shapes: Shapes) -> list[str]:
        """As for every family, but blocks may be numbered in chunks."""
        chunked = {re.sub(r"blocks\.0\.0\.", "blocks.0.", key): shape for key, shape in shapes.items()}
        return min(super().missing_keys(shapes), super().missing_keys(chunked), key=len)

    def prefix(self, shapes: Shapes) -> str:
        """The prefix of the model's keys; one that `drops` matches only if there is no other."""
        candidates = prefixes(shapes, self.required_keys[:1])
        return min(candidates, key=lambda p: any(re.match(pattern, p) for pattern, _ in self.drops), default="")

    def fields_from(self, config_json: Mapping[str, Any]) -> dict[str, Any]:
        """No fields. Raises InputError for an architecture that has these keys but computes another function."""
        name = config_json.get("architecture")
        if isinstance(name, str) and re.search(ROTARY, name):
            cause = f"config.json has architecture {name!r}, which uses rotary positions"
            raise InputError(cause, "only models with a position table can be read")
        return {}

    def read(self, shapes: Shapes, reading: Reading) -> TimmNaming:
        prefix = self.prefix(shapes)
        inner = reading.drop(shapes, prefix, self.drops)
        naming = self.spelling(inner, prefix)
        first, fields = naming.block(0), reading.fields
        width, fields["channels"], *patch = shape_of(inner, "patch_embed.proj.weight", 4)
        fields["width"], fields["patch_size"] = width, tuple(patch)
        fields |= stem_fields(inner)
        fields["patch_bias"] = "patch_embed.proj.bias" in inner
        pattern = r"blocks\.\d+\.(\d+)\." if naming.chunk else r"blocks\.(\d+)\."
        fields["depth"] = block_count(inner, pattern)
        *fc1, fc2 = (shape_of(inner, f"{first}{name}.weight", 2) for name in naming.gated)
        fields["mlp_dim"], gated = fc2[1], len(fc1) == 2 or fc1[0][0] != fc2[1]
        fields["mlp"] = "swiglu" if gated else "mlp"
        fields["layer_scale"] = 1e-5 if f"{first}{naming.scales[0]}" in inner else None
        fields["pre_norm"] = "norm_pre.weight" in inner
        fields |= options_in(inner, first)
        self.read_head(inner, reading)
        rows = self.read_tokens(inner, naming, reading)
        if not gated or fields["pooling"] == "attention":
            reading.guess("gelu", "exact", f"{self.title}'s default")
        coarse = fields["pre_norm"] or fields["embedding_norm"] or fields["mlp_inner_norm"]  # CLIP, AIMv2 and BEiT-3
        reading.guess("norm_eps", 1e-5 if coarse else 1e-6, f"{self.title}'s default")
        if fields["embedding_norm"] and width % 128 == 0:
            reading.guess("num_heads", width // 128, "width / 128, as in AIMv2")
        else:
            reading.guess_heads(width, fields["depth"])
        fields["position_resampling"] = self.resampling
        positioned = "pos_embed" in inner and reading.known.get("position_embedding") != "none"
        return replace(naming, rows=rows, positioned=positioned, masked="mask_token" in inner)

    def spelling(self, inner: Shapes, prefix: str) -> TimmNaming:
        """The naming, except for the rows of the position table."""
        chunks = [match for key in inner if (match := re.match(r"blocks\.0\.(\d+)\.", key))]
        block = "blocks.0.0." if chunks else "blocks.0."
        return TimmNaming(
            prefix,
            registers="register_tokens" if "register_tokens" in inner else "reg_token",
            scales=("gamma_1", "gamma_2") if f"{block}gamma_1" in inner else TimmNaming.scales,
            gated=next((keys for keys in GATED if f"{block}{keys[0]}.weight" in inner), TimmNaming.gated),
            chunk=len({match[1] for match in chunks}),
        )

    def read_head(self, inner: Shapes, reading: Reading) -> None:
        """Pooling, final norm and classifier."""
        fields = reading.fields
        fields["num_classes"] = shape_of(inner, "head.weight", 2)[0] if "head.weight" in inner else 0
        fields["classifier_bias"] = not fields["num_classes"] or "head.bias" in inner
        fields["class_token"] = "cls_token" in inner
        after = "fc_norm.weight" in inner
        fields["final_norm"] = after or "norm.weight" in inner
        if "attn_pool.latent" in inner:
            fields["pooling"] = "attention"
            hidden = shape_of(inner, "attn_pool.mlp.fc1.weight", 2)[0]
            fields["pooling_mlp_dim"] = None if hidden == fields["mlp_dim"] else hidden
        elif not fields["class_token"]:
            fields["pooling"] = "mean"
        elif after:
            reading.guess("pooling", "mean", "there is a norm after the pooling")
        else:
            why = "there is a class token, and the final norm comes before the pooling"
            reading.guess("pooling", "class_token", why)
        fields["norm_after_pooling"] = after

    def read_tokens(self, inner: Shapes, naming: TimmNaming, reading: Reading) -> tuple[str, ...]:
        """Tokens before the patches, positions and image size; returns the tokens that have rows in the table."""
        fields = reading.fields
        fields["distillation_token"] = "dist_token" in inner
        fields["registers"] = shape_of(inner, naming.registers, 3)[1] if naming.registers in inner else 0
        fields["mask_token"] = "mask_token" in inner
        counts = {
            CLASS: int(fields["class_token"]),
            DISTILLATION: int(fields["distillation_token"]),
            REGISTERS: fields["registers"],
        }
        if "pos_embed" not in inner:
            self.read_no_table(reading)
            return ()
        length = shape_of(inner, "pos_embed", 3)[1]
        self.check_pooling(sum(counts.values()), reading)
        choices = {rows: sum(counts[name] for name in rows) for rows in self.row_choices(naming)}
        if (slot := reading.known.get("position_class_slot")) is not None:
            choices = {rows: count for rows, count in choices.items() if (CLASS in rows) == slot} or choices
        stride = stride_of(fields)
        rows = reading.choose_rows(length, choices, stride)
        fields["position_class_slot"] = CLASS in rows
        reading.guess_image_size(length - choices[rows], stride)
        return rows

    def check_pooling(self, prefix_tokens: int, reading: Reading) -> None:
        """Raises InputError for attention pooling that may be over the patches alone, unless it is known."""
        known = self.pools_prefix or reading.known.get("pooling") == "attention"
        if reading.fields["pooling"] == "attention" and prefix_tokens and not known:
            cause = "the file has a class token or registers, and attention pooling over the patches only"
            raise InputError(cause, "set pooling=attention if it is over all tokens (timm's pool_include_prefix)")

    def row_choices(self, naming: TimmNaming) -> tuple[tuple[str, ...], ...]:
        """The tokens that may have rows in the position table, the usual ones first."""
        return self.tables

    def read_no_table(self, reading: Reading) -> None:
        """Reads a file without a position table, which the family's models have.

        Raises:
            InputError: it is not known that the model has no positions.
        """
        known = reading.known
        if known.get("position_embedding") != "none" and known.get("rotary", "none") == "none":
            cause = f"the file has no position table (pos_embed), which {self.title}'s models have"
            hint = (
                "add its config.json if it has rotary or relative positions; set position_embedding=none if it has none"
            )
            raise InputError(cause, hint)
        reading.fields["position_embedding"] = "none"
        size = tuple(max(1, 224 // side) * side for side in stride_of(reading.fields))
        reading.guess("image_size", size, "there is no position table")

    def unsupported(self, config: ViTConfig) -> list[str]:
        biased = config.pre_norm and config.patch_bias
        return super().unsupported(config) + ["a bias of the patch projection with a norm before the encoder"] * biased

    def rules(self, config: ViTConfig, naming: TimmNaming) -> list[Rule]:
        table = [*_embedding_rules(config, naming), *_encoder_rules(config, naming), *_head_rules(config)]
        return prefixed(naming.prefix, table)


def options_in(inner: Shapes, first: str) -> dict[str, Any]:
    """The choices inside the blocks that the keys record."""
    return {
        "norm": "layer" if f"{first}norm1.bias" in inner else "rms",
        "qkv_bias": "all" if f"{first}attn.qkv.bias" in inner else "none",
        "query_key_norm": "head" if f"{first}attn.q_norm.weight" in inner else "none",
        "attention_inner_norm": f"{first}attn.norm.weight" in inner,
        "mlp_inner_norm": f"{first}mlp.norm.weight" in inner,
        "dense_bias": f"{first}attn.proj.bias" in inner,
        "embedding_norm": "patch_embed.norm.weight" in inner,
    }


def _embedding_rules(c: ViTConfig, naming: TimmNaming) -> Iterator[Rule]:
    """Patches, tokens and positions."""
    yield from stem_rules(c)
    layout = patch_convolution(*c.patch_size, c.stem_channels)
    yield rule("patch_embedding.projection.weight", "patch_embed.proj.weight", layout=layout)
    if c.patch_bias or not c.pre_norm:
        yield from bias("patch_embedding.projection.bias", "patch_embed.proj.bias", c.patch_bias, c.width)
    if c.embedding_norm:
        yield from layer("patch_embedding.norm", "patch_embed.norm", has_bias=c.norm == "layer")
    if c.mask_token:
        yield rule("mask_token", "mask_token", layout=ROW)
    elif naming.masked:
        yield Rule((), ("mask_token",), constant(0.0, 1, c.width))
    positions = "pos_embed" if naming.positioned or c.position_embedding != "none" else None
    yield from token_rules(c, TokenKeys(positions, registers=naming.registers, rows=naming.rows))


def _head_rules(c: ViTConfig) -> Iterator[Rule]:
    """Final norm, pooling and classifiers."""
    normed = c.norm == "layer"
    if c.final_norm:
        ours, theirs = ("head.norm", "fc_norm") if c.norm_after_pooling else ("encoder.norm", "norm")
        yield from layer(ours, theirs, has_bias=normed)
    if c.pooling == "attention":
        ours, theirs = "head.pooling.", "attn_pool."
        yield rule(f"{ours}probe", f"{theirs}latent")
        for name in ("weight", "bias"):
            parts = f"{theirs}q.{name}", f"{theirs}kv.{name}"
            yield rule(f"{ours}attention.qkv.{name}", *parts, layout=QUERY_AND_REST)
        yield from both(f"{ours}attention.out", f"{theirs}proj")
        yield from layer(f"{ours}norm", f"{theirs}norm", has_bias=normed)
        yield from both(f"{ours}mlp.fc1", f"{theirs}mlp.fc1")
        yield from both(f"{ours}mlp.fc2", f"{theirs}mlp.fc2")
    if c.num_classes:
        yield from classifier("head.classifier", "head", c)
        if c.distillation_token:
            yield from classifier("head.distillation", "head_dist", c)


def _encoder_rules(c: ViTConfig, naming: TimmNaming) -> Iterator[Rule]:
    """The norm before the blocks, and the blocks."""
    if c.pre_norm:
        yield from layer("encoder.pre_norm", "norm_pre", has_bias=c.norm == "layer")
    for i in range(c.depth):
        ours, theirs = f"encoder.blocks.{i}.", naming.block(i)
        *fc1, fc2 = naming.gated if c.mlp == "swiglu" else TimmNaming.gated
        keys = LAYERS._replace(fc1=fc1[0], fc2=fc2, gated=tuple(fc1) if len(fc1) == 2 else ())
        yield from block_rules(i, theirs, keys, c)
        if c.layer_scale is not None:
            yield rule(f"{ours}attention_scale.gamma", f"{theirs}{naming.scales[0]}")
            yield rule(f"{ours}mlp_scale.gamma", f"{theirs}{naming.scales[1]}")
