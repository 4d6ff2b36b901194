"""When classes differ too much in size, and when too many images are broken."""

from collections.abc import Iterable

LOPSIDED = 3  # the largest class over the smallest, above which accuracy alone misleads
FEW = 3  # fewer broken images of a split are tolerated, unless none are allowed


def is_lopsided(counts: Iterable[int]) -> bool:
    """Whether the largest class has more than LOPSIDED times the samples of the smallest; empty ones do not count."""
    present = [count for count in counts if count]
    return bool(present) and max(present) > LOPSIDED * min(present)


def too_many_broken(broken: int, images: int, max_fraction: float) -> bool:
    """Whether more of a split's images are broken than are tolerated."""
    return broken >= (FEW if max_fraction else 1) and broken > max_fraction * images
