"""The npz files of the paper's authors: Google's (original, AugReg, hybrid, tanh head), big_vision's, and SigLIP's.

All store kernels input first, and query, key and value separately and by head. They differ in the prefix of the keys,
in how layers are numbered, and in where the positions are: a JaxNaming.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from vitreous.checkpoints.families.shared.family import Family, Naming, block_count, prefixes, shape_of
from vitreous.checkpoints.families.shared.holds import POOLINGS, Holds
from vitreous.checkpoints.families.shared.key_map import (
    HWIO,
    SAME,
    TRANSPOSED,
    Layout,
    Rule,
    output_kernel,
    patch_kernel,
    qkv_bias,
    qkv_kernel,
    reshaped,
    rule,
    stacked,
)
from vitreous.checkpoints.families.shared.reading import Reading, Shapes, is_square
from vitreous.checkpoints.families.shared.rules import bias, prefixed
from vitreous.checkpoints.families.shared.tokens import CLASS, TokenKeys, token_rules
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError

POSITIONS = ("Transformer/posembed_input/pos_embedding", "pos_embedding")
BLOCK, SCANNED = "Transformer/encoderblock_{}/", "Transformer/encoderblock/"
MAP_HEAD = "MAPHead_0/"
LINEN = (0, 0, 1, 0)


@dataclass(frozen=True)
class JaxNaming(Naming):
    """How a file names its keys.

    Args:
        numbering: suffixes of a block's first norm, attention, second norm and MLP.
        position_key: of the position table; empty if positions are computed.
        class_row: whether the table has a row for the class token.
        norm_ones: leading axes of length 1 on the stem's norms (the first hybrid files).
        scanned: whether one tensor holds all blocks, along a leading axis.
    """

    numbering: tuple[int, ...] = (0, 1, 2, 3)
    position_key: str = POSITIONS[0]
    class_row: bool = True
    norm_ones: int = 0
    scanned: bool = False


class JaxTable(Family):
    """What these families have in common.

    Attributes:
        computed: whether a file without a position table has computed positions.
    """

    computed: ClassVar[bool] = False
    kinds = ("npz",)
    naming = JaxNaming()
    patch_keys = ("embedding/kernel",)
    bodies = ("img/",)
    required_keys = ("embedding/kernel", "embedding/bias", "Transformer/encoder_norm/scale")
    drops: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"(opt/state/|state/|extra/)", "state of a training run"),
        (r"params/(txt/|t$|b$)", "the text tower"),
    )

    def read(self, shapes: Shapes, reading: Reading) -> JaxNaming:
        prefix = prefixes(shapes, self.required_keys)[0]
        inner = reading.drop(shapes, prefix, self.drops)
        scanned = any(key.startswith(SCANNED) for key in inner)
        block = SCANNED if scanned else BLOCK.format(0)
        positions = next((key for key in POSITIONS if key in inner), "")
        gn_root = inner.get("gn_root/scale")
        naming = JaxNaming(
            prefix,
            LINEN if f"{block}LayerNorm_1/scale" in inner else JaxNaming.numbering,
            positions,
            norm_ones=0 if gn_root is None else len(gn_root) - 1,
            scanned=scanned,
        )
        self.read_shapes(inner, naming, reading)
        self.read_tokens(inner, positions, reading)
        reading.guess("gelu", "tanh", "the authors' code")
        reading.guess("norm_eps", 1e-6, "the authors' code")
        return replace(naming, class_row=reading.fields["position_class_slot"])

    def read_shapes(self, inner: Shapes, naming: JaxNaming, reading: Reading) -> None:
        """Widths, depth, heads and patches, which the shapes determine."""
        _, attention, _, mlp = naming.numbering
        fields, leading = reading.fields, int(naming.scanned)
        block = SCANNED if naming.scanned else BLOCK.format(0)
        *patch, channels, width = shape_of(inner, "embedding/kernel", 4)
        query = shape_of(inner, f"{block}MultiHeadDotProductAttention_{attention}/query/bias", 2 + leading)
        dense = shape_of(inner, f"{block}MlpBlock_{mlp}/Dense_0/bias", 1 + leading)
        fields["width"], fields["num_heads"], fields["mlp_dim"] = width, query[leading], dense[leading]
        fields["depth"] = query[0] if naming.scanned else block_count(inner, r"Transformer/encoderblock_(\d+)/")
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
            if not self.computed:
                cause = f"the file has no position table ({POSITIONS[1]}), which {self.title}'s models have"
                raise InputError(cause, "leave out the family, or download the file again")
            reading.guess("position_embedding", "sincos_2d", "there is no position table")
            reading.guess("image_size", tuple(max(1, 224 // s) * s for s in stride), "positions are computed")
            return
        count, row = shape_of(inner, positions, 3)[1], 0
        if fields["class_token"]:
            # big_vision adds the class token after the positions, and reads a square and one more as an older table.
            later: dict[tuple[str, ...], int] = {(CLASS,): 1, (): 0} if is_square(count - 1) else {(): 0, (CLASS,): 1}
            row = len(reading.choose_rows(count, later if positions == POSITIONS[1] else {(CLASS,): 1}, stride))
        fields["position_class_slot"] = bool(row)
        reading.guess_image_size(count - row, stride)

    def unsupported(self, config: ViTConfig) -> list[str]:
        pooling, holds = config.pooling, self.holds
        held = config.class_token in holds.class_token and pooling in holds.pooling  # else it is named already
        unused = held and config.class_token and pooling != "class_token"
        return super().unsupported(config) + [f"{POOLINGS[pooling]} with a class token"] * unused

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return Preprocessing(config.image_size)

    def rules(self, config: ViTConfig, naming: JaxNaming) -> list[Rule]:
        table = [
            *_stem_rules(config, naming),
            *_embedding_rules(config, naming),
            *_encoder_rules(config, naming),
            *_head_rules(config),
        ]
        return prefixed(naming.prefix, table)


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
    computed = True
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
        prefix = prefixes(shapes, self.required_keys)[0]
        own_keys = (f"{MAP_HEAD}probe", POSITIONS[1])
        computed = prefix + POSITIONS[0] not in shapes
        return prefix.startswith("params/") or computed or any(prefix + key in shapes for key in own_keys)

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return Preprocessing(config.image_size, "crop", 0.875)

    def usual_naming(self, config: ViTConfig) -> JaxNaming:
        computed = config.position_embedding == "sincos_2d" and config.sincos_exponent == "big_vision"
        slot = config.position_embedding == "learned" and config.position_class_slot
        return JaxNaming("params/", LINEN, "" if computed else POSITIONS[1], class_row=slot)


class SigLIP(BigVision):
    """SigLIP's image tower (arXiv 2303.15343) in big_vision's layout, with or without the text tower."""

    name = "siglip"
    computed = False
    title = "SigLIP"
    holds = Holds(gelu=("tanh",), class_token=(False,), pooling=("attention",), classifier=(False,))

    def claims(self, shapes: Shapes) -> bool:
        return (
            super().claims(shapes) and f"params/img/{MAP_HEAD}probe" in shapes and "params/img/head/bias" not in shapes
        )

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return Preprocessing(config.image_size)

    def usual_naming(self, config: ViTConfig) -> JaxNaming:
        return JaxNaming("params/img/", LINEN, POSITIONS[1], class_row=False)


def _dense(ours: str, theirs: str, kernel: Layout = TRANSPOSED) -> Iterator[Rule]:
    yield rule(f"{ours}.weight", f"{theirs}/kernel", layout=kernel)
    yield rule(f"{ours}.bias", f"{theirs}/bias")


def _norm(ours: str, theirs: str, layout: Layout = SAME) -> Iterator[Rule]:
    yield rule(f"{ours}.weight", f"{theirs}/scale", layout=layout)
    yield rule(f"{ours}.bias", f"{theirs}/bias", layout=layout)


def _attention(ours: str, theirs: str, heads: int) -> Iterator[Rule]:
    parts = [f"{theirs}/{name}" for name in ("query", "key", "value")]
    yield rule(f"{ours}.qkv.weight", *(f"{part}/kernel" for part in parts), layout=qkv_kernel(heads))
    yield rule(f"{ours}.qkv.bias", *(f"{part}/bias" for part in parts), layout=qkv_bias(heads))
    yield from _dense(f"{ours}.out", f"{theirs}/out", output_kernel(heads))


def _mlp(ours: str, theirs: str) -> Iterator[Rule]:
    yield from _dense(f"{ours}.fc1", f"{theirs}/Dense_0")
    yield from _dense(f"{ours}.fc2", f"{theirs}/Dense_1")


def _stem_rules(c: ViTConfig, naming: JaxNaming) -> Iterator[Rule]:
    """The hybrid's ResNet."""
    if c.stem_blocks is None:
        return
    ones = (1,) * naming.norm_ones
    layout = reshaped((-1,), (*ones, -1))
    yield rule("stem.conv.weight", "conv_root/kernel", layout=HWIO)
    yield from _norm("stem.norm", "gn_root", layout)
    for s, units in enumerate(c.stem_blocks):
        for u in range(units):
            ours, theirs = f"stem.stages.{s}.{u}", f"block{s + 1}/unit{u + 1}"
            for i in (1, 2, 3):
                yield rule(f"{ours}.conv{i}.weight", f"{theirs}/conv{i}/kernel", layout=HWIO)
                yield from _norm(f"{ours}.norm{i}", f"{theirs}/gn{i}", layout)
            if u == 0:
                yield rule(f"{ours}.shortcut.conv.weight", f"{theirs}/conv_proj/kernel", layout=HWIO)
                yield from _norm(f"{ours}.shortcut.norm", f"{theirs}/gn_proj", layout)


