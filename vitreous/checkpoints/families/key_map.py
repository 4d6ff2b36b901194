"""Invertible rules between our parameters and a family's tensors, and the engine that applies a table of them.

A rule says which of a family's tensors make up which of ours, and how they are laid out. Nothing is loaded in part:
every source key is used once, every parameter is filled once, every shape is checked, or one error lists all that
differ.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vitreous.checkpoints.files.dtypes import DTYPES, finite, type_name
from vitreous.support.errors import InputError
from vitreous.support.text import first_line, listed


class Layout(NamedTuple):
    """How tensors of a family are laid out in ours, and back; each undoes the other bit for bit.

    Where a family lacks what we keep apart, two tensors are folded into one, and only the function is kept.
    """

    to_ours: Callable[[Sequence[Tensor]], Sequence[Tensor]]
    to_theirs: Callable[[Sequence[Tensor]], Sequence[Tensor]]


class Rule(NamedTuple):
    """Parameters of ours, the keys of theirs that make them up, and the layout; most often one of each."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    layout: Layout


SAME = Layout(list, list)


def rule(ours: str, *theirs: str, layout: Layout = SAME) -> Rule:
    """A rule for one parameter of ours."""
    return Rule((ours,), theirs, layout)


def one_to_one(to_ours: Callable[[Tensor], Tensor], to_theirs: Callable[[Tensor], Tensor]) -> Layout:
    """A layout of one tensor."""
    return Layout(lambda t: [to_ours(t[0])], lambda t: [to_theirs(t[0])])


def reshaped(ours: Sequence[int], theirs: Sequence[int]) -> Layout:
    """The same numbers in the same order."""
    return one_to_one(lambda t: t.reshape(tuple(ours)), lambda t: t.reshape(tuple(theirs)))


TRANSPOSED = one_to_one(lambda t: t.T, lambda t: t.T)  # dense kernels: (in, out) there, (out, in) here
HWIO = one_to_one(lambda t: t.permute(3, 2, 0, 1), lambda t: t.permute(2, 3, 1, 0))  # convolution kernels


def patch_kernel(height: int, width: int, channels: int) -> Layout:
    """The patch projection: (height, width, channels, D) there, (D, channels · height · width) here."""
    return one_to_one(
        lambda t: t.permute(3, 2, 0, 1).flatten(1),
        lambda t: t.unflatten(1, (channels, height, width)).permute(2, 3, 1, 0),
    )


def patch_convolution(height: int, width: int, channels: int) -> Layout:
    """The patch projection: (D, channels, height, width) there, (D, channels · height · width) here."""
    return one_to_one(lambda t: t.flatten(1), lambda t: t.unflatten(1, (channels, height, width)))


def joined(parts: int) -> Layout:
    """Tensors that stand apart there and one below the other here: query, key and value."""
    return Layout(lambda t: [torch.cat(list(t))], lambda t: t[0].chunk(parts))


def both(ours: str, theirs: str, layout: Layout = SAME) -> Iterator[Rule]:
    """The rules for a weight and a bias of the same names there; the layout is the weight's."""
    yield rule(f"{ours}.weight", f"{theirs}.weight", layout=layout)
    yield rule(f"{ours}.bias", f"{theirs}.bias")


def heads_out(heads: int) -> Layout:
    """Kernels of query, key and value: (D, heads, head_dim) each there; one (3 D, D) here."""
    return Layout(
        lambda t: [torch.cat([x.flatten(1).T for x in t])],
        lambda t: [x.T.unflatten(1, (heads, -1)) for x in t[0].chunk(3)],
    )


