"""The table of keys that timm's files share with those of DeiT, DINO, DINOv2 and MAE."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from vitreous.checkpoints.families.family import (
    Dialect,
    Family,
    Reading,
    Shapes,
    block_count,
    classifier,
    drop,
    prefixes,
    shape_of,
)
from vitreous.checkpoints.families.key_map import (
    QUERY_AND_REST,
    Rule,
    both,
    constant,
    patch_convolution,
    reshaped,
    rule,
)
from vitreous.checkpoints.families.tokens import CLASS, DISTILLATION, REGISTERS, TokenKeys, token_rules
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError

ALL = (CLASS, DISTILLATION, REGISTERS)
ROW = reshaped((1, 1, -1), (1, -1))  # DINOv2's mask token
ROTATED = r"_rope(_|$)|^vit_pe_"  # timm's architectures with rotary positions, of which the keys tell nothing


@dataclass(frozen=True)
class TimmDialect(Dialect):
    """How a file with timm's table spells its keys.

    Args:
        registers: key of the registers.
        scales: keys of the two LayerScales in a block.
        gated: keys of SwiGLU's two layers in a block.
        rows: tokens in front of the patches that have rows in the table of positions.
        positioned: whether there is such a table.
        masked: whether there is a mask token.
        chunk: blocks in one chunk, where blocks are numbered in chunks; 0 where they are not.
    """

    registers: str = "reg_token"
    scales: tuple[str, ...] = ("ls1.gamma", "ls2.gamma")
    gated: tuple[str, ...] = ("mlp.fc1", "mlp.fc2")
    rows: tuple[str, ...] = ALL
    positioned: bool = True
    masked: bool = False
    chunk: int = 0

    def block(self, i: int) -> str:
        """What stands in front of block i's keys."""
        return f"blocks.{i // self.chunk}.{i}." if self.chunk else f"blocks.{i}."


