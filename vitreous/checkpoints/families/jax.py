"""The authors' own npz files: Google's (original, AugReg, hybrid, tanh head), big_vision's, and SigLIP's image tower.

All store kernels input-first, query, key and value apart and by head. They differ in the prefix of the keys, in how
layers are numbered, and in where positions stand; a JaxDialect holds that, so that export writes the same keys again.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vitreous.checkpoints.families.family import (
    Dialect,
    Family,
    Holds,
    Reading,
    Shapes,
    block_count,
    drop,
    prefixes,
    shape_of,
)
from vitreous.checkpoints.families.key_map import (
    HWIO,
    SAME,
    TRANSPOSED,
    Layout,
    Rule,
    constant,
    heads_bias,
    heads_in,
    heads_out,
    patch_kernel,
    reshaped,
    rule,
    stacked,
)
from vitreous.checkpoints.families.tokens import CLASS, TokenKeys, token_rules
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig

POSITIONS = ("Transformer/posembed_input/pos_embedding", "pos_embedding")
BLOCK, SCANNED = "Transformer/encoderblock_{}/", "Transformer/encoderblock/"
MAP_HEAD = "MAPHead_0/"
LINEN = (0, 0, 1, 0)


@dataclass(frozen=True)
class JaxDialect(Dialect):
    """How one file spells its keys.

    Args:
        numbering: suffixes of a block's first norm, attention, second norm and MLP.
        position_key: where the position table stands; empty where positions are computed.
        class_row: whether the class token has a row in it.
        norm_ones: leading axes of length 1 on the stem's norms (the first hybrid files).
        scanned: whether all blocks stand in one tensor, along a leading axis.
    """

    numbering: tuple[int, ...] = (0, 1, 2, 3)
    position_key: str = POSITIONS[0]
    class_row: bool = True
    norm_ones: int = 0
    scanned: bool = False


class JaxTable(Family):
    """What all of these files have in common."""

    kinds = ("npz",)
    landmarks = ("embedding/kernel", "embedding/bias", "Transformer/encoder_norm/scale")
    drops: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"(opt/state/|state/|extra/)", "state of a training run"),
        (r"params/(txt/|t$|b$)", "the text tower"),
    )
    dialects = JaxDialect

    def read(self, shapes: Shapes, reading: Reading) -> JaxDialect:
        prefix = prefixes(shapes, self.landmarks)[0]
        inner = drop(reading, shapes, prefix, self.drops)
        scanned = any(key.startswith(SCANNED) for key in inner)
        block = SCANNED if scanned else BLOCK.format(0)
        positions = next((key for key in POSITIONS if key in inner), "")
        gn_root = inner.get("gn_root/scale")
        dialect = JaxDialect(
            prefix,
            LINEN if f"{block}LayerNorm_1/scale" in inner else JaxDialect.numbering,
            positions,
            norm_ones=0 if gn_root is None else len(gn_root) - 1,
            scanned=scanned,
        )
        self.read_shapes(inner, dialect, reading)
        self.read_tokens(inner, positions, reading)
        reading.guess("gelu", "tanh", "the authors' code")
        reading.guess("norm_eps", 1e-6, "the authors' code")
        return JaxDialect(**(vars(dialect) | {"class_row": reading.fields["position_class_slot"]}))

    def read_shapes(self, inner: Shapes, dialect: JaxDialect, reading: Reading) -> None:
        """Widths, depth, heads and patches, all in the shapes."""
        _, attention, _, mlp = dialect.numbering
        fields, leading = reading.fields, int(dialect.scanned)
        block = SCANNED if dialect.scanned else BLOCK.format(0)
        *patch, channels, width = shape_of(inner, "embedding/kernel", 4)
        query = shape_of(inner, f"{block}MultiHeadDotProductAttention_{attention}/query/bias", 2 + leading)
        dense = shape_of(inner, f"{block}MlpBlock_{mlp}/Dense_0/bias", 1 + leading)
        fields["width"], fields["num_heads"], fields["mlp_dim"] = width, query[leading], dense[leading]
        fields["depth"] = query[0] if dialect.scanned else block_count(inner, r"Transformer/encoderblock_(\d+)/")
        fields["patch_size"], fields["channels"] = tuple(patch), channels
        fields["num_classes"] = shape_of(inner, "head/bias", 1)[0] if "head/bias" in inner else 0
        fields["hidden_dim"] = shape_of(inner, "pre_logits/bias", 1)[0] if "pre_logits/bias" in inner else None
        if "conv_root/kernel" in inner:
            units = [re.match(r"block(\d+)/unit(\d+)/conv1", key) for key in inner]
            stages = [int(match[1]) for match in units if match]
            fields["stem_blocks"] = tuple(stages.count(s) for s in range(1, max(stages, default=0) + 1))
            *_, fields["channels"], fields["stem_width"] = shape_of(inner, "conv_root/kernel", 4)

    def read_tokens(self, inner: Shapes, positions: str, reading: Reading) -> None:
        """Class token, positions, pooling and image size."""
        fields = reading.fields
        fields["class_token"] = "cls" in inner
        fields["pooling"] = "class_token" if fields["class_token"] else "mean"
        if f"{MAP_HEAD}probe" in inner:
            fields["pooling"] = "attention"
        stem = 4 * 2 ** max(0, len(fields["stem_blocks"]) - 1) if "stem_blocks" in fields else 1
        stride = fields["patch_size"][0] * stem, fields["patch_size"][1] * stem
        fields["position_class_slot"] = False
        if not positions:
            reading.guess("position_embedding", "sincos_2d", "there is no table of positions")
            reading.guess("image_size", tuple(max(1, 224 // s) * s for s in stride), "positions are computed")
            return
        count = shape_of(inner, positions, 3)[1]
        # With a class token, N + 1 rows hold one for it, N rows do not: only one of them makes the grid.
        row = fields["class_token"] and (positions == POSITIONS[0] or math.isqrt(count) ** 2 != count)
        fields["position_class_slot"] = row
        reading.guess_image_size(count - row, stride)

    def lacking(self, config: ViTConfig) -> list[str]:
        beside = config.class_token and config.pooling != "class_token"
        return super().lacking(config) + [f"{config.pooling} pooling beside a class token"] * beside

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return Preprocessing(config.image_size)

    def rules(self, config: ViTConfig, dialect: JaxDialect) -> list[Rule]:
        table = [
            *stem_rules(config, dialect),
            *embedding_rules(config, dialect),
            *encoder_rules(config, dialect),
            *head_rules(config),
        ]
        return [r._replace(theirs=tuple(dialect.prefix + key for key in r.theirs)) for r in table]


class Google(JaxTable):
    """google-research/vision_transformer: original, AugReg, hybrid."""

    name = "google"
    title = "Google's vision_transformer"
    holds = Holds(
        gelu=("tanh",),
        stem=(False, True),
        class_token=(True, False),
        pooling=("class_token", "mean"),
        hidden=(False, True),
    )


class BigVision(JaxTable):
    """big_vision: class token, mean or attention pooling; learned or sincos positions."""

    name = "big_vision"
    title = "big_vision"
    holds = Holds(
        gelu=("tanh",),
        class_token=(True, False),
        pooling=("class_token", "mean", "attention"),
        hidden=(False, True),
    )

    def claims(self, shapes: Shapes) -> bool:
        if not super().claims(shapes):
            return False
        prefix = prefixes(shapes, self.landmarks)[0]
        own = (f"{MAP_HEAD}probe", POSITIONS[1])
        unplaced = prefix + POSITIONS[0] not in shapes
        return prefix.startswith("params/") or unplaced or any(prefix + key in shapes for key in own)

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return Preprocessing(config.image_size, "crop", 0.875)

    def plain_dialect(self, config: ViTConfig) -> JaxDialect:
        computed = config.position_embedding == "sincos_2d" and config.sincos_exponent == "big_vision"
        slot = config.position_embedding == "learned" and config.position_class_slot
        return JaxDialect("params/", LINEN, "" if computed else POSITIONS[1], class_row=slot)


class SigLIP(BigVision):
    """SigLIP's image tower (arXiv 2303.15343) in big_vision's layout, with or without the text tower beside it."""

    name = "siglip"
    title = "SigLIP"
    holds = Holds(gelu=("tanh",), class_token=(False,), pooling=("attention",), classifier=(False,))

    def claims(self, shapes: Shapes) -> bool:
        return (
            super().claims(shapes) and f"params/img/{MAP_HEAD}probe" in shapes and "params/img/head/bias" not in shapes
        )

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return Preprocessing(config.image_size)

    def plain_dialect(self, config: ViTConfig) -> JaxDialect:
        return JaxDialect("params/img/", LINEN, POSITIONS[1], class_row=False)


def dense(ours: str, theirs: str, kernel: Layout = TRANSPOSED) -> Iterator[Rule]:
    """The rules of a dense layer."""
    yield rule(f"{ours}.weight", f"{theirs}/kernel", layout=kernel)
    yield rule(f"{ours}.bias", f"{theirs}/bias")


def norm(ours: str, theirs: str, layout: Layout = SAME) -> Iterator[Rule]:
    """The rules of a norm."""
    yield rule(f"{ours}.weight", f"{theirs}/scale", layout=layout)
    yield rule(f"{ours}.bias", f"{theirs}/bias", layout=layout)


def attention(ours: str, theirs: str, heads: int) -> Iterator[Rule]:
    """The rules of an attention."""
    parts = [f"{theirs}/{name}" for name in ("query", "key", "value")]
    yield rule(f"{ours}.qkv.weight", *(f"{part}/kernel" for part in parts), layout=heads_out(heads))
    yield rule(f"{ours}.qkv.bias", *(f"{part}/bias" for part in parts), layout=heads_bias(heads))
    yield from dense(f"{ours}.out", f"{theirs}/out", heads_in(heads))


def mlp(ours: str, theirs: str) -> Iterator[Rule]:
    """The rules of an MLP."""
    yield from dense(f"{ours}.fc1", f"{theirs}/Dense_0")
    yield from dense(f"{ours}.fc2", f"{theirs}/Dense_1")


def stem_rules(c: ViTConfig, dialect: JaxDialect) -> Iterator[Rule]:
    """The rules of the hybrid's ResNet."""
    if c.stem_blocks is None:
        return
    ones = (1,) * dialect.norm_ones
    layout = reshaped((-1,), (*ones, -1))
    yield rule("stem.conv.weight", "conv_root/kernel", layout=HWIO)
    yield from norm("stem.norm", "gn_root", layout)
    for s, units in enumerate(c.stem_blocks):
        for u in range(units):
            ours, theirs = f"stem.stages.{s}.{u}", f"block{s + 1}/unit{u + 1}"
            for i in (1, 2, 3):
                yield rule(f"{ours}.conv{i}.weight", f"{theirs}/conv{i}/kernel", layout=HWIO)
                yield from norm(f"{ours}.norm{i}", f"{theirs}/gn{i}", layout)
            if u == 0:
                yield rule(f"{ours}.shortcut.conv.weight", f"{theirs}/conv_proj/kernel", layout=HWIO)
                yield from norm(f"{ours}.shortcut.norm", f"{theirs}/gn_proj", layout)


