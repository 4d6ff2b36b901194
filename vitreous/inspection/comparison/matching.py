"""Finding equal values in two models, whatever their names and layouts."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitreous.inspection.recording import Shape

NEAR = 0.1  # relative error of values that are still about the same
TRIED = 20  # candidates; the right one runs soon after the last that is equal
MAX_PERMUTED = 6  # axes; more have too many orders
EXCHANGED = {4: [(1, 2)], 3: [(0, 1)]}  # by rank, axes in either order: heads and tokens, batch and sequence


@dataclass(frozen=True)
class Error:
    """The distance between two tensors."""

    absolute: float  # largest difference of two elements
    relative: float  # the same, divided by the reference's largest element


class Value:
    """A tensor of a pass, with marks that are invariant to the order of its axes.

    Args:
        tensor: the values.
        path: of the module or operation that returned it or took it as input.
    """

    def __init__(self, tensor: Tensor, path: str = "") -> None:
        self.tensor = tensor
        self.path = path
        self.shape: Shape = tuple(tensor.shape)
        x = tensor.double() if tensor.device.type != "mps" else tensor.float()
        self.marks = torch.stack([x.min(), x.max(), x.mean(), x.square().mean().sqrt()]).tolist()
        self.size = max(abs(self.marks[0]), abs(self.marks[1]))
        several = tensor.ndim > 0 and len(tensor) > 1
        self.constant = self.size == 0 or (several and bool((tensor == tensor[:1]).all()))

    def may_equal(self, other: "Value", tolerance: float) -> bool:
        """A quick check whether `other` may have these values in some order."""
        if self.tensor.numel() != other.tensor.numel():
            return False
        allowed = tolerance * self.size
        return all(abs(a - b) <= allowed for a, b in zip(self.marks, other.marks, strict=True))


def same(reference: Value, other: Value, tolerance: float) -> Error | None:
    """The error if both have the same values in any layout within the tolerance; otherwise None."""
    if not reference.may_equal(other, tolerance):
        return None
    error = least_error(reference.tensor, other.tensor)
    return error if error.relative <= tolerance else None


def error_of(reference: Tensor, other: Tensor) -> Error:
    """The error of a tensor of the same shape; infinite where only one of the two is finite."""
    if not reference.is_floating_point():  # a mask, or numbers of tokens
        reference = reference.float()
    difference = (reference - other.to(reference)).abs()
    equal = reference == other.to(reference)  # infinities too
    absolute = difference.masked_fill(equal, 0).nan_to_num(torch.inf, posinf=torch.inf).max().item()
    size = reference.abs().nan_to_num(0, posinf=0).max().item()
    return Error(absolute, absolute / size if size else (math.inf if absolute else 0.0))


def layouts(reference: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields both tensors in all pairs of layouts in which their shapes agree, the most likely first.

    A layout is an order of whole axes, where axes may be joined to one: a convolution's "batch width rows columns" for
    "batch tokens width", sequence first, heads joined or split, an axis of 1. A reshape that mixes axes, such as
    (batch, width, rows, columns) to (batch, tokens, width), is none: it puts the numbers in other places.
    """
    if reference.numel() != other.numel():
        return
    x, y = reference.squeeze(), other.squeeze()
    if x.shape == y.shape:
        yield x, y
        for one, two in EXCHANGED.get(x.ndim, ()):
            if x.shape[one] == x.shape[two]:
                yield x, y.transpose(one, two)
        return
    for order in orders(y, x.shape):
        yield x, y.permute(order).reshape(x.shape)
    for order in orders(x, y.shape):
        yield x.permute(order).reshape(y.shape), y


def orders(tensor: Tensor, shape: Shape) -> Iterator[tuple[int, ...]]:
    """The orders of a tensor's axes that give a shape, whole axes joined."""
    if tensor.ndim > MAX_PERMUTED or tensor.ndim < len(shape):
        return
    square = tensor.ndim == 4 and tensor.shape[1] == tensor.shape[2]  # as many heads as tokens, or as rows as columns
    for order in itertools.permutations(range(tensor.ndim)):
        if joins(order, tensor.shape, shape) and not (
            square and order == (0, 1, 2, 3) and tensor.shape[-1] != shape[-1]
        ):
            yield order


def joins(order: Sequence[int], sizes: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether axes in this order have a shape if neighbors are joined, those that are joined in their own order.

    Args:
        order: the axes.
        sizes: of each axis, above 1.
        shape: what they become.
    """
    axes = list(order)
    for size in shape:
        product, last = 1, -1
        while product < size and axes and axes[0] > last:
            last = axes.pop(0)
            product *= sizes[last]
        if product != size:
            return False
    return not axes


def least_error(reference: Tensor, other: Tensor) -> Error:
    """The error in the best layout; stops at the first near match."""
    least = Error(math.inf, math.inf)
    for pair in layouts(reference, other):
        least = min(least, error_of(*pair), key=lambda error: error.relative)
        if least.relative < NEAR:
            break
    return least


def equal_output(reference: Value, other: Value, tolerance: float) -> Error | None:
    """As `same`, for what two models return: of the same shape, they are compared element by element."""
    if reference.shape != other.shape:
        return same(reference, other, tolerance)
    error = error_of(reference.tensor, other.tensor)
    return error if error.relative <= tolerance else None


def nearest_by_value(reference: Value, candidates: Sequence[Value]) -> tuple[Value, Error] | None:
    """The candidate of the same size that is nearest in value; if none is near, the first of its shape."""
    sized = [value for value in candidates if value.tensor.numel() == reference.tensor.numel()]
    if not sized:
        return None
    likely = [value for value in sized[:TRIED] if reference.may_equal(value, NEAR)]
    errors = [(value, least_error(reference.tensor, value.tensor)) for value in likely]
    best = min(errors, key=lambda pair: pair[1].relative, default=None)
    if best is not None and best[1].relative < NEAR:
        return best
    first = next((value for value in sized if value.shape == reference.shape), sized[0])
    return first, least_error(reference.tensor, first.tensor)


def nearest_by_shape(shape: Shape, candidates: Sequence[Value]) -> Value | None:
    """The first candidate with the same number of axes and the most equal ones."""

    def similarity(value: Value) -> tuple[bool, int]:
        equal = sum(a == b for a, b in zip(shape, value.shape, strict=False))
        return len(value.shape) == len(shape), equal

    return max(candidates, key=similarity, default=None)
