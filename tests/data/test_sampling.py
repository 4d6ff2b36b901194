"""Randomness is a function of seed, epoch and index, and of nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous.data.sampling import batch_generator, epoch_order, sample_generator

WORD = st.integers(0, 2**64 - 1)


@given(WORD, WORD, WORD)
def test_the_same_numbers_give_the_same_bits(seed, epoch, index):
    draws = [sample_generator(seed, epoch, index).integers(0, 2**63, 9).tolist() for _ in range(2)]
    assert draws[0] == draws[1]


@given(st.lists(st.tuples(WORD, WORD, WORD), min_size=2, max_size=30, unique=True))
def test_different_numbers_give_different_streams(keys):
    assert len({sample_generator(*key).bytes(16) for key in keys}) == len(keys)


def test_words_do_not_run_into_each_other():
    """What sums, shifts and truncations to 32 bits would confuse."""
    edges = (0, 1, 2, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1)
    keys = [(seed, epoch, index) for seed in edges for epoch in edges for index in edges]
    assert len({sample_generator(*key).bytes(16) for key in keys}) == len(keys)


def test_a_long_stream_is_not_the_stream_of_a_neighbour():
    mine = sample_generator(0, 0, 0).integers(0, 2**64, 4096, dtype=np.uint64)
    for neighbour in ((0, 0, 1), (0, 1, 0), (1, 0, 0)):
        assert not set(mine.tolist()) & set(
            sample_generator(*neighbour).integers(0, 2**64, 4096, dtype=np.uint64).tolist()
        )


def test_the_values_are_those_of_today():
    """A run that is resumed under another version draws on; a change here is a change of every recipe's result."""
    assert sample_generator(1, 2, 3).integers(0, 1000, 5).tolist() == [204, 933, 814, 390, 950]
    assert epoch_order(1, 2, 8).tolist() == [5, 6, 1, 2, 0, 3, 4, 7]
    assert batch_generator(1, 2, 3).integers(0, 1000, 5).tolist() == [977, 717, 435, 658, 877]


def test_purposes_do_not_share_a_stream():
    for numbers in ((0, 0, 0), (1, 2, 3)):
        assert batch_generator(*numbers).bytes(16) == batch_generator(*numbers).bytes(16)
        assert batch_generator(*numbers).bytes(16) != sample_generator(*numbers).bytes(16)
    assert len({batch_generator(*numbers).bytes(16) for numbers in ((0, 0, 1), (0, 1, 0), (1, 0, 0))}) == 3


def test_draws_are_even():
    firsts = np.array([sample_generator(5, epoch, index).random() for epoch in range(20) for index in range(200)])
    assert abs(firsts.mean() - 0.5) < 0.02
    assert np.abs(np.histogram(firsts, 10, (0, 1))[0] - 400).max() < 100


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_an_epoch_sees_each_sample_once(count):
    orders = [epoch_order(3, epoch, count) for epoch in (0, 1)]
    for order in orders:
        assert order.dtype == np.int64
        assert sorted(order.tolist()) == list(range(count))
    assert count < 3 or orders[0].tolist() != orders[1].tolist()
    assert count < 3 or epoch_order(4, 0, count).tolist() != orders[0].tolist()


@pytest.mark.parametrize("numbers", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (2**64, 0, 0), (0, 2**64, 0)])
def test_numbers_beyond_64_bits_are_refused(numbers):
    for generator in (sample_generator, batch_generator):
        with pytest.raises(ValueError, match=r"0\.\.2\^64-1"):
            generator(*numbers)


def test_the_global_generator_is_neither_read_nor_moved():
    np.random.seed(1)
    first, theirs = sample_generator(0, 0, 0).random(), np.random.random()
    np.random.seed(2)
    assert sample_generator(0, 0, 0).random() == first
    np.random.seed(1)
    sample_generator(0, 0, 0).random()
    assert np.random.random() == theirs
