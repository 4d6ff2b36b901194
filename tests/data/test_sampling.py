"""Random numbers are a function of seed, epoch and index alone."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous.data.sampling import (
    balanced_order,
    batch_generator,
    earlier_visits,
    epoch_order,
    sample_generator,
)

WORD = st.integers(0, 2**64 - 1)


@given(WORD, WORD, WORD)
def test_the_same_numbers_give_the_same_bits(seed, epoch, index):
    draws = [sample_generator(seed, epoch, index).integers(0, 2**63, 9).tolist() for _ in range(2)]
    assert draws[0] == draws[1]


@given(st.lists(st.tuples(WORD, WORD, WORD, WORD), min_size=2, max_size=30, unique=True))
def test_different_numbers_give_different_streams(keys):
    assert len({sample_generator(*key).bytes(16) for key in keys}) == len(keys)


def test_similar_words_give_different_streams():
    """Words that sums, shifts or truncation to 32 bits would confuse."""
    edges = (0, 1, 2, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1)
    keys = list(itertools.product(edges, edges, edges, (0, 1, 2**64 - 1)))
    assert len({sample_generator(*key).bytes(16) for key in keys}) == len(keys)


def test_a_long_stream_does_not_overlap_its_neighbor():
    mine = sample_generator(0, 0, 0).integers(0, 2**64, 4096, dtype=np.uint64)
    for neighbor in ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0, 1)):
        assert not set(mine.tolist()) & set(
            sample_generator(*neighbor).integers(0, 2**64, 4096, dtype=np.uint64).tolist()
        )


def test_the_values_are_frozen():
    """Resumed runs and the results of every recipe depend on them."""
    assert sample_generator(1, 2, 3).integers(0, 1000, 5).tolist() == [204, 933, 814, 390, 950]
    assert epoch_order(1, 2, 8).tolist() == [5, 6, 1, 2, 0, 3, 4, 7]
    assert batch_generator(1, 2, 3).integers(0, 1000, 5).tolist() == [977, 717, 435, 658, 877]
    assert sample_generator(1, 2, 3, 0).integers(0, 1000, 5).tolist() == [204, 933, 814, 390, 950]
    assert sample_generator(1, 2, 3, 4).integers(0, 1000, 5).tolist() == [1, 920, 395, 353, 318]
    assert balanced_order(1, 2, np.array([0, 0, 0, 0, 0, 1, 2, 2])).tolist() == [2, 4, 3, 6, 5, 5, 7, 5]


def test_purposes_do_not_share_a_stream():
    for numbers in ((0, 0, 0), (1, 2, 3)):
        assert batch_generator(*numbers).bytes(16) == batch_generator(*numbers).bytes(16)
        assert batch_generator(*numbers).bytes(16) != sample_generator(*numbers).bytes(16)
    assert len({batch_generator(*numbers).bytes(16) for numbers in ((0, 0, 1), (0, 1, 0), (1, 0, 0))}) == 3


def test_draws_are_uniform():
    firsts = np.array([sample_generator(5, epoch, index).random() for epoch in range(20) for index in range(200)])
    assert abs(firsts.mean() - 0.5) < 0.02
    assert np.abs(np.histogram(firsts, 10, (0, 1))[0] - 400).max() < 100


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_an_epoch_has_each_sample_once(count):
    orders = [epoch_order(3, epoch, count) for epoch in (0, 1)]
    for order in orders:
        assert order.dtype == np.int64
        assert sorted(order.tolist()) == list(range(count))
    assert count < 3 or orders[0].tolist() != orders[1].tolist()
    assert count < 3 or epoch_order(4, 0, count).tolist() != orders[0].tolist()


LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60)


@given(LABELS, st.integers(0, 9), st.integers(0, 9))
def test_a_balanced_epoch_has_every_class_equally_often(labels, seed, epoch):
    labels = np.array(labels)
    order = balanced_order(seed, epoch, labels)
    assert order.dtype == np.int64
    assert order.shape == labels.shape
    per_class = Counter(labels[order].tolist())
    assert per_class.keys() == {*labels.tolist()}
    assert max(per_class.values()) - min(per_class.values()) <= 1
    for label in per_class:  # no sample is two visits ahead of another of its class
        drawn = Counter(place for place in order.tolist() if labels[place] == label)
        times = [drawn[place] for place in np.flatnonzero(labels == label).tolist()]
        assert max(times) - min(times) <= 1
    assert order.tolist() == balanced_order(seed, epoch, labels).tolist()


def test_balanced_orders_differ_and_are_shuffled():
    labels = np.repeat([0, 1, 3], [900, 90, 10])
    orders = [balanced_order(*key, labels) for key in ((0, 0), (0, 1), (1, 0))]
    assert len({order.tobytes() for order in orders}) == 3
    large = [{place for place in order.tolist() if place < 900} for order in orders]
    assert all(len(seen) in (333, 334) for seen in large)
    assert len(set.union(*large)) > 600  # other parts of a large class in other epochs
    for order in orders:
        halves = labels[order].reshape(2, 500)
        assert all(abs((half == label).mean() - 1 / 3) < 0.1 for half in halves for label in (0, 1, 3))
        assert (np.diff(order) != 1).mean() > 0.9
    extra = {np.bincount(labels[balanced_order(0, epoch, labels)]).argmax() for epoch in range(30)}
    assert extra == {0, 1, 3}  # the class that comes once more is drawn too


def test_equal_classes_give_a_permutation():
    order = balanced_order(0, 0, np.repeat([0, 1], 50))
    assert sorted(order.tolist()) == list(range(100))


def test_a_balanced_order_of_an_empty_split_is_empty():
    assert balanced_order(0, 0, np.zeros(0, np.int64)).shape == (0,)


def test_repeated_samples_of_a_small_class_are_drawn():
    labels = np.repeat([0, 1], [7, 3])  # 5 of the 3: two of them come twice
    twice = Counter()
    for epoch in range(300):
        drawn = Counter(balanced_order(0, epoch, labels).tolist())
        twice.update(place for place in (7, 8, 9) if drawn[place] == 2)
    assert all(150 < twice[place] < 250 for place in (7, 8, 9))


@given(st.lists(st.integers(0, 5), max_size=30))
def test_earlier_visits_are_counted(order):
    wanted = [order[:place].count(sample) for place, sample in enumerate(order)]
    visits = earlier_visits(np.array(order, dtype=np.int64))
    assert visits.dtype == np.int64
    assert visits.tolist() == wanted


@pytest.mark.parametrize("numbers", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (2**64, 0, 0), (0, 2**64, 0)])
def test_numbers_beyond_64_bits_are_refused(numbers):
    for generator in (sample_generator, batch_generator):
        with pytest.raises(ValueError, match=r"0\.\.2\^64-1"):
            generator(*numbers)
    for visit in (-1, 2**64):
        with pytest.raises(ValueError, match=f"visit {visit}"):
            sample_generator(0, 0, 0, visit)


def test_the_global_generators_are_not_used():
    np.random.seed(1)
    first, theirs = sample_generator(0, 0, 0).random(), np.random.random()
    np.random.seed(2)
    assert sample_generator(0, 0, 0).random() == first
    np.random.seed(1)
    sample_generator(0, 0, 0).random()
    assert np.random.random() == theirs
