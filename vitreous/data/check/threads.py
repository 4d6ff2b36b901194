"""Work on many samples with one thread per core, which an interruption ends at once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from vitreous.support.host import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results in the order of the items; what has not begun is dropped when the caller stops.

    Threads are at least as fast as processes here, since Pillow decodes outside of Python's lock: 0.8 instead of 1.1 ms
    for an image of 64 pixels, 4.0 instead of 4.0 ms for one of 500 (two busy cores).
    """
    with ThreadPoolExecutor(usable_cores()) as pool:  # in a generator: when it is closed, map cancels what is left
        yield from pool.map(function, items)
