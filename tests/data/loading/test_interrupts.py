"""Ctrl-C while loading processes are at work: no thread waits forever."""

import signal
import sys
import threading

import pytest

from tests.data.difficult_loaders import Plain
from tests.data.loading.test_workers import bits, epoch, is_running, pids
from vitreous.data.loading.workers import Workers


def interrupted(workers, number, loader):
    """Interrupts an epoch at this number of calls. Returns where; None if there are fewer."""
    left, place = number, None

    def count(frame, event, argument):
        nonlocal left, place
        left -= event in {"call", "c_return"}  # there Python handles signals, not before a call
        if left <= 0:
            sys.setprofile(None)
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} {event}"
            raise KeyboardInterrupt

    loading = epoch(loader, workers, batch_size=20)
    sys.setprofile(count)
    try:
        for _ in loading:
            pass
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    return place


def test_ctrl_c_leaves_no_lock_taken_wherever_it_comes():
    """With a lock taken, the threads would wait forever, and so would the end of the process for them."""
    number, loader, place = 0, Plain(), ""
    with Workers(2) as workers:
        assert bits(epoch(loader, workers)) == bits(epoch(loader, 0))
        while place is not None:
            number += 1
            place = interrupted(workers, number, loader)
            after = []
            thread = threading.Thread(target=lambda to: to.extend(epoch(loader, workers)), args=[after], daemon=True)
            thread.start()
            thread.join(60)
            assert len(after) == 10, f"after an interrupt at {place}"
    assert number > 100


def test_an_interrupted_close_can_be_repeated(monkeypatch):
    with Workers(1) as workers:
        list(epoch(Plain(), workers))
        launcher, threads, family = workers.launcher, workers.threads, pids(workers)
        close = launcher.close
        monkeypatch.setattr(launcher, "close", lambda: (monkeypatch.undo(), signal.raise_signal(signal.SIGUSR2)))
        before = signal.signal(signal.SIGUSR2, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            workers.close()
        signal.signal(signal.SIGUSR2, before)
        assert launcher.close == close
    assert not any(thread.is_alive() for thread in threads)
    assert not any(map(is_running, family))
