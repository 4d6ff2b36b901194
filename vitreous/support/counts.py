"""When classes differ too much in size, when too many images are broken, and which few of many stand for all."""

from collections.abc import Iterable

import numpy as np

LOPSIDED = 3  # the largest class over the smallest, above which accuracy alone misleads
FEW = 3  # fewer broken images of a split are tolerated, unless none are allowed


def is_lopsided(counts: Iterable[int]) -> bool:
    """Whether the largest class has more than LOPSIDED times the samples of the smallest; empty ones do not count."""
    present = [count for count in counts if count]
    return bool(present) and max(present) > LOPSIDED * min(present)


def too_many_broken(broken: int, images: int, max_fraction: float) -> bool:
    """Whether more of a split's images are broken than are tolerated."""
    return broken >= (FEW if max_fraction else 1) and broken > max_fraction * images


def spread(count: int, most: int) -> np.ndarray:
    """At most so many of the numbers below `count`, in order and evenly spaced, with the first and the last."""
    chosen = min(count, most)
    return np.arange(chosen) * (count - 1) // max(1, chosen - 1)