def embedding_rules(c: ViTConfig, dialect: JaxDialect) -> Iterator[Rule]:
    """The rules in front of the encoder."""
    layout = patch_kernel(*c.patch_size, c.stem_channels)
    yield rule("patch_embedding.projection.weight", "embedding/kernel", layout=layout)
    if c.patch_bias:
        yield rule("patch_embedding.projection.bias", "embedding/bias")
    else:
        yield Rule((), ("embedding/bias",), constant(0.0, c.width))
    rows = (CLASS,) if dialect.class_row else ()
    yield from token_rules(c, TokenKeys(dialect.position_key or None, "cls", rows=rows))


def encoder_rules(c: ViTConfig, dialect: JaxDialect) -> Iterator[Rule]:
    """The rules of the encoder; in scanned files one for all blocks together."""
    if dialect.scanned:
        every = [list(block_rules(c, dialect, i, SCANNED)) for i in range(c.depth)]
        for same in zip(*every, strict=True):
            ours = tuple(name for r in same for name in r.ours)
            yield Rule(ours, same[0].theirs, stacked(same[0].layout, c.depth))
    else:
        for i in range(c.depth):
            yield from block_rules(c, dialect, i, BLOCK.format(i))
    yield from norm("encoder.norm" if not c.norm_after_pooling else "head.norm", "Transformer/encoder_norm")


