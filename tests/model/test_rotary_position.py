"""Rotary positions equal a slow version in complex numbers, and depend on offsets alone."""

import math

import pytest
import torch

from vitreous.model.rotary_position import CONVENTIONS, RotaryPosition

GRID, HEADS, HEAD_DIM, PREFIX = (3, 5), 2, 16, 2


def coordinate(kind, place, count, reference):
    if kind == "dinov3":
        return 2 * math.pi * (2 * (place + 0.5) / count - 1)
    place += 1 if kind == "perception" else 0
    return place if reference is None else place * reference / count


def turned_slowly(kind, x, reference=None, frequencies=None):
    """Each pair of numbers is one complex number, multiplied by exp(i · angle)."""
    base = {"axial": 100.0, "dinov3": 100.0}.get(kind, 10_000.0)
    turned = x.double().clone()
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            r = coordinate(kind, row, GRID[0], reference and reference[0])
            c = coordinate(kind, column, GRID[1], reference and reference[1])
            first, second = (r, c) if kind in ("eva02", "dinov3", "mlcd") else (c, r)
            token = PREFIX + row * GRID[1] + column
            for head in range(HEADS):
                for i in range(HEAD_DIM // 2):
                    quarter = HEAD_DIM // 4
                    angle = (first if i < quarter else second) * base ** -((i % quarter) / quarter)
                    if frequencies is not None:
                        angle = first * frequencies[0, 0, head, i] + second * frequencies[1, 0, head, i]
                    pair = (i, i + HEAD_DIM // 2) if kind in ("dinov3", "mlcd") else (2 * i, 2 * i + 1)
                    real, imaginary = x[:, head, token, pair[0]].double(), x[:, head, token, pair[1]].double()
                    value = torch.complex(real, imaginary) * complex(math.cos(angle), math.sin(angle))
                    turned[:, head, token, pair[0]], turned[:, head, token, pair[1]] = value.real, value.imag
    return turned.float()


def queries_and_keys():
    tokens = PREFIX + GRID[0] * GRID[1]
    return torch.randn(2, HEADS, tokens, HEAD_DIM), torch.randn(2, HEADS, tokens, HEAD_DIM)


@pytest.mark.parametrize("reference", [None, (7, 4)])
@pytest.mark.parametrize("kind", CONVENTIONS)
def test_it_equals_complex_multiplication(kind, reference):
    layer = RotaryPosition(kind, HEADS, HEAD_DIM, 1, PREFIX, reference)
    frequencies = None if layer.frequencies is None else layer.frequencies.detach()
    q, k = queries_and_keys()
    turned_q, turned_k = layer.for_blocks(GRID)(0).rotate(q, k)
    for turned, x in ((turned_q, q), (turned_k, k)):
        expected = turned_slowly(kind, x, reference, frequencies)
        torch.testing.assert_close(turned, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(turned[:, :, :PREFIX], x[:, :, :PREFIX])
        assert not torch.allclose(turned[:, :, PREFIX + 1 :], x[:, :, PREFIX + 1 :], atol=0.1)


@pytest.mark.parametrize("kind", CONVENTIONS)
def test_the_logits_depend_on_the_offset_alone(kind):
    layer = RotaryPosition(kind, HEADS, HEAD_DIM, 1, PREFIX)
    q, k = (torch.randn(1, HEADS, 1, HEAD_DIM).expand(-1, -1, PREFIX + 15, -1) for _ in "qk")
    q, k = layer.for_blocks(GRID)(0).rotate(q, k)
    logits = (q @ k.mT)[0, :, PREFIX:, PREFIX:].unflatten(1, GRID).unflatten(3, GRID)  # heads row column row column
    torch.testing.assert_close(logits[:, :-1, :-1, :-1, :-1], logits[:, 1:, 1:, 1:, 1:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits[:, 0, 0, 0, 1], logits[:, 0, 0, 1, 0], atol=1e-3)


def test_mlcd_turns_the_class_token_by_learned_angles():
    layer = RotaryPosition("mlcd", HEADS, HEAD_DIM, 1, PREFIX)
    torch.nn.init.constant_(layer.class_angles, math.pi)
    q, _ = queries_and_keys()
    turned, _ = layer.for_blocks(GRID)(0).rotate(q, q)
    torch.testing.assert_close(turned[:, :, 0], -q[:, :, 0], rtol=1e-5, atol=1e-5)
    assert torch.equal(turned[:, :, 1:PREFIX], q[:, :, 1:PREFIX])


def test_fewer_queries_are_the_first_tokens():
    layer = RotaryPosition("dinov3", HEADS, HEAD_DIM, 1, PREFIX)
    q, k = queries_and_keys()
    rotation = layer.for_blocks(GRID)(0)
    assert torch.equal(rotation.rotate(q[:, :, :4], k)[0], rotation.rotate(q, k)[0][:, :, :4])


def test_mixed_frequencies_differ_by_block_and_head_and_learn():
    layer = RotaryPosition("mixed", HEADS, HEAD_DIM, 2, PREFIX)
    q, k = queries_and_keys()
    first, second = (layer.for_blocks(GRID)(block).rotate(q, k)[0] for block in (0, 1))
    assert not torch.allclose(first, second, atol=0.1)
    second.square().mul(torch.randn_like(second)).sum().backward()
    gradient = layer.frequencies.grad
    assert gradient[:, 1].abs().min() > 0
    assert not gradient[:, 0].any()
