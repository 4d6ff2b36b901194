"""A few that stand for many."""

import numpy as np
import pytest

from vitreous.support.counts import spread


@pytest.mark.parametrize("count", [0, 1, 2, 31, 32, 33, 1000, 1_000_003])
@pytest.mark.parametrize("most", [0, 1, 2, 32])
def test_a_few_are_evenly_spaced_from_the_first_to_the_last(count, most):
    chosen = spread(count, most)
    assert len(chosen) == min(count, most)
    assert (np.diff(chosen) >= 1).all()
    assert chosen.tolist()[:1] == [0][: len(chosen)]
    if len(chosen) > 1:
        assert chosen[-1] == count - 1
        assert np.ptp(np.diff(chosen)) <= 1