QUERY_AND_REST = Layout(  # query, and key and value in one: a third and two thirds of the rows
    lambda t: [torch.cat(list(t))], lambda t: t[0].split([len(t[0]) // 3, len(t[0]) // 3 * 2])
)


def heads_bias(heads: int) -> Layout:
    """Biases of query, key and value: (heads, head_dim) each there; one (3 D) here."""
    return Layout(
        lambda t: [torch.cat([x.flatten() for x in t])],
        lambda t: [x.unflatten(0, (heads, -1)) for x in t[0].chunk(3)],
    )


def heads_in(heads: int) -> Layout:
    """Kernel of attention's output: (heads, head_dim, D) there, (D, D) here."""
    return one_to_one(lambda t: t.flatten(0, 1).T, lambda t: t.T.unflatten(0, (heads, -1)))


def stacked(layout: Layout, depth: int) -> Layout:
    """A layout of one block, for tensors that hold all blocks along a leading axis."""
    return Layout(
        lambda t: [x for i in range(depth) for x in layout.to_ours([stack[i] for stack in t])],
        lambda t: [torch.stack(parts) for parts in zip(*(layout.to_theirs([x]) for x in t), strict=True)],
    )


def constant(value: float, *shape: int) -> Layout:
    """A tensor that the family has and we do not, since it changes nothing: a bias of zeros. For export alone."""
    return Layout(lambda t: [], lambda t: [torch.full(shape, value)])


def to_ours(
    source: Mapping[str, Tensor],
    rules: Iterable[Rule],
    shapes: Mapping[str, torch.Size],
    what: str,
    keys: Collection[str] | None = None,
    dtypes: set[torch.dtype] | None = None,
) -> dict[str, Tensor]:
    """Turns a family's tensors into a state dict of ours, in float32.

    Values are read one rule at a time, once all keys are known to fit.

    Args:
        source: their tensors by their keys.
        rules: the table for this model.
        shapes: the shape that each parameter of ours must have.
        what: what is being read, for the error.
        keys: those of `source` that are to be used, each once; all if None.
        dtypes: takes the types that their tensors have.

    Raises:
        InputError: a key is missing, left over, or has another shape, values are complex or integers or not finite;
            all are listed.
    """
    rules = list(rules)
    keys = source.keys() if keys is None else keys
    dtypes = set() if dtypes is None else dtypes
    problems = differing_keys(keys, rules, shapes)
    state: dict[str, Tensor] = {}
    for ours, theirs, layout in rules:
        if any(key not in keys for key in theirs) or any(name not in shapes for name in ours):
            continue  # it is listed already
        parts = {key: source[key] for key in theirs}
        dtypes |= {part.dtype for part in parts.values()}
        tensors, odd = laid_out(layout, parts)
        problems += odd
        for name, tensor in zip(ours if not odd else (), tensors, strict=True):
            if tensor.shape != shapes[name]:
                problems.append(f"{name} would have shape {tuple(tensor.shape)} and not {tuple(shapes[name])}")
            elif not problems:
                state[name] = tensor.float().contiguous()
    if problems:
        raise InputError(f"{what} does not fit: {listed(problems)}", "nothing was loaded")
    broken = [f"{name} holds values that are not finite" for name, tensor in state.items() if not finite(tensor)]
    if broken:
        raise InputError(f"{what} is damaged: {listed(broken)}", "nothing was loaded")
    return state


def differing_keys(keys: Collection[str], rules: Sequence[Rule], shapes: Mapping[str, torch.Size]) -> list[str]:
    """The keys of theirs that are missing or left over, and the parameters of ours that none of them fills."""
    wanted = dict.fromkeys(key for rule in rules for key in rule.theirs)
    filled = {name for rule in rules for name in rule.ours}
    missing = [f"{key} is missing" for key in wanted if key not in keys]
    left_over = [f"{key} has no place" for key in keys if key not in wanted]
    unfilled = [f"{name} is filled by no key" for name in shapes if name not in filled]
    return missing + left_over + unfilled


def laid_out(layout: Layout, parts: Mapping[str, Tensor]) -> tuple[Sequence[Tensor], list[str]]:
    """Tensors of theirs in our layout, or none and why not: numbers that no weights have, or another rank."""
    odd = [f"{key} is of {type_name(part.dtype)}" for key, part in parts.items() if part.dtype not in DTYPES.values()]
    if odd:
        return [], odd
    try:
        return layout.to_ours(list(parts.values())), []
    except (RuntimeError, IndexError) as error:
        key, part = next(iter(parts.items()))
        return [], [f"{key} has shape {tuple(part.shape)} ({first_line(error)})"]


def to_theirs(state: Mapping[str, Tensor], rules: Iterable[Rule]) -> dict[str, Tensor]:
    """Turns a state dict of ours (or its gradients) into a family's tensors: the inverse of `to_ours`, bit for bit.

    Raises:
        InputError: a parameter has no rule, or a rule no parameter; all of them are listed.
    """
    rules = list(rules)
    names = dict.fromkeys(name for rule in rules for name in rule.ours)
    differing = [f"{n} has no place there" for n in state if n not in names]
    differing += [f"{n} is missing" for n in names if n not in state]
    if differing:
        raise InputError(f"the model does not fit this format: {listed(differing)}", "nothing was written")
    exported: dict[str, Tensor] = {}
    for ours, theirs, layout in rules:
        if twice := exported.keys() & set(theirs):
            raise InputError(f"the spelling of the keys gives {min(twice)!r} twice", "export it without: --plain")
        parts = layout.to_theirs([state[name] for name in ours])
        exported |= zip(theirs, (part.contiguous() for part in parts), strict=True)
    return exported
