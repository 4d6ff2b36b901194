"""Time-outs for calls that have none of their own."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """Returns or raises what the call does if it ends in time; otherwise abandons it.

    Network libraries apply their time-outs to each address of a host, and none to resolving it. The call runs in a
    daemon thread, which does not keep the process alive.

    Raises:
        TimeoutError: it did not end in time.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future.result(seconds)
