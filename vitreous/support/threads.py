"""The same work on many items by several threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Generator[Result, None, None]:
    """The results in the order of the items, of which at most two per thread are taken in advance.

    After an interruption or an error, or when the generator is closed, what has not begun is dropped.

    For decoding, threads are at least as fast as processes, since Pillow works outside of Python's lock: 0.8 instead of
    1.1 ms for an image of 64 pixels, 4.0 instead of 4.0 ms for one of 500 (two busy cores).
    """
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
