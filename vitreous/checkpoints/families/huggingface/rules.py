"""The rules between our parameters and the keys of a transformers file, for one layout and one model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitreous.checkpoints.families.huggingface.names import LAYOUTS, Names
from vitreous.checkpoints.families.shared.family import Naming
from vitreous.checkpoints.families.shared.key_map import (
    SAME,
    Layout,
    Rule,
    both,
    constant,
    joined,
    one_to_one,
    patch_convolution,
    reshaped,
    rule,
)
from vitreous.checkpoints.families.shared.rules import bias, classifier, prefixed
from vitreous.checkpoints.families.shared.tokens import CLASS, DISTILLATION, REGISTERS, TokenKeys, token_rules
from vitreous.model.config import ViTConfig

ROWS = (CLASS, DISTILLATION, REGISTERS)  # tokens that have rows in the table of positions, if it is ViT's
STACKED = Layout(lambda t: [torch.stack(list(t))], lambda t: t[0].unbind())  # a tensor of each block
POOLING = "head.pooling."


@dataclass(frozen=True)
class HuggingFaceNaming(Naming):
    """How a file names its keys.

    Args:
        body: further prefix of the body.
        layout: the names of its keys, in `names.LAYOUTS`.
        positioned: whether it has a table of positions.
        flat_patches: whether the patch projection is a matrix, for patches with their channels last.
        mask_shape: of its mask token; None if it has none.
        register_key: whether it has a key for registers, even for none.
        after: whether the final norm belongs to BEiT's pooling layer.
        outer_norm: whether the final norm is outside the body, as in BEiT's masked pre-training.
        unused_norm: whether a final norm is written that the model does not have, since its class never calls it.
    """

    body: str = ""
    layout: str = "disk"
    positioned: bool = True
    flat_patches: bool = False
    mask_shape: tuple[int, ...] | None = None
    register_key: bool = False
    after: bool = False
    outer_norm: bool = False
    unused_norm: bool = False

    @property
    def names(self) -> Names:
        """The names of the body's keys."""
        return LAYOUTS[self.layout]


def model_rules(c: ViTConfig, naming: HuggingFaceNaming) -> list[Rule]:
    """The table for one model: a rule for each parameter."""
    names = naming.names
    body = [*_embedding_rules(c, naming), *_position_rules(c, names), *_encoder_rules(c, naming), *_pooling_rules(c)]
    outer = [*_final_norm_rules(c, naming)] if naming.outer_norm else []
    return [*prefixed(naming.prefix + naming.body, body), *prefixed(naming.prefix, [*outer, *_classifier_rules(c)])]


def _embedding_rules(c: ViTConfig, naming: HuggingFaceNaming) -> Iterator[Rule]:
    """Patches, tokens and the table of positions."""
    names = naming.names
    layout = _flat_patches(c) if naming.flat_patches else patch_convolution(*c.patch_size, c.channels)
    yield rule("patch_embedding.projection.weight", f"{names.patch}.weight", layout=layout)
    if c.patch_bias or not c.pre_norm:
        yield from bias("patch_embedding.projection.bias", f"{names.patch}.bias", c.patch_bias, c.width)
    if c.embedding_norm:
        yield from _norm("patch_embedding.norm", names.embedding_norm, c)
    if c.mask_token:
        shape = naming.mask_shape or (1, 1, c.width)
        yield rule("mask_token", names.mask_token, layout=reshaped((1, 1, c.width), shape))
    elif naming.mask_shape is not None:
        yield Rule((), (names.mask_token,), constant(0.0, *naming.mask_shape))
    if naming.register_key and not c.registers:
        yield Rule((), (names.registers,), constant(0.0, 1, 0, c.width))
    rows = (CLASS,) if naming.register_key else ROWS
    positions = names.positions if naming.positioned else None
    extra = names.registers  # or the distillation token
    yield from token_rules(c, TokenKeys(positions, names.class_token, extra, extra, rows, flat=names.flat))


def _position_rules(c: ViTConfig, names: Names) -> Iterator[Rule]:
    """Relative positions, and the angles of MLCD's class token."""
    if c.rotary == "mlcd":
        yield rule("rotary.class_angles", "class_pos_emb")
    if c.position_embedding != "relative_bias":
        return
    if c.position_site == "shared":
        layout = one_to_one(lambda t: t[None], lambda t: t[0])
        yield rule("position_embedding.biases", names.shared_biases, layout=layout)
    else:
        tables = [names.in_block(i, names.block_biases) for i in range(c.depth)]
        yield rule("position_embedding.biases", *tables, layout=STACKED)


def _encoder_rules(c: ViTConfig, naming: HuggingFaceNaming) -> Iterator[Rule]:
    """The blocks, and the norms before and after them."""
    if c.pre_norm:
        yield from both("encoder.pre_norm", "pre_layrnorm")
    for i in range(c.depth):
        yield from _block_rules(i, c, naming.names)
    if not naming.outer_norm:
        yield from _final_norm_rules(c, naming)


def _final_norm_rules(c: ViTConfig, naming: HuggingFaceNaming) -> Iterator[Rule]:
    """The final norm."""
    if c.final_norm:
        ours = "head.norm" if c.norm_after_pooling else "encoder.norm"
        yield from _norm(ours, "pooler.layernorm" if naming.after else naming.names.norm, c)
    elif naming.unused_norm:
        yield Rule((), (f"{naming.names.norm}.weight",), constant(1.0, c.width))
        yield Rule((), (f"{naming.names.norm}.bias",), constant(0.0, c.width))


