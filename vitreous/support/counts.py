"""When classes differ too much in size."""

from collections.abc import Iterable

LOPSIDED = 3  # the largest class over the smallest, above which accuracy alone misleads


def is_lopsided(counts: Iterable[int]) -> bool:
    """Whether the largest class has more than LOPSIDED times the samples of the smallest; empty ones do not count."""
    present = [count for count in counts if count]
    return bool(present) and max(present) > LOPSIDED * min(present)
