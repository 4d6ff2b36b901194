"""A nested state as tensors and JSON, and back: no pickle, and every number to the bit."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

TENSOR, NUMBER, PAIRS, TUPLE = "$tensor", "$number", "$pairs", "$tuple"  # marks of what JSON has no form for
MARKS = (TENSOR, NUMBER, PAIRS, TUPLE)


def pack(state: object) -> tuple[dict[str, Tensor], Any]:
    """The tensors of a state, by their place in it, and the rest as values of JSON.

    Args:
        state: dicts, lists and tuples of tensors, text, numbers, booleans and None; the keys of a dict are text or
            whole numbers.

    Raises:
        TypeError: it has something else, or two tensors at places of the same name.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _pack(state, "", tensors)


def unpack(tensor: Callable[[str], Any], packed: Any) -> Any:
    """The state that was packed.

    Args:
        tensor: gives the tensor with a name.
        packed: the values.
    """
    if isinstance(packed, list):
        return [unpack(tensor, item) for item in packed]
    if not isinstance(packed, dict):
        return packed
    mark = next(iter(packed), "")
    if mark not in MARKS:
        return {key: unpack(tensor, value) for key, value in packed.items()}
    content = packed[mark]
    if mark == TENSOR:
        return tensor(content)
    if mark == NUMBER:
        return float(content)
    if mark == TUPLE:
        return tuple(unpack(tensor, item) for item in content)
    return {key: unpack(tensor, value) for key, value in content}


def _pack(value: object, place: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {NUMBER: repr(value)}
    if isinstance(value, Tensor):
        if place in tensors:
            raise TypeError(f"two tensors at {place!r} cannot be saved")
        tensors[place] = value
        return {TENSOR: place}
    if type(value) is list:
        return [_pack(item, f"{place}/{number}", tensors) for number, item in enumerate(value)]
    if type(value) is tuple:
        return {TUPLE: [_pack(item, f"{place}/{number}", tensors) for number, item in enumerate(value)]}
    if isinstance(value, dict) and all(type(key) in (int, str) for key in value):
        items = [(key, _pack(item, f"{place}/{key}" if place else str(key), tensors)) for key, item in value.items()]
        plain = all(isinstance(key, str) and key not in MARKS for key in value)
        return dict(items) if plain else {PAIRS: [list(item) for item in items]}
    raise TypeError(f"a {type(value).__name__} at {place!r} cannot be saved")
