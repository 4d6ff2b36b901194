"""The same numbers in another order, as a reshape in place of a transpose leaves them."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from vitreous.inspection.comparison.matching import TRIED, Error, Value, error_of, layouts, same
from vitreous.inspection.stages import Stage

Order = Literal["channels", "tokens", "mixed"]
ORDERS: dict[Order, str] = {
    "channels": "The numbers of each token are in another order: check how heads, or the rows of a weight, are packed.",
    "tokens": "The tokens are the same, but in another order.",
    "mixed": "These are the same numbers in another order: transpose, do not reshape. A reshape joins or splits "
    "neighboring axes; to move an axis, use transpose or permute first.",
}
CHANCE = 0.1  # of the distance at which the sorted numbers of two independent tensors lie
SEED = 0


def reordering(reference: Value, other: Value, tolerance: float) -> Order | None:
    """How the numbers of a tensor are rearranged in another; None if they are equal in place, or other numbers."""
    if reference.constant or not reference.may_equal(other, tolerance) or same(reference, other, tolerance):
        return None
    x, y = (value.tensor.detach().cpu().double() for value in (reference, other))
    if not sorted_equal(x.flatten(), y.flatten(), tolerance):
        return None
    x, y = next(layouts(x, y), (x, y))
    if x.shape != y.shape or x.ndim < 2:
        return "mixed"
    if sorted_equal(x, y, tolerance):
        return "channels"
    if x.ndim > 3:  # heads or feature maps, of which a token is a part in each
        return "mixed"
    direction = torch.randn(x.shape[-1], dtype=x.dtype, generator=torch.Generator().manual_seed(SEED))
    return "tokens" if sorted_equal((x @ direction).flatten(), (y @ direction).flatten(), tolerance) else "mixed"


def packed(reference: Value, other: Value, tolerance: float) -> Error | None:
    """The error of q, k and v in one tensor whose last axis is in another order, as another packing of the rows."""
    if reordering(reference, other, tolerance) != "channels":
        return None
    x, y = next(layouts(reference.tensor, other.tensor))
    return error_of(x.sort(dim=-1).values, y.sort(dim=-1).values)


def sorted_equal(x: Tensor, y: Tensor, tolerance: float) -> bool:
    """Whether the numbers along the last axis are the same in some order, by more than chance."""
    x, y = x.sort(dim=-1).values, y.sort(dim=-1).values
    difference = (x - y).abs()
    by_chance = CHANCE * x.std().item() / math.sqrt(x.shape[-1])
    return difference.max().item() <= tolerance * x.abs().max().item() and difference.mean().item() <= by_chance


def find_reordered(
    stages: Sequence[Stage], candidates: Sequence[Value], tolerance: float
) -> tuple[Stage, Value, Order] | None:
    """The first tensor that holds the numbers of one of some stages in another order."""
    for value in candidates[:TRIED]:
        for stage in stages:
            assert stage.value is not None
            order = reordering(Value(stage.value), value, tolerance)
            if order is not None:
                return stage, value, order
    return None
