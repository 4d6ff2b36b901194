"""A packed state is the same state: every number to the bit, and no pickle."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitreous.training.checkpointing.packing import pack, unpack

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
STATES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.sampled_from(["$tensor", "$pairs"]), inner)
    ),
    max_leaves=20,
)


def same(a: object, b: object) -> bool:
    """Equal in value and type, and the keys of a dict in the same order."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return [*a] == [*b] and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return a == b


@given(STATES)
def test_any_state_comes_back(state):
    tensors, packed = pack(state)
    assert not tensors
    assert same(unpack({}.__getitem__, json.loads(json.dumps(packed, allow_nan=False))), state)


def test_tensors_are_named_by_their_place():
    state = {"a": [torch.ones(2), {"b": torch.zeros(0)}], 3: (torch.tensor(True),), "n": 1}
    tensors, packed = pack(state)
    assert sorted(tensors) == ["3/0", "a/0", "a/1/b"]
    back = unpack(tensors.__getitem__, json.loads(json.dumps(packed)))
    assert back["a"][0] is state["a"][0]
    assert back[3][0] is state[3][0]


def test_equal_places_of_different_keys_are_refused():
    with pytest.raises(TypeError, match="two tensors"):
        pack({"a/b": torch.ones(1), "a": {"b": torch.zeros(1)}})


@pytest.mark.parametrize("value", [object(), {1, 2}, {(1, 2): 3}, b"bytes", torch.float32, 1j])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(TypeError, match="cannot be saved"):
        pack({"a": value})
