"""Rules for the parts that most families have: blocks, biases, classifiers."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vitreous.checkpoints.families.shared.key_map import SAME, Rule, both, constant, joined, rule
from vitreous.model.config import ViTConfig


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


class BlockKeys(NamedTuple):
    """A family's keys of a block's layers; those of `qkv` have {} for "weight" or "bias"."""

    attention_norm: str
    qkv: tuple[str, ...]  # query, key and value, or one layer for all three
    out: str
    mlp_norm: str
    fc1: str
    fc2: str


def block_rules(i: int, theirs: str, keys: BlockKeys) -> Iterator[Rule]:
    """The rules of block i, whose keys in the family begin with `theirs`."""
    ours = f"encoder.blocks.{i}."
    yield from both(f"{ours}attention_norm", f"{theirs}{keys.attention_norm}")
    for name in ("weight", "bias"):
        parts = [f"{theirs}{key.format(name)}" for key in keys.qkv]
        yield rule(f"{ours}attention.qkv.{name}", *parts, layout=SAME if len(parts) == 1 else joined(len(parts)))
    yield from both(f"{ours}attention.out", f"{theirs}{keys.out}")
    yield from both(f"{ours}mlp_norm", f"{theirs}{keys.mlp_norm}")
    yield from both(f"{ours}mlp.fc1", f"{theirs}{keys.fc1}")
    yield from both(f"{ours}mlp.fc2", f"{theirs}{keys.fc2}")
