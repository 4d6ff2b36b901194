"""Looks at all images of a split, in threads: at their headers, or decoding each."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from vitreous.data.images import BadImage
from vitreous.data.sources.splits import Split
from vitreous.support.host import usable_cores

T = TypeVar("T")
AT_ONCE = 256  # images handed to the threads at a time, so that a consumer may stop early


def scan(split: Split, look: Callable[[int], T]) -> Iterator[T]:
    """Yields `look(index)` for each index of a split, in order, computed by one thread per core."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(split), AT_ONCE):
            yield from pool.map(look, range(start, min(start + AT_ONCE, len(split))))


def header_fault(split: Split, index: int) -> str | None:
    """Why an image cannot be used, by its header alone; None if nothing is wrong."""
    try:
        split.load.size(index)
    except BadImage as error:
        return error.reason
    return None


def decoding_fault(split: Split, index: int) -> str | None:
    """Why an image cannot be decoded; None if nothing is wrong."""
    try:
        split.load(index)
    except BadImage as error:
        return error.reason
    return None
