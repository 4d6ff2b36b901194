"""Work on many items by several threads."""

import threading
import time
from collections.abc import Callable

import pytest

from vitreous.support.threads import in_order


def test_order_is_kept_and_few_items_are_taken_in_advance():
    taken: list[int] = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    def late(number: int) -> int:
        time.sleep(0.002 * (number % 3 == 0))
        return number

    for number, result in enumerate(in_order(late, items(), 3)):
        assert result == number
        assert len(taken) <= number + 7
    assert len(taken) == 1000


def test_the_threads_end_when_the_caller_stops():
    before, done = threading.active_count(), []
    work: Callable[[int], None] = lambda number: done.append(number) or time.sleep(0.01)  # noqa: E731
    results = in_order(work, range(1000), 3)
    next(results)
    results.close()
    assert threading.active_count() == before
    assert len(done) < 20


def test_an_unexpected_error_is_raised():
    def fails(number: int) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        [*in_order(fails, range(5), 2)]


def test_after_an_error_of_an_item_the_next_ones_are_dropped():
    done = []

    def work(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt
        done.append(number)
        time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        list(in_order(work, range(1000), 3))
    assert len(done) < 12
