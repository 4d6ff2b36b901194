"""Waiting for an answer, but not for long."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """What the call returns, or raises, if it ends in time; a call that does not is left behind.

    The time-outs of network libraries count for each address of a host, and not at all for finding them. The call
    runs in a thread that does not keep the process alive.

    Raises:
        TimeoutError: it did not end in time.
    """
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(call())
        except Exception as error:
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    return answer.result(seconds)
