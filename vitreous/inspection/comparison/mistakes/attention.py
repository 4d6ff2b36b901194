"""Mistakes inside attention: the order of q, k and v, the heads, the scale, the softmax."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from vitreous.inspection.comparison.mistakes.mistake import Change, Mistake, Modules, assigned, each, first_of, put
from vitreous.model.attention import NO_POSITIONS, BlockPositions, SelfAttention

PARTS = "qkv"
SCALES = (
    ("does not divide q kᵀ by √D_h", lambda width, head_dim: head_dim**0.5),
    ("multiplies q kᵀ by √D_h", lambda width, head_dim: head_dim),
    ("divides q kᵀ by √D, the full width", lambda width, head_dim: (head_dim / width) ** 0.5),
    ("divides q kᵀ by D_h, without the root", lambda width, head_dim: head_dim**-0.5),
)


def attentions(modules: Modules) -> Iterator[Mistake]:
    """Mistakes inside attention."""
    if first_of(nn.MultiheadAttention, modules):
        axes = "takes batch and sequence for each other in attention"
        hint = "Give nn.MultiheadAttention batch_first=True for batch × tokens × width"
        flip = each(nn.MultiheadAttention, lambda m: setattr(m, "batch_first", not m.batch_first))
        yield Mistake(axes, "does not", hint, flip)
    if not first_of(SelfAttention, modules):
        return
    for order in itertools.islice(itertools.permutations(range(3)), 1, None):
        read = ", ".join(PARTS[i] for i in order)
        hint = "Split the rows of the joint weight as q, k, v: qkv(x).chunk(3, dim=-1)"
        yield Mistake(f"reads q, k, v in the order {read}", "reads q, k, v", hint, reorder(order))
    for says, factor in SCALES:
        change = each(SelfAttention, partial(scale_queries, factor=factor))
        yield Mistake(says, "does", "Divide by math.sqrt(head_dim), before the softmax", change)
    yield from packings()
    for says, hint, options in (
        (
            "mixes up the images: its attention runs over the batch, not over the tokens",
            "Give nn.MultiheadAttention batch_first=True for batch × tokens × width",
            {"over_batch": True},
        ),
        (
            "takes the softmax over the queries",
            "Take it over the keys, the last axis: softmax(dim=-1)",
            {"axis": -2},
        ),
        ("takes the softmax over the heads", "Take it over the keys: softmax(dim=-1)", {"axis": 1}),
        (
            "reshapes to heads without moving axes, which mixes tokens and heads",
            "Split with reshape(batch, tokens, heads, head_dim), then transpose(1, 2)",
            {"split": False},
        ),
        (
            "joins the heads without moving the axes back, which mixes tokens and heads",
            "Join with transpose(1, 2), then flatten(2)",
            {"join": False},
        ),
        (
            "neither moves the axes when it splits the heads nor when it joins them",
            "Split with reshape(batch, tokens, heads, head_dim).transpose(1, 2), and back",
            {"split": False, "join": False},
        ),
    ):
        change = each(SelfAttention, partial(attend_otherwise, **options))
        yield Mistake(says, "follows equations 5 to 8", hint, change)


def reorder(order: Sequence[int]) -> Change:
    """Takes the parts of the joint weight in another order."""

    def change(attention: SelfAttention) -> None:
        for name, tensor in attention.qkv.named_parameters():
            parts = tensor.chunk(3)
            put(attention.qkv, name, torch.cat([parts[i] for i in order]))

    return each(SelfAttention, change)


def scale_queries(attention: SelfAttention, factor: Callable[[int, int], float]) -> None:
    """Multiplies q, and so q kᵀ."""
    width = attention.out.in_features
    for name, tensor in attention.qkv.named_parameters():
        q, k, v = tensor.chunk(3)
        put(attention.qkv, name, torch.cat([q * factor(width, width // attention.num_heads), k, v]))


def packings() -> Iterator[Mistake]:
    """The rows of the joint weight in another nesting than (part, head, number)."""
    axes = ("3", "heads", "head_dim")
    for joined_by_number in (False, True):
        for order in itertools.permutations(range(3)):
            if order == (0, 1, 2) and not joined_by_number:
                continue
            packed = " ".join(axes[i] for i in order)
            says = f"reads the rows of the qkv weight as ({packed})"
            says += ", and joins the heads as (head_dim heads)" if joined_by_number else ""
            change = each(SelfAttention, partial(repack, order=order, joined_by_number=joined_by_number))
            hint = "Reshape to (3, heads, head_dim), in this order, and join as (heads head_dim)"
            yield Mistake(says, "has (3 heads head_dim)", hint, change)


def repack(attention: SelfAttention, order: Sequence[int], joined_by_number: bool) -> None:
    """Reorders the rows, so that reading them rightly gives what reading the old ones wrongly gave."""
    sizes = (3, attention.num_heads, attention.out.in_features // attention.num_heads)
    back = sorted(range(3), key=lambda i: order[i])
    for name, tensor in attention.qkv.named_parameters():
        packed = tensor.unflatten(0, [sizes[i] for i in order])
        rest = range(3, packed.ndim)
        put(attention.qkv, name, packed.permute(*back, *rest).flatten(0, 2))
    if joined_by_number:
        columns = attention.out.weight.unflatten(1, (sizes[2], sizes[1])).transpose(1, 2).flatten(1)
        put(attention.out, "weight", columns)


def attend_otherwise(
    attention: SelfAttention, over_batch: bool = False, axis: int = -1, split: bool = True, join: bool = True
) -> None:
    """Replaces attention by its equations, written out with a mistake."""

    def heads_of(x: Tensor) -> Tensor:
        heads, tokens = attention.num_heads, x.shape[1]
        if split:
            return x.unflatten(-1, (heads, -1)).transpose(1, 2)
        return x.reshape(len(x), heads, tokens, -1)

    def forward(x: Tensor, queries: Tensor | None = None, positions: BlockPositions = NO_POSITIONS) -> Tensor:
        asking = x if queries is None else queries
        if over_batch:
            x, asking = x.transpose(0, 1), asking.transpose(0, 1)
        width = x.shape[-1]
        weight, bias = attention.qkv.weight, attention.qkv.bias
        q = heads_of(asking @ weight[:width].mT + bias[:width])
        k, v = map(heads_of, (x @ weight[width:].mT + bias[width:]).chunk(2, dim=-1))
        logits = q @ k.mT / math.sqrt(q.shape[-1])
        if (bias := positions.bias(q)) is not None:
            logits = logits + bias
        mixed = logits.softmax(dim=axis) @ v
        joined = (mixed.transpose(1, 2) if join else mixed).reshape(asking.shape)
        return attention.out(joined.transpose(0, 1) if over_batch else joined)

    attention.forward = forward


def head_counts(modules: Modules) -> Iterator[Mistake]:
    """Another number of heads with the same weights."""
    known = first_of(SelfAttention, modules)
    if known is None:
        return
    width = known.out.in_features
    for count in (n for n in range(1, min(width, 65)) if width % n == 0 and n != known.num_heads):
        change = assigned(SelfAttention, num_heads=count)
        hint = f"Set num_heads={known.num_heads}"
        yield Mistake(f"has {count} attention heads", f"has {known.num_heads}", hint, change)