def _embedding_rules(c: ViTConfig, naming: JaxNaming) -> Iterator[Rule]:
    """Patches, class token and positions."""
    layout = patch_kernel(*c.patch_size, c.stem_channels)
    yield rule("patch_embedding.projection.weight", "embedding/kernel", layout=layout)
    yield from bias("patch_embedding.projection.bias", "embedding/bias", c.patch_bias, c.width)
    rows = (CLASS,) if naming.class_row else ()
    yield from token_rules(c, TokenKeys(naming.position_key or None, "cls", rows=rows))


def _encoder_rules(c: ViTConfig, naming: JaxNaming) -> Iterator[Rule]:
    """Blocks and final norm; in scanned files one rule covers all blocks."""
    if naming.scanned:
        blocks = [list(_block_rules(c, naming, i, SCANNED)) for i in range(c.depth)]
        for same in zip(*blocks, strict=True):
            ours = tuple(name for r in same for name in r.ours)
            yield Rule(ours, same[0].theirs, stacked(same[0].layout, c.depth))
    else:
        for i in range(c.depth):
            yield from _block_rules(c, naming, i, BLOCK.format(i))
    yield from _norm("encoder.norm" if not c.norm_after_pooling else "head.norm", "Transformer/encoder_norm")


def _block_rules(c: ViTConfig, naming: JaxNaming, i: int, theirs: str) -> Iterator[Rule]:
    first_norm, msa, second_norm, dense_block = naming.numbering
    ours = f"encoder.blocks.{i}."
    yield from _norm(f"{ours}attention_norm", f"{theirs}LayerNorm_{first_norm}")
    yield from _attention(f"{ours}attention", f"{theirs}MultiHeadDotProductAttention_{msa}", c.num_heads)
    yield from _norm(f"{ours}mlp_norm", f"{theirs}LayerNorm_{second_norm}")
    yield from _mlp(f"{ours}mlp", f"{theirs}MlpBlock_{dense_block}")


def _head_rules(c: ViTConfig) -> Iterator[Rule]:
    """Attention pooling, hidden layer and classifier."""
    if c.pooling == "attention":
        yield rule("head.pooling.probe", f"{MAP_HEAD}probe")
        yield from _attention("head.pooling.attention", f"{MAP_HEAD}MultiHeadDotProductAttention_0", c.num_heads)
        yield from _norm("head.pooling.norm", f"{MAP_HEAD}LayerNorm_0")
        yield from _mlp("head.pooling.mlp", f"{MAP_HEAD}MlpBlock_0")
    if c.hidden_dim is not None:
        yield from _dense("head.hidden", "pre_logits")
    if c.num_classes:
        yield rule("head.classifier.weight", "head/kernel", layout=TRANSPOSED)
        yield from bias("head.classifier.bias", "head/bias", c.classifier_bias, c.num_classes)
