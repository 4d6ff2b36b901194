"""Mistakes inside attention: the order of q, k and v, the heads, the scale, the softmax."""

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.inspection.comparison.mistakes.mistake import Change, Mistake, Modules, assigned, each, first_of, put
from vitreous.model.attention import NO_POSITIONS, QKV, BlockPositions, SelfAttention
from vitreous.model.relative_position import RelativeBias, RelativePosition

Heads = Literal["moved", "reshape", "interleaved"]  # how axes move when heads are split or joined
PARTS, AXES = "qkv", ("3", "heads", "head_dim")
BATCH_FIRST = "Give nn.MultiheadAttention batch_first=True for batch × tokens × width"
SPLIT = "Split with reshape(batch, tokens, heads, head_dim), then transpose(1, 2)"
JOIN = "Join with transpose(1, 2), then flatten(2)"
EQUATIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (  # wrong, hint, arguments of attend_wrongly
    ("mixes up the images: its attention runs over the batch, not over the tokens", BATCH_FIRST, {"over_batch": True}),
    ("takes the softmax over the queries", "Take it over the keys, the last axis: softmax(dim=-1)", {"axis": -2}),
    ("takes the softmax over the heads", "Take it over the keys: softmax(dim=-1)", {"axis": 1}),
    (
        "reshapes to heads without moving axes, which mixes tokens and heads",
        SPLIT,
        {"split": "reshape"},
    ),
    (
        "joins the heads without moving the axes back, which mixes tokens and heads",
        JOIN,
        {"join": "reshape"},
    ),
    (
        "reshapes to heads and back without moving axes, which mixes tokens and heads",
        f"{SPLIT}; {JOIN[0].lower()}{JOIN[1:]}",
        {"split": "reshape", "join": "reshape"},
    ),
    (
        "splits the width as (head_dim, heads)",
        SPLIT,
        {"split": "interleaved"},
    ),
    (
        "joins the heads as (head_dim, heads)",
        JOIN,
        {"join": "interleaved"},
    ),
    (
        "splits and joins the width as (head_dim, heads)",
        f"{SPLIT}; {JOIN[0].lower()}{JOIN[1:]}",
        {"split": "interleaved", "join": "interleaved"},
    ),
)
TOGETHER = (  # wrong orders of the axes of q, k and v when one reshape is to split all of them
    ("batch", "3", "heads", "tokens", "head_dim"),
    ("3", "batch", "heads", "tokens", "head_dim"),
    ("batch", "heads", "tokens", "3", "head_dim"),
)


def attention(modules: Modules) -> Iterator[Mistake]:
    """Mistakes inside attention."""
    if first_of(nn.MultiheadAttention, modules):
        flip = each(nn.MultiheadAttention, lambda m: setattr(m, "batch_first", not m.batch_first))
        yield Mistake("swaps the batch and sequence axes in attention", "keeps them", BATCH_FIRST, flip)
    if (known := first_of(SelfAttention, modules)) is None:
        return
    for order in itertools.islice(itertools.permutations(range(3)), 1, None):
        parts = ", ".join(PARTS[i] for i in order)
        hint = "Split the rows of the joint weight as q, k, v: qkv(x).chunk(3, dim=-1)"
        yield Mistake(f"reads q, k, v in the order {parts}", "reads q, k, v", hint, reorder(order))
    width, head_dim = known.out.in_features, known.out.in_features // known.num_heads
    for wrong, right, factor in (
        ("does not divide q kᵀ by √D_h", "does", head_dim**0.5),
        ("divides q kᵀ by √D, the full width", "divides by √D_h", (head_dim / width) ** 0.5),
    ):
        change = each(SelfAttention, partial(attend_wrongly, factor=factor))
        yield Mistake(wrong, right, "Divide by math.sqrt(head_dim), before the softmax", change)
    for order in itertools.islice(itertools.permutations(range(3)), 1, None):
        packing = " ".join(AXES[i] for i in order)
        hint = "Reshape to (3, heads, head_dim), in this order"
        change = each(SelfAttention, partial(repack, order=order))
        yield Mistake(f"reads the rows of the qkv weight as ({packing})", "has (3 heads head_dim)", hint, change)
    for wrong, hint, options in EQUATIONS:
        yield Mistake(wrong, "follows equations 5 to 8", hint, each(SelfAttention, partial(attend_wrongly, **options)))
    for axes in TOGETHER:
        wrong = f"reshapes q, k and v to ({', '.join(axes)}) without moving axes"
        hint = "Reshape to (batch, tokens, 3, heads, head_dim), then permute(2, 0, 3, 1, 4)"
        change = each(SelfAttention, partial(split_together, axes=axes))
        yield Mistake(wrong, "moves them", hint, change)