class TimmTable(Family):
    """What all files with timm's table have in common; the families differ in dialect and in what they hold.

    Attributes:
        eps: of the norms, with a norm before the encoder and without.
        resampling: of positions.
    """

    landmarks = (
        "patch_embed.proj.weight",
        "blocks.0.norm1.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.proj.weight",
    )
    drops: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"(optimizer|lr_scheduler|scheduler|scaler|amp_scaler|loss_scaler)/", "state of a training run"),
        (r"(state_dict_ema|model_ema|ema)/", "the running mean of the weights; those that were trained are the model"),
    )
    dialects = TimmDialect
    eps: ClassVar[float] = 1e-6
    resampling: ClassVar[str] = "bicubic"
    tables: ClassVar[tuple[tuple[str, ...], ...]] = ((CLASS, DISTILLATION),)  # rows of the table that are tried

    def strangers(self, shapes: Shapes) -> list[str]:
        """As for every family; blocks may also be numbered in chunks."""
        chunked = {re.sub(r"blocks\.0\.0\.", "blocks.0.", key): shape for key, shape in shapes.items()}
        return min(super().strangers(shapes), super().strangers(chunked), key=len)

    def prefix(self, shapes: Shapes) -> str:
        """What stands in front of the model's keys; one that a rule drops only where there is nothing else."""
        found = prefixes(shapes, self.landmarks[:1])
        return min(found, key=lambda p: any(re.match(pattern, p) for pattern, _ in self.drops))

    def fields_from(self, belongings: Mapping[str, Any]) -> dict[str, Any]:
        """Nothing; but the architecture may be one that has the same keys and is another function."""
        name = belongings.get("architecture")
        if isinstance(name, str) and re.search(ROTATED, name):
            cause = f"config.json says architecture {name!r}, which has rotary positions"
            raise InputError(cause, "only models whose positions are a table can be read")
        return {}

    def read(self, shapes: Shapes, reading: Reading) -> TimmDialect:
        prefix = self.prefix(shapes)
        inner = drop(reading, shapes, prefix, self.drops)
        dialect = self.spelling(inner, prefix)
        first, fields = dialect.block(0), reading.fields
        width, fields["channels"], *patch = shape_of(inner, "patch_embed.proj.weight", 4)
        fields["width"], fields["patch_size"] = width, tuple(patch)
        fields["patch_bias"] = "patch_embed.proj.bias" in inner
        pattern = r"blocks\.\d+\.(\d+)\." if dialect.chunk else r"blocks\.(\d+)\."
        fields["depth"] = block_count(inner, pattern)
        if f"{first}attn.qkv.bias" not in inner:
            raise InputError("the file has no biases of query, key and value", "only models that have them can be read")
        fc1, fc2 = (shape_of(inner, f"{first}{name}.weight", 2) for name in dialect.gated)
        fields["mlp_dim"], gated = fc2[1], fc1[0] != fc2[1]
        fields["mlp"] = "swiglu" if gated else "mlp"
        fields["layer_scale"] = 1e-5 if f"{first}{dialect.scales[0]}" in inner else None
        fields["pre_norm"] = "norm_pre.weight" in inner
        self.read_head(inner, reading)
        rows = self.read_tokens(inner, dialect, reading)
        if not gated or fields["pooling"] == "attention":
            reading.guess("gelu", "exact", f"{self.title}'s default")
        reading.guess("norm_eps", 1e-5 if fields["pre_norm"] else self.eps, f"{self.title}'s default")
        reading.guess_heads(width, fields["depth"])
        fields["position_resampling"] = self.resampling
        return replace(dialect, rows=rows, positioned="pos_embed" in inner, masked="mask_token" in inner)

    def spelling(self, inner: Shapes, prefix: str) -> TimmDialect:
        """The dialect, but for the rows of the position table."""
        chunks = [match for key in inner if (match := re.match(r"blocks\.0\.(\d+)\.", key))]
        block = "blocks.0.0." if chunks else "blocks.0."
        return TimmDialect(
            prefix,
            registers="register_tokens" if "register_tokens" in inner else "reg_token",
            scales=("gamma_1", "gamma_2") if f"{block}gamma_1" in inner else TimmDialect.scales,
            gated=("mlp.w12", "mlp.w3") if f"{block}mlp.w12.weight" in inner else TimmDialect.gated,
            chunk=len({match[1] for match in chunks}),
        )

    def read_head(self, inner: Shapes, reading: Reading) -> None:
        """Pooling, final norm and classifier."""
        fields = reading.fields
        fields["num_classes"] = shape_of(inner, "head.weight", 2)[0] if "head.weight" in inner else 0
        fields["classifier_bias"] = not fields["num_classes"] or "head.bias" in inner
        fields["class_token"] = "cls_token" in inner
        after = "fc_norm.weight" in inner
        if "attn_pool.latent" in inner:
            fields["pooling"] = "attention"
        elif not fields["class_token"] or after:
            fields["pooling"] = "mean"
        else:
            reading.guess(
                "pooling", "class_token", "there is a class token, and the final norm stands before the pooling"
            )
        fields["norm_after_pooling"] = after

    def read_tokens(self, inner: Shapes, dialect: TimmDialect, reading: Reading) -> tuple[str, ...]:
        """Tokens in front of the patches, positions and image size; returns the tokens that have rows in the table."""
        fields = reading.fields
        fields["distillation_token"] = "dist_token" in inner
        fields["registers"] = shape_of(inner, dialect.registers, 3)[1] if dialect.registers in inner else 0
        fields["mask_token"] = "mask_token" in inner
        counts = {
            CLASS: int(fields["class_token"]),
            DISTILLATION: int(fields["distillation_token"]),
            REGISTERS: fields["registers"],
        }
        if "pos_embed" not in inner:
            fields["position_embedding"] = "none"
            size = tuple(max(1, 224 // side) * side for side in fields["patch_size"])
            reading.guess("image_size", size, "there are no positions to tell it")
            return ()
        length = shape_of(inner, "pos_embed", 3)[1]
        if fields["pooling"] == "attention" and sum(counts.values()):
            raise InputError(
                "the file has attention pooling over the patches alone, beside a class token or registers",
                "only attention pooling over all tokens can be read",
            )
        rows = self.rows_of(length, counts, reading, fields["patch_size"])
        fields["position_class_slot"] = CLASS in rows
        reading.guess_image_size(length - sum(counts[name] for name in rows), fields["patch_size"])
        return rows

    def rows_of(
        self, length: int, counts: Mapping[str, int], reading: Reading, patch: tuple[int, ...]
    ) -> tuple[str, ...]:
        """Which tokens have rows in the table: the choice that leaves the grid.

        Raises:
            InputError: more than one does, and nothing that was given tells which.
        """
        given, fitting = reading.given, {}
        for rows in self.tables:
            patches = length - sum(counts[name] for name in rows)
            if "image_size" in given:
                height, width = given["image_size"]
                fits = patches == (height // patch[0]) * (width // patch[1])
            else:
                fits = patches > 0 and round(patches**0.5) ** 2 == patches
            if fits:
                fitting.setdefault(patches, rows)
        told = [rows for rows in fitting.values() if (CLASS in rows) == given.get("position_class_slot")]
        if len(fitting) > 1 and not told:
            sizes = [tuple(round(patches**0.5) * side for side in patch) for patches in fitting]
            raise InputError(
                f"of {length} positions none or some may be of the {sum(counts.values())} tokens before the patches",
                f"say which: {' or '.join(f'image_size={size}' for size in sizes)}",
            )
        return next(iter(told or fitting.values()), self.tables[0])

    def lacking(self, config: ViTConfig) -> list[str]:
        prefixed = config.prefix_tokens > 0 and config.pooling == "attention"
        biased = config.pre_norm and config.patch_bias
        return (
            super().lacking(config)
            + ["attention pooling over a class token or registers"] * prefixed
            + ["a bias of the patch projection beside a norm before the encoder"] * biased
        )

    def rules(self, config: ViTConfig, dialect: TimmDialect) -> list[Rule]:
        table = [*self.embedding_rules(config, dialect), *encoder_rules(config, dialect), *self.head_rules(config)]
        return [r._replace(theirs=tuple(dialect.prefix + key for key in r.theirs)) for r in table]

    def embedding_rules(self, c: ViTConfig, dialect: TimmDialect) -> Iterator[Rule]:
        """The rules in front of the encoder."""
        layout = patch_convolution(*c.patch_size, c.channels)
        yield rule("patch_embedding.projection.weight", "patch_embed.proj.weight", layout=layout)
        if c.patch_bias:
            yield rule("patch_embedding.projection.bias", "patch_embed.proj.bias")
        elif not c.pre_norm:
            yield Rule((), ("patch_embed.proj.bias",), constant(0.0, c.width))
        if c.mask_token:
            yield rule("mask_token", "mask_token", layout=ROW)
        elif dialect.masked:
            yield Rule((), ("mask_token",), constant(0.0, 1, c.width))
        positions = "pos_embed" if dialect.positioned or c.position_embedding != "none" else None
        yield from token_rules(c, TokenKeys(positions, registers=dialect.registers, rows=dialect.rows))

    def head_rules(self, c: ViTConfig) -> Iterator[Rule]:
        """The rules behind the encoder."""
        norm = "head.norm" if c.norm_after_pooling else "encoder.norm"
        yield from both(norm, "fc_norm" if c.norm_after_pooling else "norm")
        if c.pooling == "attention":
            ours, theirs = "head.pooling.", "attn_pool."
            yield rule(f"{ours}probe", f"{theirs}latent")
            for name in ("weight", "bias"):
                parts = f"{theirs}q.{name}", f"{theirs}kv.{name}"
                yield rule(f"{ours}attention.qkv.{name}", *parts, layout=QUERY_AND_REST)
            yield from both(f"{ours}attention.out", f"{theirs}proj")
            yield from both(f"{ours}norm", f"{theirs}norm")
            yield from both(f"{ours}mlp.fc1", f"{theirs}mlp.fc1")
            yield from both(f"{ours}mlp.fc2", f"{theirs}mlp.fc2")
        if c.num_classes:
            yield from classifier("head.classifier", "head", c)
            if c.distillation_token:
                yield from classifier("head.distillation", "head_dist", c)


def encoder_rules(c: ViTConfig, dialect: TimmDialect) -> Iterator[Rule]:
    """The rules of the encoder's blocks, and of the norm before them."""
    if c.pre_norm:
        yield from both("encoder.pre_norm", "norm_pre")
    for i in range(c.depth):
        ours, theirs = f"encoder.blocks.{i}.", dialect.block(i)
        yield from both(f"{ours}attention_norm", f"{theirs}norm1")
        yield from both(f"{ours}attention.qkv", f"{theirs}attn.qkv")
        yield from both(f"{ours}attention.out", f"{theirs}attn.proj")
        yield from both(f"{ours}mlp_norm", f"{theirs}norm2")
        fc1, fc2 = dialect.gated if c.mlp == "swiglu" else TimmDialect.gated
        yield from both(f"{ours}mlp.fc1", f"{theirs}{fc1}")
        yield from both(f"{ours}mlp.fc2", f"{theirs}{fc2}")
        if c.layer_scale is not None:
            yield rule(f"{ours}attention_scale.gamma", f"{theirs}{dialect.scales[0]}")
            yield rule(f"{ours}mlp_scale.gamma", f"{theirs}{dialect.scales[1]}")