def _block_rules(i: int, c: ViTConfig, names: Names) -> Iterator[Rule]:
    """One block."""
    ours, theirs = f"encoder.blocks.{i}.", names.block.format(i)
    yield from _norm(f"{ours}attention_norm", theirs + names.attention_norm, c)
    yield rule(f"{ours}attention.qkv.weight", *(f"{theirs}{part}.weight" for part in names.qkv), layout=joined(3))
    biased = {"all": names.qkv, "no_key": (names.qkv[0], names.qkv[2]), "none": ()}[c.qkv_bias]
    if biased:
        parts = [f"{theirs}{part}.bias" for part in biased]
        yield rule(f"{ours}attention.qkv.bias", *parts, layout=joined(len(parts)))
    if c.query_key_norm == "width":
        yield from _norm(f"{ours}attention.query_norm", theirs + names.qk_norms[0], c)
        yield from _norm(f"{ours}attention.key_norm", theirs + names.qk_norms[1], c)
    gated = c.mlp == "swiglu"
    layers = {
        "attention.out": (names.out,),
        "mlp.fc1": names.gate if gated else (names.fc1,),
        "mlp.fc2": (names.gated_fc2 if gated else names.fc2,),
    }
    for layer, parts in layers.items():
        for name in ("weight", "bias") if c.dense_bias else ("weight",):
            keys = [f"{theirs}{part}.{name}" for part in parts]
            yield rule(f"{ours}{layer}.{name}", *keys, layout=SAME if len(keys) == 1 else joined(len(keys)))
    yield from _norm(f"{ours}mlp_norm", theirs + names.mlp_norm, c)
    if c.layer_scale is not None:
        yield rule(f"{ours}attention_scale.gamma", theirs + names.scales[0])
        yield rule(f"{ours}mlp_scale.gamma", theirs + names.scales[1])


def _pooling_rules(c: ViTConfig) -> Iterator[Rule]:
    """SigLIP's and AIMv2's attention pooling, and ViT's pooler."""
    if c.pooling == "attention" and c.embedding_norm:
        yield _aimv2_pooling(c)
    elif c.pooling == "attention":
        yield rule(f"{POOLING}probe", "head.probe")
        yield rule(f"{POOLING}attention.qkv.weight", "head.attention.in_proj_weight")
        yield rule(f"{POOLING}attention.qkv.bias", "head.attention.in_proj_bias")
        yield from both(f"{POOLING}attention.out", "head.attention.out_proj")
        yield from both(f"{POOLING}norm", "head.layernorm")
        yield from both(f"{POOLING}mlp.fc1", "head.mlp.fc1")
        yield from both(f"{POOLING}mlp.fc2", "head.mlp.fc2")
    if c.hidden_dim is not None:
        yield from both("head.hidden", "pooler.dense")


def _classifier_rules(c: ViTConfig) -> Iterator[Rule]:
    """The classifiers, which are outside the body."""
    if not c.num_classes:
        return
    if c.embedding_norm or (c.pre_norm and c.pooling == "class_token"):  # the projection of an image-text model
        yield rule("head.classifier.weight", "visual_projection.weight")
    elif c.distillation_token:
        yield from classifier("head.classifier", "cls_classifier", c)
        yield from classifier("head.distillation", "distillation_classifier", c)
    else:
        yield from classifier("head.classifier", "classifier", c)


def _norm(ours: str, theirs: str, c: ViTConfig) -> Iterator[Rule]:
    """The rules of a norm, which has a weight only if it is RMSNorm."""
    if c.norm == "layer":
        yield from both(ours, theirs)
    else:
        yield rule(f"{ours}.weight", f"{theirs}.weight")


def _flat_patches(c: ViTConfig) -> Layout:
    """The patch projection: theirs (D, height · width · channels), ours (D, channels · height · width)."""
    (height, width), channels = c.patch_size, c.channels
    return one_to_one(
        lambda t: t.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2).flatten(1),
        lambda t: t.unflatten(1, (channels, height, width)).permute(0, 2, 3, 1).flatten(1),
    )


def _aimv2_pooling(c: ViTConfig) -> Rule:
    """AIMv2's pooling, as ours: its query is a bias, since it is not projected, and its MLP adds zero. For import."""

    def to_ours(parts: Sequence[Tensor]) -> list[Tensor]:
        query, key, value, out, out_bias, *biases = parts
        d, hidden = c.width, c.pooling_mlp_dim or c.mlp_dim
        vectors = torch.cat([part.float() for part in (query.reshape(d), *(biases or [torch.zeros(2 * d)]))])
        attention = [torch.cat([torch.zeros_like(key), key, value]), vectors, out, out_bias]
        norm, mlp = [torch.ones(d), torch.zeros(d)], [(hidden, d), (hidden,), (d, hidden), (d,)]
        return [torch.zeros(1, 1, d), *attention, *norm, *(torch.zeros(shape) for shape in mlp)]

    layers = ("attention.qkv", "attention.out", "norm", "mlp.fc1", "mlp.fc2")
    ours = [f"{POOLING}{layer}.{name}" for layer in layers for name in ("weight", "bias")]
    theirs = ["cls_token", "k_proj.weight", "v_proj.weight", "output_proj.weight", "output_proj.bias"]
    theirs += ["k_proj.bias", "v_proj.bias"] if c.qkv_bias == "all" else []
    layout = Layout(to_ours, lambda t: [])
    return Rule((f"{POOLING}probe", *ours), tuple(f"head.{key}" for key in theirs), layout)
