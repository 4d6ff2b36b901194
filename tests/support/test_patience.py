"""Waiting for an answer, but not for long."""

import time

import pytest

from vitreous.support.patience import within


def test_what_is_in_time_comes_back():
    assert within(10.0, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(10.0, lambda: 1 // 0)


def test_what_takes_too_long_is_left_behind_even_at_the_end(fresh_process):
    begun = time.perf_counter()
    with pytest.raises(TimeoutError):
        within(0.05, lambda: time.sleep(0.5))
    assert time.perf_counter() - begun < 0.4
    code = "import time; from vitreous.support.patience import within\n"
    code += "try: within(0.05, lambda: time.sleep(50))\nexcept TimeoutError: print('left')"
    assert fresh_process(code, timeout=30).stdout == "left\n"
