import numpy as np
import pytest

from vitreous.evaluation.fewshot import draw_shots, few_shot_accuracy
from vitreous.support.errors import InputError

CLASSES = 3


def clouds(seed: int, each: int, spread: float, width: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Noisy points around one center per class, with features of very different scales."""
    centers = np.random.default_rng(0).normal(size=(CLASSES, width))
    labels = np.repeat(np.arange(CLASSES), each)
    noise = np.random.default_rng(seed).normal(size=(len(labels), width))
    return ((centers[labels] + spread * noise) * 10.0 ** np.arange(-2, width - 2)).astype(np.float32), labels


def plain_predictions(x: np.ndarray, y: np.ndarray, test: np.ndarray, l2: float) -> list[int]:
    """The same with plain lists: one class at a time, columns scaled one by one."""
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
def test_accuracy_equals_a_plain_implementation(shots, l2):
    x, y = clouds(1, 10, spread=1.5)
    test, truth = clouds(2, 60, spread=1.5)
    indices = draw_shots(y, CLASSES, shots, seed=4)
    expected = np.array(plain_predictions(x[indices], y[indices], test, l2)) == truth
    assert few_shot_accuracy(x, y, test, truth, CLASSES, shots, 4, l2) == expected.mean()
    assert 0.4 < expected.mean() < 1, "neither chance nor perfect, so that a difference would show"


def test_separate_classes_are_separated():
    x, y = clouds(1, 25, spread=0.01)
    test, truth = clouds(2, 25, spread=0.01)
    assert few_shot_accuracy(x, y, test, truth, CLASSES, 5) == 1.0
    assert few_shot_accuracy(x, y, test, (truth + 1) % CLASSES, CLASSES, 5) == 0.0


def test_shots_are_drawn_per_class_and_reproducibly():
    labels = np.array([2, 0, 1, 0, 1, 2, 2, 0, 1, 2, 0, 1])
    drawn = draw_shots(labels, 3, 2, seed=0)
    assert np.bincount(labels[drawn]).tolist() == [2, 2, 2]
    assert len(set(drawn.tolist())) == 6
    assert set(drawn) < set(draw_shots(labels, 3, 3, seed=0)), "more shots add to the fewer"
    assert draw_shots(labels, 3, 2, seed=0).tolist() == drawn.tolist()
    assert len({tuple(draw_shots(labels, 3, 2, seed)) for seed in range(10)}) > 5
    assert draw_shots(labels, 3, None, seed=0).tolist() == list(range(12))


@pytest.mark.parametrize("shots", [0, 3])
def test_impossible_numbers_of_shots_are_refused(shots):
    with pytest.raises(InputError, match=f"{shots} shots per class: the smallest has 2 images"):
        draw_shots(np.array([0, 0, 0, 1, 1]), 2, shots, 0)


def test_an_empty_test_split_is_refused():
    x, y = clouds(1, 3, 1.0)
    with pytest.raises(InputError, match="no test images"):
        few_shot_accuracy(x, y, x[:0], y[:0], CLASSES)
