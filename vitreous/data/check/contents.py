"""Exact copies without decoding: only samples of equal size are read, and compared by digest."""

import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np

from vitreous.data.check.duplicates import ALONE, equal_groups
from vitreous.data.check.samples import Samples
from vitreous.data.decoding.images import BadImage
from vitreous.data.sources.splits import Loader
from vitreous.data.sources.trees.archives import ArchiveLoader
from vitreous.data.sources.trees.tree import ImageLoader
from vitreous.support.host import usable_cores
from vitreous.support.threads import in_order

CHUNK = 256  # samples of one task
Key = tuple[int, int]  # two integers per sample
UNREADABLE: Key = (-1, -1)
LATE: Key = (-2, -2)  # time was up


def exact_copies(samples: Samples, seconds: float) -> tuple[np.ndarray, int]:
    """The groups of samples with the same content, as `equal_groups` returns them.

    Args:
        samples: of all splits.
        seconds: after which no more samples are read.

    Returns:
        The groups, and how many samples were not compared for lack of time.
    """
    deadline = time.monotonic() + seconds
    numbers = np.arange(len(samples))
    for key_of in (size_key, digest_key):
        keys = _keys(samples, numbers, key_of, deadline)
        late = int((keys == LATE).all(axis=1).sum())
        known = (keys[:, 0] != UNREADABLE[0]) & (keys[:, 0] != LATE[0])
        groups = equal_groups(keys[known], numbers[known], len(samples))
        if late:
            break
        numbers = np.flatnonzero(groups != ALONE)
    return (groups if key_of is digest_key else np.full(len(samples), ALONE)), late


def digest_key(load: Loader, index: int) -> Key:
    """The digest of a sample's content: two different images never share it."""
    return digest(load.content(index))


def digest(content: bytes) -> Key:
    """The digest of some content as two integers."""
    both = blake2b(content, digest_size=16).digest()
    return int.from_bytes(both[:8], "big") >> 1, int.from_bytes(both[8:], "big") >> 1


def size_key(load: Loader, index: int) -> Key:
    """What equal samples share and can be had without reading them, if possible; otherwise their digest."""
    if isinstance(load, ArchiveLoader):
        member = load.members[index]
        return int(member["size"]), int(member["crc"])
    if isinstance(load, ImageLoader) and isinstance(file := load.file(index), str):
        try:
            return Path(file).stat().st_size, 0
        except OSError:
            return UNREADABLE
    return digest_key(load, index)


def _keys(samples: Samples, numbers: np.ndarray, key_of: Callable[[Loader, int], Key], deadline: float) -> np.ndarray:
    """The keys of these samples, int64 "samples 2", computed by one thread per core."""

    def chunk(start: int) -> list[Key]:
        return [
            _key(*samples.loader(number), key_of) if time.monotonic() < deadline else LATE
            for number in numbers[start : start + CHUNK].tolist()
        ]

    starts = range(0, len(numbers), CHUNK)
    rows = [key for keys in in_order(chunk, starts, usable_cores()) for key in keys]
    return np.array(rows, np.int64).reshape(-1, 2)


def _key(load: Loader, index: int, key_of: Callable[[Loader, int], Key]) -> Key:
    """The key of a sample; UNREADABLE if it cannot be read, which loading it reports."""
    try:
        return key_of(load, index)
    except BadImage:
        return UNREADABLE
