"""Tensors that a file has in parts or under another name, where the table of its family has one."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vitreous.checkpoints.families.shared.key_map import Layout, Rule, joined
from vitreous.checkpoints.families.shared.reading import Shapes


class Split(NamedTuple):
    """A key of a table, and the keys that a file has instead; both are the ends of keys.

    Args:
        whole: the table's key.
        parts: the file's: of the parts that the first axis joins, or one key for another name.
        layout: of the parts, if they are not simply joined.
    """

    whole: str
    parts: tuple[str, ...]
    layout: Layout | None = None


def merged(shapes: Shapes, splits: Iterable[Split]) -> dict[str, Sequence[int]]:
    """The shapes of a file as its family's table has them: the parts joined, under the table's keys."""
    whole = dict(shapes)
    for split in splits:
        for first in [key for key in whole if is_end(split.parts[0], key)]:
            before = first.removesuffix(split.parts[0])
            keys = [before + part for part in split.parts]
            if all(key in whole and len(whole[key]) for key in keys):
                parts = [whole.pop(key) for key in keys]
                whole[before + split.whole] = (sum(part[0] for part in parts), *parts[0][1:])
    return whole


def divided(rules: Iterable[Rule], splits: Iterable[Split]) -> list[Rule]:
    """The rules of a table with a file's keys in place of the table's; the inverse of `merged`."""
    table = list(rules)
    for split in splits:
        table = [_divide(rule, split) for rule in table]
    return table


def is_end(end: str, key: str) -> bool:
    """Whether a key ends so, at the border of a name."""
    before = key.removesuffix(end)
    return key.endswith(end) and (not before or before[-1] in "./")


def _divide(rule: Rule, split: Split) -> Rule:
    if not any(is_end(split.whole, key) for key in rule.theirs):
        return rule
    if len(split.parts) == 1:
        renamed = (key.removesuffix(split.whole) + split.parts[0] for key in rule.theirs)
        pairs = zip(rule.theirs, renamed, strict=True)
        return rule._replace(theirs=tuple(new if is_end(split.whole, key) else key for key, new in pairs))
    [key] = rule.theirs
    keys = tuple(key.removesuffix(split.whole) + part for part in split.parts)
    return rule._replace(theirs=keys, layout=split.layout or joined(len(split.parts)))
