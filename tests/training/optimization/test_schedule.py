import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous.training.optimization.schedule import lr_factor

REFERENCE = Path(__file__).parents[2] / "reference"


@pytest.mark.parametrize(
    ("step", "total", "warmup", "factor"),
    [
        (0, 10, 4, 1 / 4),
        (3, 10, 4, 1),
        (4, 10, 4, 1),
        (7, 10, 4, 1 / 2),
        (8, 10, 4, 1 / 4),
        (9, 10, 4, (1 + math.cos(math.pi * 5 / 6)) / 2),
        (0, 1, 0, 1),
        (0, 10, 20, 1 / 20),
        (9, 10, 20, 1 / 2),
    ],
)
def test_by_hand(step: int, total: int, warmup: int, factor: float):
    assert lr_factor(step, total, warmup) == pytest.approx(factor)


@pytest.mark.parametrize(("name", "peak"), [("sgd", 0.03), ("adamw", 1e-3)])
def test_as_the_authors_code(name: str, peak: float):
    with np.load(REFERENCE / "vit_class_token.study.npz") as study:
        rates = study[f"{name}/lr"]
    ours = [peak * lr_factor(step, total=10, warmup=3) for step in range(10)]
    np.testing.assert_allclose(ours, rates, rtol=2e-6)


@given(st.integers(1, 300), st.integers(0, 400))
def test_rises_to_one_then_falls_and_never_reaches_zero(total: int, warmup: int):
    factors = [lr_factor(step, total, warmup) for step in range(total)]
    top = min(warmup, total)
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1 or warmup > total


@pytest.mark.parametrize(
    ("decay", "cooldown", "factors"),
    [
        ("linear", 0, [1 / 2, 1, 1, 3 / 4, 1 / 2, 1 / 4]),
        ("constant", 0, [1 / 2, 1, 1, 1, 1, 1]),
        ("constant", 2, [1 / 2, 1, 1, 1, 2 / 3, 1 / 3]),
        ("rsqrt", 0, [1 / 2, 1, 1, (2 / 3) ** 0.5, (2 / 4) ** 0.5, (2 / 5) ** 0.5]),
        ("rsqrt", 1, [1 / 2, 1, 1, (2 / 3) ** 0.5, (2 / 4) ** 0.5, (2 / 5) ** 0.5 / 2]),
        ("linear", 1, [1 / 2, 1, 1, 3 / 4, 1 / 2, 1 / 8]),
    ],
)
def test_other_ways_down_by_hand(decay: str, cooldown: int, factors: list[float]):
    assert [lr_factor(step, 6, 2, decay, cooldown) for step in range(6)] == pytest.approx(factors)
