import math
import time
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sklearn

from vitreous.evaluation.metrics import (
    Outcome,
    balanced_accuracy,
    confusion_matrix,
    confusions,
    macro_f1,
    per_class,
    wilson_interval,
)
from vitreous.support.counts import is_lopsided


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    classes = draw(st.integers(2, 5))
    pairs = draw(st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=60))
    labels, predicted = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    return labels, predicted, classes


@given(predictions())
def test_metrics_agree_with_scikit_learn(sample: tuple[np.ndarray, np.ndarray, int]):
    labels, predicted, classes = sample
    every = list(range(classes))
    matrix = confusion_matrix(labels, predicted, classes)
    assert matrix.tolist() == sklearn.confusion_matrix(labels, predicted, labels=every).tolist()
    assert confusions(labels, predicted).tolist() == [[i, j, matrix[i, j]] for i, j in np.argwhere(matrix)]
    expected = sklearn.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=np.nan)
    for score, *theirs in zip(per_class(labels, predicted, classes), *expected, strict=True):
        ours = (score.precision, score.recall, score.f1, score.support)
        np.testing.assert_allclose([math.nan if value is None else value for value in ours], theirs)
    outcome = Outcome(np.arange(len(labels)), labels, predicted[:, None], np.ones((len(labels), 1), np.float32), 0.0)
    assert outcome.accuracy == sklearn.accuracy_score(labels, predicted)
    with warnings.catch_warnings(action="ignore"):  # a class may be predicted that has no samples
        theirs = sklearn.balanced_accuracy_score(labels, predicted)
    assert outcome.balanced_accuracy == pytest.approx(theirs, abs=1e-12)
    assert outcome.macro_f1 == pytest.approx(sklearn.f1_score(labels, predicted, average="macro"), abs=1e-12)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_wilsons(sample: tuple[int, int]):
    correct, count = sample
    theirs = binomtest(correct, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, count) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_an_interval_by_hand():
    low, high = wilson_interval(350, 360)
    assert (round(low, 4), round(high, 4)) == (0.9496, 0.9848)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_rows_are_true_classes():
    matrix = confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 1]), 2)
    assert matrix.tolist() == [[0, 2], [0, 1]]


def test_a_class_that_never_occurs_has_no_scores():
    score = per_class(np.zeros(3, np.int64), np.zeros(3, np.int64), 2)[1]
    assert (score.precision, score.recall, score.f1, score.support) == (None, None, None, 0)


def test_metrics_of_very_many_classes_are_linear():
    """A matrix of 100,000 classes would have 80 GB."""
    labels = np.arange(200_000) % 100_000
    predicted = np.where(labels % 2, labels, 0)
    tracemalloc.start()
    started = time.process_time()
    assert balanced_accuracy(labels, predicted) == pytest.approx(0.5 + 1 / 100_000, abs=1e-12)
    assert macro_f1(labels, predicted) == pytest.approx(
        sklearn.f1_score(labels, predicted, average="macro", zero_division=0), abs=1e-12
    )
    assert time.process_time() - started < 5
    assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("counts", "expected"), [((30, 10), False), ((31, 10), True), ((31, 0, 20), False), ((5,), False), ((), False)]
)
def test_classes_are_lopsided_beyond_three_to_one(counts, expected):
    assert is_lopsided(counts) is expected
    labels = np.repeat(np.arange(len(counts)), counts)
    assert Outcome(labels, labels, labels[:, None], np.ones((len(labels), 1)), 0.0).is_lopsided is expected


def test_no_samples_have_no_accuracy():
    none = np.array([], dtype=np.int64)
    assert confusions(none, none).shape == (0, 3)
    outcome = Outcome(none, none, none[:, None], np.ones((0, 1)), math.nan)
    assert all(map(math.isnan, (outcome.accuracy, outcome.balanced_accuracy, outcome.macro_f1)))
