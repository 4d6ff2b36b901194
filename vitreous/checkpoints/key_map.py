"""One invertible rule for each parameter, and the engine that applies a table of them in either direction.

A rule says which of a family's tensors make up one of ours, and how they are laid out. Nothing is loaded in part:
every source key is used once, every parameter is filled once, every shape is checked, or one error lists all that
differ.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vitreous.support.errors import InputError

LISTED = 8  # names shown in one error, so that it stays readable


class Layout(NamedTuple):
    """How tensors of a family are laid out in one of ours, and back; each undoes the other bit for bit."""

    to_ours: Callable[[Sequence[Tensor]], Tensor]
    to_theirs: Callable[[Tensor], Sequence[Tensor]]


class Rule(NamedTuple):
    """One parameter of ours, the keys of theirs that make it up, and the layout."""

    ours: str
    theirs: tuple[str, ...]
    layout: Layout


def reshaped(ours: Sequence[int], theirs: Sequence[int]) -> Layout:
    """The same numbers in the same order."""
    return Layout(lambda t: t[0].reshape(tuple(ours)), lambda t: [t.reshape(tuple(theirs))])


SAME = Layout(lambda t: t[0], lambda t: [t])
TRANSPOSED = Layout(lambda t: t[0].T, lambda t: [t.T])  # dense kernels: (in, out) there, (out, in) here
HWIO = Layout(lambda t: t[0].permute(3, 2, 0, 1), lambda t: [t.permute(2, 3, 1, 0)])  # convolution kernels


def patch_kernel(height: int, width: int, channels: int) -> Layout:
    """The patch projection: (height, width, channels, D) there, (D, channels · height · width) here."""
    return Layout(
        lambda t: t[0].permute(3, 2, 0, 1).flatten(1),
        lambda t: [t.unflatten(1, (channels, height, width)).permute(2, 3, 1, 0)],
    )


def heads_out(heads: int) -> Layout:
    """Kernels of query, key and value: (D, heads, head_dim) each there; one (3 D, D) here."""
    return Layout(
        lambda t: torch.cat([x.flatten(1).T for x in t]),
        lambda t: [x.T.unflatten(1, (heads, -1)) for x in t.chunk(3)],
    )


def heads_bias(heads: int) -> Layout:
    """Biases of query, key and value: (heads, head_dim) each there; one (3 D) here."""
    return Layout(
        lambda t: torch.cat([x.flatten() for x in t]),
        lambda t: [x.unflatten(0, (heads, -1)) for x in t.chunk(3)],
    )


def heads_in(heads: int) -> Layout:
    """Kernel of attention's output: (heads, head_dim, D) there, (D, D) here."""
    return Layout(lambda t: t[0].flatten(0, 1).T, lambda t: [t.T.unflatten(0, (heads, -1))])


def to_ours(
    source: Mapping[str, Tensor], rules: Iterable[Rule], shapes: Mapping[str, torch.Size], what: str
) -> dict[str, Tensor]:
    """Turns a family's tensors into a state dict of ours.

    Args:
        source: their tensors by their keys.
        rules: the table for this model.
        shapes: the shape that each parameter of ours must have.
        what: what is being read, for the error.

    Raises:
        InputError: a key is missing, left over, or has another shape; all of them are listed.
    """
    rules = list(rules)
    wanted = dict.fromkeys(key for rule in rules for key in rule.theirs)
    filled = {rule.ours for rule in rules}
    missing = [f"{key} is missing" for key in wanted if key not in source]
    left_over = [f"{key} has no place" for key in source if key not in wanted]
    unfilled = [f"{key} is filled by no key" for key in shapes if key not in filled]
    state, misshapen = {}, []
    for rule in rules:
        parts = [source[key] for key in rule.theirs if key in source]
        if len(parts) < len(rule.theirs) or rule.ours not in shapes:
            continue
        try:
            tensor = rule.layout.to_ours(parts)
        except (RuntimeError, IndexError) as error:
            misshapen.append(f"{rule.theirs[0]} has shape {tuple(parts[0].shape)} ({first_line(error)})")
            continue
        if tensor.shape != shapes[rule.ours]:
            expected = tuple(shapes[rule.ours])
            misshapen.append(f"{rule.ours} would have shape {tuple(tensor.shape)} and not {expected}")
        state[rule.ours] = tensor
    if problems := missing + left_over + unfilled + misshapen:
        raise InputError(f"{what} does not fit: {listed(problems)}", "nothing was loaded")
    return {name: tensor.contiguous() for name, tensor in state.items()}


def to_theirs(state: Mapping[str, Tensor], rules: Iterable[Rule]) -> dict[str, Tensor]:
    """Turns a state dict of ours (or its gradients) into a family's tensors: the inverse of `to_ours`, bit for bit.

    Raises:
        InputError: a parameter has no rule, or a rule no parameter; all of them are listed.
    """
    rules = list(rules)
    names = dict.fromkeys(rule.ours for rule in rules)
    differing = [f"{n} has no place there" for n in state if n not in names]
    differing += [f"{n} is missing" for n in names if n not in state]
    if differing:
        raise InputError(f"the model does not fit this format: {listed(differing)}", "nothing was written")
    exported = {}
    for rule in rules:
        parts = rule.layout.to_theirs(state[rule.ours])
        exported |= zip(rule.theirs, (part.contiguous() for part in parts), strict=True)
    return exported


def listed(problems: Sequence[str]) -> str:
    """Joins problems into one line, the first few in full."""
    more = f" … and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    return ", ".join(problems[:LISTED]) + more


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).partition("\n")[0]
