"""Rules for the tokens before the patches and for the position table, where families differ most.

A family's position table has rows for some of these tokens. Where ours has none, a row is added to its token, which
changes no sum; where our positions are computed, a table is written.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vitreous.checkpoints.families.shared.key_map import SAME, Layout, Rule, reshaped, rule
from vitreous.model.config import ViTConfig
from vitreous.model.vit import position_embedding

CLASS, DISTILLATION, REGISTERS = "class_token", "distillation_token", "registers"
POSITIONS = "position_embedding.embedding"


class TokenKeys(NamedTuple):
    """A family's keys for the tokens and the position table.

    Args:
        positions: of the table; None if there is none and none is needed.
        class_token: of the class token.
        distillation_token: of the distillation token.
        registers: of the registers.
        rows: the tokens that have rows in the table, before those of the patches.
        flat: whether the class token is a vector (D) and the table a matrix, as in CLIP; both usually have a leading
            axis of 1.
    """

    positions: str | None
    class_token: str = "cls_token"
    distillation_token: str = "dist_token"
    registers: str = "reg_token"
    rows: Sequence[str] = (CLASS, DISTILLATION)
    flat: bool = False


class Prefix(NamedTuple):
    """One kind of token before the patches."""

    name: str  # our parameter
    key: str  # the family's
    count: int
    our_rows: int  # in our position table
    their_rows: int  # in the family's


def prefix_of(c: ViTConfig, keys: TokenKeys) -> list[Prefix]:
    """The tokens before the patches, in order."""
    slotted = c.position_embedding == "learned" and c.position_class_slot
    kinds = (
        (CLASS, keys.class_token, int(c.class_token), slotted),
        (DISTILLATION, keys.distillation_token, int(c.distillation_token), slotted),
        (REGISTERS, keys.registers, c.registers, False),
    )
    return [
        Prefix(name, key, count, count if slot else 0, count if name in keys.rows else 0)
        for name, key, count, slot in kinds
        if count
    ]


def token_rules(c: ViTConfig, keys: TokenKeys) -> list[Rule]:
    """The rules for class token, distillation token, registers and position table."""
    prefix = prefix_of(c, keys)
    if keys.positions is None:
        return [rule(p.name, p.key, layout=_token(p, c, keys)) for p in prefix]
    if c.position_embedding == "learned" and all(p.our_rows == p.their_rows for p in prefix):
        patches = c.grid[0] * c.grid[1] + sum(p.our_rows for p in prefix)
        table = reshaped((1, patches, c.width), (patches, c.width)) if keys.flat else SAME
        return [
            *(rule(p.name, p.key, layout=_token(p, c, keys)) for p in prefix),
            rule(POSITIONS, keys.positions, layout=table),
        ]
    ours = position_parameters(c)
    layout = Layout(lambda t: _to_ours(t, c, keys, prefix), lambda t: _to_theirs(t, c, keys, prefix))
    return [Rule((*(p.name for p in prefix), *ours), (*(p.key for p in prefix), keys.positions), layout)]


def position_parameters(c: ViTConfig) -> list[str]:
    """The names of our position parameters; empty if positions are computed."""
    with torch.device("meta"):
        return [f"position_embedding.{name}" for name, _ in position_embedding(c).named_parameters()]


def _token(p: Prefix, c: ViTConfig, keys: TokenKeys) -> Layout:
    return reshaped((1, p.count, c.width), (p.count * c.width,)) if keys.flat else SAME


def _to_ours(parts: Sequence[Tensor], c: ViTConfig, keys: TokenKeys, prefix: Sequence[Prefix]) -> list[Tensor]:
    if c.position_embedding != "learned":
        raise RuntimeError(f"the model has position_embedding={c.position_embedding!r}, not a learned table")
    tokens = [part.reshape(1, p.count, c.width) for part, p in zip(parts, prefix, strict=False)]
    table = parts[-1][None] if keys.flat else parts[-1]
    rows = table.split([*(p.their_rows for p in prefix), table.shape[1] - sum(p.their_rows for p in prefix)], dim=1)
    for i, p in enumerate(prefix):
        if p.their_rows and not p.our_rows:
            tokens[i] = tokens[i] + rows[i]
    kept = [part for part, p in zip(rows, prefix, strict=False) if p.our_rows]
    return [*tokens, torch.cat([*kept, rows[-1]], dim=1)]


def _to_theirs(parts: Sequence[Tensor], c: ViTConfig, keys: TokenKeys, prefix: Sequence[Prefix]) -> list[Tensor]:
    tokens = list(parts[: len(prefix)])
    table = whole_table(c, parts[len(prefix) :])[None]  # 1 tokens width
    patches = c.grid[0] * c.grid[1]
    rows = table.split([*(p.count for p in prefix), patches], dim=1)
    for i, p in enumerate(prefix):
        if not p.their_rows:
            tokens[i] = tokens[i] + rows[i]
    kept = [part for part, p in zip(rows, prefix, strict=False) if p.their_rows]
    table = torch.cat([*kept, rows[-1]], dim=1)
    shaped = [part.reshape(-1) if keys.flat else part for part in tokens]
    return [*shaped, table[0] if keys.flat else table]


def whole_table(c: ViTConfig, parameters: Sequence[Tensor]) -> Tensor:
    """E_pos at the model's own size, with a row of zeros for each token without a position."""
    with torch.device("meta"):
        module = position_embedding(c)
    names = [name for name, _ in module.named_parameters()]
    module.load_state_dict(dict(zip(names, (t.detach() for t in parameters), strict=True)), assign=True)
    table = module.table(c.grid)
    return torch.zeros(c.num_tokens, c.width) if table is None else table.detach()
