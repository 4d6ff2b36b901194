"""Invertible rules between our parameters and a family's tensors, and the functions that apply a table of them.

A rule lists the tensors of a family that make up some of our parameters, and their layout. Nothing is loaded in part:
every source key is used once, every parameter is filled once, every shape is checked, and one error lists all
differences.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vitreous.checkpoints.files.dtypes import DTYPES, dtype_name, is_finite
from vitreous.support.errors import InputError
from vitreous.support.text import first_line, listed
from vitreous.support.threads import in_order


class Layout(NamedTuple):
    """How a family's tensors are laid out in ours, and back; each inverts the other bit for bit.

    Where a family has one tensor for two of ours, they are merged and only the function is preserved.
    """

    to_ours: Callable[[Sequence[Tensor]], Sequence[Tensor]]
    to_theirs: Callable[[Sequence[Tensor]], Sequence[Tensor]]


class Rule(NamedTuple):
    """Parameters of ours, the family's keys that make them up, and the layout; usually one of each."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    layout: Layout


SAME = Layout(list, list)
THREADS = 2  # most of the time of loading goes into pages of memory and of the file


def rule(ours: str, *theirs: str, layout: Layout = SAME) -> Rule:
    """A rule for one of our parameters."""
    return Rule((ours,), theirs, layout)


def one_to_one(to_ours: Callable[[Tensor], Tensor], to_theirs: Callable[[Tensor], Tensor]) -> Layout:
    """A layout of one tensor."""
    return Layout(lambda t: [to_ours(t[0])], lambda t: [to_theirs(t[0])])


def reshaped(ours: Sequence[int], theirs: Sequence[int]) -> Layout:
    """The same numbers in the same order."""
    return one_to_one(lambda t: t.reshape(tuple(ours)), lambda t: t.reshape(tuple(theirs)))


TRANSPOSED = one_to_one(lambda t: t.T, lambda t: t.T)  # dense kernels: theirs (in, out), ours (out, in)
HWIO = one_to_one(lambda t: t.permute(3, 2, 0, 1), lambda t: t.permute(2, 3, 1, 0))  # convolution kernels


def patch_kernel(height: int, width: int, channels: int) -> Layout:
    """The patch projection: theirs (height, width, channels, D), ours (D, channels · height · width)."""
    return one_to_one(
        lambda t: t.permute(3, 2, 0, 1).flatten(1),
        lambda t: t.unflatten(1, (channels, height, width)).permute(2, 3, 1, 0),
    )


def patch_convolution(height: int, width: int, channels: int) -> Layout:
    """The patch projection: theirs (D, channels, height, width), ours (D, channels · height · width)."""
    return one_to_one(lambda t: t.flatten(1), lambda t: t.unflatten(1, (channels, height, width)))


def joined(parts: int) -> Layout:
    """Separate tensors in the family, concatenated along the first axis in ours: query, key and value."""
    return Layout(lambda t: [torch.cat(list(t))], lambda t: t[0].chunk(parts))


def both(ours: str, theirs: str, layout: Layout = SAME) -> Iterator[Rule]:
    """The rules for a layer's weight and bias under the same names; the layout is the weight's."""
    yield rule(f"{ours}.weight", f"{theirs}.weight", layout=layout)
    yield rule(f"{ours}.bias", f"{theirs}.bias")


def qkv_kernel(heads: int) -> Layout:
    """Kernels of query, key and value: theirs (D, heads, head_dim) each, ours one (3 D, D)."""
    return Layout(
        lambda t: [torch.cat([x.flatten(1).T for x in t])],
        lambda t: [x.T.unflatten(1, (heads, -1)) for x in t[0].chunk(3)],
    )