def block_rules(c: ViTConfig, dialect: JaxDialect, i: int, theirs: str) -> Iterator[Rule]:
    """The rules of one block."""
    first_norm, msa, second_norm, dense_block = dialect.numbering
    ours = f"encoder.blocks.{i}."
    yield from norm(f"{ours}attention_norm", f"{theirs}LayerNorm_{first_norm}")
    yield from attention(f"{ours}attention", f"{theirs}MultiHeadDotProductAttention_{msa}", c.num_heads)
    yield from norm(f"{ours}mlp_norm", f"{theirs}LayerNorm_{second_norm}")
    yield from mlp(f"{ours}mlp", f"{theirs}MlpBlock_{dense_block}")


def head_rules(c: ViTConfig) -> Iterator[Rule]:
    """The rules behind the encoder."""
    if c.pooling == "attention":
        yield rule("head.pooling.probe", f"{MAP_HEAD}probe")
        yield from attention("head.pooling.attention", f"{MAP_HEAD}MultiHeadDotProductAttention_0", c.num_heads)
        yield from norm("head.pooling.norm", f"{MAP_HEAD}LayerNorm_0")
        yield from mlp("head.pooling.mlp", f"{MAP_HEAD}MlpBlock_0")
    if c.hidden_dim is not None:
        yield from dense("head.hidden", "pre_logits")
    if c.num_classes:
        yield rule("head.classifier.weight", "head/kernel", layout=TRANSPOSED)
        if c.classifier_bias:
            yield rule("head.classifier.bias", "head/bias")
        else:
            yield Rule((), ("head/bias",), constant(0.0, c.num_classes))
