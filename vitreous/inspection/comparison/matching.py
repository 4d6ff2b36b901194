"""Finding the same values again in another model, whatever it calls them and however it lays them out."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitreous.inspection.recording import Shape

NEAR = 0.1  # relative error of values that are still about the same
TRIED = 20  # tensors that may be the one meant; it runs soon after the last that is the same
MAX_PERMUTED = 4  # dimensions; more have too many orders


@dataclass(frozen=True)
class Error:
    """How far two tensors are apart."""

    absolute: float  # the largest difference of two elements
    relative: float  # that, of the reference's largest element


class Value:
    """A tensor of a pass, with marks that stay when its axes are reordered.

    Args:
        tensor: the values.
        path: of the module or operation it came out of, or whose input it was.
    """

    def __init__(self, tensor: Tensor, path: str = "") -> None:
        self.tensor = tensor
        self.path = path
        self.shape: Shape = tuple(tensor.shape)
        x = tensor.double() if tensor.device.type != "mps" else tensor.float()
        self.marks = torch.stack([x.min(), x.max(), x.mean(), x.square().mean().sqrt()]).tolist()
        self.size = max(abs(self.marks[0]), abs(self.marks[1]))
        first = tensor[:1] if tensor.ndim else tensor
        self.constant = self.size == 0 or (len(first) < len(tensor) and bool((tensor == first).all()))

    def is_same_tensor(self, tensor: Tensor) -> bool:
        """Tells whether another tensor has the same shape and, to the bit, the same values."""
        return self.shape == tuple(tensor.shape) and torch.equal(self.tensor, tensor)

    def may_equal(self, other: "Value", tolerance: float) -> bool:
        """Tells quickly whether `other` could hold these values in some order."""
        if self.tensor.numel() != other.tensor.numel():
            return False
        allowed = tolerance * self.size
        return all(abs(a - b) <= allowed for a, b in zip(self.marks, other.marks, strict=True))


def same(reference: Value, other: Value, tolerance: float) -> Error | None:
    """The error if both hold the same values, in whatever layout, within the tolerance; else None."""
    if not reference.may_equal(other, tolerance):
        return None
    error = least_error(reference.tensor, other.tensor)
    return error if error.relative <= tolerance else None


def error_of(reference: Tensor, other: Tensor) -> Error:
    """How far a tensor of the same shape is from the reference; infinitely, where only one is finite."""
    difference = (reference - other.to(reference)).abs()
    equal = reference == other.to(reference)  # infinities too
    absolute = difference.masked_fill(equal, 0).nan_to_num(torch.inf, posinf=torch.inf).max().item()
    size = reference.abs().nan_to_num(0, posinf=0).max().item()
    return Error(absolute, absolute / size if size else (math.inf if absolute else 0.0))


def layouts(reference: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Both tensors in each pair of layouts in which they have one shape, the likeliest first.

    Any order of axes, then any way of joining or splitting them: a convolution's "batch width rows columns" for
    "batch tokens width", sequence first, heads joined or apart, a leading axis of 1.
    """
    if reference.numel() != other.numel():
        return
    if reference.shape == other.shape:
        yield reference, other
    else:
        yield reference, other.reshape(reference.shape)
    for order in orders(other.ndim):
        yield reference, other.permute(order).reshape(reference.shape)
    for order in orders(reference.ndim):
        yield reference.permute(order).reshape(other.shape), other


def orders(dimensions: int) -> Iterator[tuple[int, ...]]:
    """The orders of some axes, without the one they have."""
    if dimensions <= MAX_PERMUTED:
        yield from itertools.islice(itertools.permutations(range(dimensions)), 1, None)


def least_error(reference: Tensor, other: Tensor) -> Error:
    """The error in the layout in which it is least; the first in which they are about the same is the right one."""
    least = Error(math.inf, math.inf)
    for pair in layouts(reference, other):
        least = min(least, error_of(*pair), key=lambda error: error.relative)
        if least.relative < NEAR:
            break
    return least


def nearest_by_value(reference: Value, candidates: Sequence[Value]) -> tuple[Value, Error] | None:
    """The candidate of the same size that is nearest in value; where none is near, the first of its shape."""
    sized = [value for value in candidates if value.tensor.numel() == reference.tensor.numel()]
    if not sized:
        return None
    like = [value for value in sized[:TRIED] if reference.may_equal(value, NEAR)]
    errors = [(value, least_error(reference.tensor, value.tensor)) for value in like]
    best = min(errors, key=lambda pair: pair[1].relative, default=None)
    if best is not None and best[1].relative < NEAR:
        return best
    first = next((value for value in sized if value.shape == reference.shape), sized[0])
    return first, least_error(reference.tensor, first.tensor)


def nearest_by_shape(shape: Shape, candidates: Sequence[Value]) -> Value | None:
    """The first candidate with as many axes, and as many of them the same, as there are."""

    def likeness(value: Value) -> tuple[bool, int]:
        alike = sum(a == b for a, b in zip(shape, value.shape, strict=False))
        return len(value.shape) == len(shape), alike

    return max(candidates, key=likeness, default=None)