def reorder(order: Sequence[int]) -> Change:
    """Takes the parts of the joint weight in another order."""

    def change(attention: SelfAttention) -> None:
        for name, tensor in stacked_parameters(attention.qkv).items():
            parts = tensor.chunk(3)
            put(attention.qkv, name, torch.cat([parts[i] for i in order]))

    return each(SelfAttention, change)


def stacked_parameters(qkv: nn.Linear) -> dict[str, Tensor]:
    """The weight and the bias of q, k and v; a bias without k's is first given zeros for it."""
    if isinstance(qkv, QKV) and qkv.kind == "no_key":
        whole = qkv.whole_bias()
        assert whole is not None
        put(qkv, "bias", whole)
        qkv.kind = "all"
    return dict(qkv.named_parameters())


def repack(attention: SelfAttention, order: Sequence[int]) -> None:
    """Reorders the rows of the joint weight as if they had been packed in another nesting."""
    sizes = (3, attention.num_heads, attention.out.in_features // attention.num_heads)
    back = sorted(range(3), key=lambda i: order[i])
    for name, tensor in stacked_parameters(attention.qkv).items():
        packed = tensor.unflatten(0, [sizes[i] for i in order])
        put(attention.qkv, name, packed.permute(*back, *range(3, packed.ndim)).flatten(0, 2))


def split_heads(x: Tensor, heads: int, how: Heads) -> Tensor:
    """Splits "batch tokens width" to heads, "batch heads tokens head_dim" (in shape)."""
    if how == "reshape":
        return x.reshape(len(x), heads, x.shape[1], -1)
    return (
        x.unflatten(-1, (heads, -1)).transpose(1, 2) if how == "moved" else x.unflatten(-1, (-1, heads)).movedim(3, 1)
    )


def join_heads(x: Tensor, how: Heads) -> Tensor:
    """Joins heads, "batch heads tokens head_dim", to "batch tokens width" (in shape)."""
    joined = {"reshape": x, "moved": x.transpose(1, 2), "interleaved": x.movedim(1, 3)}[how]
    return joined.reshape(len(x), x.shape[2], -1)


def attend_wrongly(
    attention: SelfAttention,
    over_batch: bool = False,
    factor: float = 1.0,
    axis: int = -1,
    split: Heads = "moved",
    join: Heads = "moved",
) -> None:
    """Replaces attention by its equations, written out with a mistake.

    Args:
        attention: to change.
        over_batch: whether images attend to images, not tokens to tokens.
        factor: of the logits.
        axis: of the softmax.
        split: how the width becomes heads.
        join: how heads become the width.
    """

    def forward(x: Tensor, queries: Tensor | None = None, positions: BlockPositions = NO_POSITIONS) -> Tensor:
        swapped = over_batch and queries is None
        x = x.transpose(0, 1) if swapped else x
        q, k, v = attention.project(x, queries, positions)
        logits = factor * (q @ k.mT) / math.sqrt(q.shape[-1])
        if (added := positions.bias(q)) is not None:
            logits = logits + added
        out = attention.out(attention.norm(join_heads(logits.softmax(dim=axis) @ v, join)))
        return out.transpose(0, 1) if swapped else out

    attention._split_heads = lambda x: split_heads(x, attention.num_heads, split)
    attention.forward = forward


def split_together(attention: SelfAttention, axes: Sequence[str]) -> None:
    """Splits q, k and v by one reshape to these axes."""
    right = attention.forward

    def forward(x: Tensor, queries: Tensor | None = None, positions: BlockPositions = NO_POSITIONS) -> Tensor:
        if queries is not None:
            return right(x, queries, positions)
        sizes = {"batch": x.shape[0], "tokens": x.shape[1], "3": 3, "heads": attention.num_heads, "head_dim": -1}
        parts = attention.qkv(x).reshape([sizes[axis] for axis in axes])
        q, k, v = parts.unbind(axes.index("3"))
        if attention.normed == "head":
            q, k = attention.query_norm(q), attention.key_norm(k)
        q, k = positions.rotate(q, k)
        heads = F.scaled_dot_product_attention(q, k, v, positions.bias(q))
        return attention.out(attention.norm(join_heads(heads, "moved")))

    attention.forward = forward


def head_counts(modules: Modules) -> Iterator[Mistake]:
    """Another number of heads with the same weights; relative positions have numbers for each head."""
    relative = first_of(RelativeBias, modules) or first_of(RelativePosition, modules)
    if (known := first_of(SelfAttention, modules)) is None or relative:
        return
    width, heads = known.out.in_features, known.num_heads
    for count in (n for n in range(1, min(width, 65)) if width % n == 0 and n != heads):
        change = assigned(SelfAttention, num_heads=count)
        yield Mistake(f"has {count} attention heads", f"has {heads}", f"Set num_heads={heads}", change)
