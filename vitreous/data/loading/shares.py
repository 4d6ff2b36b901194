"""Which part of each batch a process loads where several processes, the ranks, train or evaluate one model.

Order, views, partners and masks are drawn for whole batches, so they are the same for any number of ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from jaxtyping import Int64

ELSEWHERE, BROKEN = -2, -1  # instead of a row


@dataclass(frozen=True)
class Share:
    """One of several ranks.

    Args:
        rank: its number, from 0.
        size: how many ranks there are.

    Raises:
        ValueError: there is no such rank.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank is {self.rank} and must be in 0..{self.size - 1}")


ALONE = Share()


@dataclass(frozen=True, eq=False)
class Part:
    """What a rank has of a whole batch; all positions are in the whole batch.

    Args:
        size: of the whole batch, the images of all ranks, broken ones included.
        positions: of the rank's own images, ascending.
        borrowed: of other ranks' images with which own ones are mixed; this rank loads them too.
        broken: of images, own or borrowed, that this rank cannot read.
    """

    size: int
    positions: Int64[np.ndarray, " own"]
    borrowed: Int64[np.ndarray, " borrowed"] = field(default_factory=lambda: np.arange(0))
    broken: Int64[np.ndarray, " broken"] = field(default_factory=lambda: np.arange(0))

    @classmethod
    def whole(cls, size: int) -> "Part":
        """All of a batch."""
        return cls(size, np.arange(size))

    @property
    def loaded(self) -> Int64[np.ndarray, " loaded"]:
        """The own positions, then the borrowed ones."""
        return np.concatenate((self.positions, self.borrowed)) if len(self.borrowed) else self.positions

    def without(self, bad: list[int]) -> "Part":
        """The part whose images at these places of `loaded` are broken."""
        if not bad:
            return self
        loaded, own = self.loaded, len(self.positions)
        good = np.ones(len(loaded), dtype=bool)
        good[bad] = False
        return Part(self.size, self.positions[good[:own]], self.borrowed[good[own:]], loaded[bad])

    def cut(self, drawn: np.ndarray) -> np.ndarray:
        """The rows of the own images, of an array that has one for each image of the whole batch."""
        return drawn if len(self.positions) == self.size else drawn[self.positions]

    def rows_of(self, partners: Int64[np.ndarray, " whole"]) -> Int64[np.ndarray, " own"]:
        """The row of each own image's partner in `loaded`; its own row if the partner is broken.

        Args:
            partners: the position of the partner of each image of the whole batch.
        """
        if len(self.positions) == self.size:
            return partners
        rows = np.full(self.size, ELSEWHERE)
        rows[self.broken] = BROKEN
        rows[self.loaded] = np.arange(len(self.positions) + len(self.borrowed))
        found = rows[partners[self.positions]]
        assert (found != ELSEWHERE).all(), "the partners are not those for which the part was chosen"
        return np.where(found == BROKEN, np.arange(len(found)), found)


def parts_of(
    share: Share, count: int, batch_size: int, partners: Callable[[int, int], np.ndarray] | None = None
) -> list[Part]:
    """A rank's part of each batch of an epoch.

    Over all ranks, each image occurs once, and the parts of a batch differ in length by at most one image. Without
    partners, image i of the epoch belongs to rank i modulo their number, so that the whole shares differ by at most one
    image too. With partners, each rank has a piece of the walk along them: images whose partners are next to them, but
    for at most two, which are borrowed.

    Args:
        share: of the rank.
        count: images of the epoch.
        batch_size: of whole batches; the last one may be smaller.
        partners: the position of each image's partner, a permutation, by the number and the size of the whole batch;
            None if images are not mixed with each other.
    """
    whole = cache(Part.whole)
    parts = []
    for number, start in enumerate(range(0, count, batch_size)):
        size = min(batch_size, count - start)
        if share.size == 1:
            parts.append(whole(size))
        elif partners is None:
            parts.append(Part(size, np.arange((share.rank - start) % share.size, size, share.size)))
        else:
            parts.append(_piece(share, partners(number, size)))
    return parts


def _piece(share: Share, partners: Int64[np.ndarray, " whole"]) -> Part:
    """A rank's piece of the walk along the partners, with what it borrows."""
    size = len(partners)
    begin, end = (edge * size // share.size for edge in (share.rank, share.rank + 1))
    positions = np.sort(walk(partners)[begin:end])
    return Part(size, positions, np.setdiff1d(partners[positions], positions, assume_unique=True))


def walk(partners: Int64[np.ndarray, " whole"]) -> Int64[np.ndarray, " whole"]:
    """Each position once, followed by its partner as far as possible: cycle after cycle of the permutation.

    Takes 70 ns a position; in NumPy, finding the places in the cycles would take longer.
    """
    following = partners.tolist()
    steps: list[int] = []
    visited = bytearray(len(following))
    for position in range(len(following)):
        while not visited[position]:
            visited[position] = True
            steps.append(position)
            position = following[position]
    return np.array(steps, dtype=np.int64)
