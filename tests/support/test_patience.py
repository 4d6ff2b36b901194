"""Calls end within their time-out."""

import time

import pytest

from vitreous.support.patience import within


def test_a_call_in_time_returns_or_raises():
    assert within(10.0, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(10.0, lambda: 1 // 0)


def test_a_slow_call_is_abandoned_and_does_not_keep_the_process_alive(fresh_process):
    start = time.perf_counter()
    with pytest.raises(TimeoutError):
        within(0.05, lambda: time.sleep(0.5))
    assert time.perf_counter() - start < 0.4
    code = "import time; from vitreous.support.patience import within\n"
    code += "try: within(0.05, lambda: time.sleep(50))\nexcept TimeoutError: print('abandoned')"
    assert fresh_process(code, timeout=30).stdout == "abandoned\n"
