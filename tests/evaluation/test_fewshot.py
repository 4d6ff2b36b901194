import numpy as np
import pytest

from vitreous.evaluation.fewshot import few, few_shot_accuracy, least_squares
from vitreous.support.errors import InputError

CLASSES = 3


def clouds(seed: int, each: int, spread: float, width: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Noisy points around one center for each class, with features of very different sizes."""
    centers = np.random.default_rng(0).normal(size=(CLASSES, width))
    labels = np.repeat(np.arange(CLASSES), each)
    noise = np.random.default_rng(seed).normal(size=(len(labels), width))
    return ((centers[labels] + spread * noise) * 10.0 ** np.arange(-2, width - 2)).astype(np.float32), labels


def plain_predictions(x: np.ndarray, y: np.ndarray, test: np.ndarray, l2: float) -> list[int]:
    """The same by gradient-free arithmetic on lists: each class on its own, columns scaled one by one."""
    rows = [[float(v) for v in row] for row in x]
    tests = [[float(v) for v in row] for row in test]
    for column in range(x.shape[1]):
        values = [row[column] for row in rows]
        mean = sum(values) / len(values)
        deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5 + 1e-5
        for row in rows + tests:
            row[column] = (row[column] - mean) / deviation
    for row in rows + tests:
        row.append(100.0)
    scores = []
    for label in range(CLASSES):
        # Ridge regression is plain least squares with a row of sqrt(l2) and target 0 for each weight.
        below = np.sqrt(l2) * np.eye(len(rows[0]))
        targets = [1.0 if one == label else -1.0 for one in y] + [0.0] * len(rows[0])
        weights = np.linalg.lstsq(np.vstack([rows, below]), np.array(targets), rcond=None)[0]
        scores.append([sum(w * v for w, v in zip(weights, row, strict=True)) for row in tests])
    return [max(range(CLASSES), key=lambda label: scores[label][i]) for i in range(len(tests))]


@pytest.mark.parametrize("shots", [1, 2, 10, None])
@pytest.mark.parametrize("l2", [1.0, 2.0**10])
def test_as_a_slow_plain_version_has_it(shots, l2):
    x, y = clouds(1, 10, spread=1.5)
    test, truth = clouds(2, 60, spread=1.5)
    chosen = few(y, CLASSES, shots, seed=4)
    expected = np.array(plain_predictions(x[chosen], y[chosen], test, l2)) == truth
    assert few_shot_accuracy(x, y, test, truth, CLASSES, shots, 4, l2) == expected.mean()
    assert 0.4 < expected.mean() < 1, "neither chance nor all: a difference would show"


def test_both_systems_of_equations_give_the_same_weights():
    x, y = np.random.default_rng(0).normal(size=(9, 9)), np.eye(9)
    weights = least_squares(x, y, 3.0)
    wide = least_squares(np.hstack([x, np.zeros((9, 1))]), y, 3.0)
    np.testing.assert_allclose(wide[:9], weights, rtol=1e-9)
    assert np.abs(weights).min() > 0


def test_what_is_apart_is_told_apart():
    x, y = clouds(1, 25, spread=0.01)
    test, truth = clouds(2, 25, spread=0.01)
    assert few_shot_accuracy(x, y, test, truth, CLASSES, 5) == 1.0
    assert few_shot_accuracy(x, y, test, (truth + 1) % CLASSES, CLASSES, 5) == 0.0


def test_the_draw():
    labels = np.array([2, 0, 1, 0, 1, 2, 2, 0, 1, 2, 0, 1])
    drawn = few(labels, 3, 2, seed=0)
    assert np.bincount(labels[drawn]).tolist() == [2, 2, 2]
    assert len(set(drawn.tolist())) == 6
    assert set(drawn) < set(few(labels, 3, 3, seed=0)), "more shots add to the fewer"
    assert few(labels, 3, 2, seed=0).tolist() == drawn.tolist()
    assert len({tuple(few(labels, 3, 2, seed)) for seed in range(10)}) > 5
    assert few(labels, 3, None, seed=0).tolist() == list(range(12))


@pytest.mark.parametrize("shots", [0, 3])
def test_more_shots_than_a_class_has(shots):
    with pytest.raises(InputError, match=f"{shots} shots of each class") as raised:
        few(np.array([0, 0, 0, 1, 1]), 2, shots, 0)
    assert "2 images" in raised.value.hint


def test_nothing_to_test_on():
    x, y = clouds(1, 3, 1.0)
    with pytest.raises(InputError, match="no test images"):
        few_shot_accuracy(x, y, x[:0], y[:0], CLASSES)
