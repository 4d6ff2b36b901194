import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sklearn

from vitreous.evaluation.metrics import Outcome, confusion_matrix, confusions, per_class, wilson_interval


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


def test_no_samples_have_no_accuracy():
    none = np.array([], dtype=np.int64)
    assert confusions(none, none).shape == (0, 3)
    assert math.isnan(Outcome(none, none, none[:, None], np.ones((0, 1)), math.nan).accuracy)