QUERY_AND_REST = Layout(  # query, and key and value together: one and two thirds of the rows
    lambda t: [torch.cat(list(t))], lambda t: t[0].split([len(t[0]) // 3, len(t[0]) // 3 * 2])
)


def qkv_bias(heads: int) -> Layout:
    """Biases of query, key and value: theirs (heads, head_dim) each, ours one (3 D)."""
    return Layout(
        lambda t: [torch.cat([x.flatten() for x in t])],
        lambda t: [x.unflatten(0, (heads, -1)) for x in t[0].chunk(3)],
    )


def output_kernel(heads: int) -> Layout:
    """Kernel of attention's output: theirs (heads, head_dim, D), ours (D, D)."""
    return one_to_one(lambda t: t.flatten(0, 1).T, lambda t: t.T.unflatten(0, (heads, -1)))


def stacked(layout: Layout, depth: int) -> Layout:
    """A layout of one block, for tensors that hold all blocks along a leading axis."""
    return Layout(
        lambda t: [x for i in range(depth) for x in layout.to_ours([stack[i] for stack in t])],
        lambda t: [torch.stack(parts) for parts in zip(*(layout.to_theirs([x]) for x in t), strict=True)],
    )


def constant(value: float, *shape: int) -> Layout:
    """A tensor that only the family has, with a value that has no effect, such as a zero bias. For export only."""
    return Layout(lambda t: [], lambda t: [torch.full(shape, value)])


def to_ours(
    source: Mapping[str, Tensor],
    rules: Iterable[Rule],
    shapes: Mapping[str, torch.Size],
    name: str,
    keys: Collection[str] | None = None,
    dtypes: set[torch.dtype] | None = None,
) -> dict[str, Tensor]:
    """Converts a family's tensors to a state dict of ours, in float32, reading and converting in two threads.

    Args:
        source: the family's tensors by key.
        rules: the table for this model.
        shapes: the shape that each of our parameters must have.
        name: of the source, for errors.
        keys: the keys of `source` to use, each once; all if None.
        dtypes: collects the dtypes of the family's tensors.

    Raises:
        InputError: a key is missing, unexpected or has another shape, or values are complex, integer or not finite;
            it lists all of them.
    """
    rules = list(rules)
    keys = source.keys() if keys is None else keys
    problems = differing_keys(keys, rules, shapes)
    # The others are already listed.
    usable = [r for r in rules if all(key in keys for key in r.theirs) and all(name in shapes for name in r.ours)]
    converted = list(in_order(lambda rule: _convert(source, rule, shapes), usable, THREADS))
    if dtypes is not None:
        dtypes |= {dtype for c in converted for dtype in c.dtypes}
    if problems := problems + [problem for c in converted for problem in c.problems]:
        hint = "check --family and --set, or download the file again"
        raise InputError(f"{name} does not fit: {listed(problems)}", hint)
    if broken := [f"{parameter} is not finite" for c in converted for parameter in c.broken]:
        hint = "download the file again, or train again with a lower lr"
        raise InputError(f"{name} is damaged: {listed(broken)}", hint)
    return {parameter: tensor for c in converted for parameter, tensor in c.tensors.items()}


class Converted(NamedTuple):
    """The result of one rule: parameters of ours, or what is wrong."""

    tensors: Mapping[str, Tensor]
    dtypes: Collection[torch.dtype]
    problems: Sequence[str]
    broken: Sequence[str]  # parameters with values that are not finite


def _convert(source: Mapping[str, Tensor], rule: Rule, shapes: Mapping[str, torch.Size]) -> Converted:
    parts = {key: source[key] for key in rule.theirs}
    tensors, problems = _to_ours(rule.layout, parts, len(rule.ours))
    converted = {}
    for parameter, tensor in zip(rule.ours if not problems else (), tensors, strict=True):
        if tensor.shape == shapes[parameter]:
            converted[parameter] = tensor.float().contiguous()
        else:
            problems.append(f"{parameter} has shape {tuple(tensor.shape)}, expected {tuple(shapes[parameter])}")
    broken = [parameter for parameter, tensor in converted.items() if not is_finite(tensor)]
    return Converted(converted, {part.dtype for part in parts.values()}, problems, broken)


def differing_keys(keys: Collection[str], rules: Sequence[Rule], shapes: Mapping[str, torch.Size]) -> list[str]:
    """The missing and unexpected keys of a family, and the parameters of ours that no rule fills."""
    expected = dict.fromkeys(key for rule in rules for key in rule.theirs)
    filled = {name for rule in rules for name in rule.ours}
    missing = [f"{key} is missing" for key in expected if key not in keys]
    unexpected = [f"{key} is unexpected" for key in keys if key not in expected]
    unfilled = [f"no key fills {name}" for name in shapes if name not in filled]
    surplus = [f"the model has no {name}" for name in filled if name not in shapes]
    return missing + unexpected + unfilled + sorted(surplus)


def _to_ours(layout: Layout, parts: Mapping[str, Tensor], count: int) -> tuple[Sequence[Tensor], list[str]]:
    """A family's tensors in our layout, or none and the reasons: another rank, or a dtype that weights do not have."""
    misfits = [f"{key} is {dtype_name(part.dtype)}" for key, part in parts.items() if part.dtype not in DTYPES.values()]
    if misfits:
        return [], misfits
    return _converted(layout.to_ours, parts, count)


def _converted(
    convert: Callable[[Sequence[Tensor]], Sequence[Tensor]], parts: Mapping[str, Tensor], count: int
) -> tuple[Sequence[Tensor], list[str]]:
    """The `count` tensors that a layout makes of some others, or none and why they do not fit it."""
    shapes = [f"{key} has shape {tuple(part.shape)}" for key, part in parts.items()]
    try:
        tensors = list(convert(list(parts.values())))
    except InputError:  # which is a ValueError
        raise
    except (RuntimeError, IndexError, ValueError) as error:
        return [], [f"{', '.join(shapes[:1])} ({first_line(error)})"]
    if len(tensors) != count:
        return [], [f"{', '.join(shapes)} (that makes {len(tensors)} tensors, expected {count})"]
    return tensors, []


def to_theirs(state: Mapping[str, Tensor], rules: Iterable[Rule]) -> dict[str, Tensor]:
    """Converts a state dict of ours (or its gradients) to a family's tensors: the inverse of `to_ours`, bit for bit.

    Raises:
        InputError: a parameter has no rule, a rule no parameter, or one does not fit its rule; it lists all of them.
    """
    rules = list(rules)
    expected = dict.fromkeys(name for rule in rules for name in rule.ours)
    problems = [f"{name} has no place there" for name in state if name not in expected]
    problems += [f"{name} is missing" for name in expected if name not in state]
    exported: dict[str, Tensor] = {}
    for ours, theirs, layout in rules if not problems else ():
        parts, misfits = _converted(layout.to_theirs, {name: state[name] for name in ours}, len(theirs))
        problems += misfits
        if not misfits:
            exported |= zip(theirs, (part.contiguous() for part in parts), strict=True)
    if problems:
        raise InputError(f"the model does not fit this format: {listed(problems)}", "nothing was written")
    return exported
