"""Rules and layouts: every layout inverts itself, and every difference is listed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.checkpoints.families.shared.key_map import (
    HWIO,
    QUERY_AND_REST,
    SAME,
    TRANSPOSED,
    Layout,
    joined,
    output_kernel,
    patch_convolution,
    patch_kernel,
    qkv_bias,
    qkv_kernel,
    reshaped,
    rule,
    stacked,
    to_ours,
    to_theirs,
)
from vitreous.support.errors import InputError
from vitreous.support.text import LISTED

sizes = st.integers(1, 5)


@settings(deadline=None, max_examples=30)
@given(heads=sizes, head_dim=sizes, height=sizes, width=sizes, channels=sizes)
def test_every_layout_inverts_itself(heads, head_dim, height, width, channels):
    d = heads * head_dim
    cases = [
        (SAME, [(d, 3)]),
        (TRANSPOSED, [(d, 3)]),
        (HWIO, [(height, width, channels, d)]),
        (reshaped((-1,), (1, 1, 1, -1)), [(1, 1, 1, d)]),
        (patch_kernel(height, width, channels), [(height, width, channels, d)]),
        (patch_convolution(height, width, channels), [(d, channels, height, width)]),
        (joined(3), [(d, 3)] * 3),
        (QUERY_AND_REST, [(d, 3), (2 * d, 3)]),
        (stacked(qkv_kernel(heads), 4), [(4, d, heads, head_dim)] * 3),
        (qkv_kernel(heads), [(d, heads, head_dim)] * 3),
        (qkv_bias(heads), [(heads, head_dim)] * 3),
        (output_kernel(heads), [(heads, head_dim, d)]),
    ]
    for layout, shapes in cases:
        theirs = [torch.randn(shape) for shape in shapes]
        again = layout.to_theirs(layout.to_ours(theirs))
        assert len(again) == len(theirs)
        assert all(torch.equal(a, b) for a, b in zip(again, theirs, strict=True))


def test_a_transposed_dense_kernel_computes_the_same():
    kernel, x = torch.randn(4, 6), torch.randn(2, 4)
    torch.testing.assert_close(x @ kernel, torch.nn.functional.linear(x, TRANSPOSED.to_ours([kernel])[0]))


RULES = [rule("a.weight", "x/kernel", layout=TRANSPOSED), rule("a.bias", "x/bias")]
SHAPES = {"a.weight": torch.Size([3, 2]), "a.bias": torch.Size([3])}


def test_every_difference_is_listed_in_one_error():
    source = {"x/kernel": torch.zeros(5, 3), "y": torch.zeros(1)}
    with pytest.raises(InputError) as caught:
        to_ours(source, RULES, SHAPES | {"b": torch.Size([1])}, "the file")
    for part in (
        "x/bias is missing",
        "y is unexpected",
        "no key fills b",
        "a.weight has shape (3, 5)",
    ):
        assert part in str(caught.value)
    assert "download the file again" in str(caught.value)


def test_a_long_list_stays_one_readable_line():
    with pytest.raises(InputError) as caught:
        to_ours({f"key{i}": torch.zeros(1) for i in range(100)}, RULES, SHAPES, "the file")
    assert f"… and {102 - LISTED} more" in str(caught.value)


def test_export_lists_what_does_not_fit():
    with pytest.raises(InputError, match=r"c has no place there, a\.bias is missing"):
        to_theirs({"a.weight": torch.zeros(3, 2), "c": torch.zeros(1)}, RULES)


def _unpacked(parts):
    query, key, value = parts[0].chunk(3)
    return [query, key, value]


@pytest.mark.parametrize(
    ("misfit", "named"),
    [
        (rule("a", "x", "y", "z", layout=joined(3)), "a has shape (2, 2) (that makes 2 tensors, expected 3)"),
        (rule("a", "x", layout=joined(2)), "a has shape (2, 2) (that makes 2 tensors, expected 1)"),
        (rule("a", "x", layout=Layout(list, _unpacked)), "a has shape (2, 2) (not enough values to"),
    ],
)
def test_tensors_that_do_not_fit_their_layout_are_listed_on_export(misfit, named):
    state = {"a": torch.zeros(2, 2), "b": torch.zeros(1)}
    with pytest.raises(InputError, match="the model does not fit this format") as caught:
        to_theirs(state, [misfit, rule("b", "v", "w")])
    assert named in caught.value.cause
    assert "b has shape (1,) (that makes 1 tensors, expected 2)" in caught.value.cause


@pytest.mark.parametrize(
    ("layout", "named"),
    [
        (Layout(list, list), "x has shape (2, 2), y has shape (2, 2) (that makes 2 tensors, expected 1)"),
        (Layout(lambda t: [], list), "(that makes 0 tensors, expected 1)"),
        (Layout(_unpacked, list), "x has shape (2, 2) (not enough values to unpack"),
    ],
)
def test_tensors_that_do_not_fit_their_layout_are_listed_on_import(layout, named):
    source = {"x": torch.zeros(2, 2), "y": torch.zeros(2, 2)}
    with pytest.raises(InputError, match="the file does not fit") as caught:
        to_ours(source, [rule("a", "x", "y", layout=layout)], {"a": torch.Size([2, 2])}, "the file")
    assert named in caught.value.cause


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int8, torch.bool, torch.float8_e4m3fn])
def test_tensors_of_other_dtypes_are_named(dtype):
    source = {"x/kernel": torch.zeros(2, 3, dtype=dtype), "x/bias": torch.zeros(3)}
    with pytest.raises(InputError, match=f"x/kernel is {str(dtype).removeprefix('torch.')}; check --family"):
        to_ours(source, RULES, SHAPES, "the file")


def test_the_dtypes_that_were_read_are_collected():
    dtypes = set()
    source = {"x/kernel": torch.zeros(2, 3).half(), "x/bias": torch.zeros(3).double(), "left": torch.zeros(1)}
    state = to_ours(source, RULES, SHAPES, "the file", ["x/kernel", "x/bias"], dtypes)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert dtypes == {torch.float16, torch.float64}
