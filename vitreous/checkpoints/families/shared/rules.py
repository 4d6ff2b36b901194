"""Rules for the parts that most families have: blocks, biases, classifiers."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from vitreous.checkpoints.families.shared.key_map import SAME, Rule, both, constant, joined, rule
from vitreous.model.config import PAPER, BlockOptions, ViTConfig


def prefixed(prefix: str, rules: Iterable[Rule]) -> list[Rule]:
    """The rules with a prefix on the family's keys."""
    return [r._replace(theirs=tuple(prefix + key for key in r.theirs)) for r in rules]


def classifier(ours: str, theirs: str, c: ViTConfig) -> Iterator[Rule]:
    """The rules of a classifier; a missing bias is written as zeros."""
    yield rule(f"{ours}.weight", f"{theirs}.weight")
    yield from bias(f"{ours}.bias", f"{theirs}.bias", c.classifier_bias, c.num_classes)


def bias(ours: str, theirs: str, present: bool, size: int) -> Iterator[Rule]:
    """The rule of a bias; one of zeros is written where our model has none."""
    yield rule(ours, theirs) if present else Rule((), (theirs,), constant(0.0, size))


def layer(ours: str, theirs: str, *, has_bias: bool) -> Iterator[Rule]:
    """The rules of a layer that may have no bias, such as an RMSNorm."""
    yield from both(ours, theirs) if has_bias else [rule(f"{ours}.weight", f"{theirs}.weight")]


class BlockKeys(NamedTuple):
    """A family's keys of a block's layers; those of `qkv` and `fc1` parts have {} for "weight" or "bias"."""

    attention_norm: str
    qkv: tuple[str, ...]  # query, key and value, or one layer for all three
    out: str
    mlp_norm: str
    fc1: str
    fc2: str
    query_norm: str = ""
    key_norm: str = ""
    attention_inner_norm: str = ""
    mlp_inner_norm: str = ""
    gated: tuple[str, ...] = ()  # SwiGLU's gate and value, if they have layers of their own instead of fc1


def block_rules(i: int, theirs: str, keys: BlockKeys, options: BlockOptions = PAPER) -> Iterator[Rule]:
    """The rules of block i, whose keys in the family begin with `theirs`."""
    ours = f"encoder.blocks.{i}."
    normed, dense = options.norm == "layer", options.dense_bias
    yield from layer(f"{ours}attention_norm", f"{theirs}{keys.attention_norm}", has_bias=normed)
    for name in ("weight", "bias") if options.qkv_bias != "none" else ("weight",):
        yield _joined(f"{ours}attention.qkv.{name}", [f"{theirs}{key.format(name)}" for key in keys.qkv])
    if options.query_key_norm != "none":
        yield from layer(f"{ours}attention.query_norm", f"{theirs}{keys.query_norm}", has_bias=normed)
        yield from layer(f"{ours}attention.key_norm", f"{theirs}{keys.key_norm}", has_bias=normed)
    if options.attention_inner_norm:
        yield from layer(f"{ours}attention.norm", f"{theirs}{keys.attention_inner_norm}", has_bias=normed)
    yield from layer(f"{ours}attention.out", f"{theirs}{keys.out}", has_bias=dense)
    yield from layer(f"{ours}mlp_norm", f"{theirs}{keys.mlp_norm}", has_bias=normed)
    if keys.gated:
        for name in ("weight", "bias") if dense else ("weight",):
            yield _joined(f"{ours}mlp.fc1.{name}", [f"{theirs}{key}.{name}" for key in keys.gated])
    else:
        yield from layer(f"{ours}mlp.fc1", f"{theirs}{keys.fc1}", has_bias=dense)
    if options.mlp_inner_norm:
        yield from layer(f"{ours}mlp.norm", f"{theirs}{keys.mlp_inner_norm}", has_bias=normed)
    yield from layer(f"{ours}mlp.fc2", f"{theirs}{keys.fc2}", has_bias=dense)


def _joined(ours: str, parts: Sequence[str]) -> Rule:
    return rule(ours, *parts, layout=SAME if len(parts) == 1 else joined(len(parts)))
