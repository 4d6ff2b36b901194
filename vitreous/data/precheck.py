"""The images of a run, checked before it starts: broken ones are found while there is nothing to lose."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from vitreous.data.decoding.images import BadImage, remarks
from vitreous.data.loading.shares import ALONE, Share
from vitreous.data.sources.splits import ImageData, Loader, Split
from vitreous.support.counts import spread
from vitreous.support.host import usable_cores
from vitreous.support.threads import in_order

How = Literal["all", "headers", "sample", "none"]  # decode all images, read all headers, or some, or nothing
Broken = dict[str, list[tuple[int, str]]]  # by split: the index of each broken image, and the reason
Progress = Callable[[int], None]  # called with the number of images checked so far

DECODING_LIMIT, HEADERS_LIMIT = 60.0, 300.0  # seconds up to which all images are decoded, or all headers are read
SAMPLE = 10_000  # headers of a sample, spread evenly over the splits
TIMED = {"all": (64, 1), "headers": (512, 8)}  # images that are timed for an estimate, and in chunks of how many
TIMED_SECONDS = 2.0  # at most, for an estimate
CHUNK = {"all": 8, "headers": 64, "sample": 64}  # images that a thread takes at once
THREADS_PER_CORE = {"all": 1, "headers": 4, "sample": 4}  # reading waits for the disk, decoding for the processor


class Found(NamedTuple):
    """What a check found: broken images, and how many could be decoded but are not as they should be."""

    broken: Broken
    remarked: int


@dataclass(frozen=True)
class Estimate:
    """How to check the images, and what that takes.

    Args:
        how: the check.
        seconds: it takes, by a measurement of a few images.
        decoding_seconds: to decode all of them.
    """

    how: How
    seconds: float
    decoding_seconds: float


def choose_check(data: ImageData) -> Estimate:
    """The most thorough check in reasonable time; none for images in memory.

    All images are decoded where that takes under a minute; otherwise all headers are read, where that takes under five
    minutes; otherwise those of a sample.
    """
    splits = [split for split in data.splits if not split.load.in_memory]
    count = sum(map(len, splits))
    if not count:
        return Estimate("none", 0.0, 0.0)
    decoding = count * seconds_per_image(splits, "all")
    if decoding <= DECODING_LIMIT:
        return Estimate("all", decoding, decoding)
    per_header = seconds_per_image(splits, "headers")
    how: How = "headers" if count * per_header <= HEADERS_LIMIT else "sample"
    return Estimate(how, per_header * (min(SAMPLE, count) if how == "sample" else count), decoding)


def seconds_per_image(splits: Sequence[Split], how: How) -> float:
    """What checking an image takes with all threads, from some that are spread over the splits."""
    images, size = TIMED[how]
    chunks = [
        (split.load, indices[start : start + size].tolist())
        for split in splits
        for indices in [spread(len(split), max(size, images // len(splits)))]
        for start in range(0, len(indices), size)
    ]
    done, started = 0, time.perf_counter()
    with closing(in_order(lambda chunk: looked_at(*chunk, how), chunks, threads_for(how))) as results:
        for count, *_ in results:
            done += count
            if time.perf_counter() - started > TIMED_SECONDS:
                break
    return (time.perf_counter() - started) / done


def find_broken(data: ImageData, how: How, progress: Progress, share: Share = ALONE, cores: int | None = None) -> Found:
    """The broken images of each split, as far as this check finds them.

    Args:
        data: of the run.
        how: "all" decodes the images, "headers" reads their headers, "sample" those of some, "none" does nothing.
        progress: called from time to time.
        share: of this process, which looks at its part of the images.
        cores: that this process may use; all if None.
    """
    splits = [split for split in data.splits if not split.load.in_memory and how != "none"]
    broken: Broken = {}
    done = remarked = 0
    for split in splits:
        indices = checked_indices(split, splits, how)[share.rank :: share.size]
        size = CHUNK[how]
        chunks = (indices[start : start + size].tolist() for start in range(0, len(indices), size))

        with closing(in_order(partial(looked_at, split.load, how=how), chunks, threads_for(how, cores))) as results:
            for count, bad, repaired in results:
                done += count
                remarked += repaired
                broken.setdefault(split.name, []).extend(bad)
                progress(done)
    return Found(broken, remarked)


def threads_for(how: How, cores: int | None = None) -> int:
    """The threads of a check, on so many cores; on all if None."""
    return (cores or usable_cores()) * THREADS_PER_CORE[how]


def checked_count(data: ImageData, how: How) -> int:
    """How many images a check looks at."""
    splits = [split for split in data.splits if not split.load.in_memory and how != "none"]
    return sum(len(checked_indices(split, splits, how)) for split in splits)


def checked_indices(split: Split, splits: Sequence[Split], how: How) -> np.ndarray:
    """The samples of a split that a check looks at."""
    total = sum(map(len, splits))
    if how != "sample" or total <= SAMPLE:
        return np.arange(len(split))
    return spread(len(split), max(1, SAMPLE * len(split) // total))


def looked_at(load: Loader, indices: Sequence[int], how: How) -> tuple[int, list[tuple[int, str]], int]:
    """How many samples these are, which are broken, as far as this check finds them, and how many have remarks."""
    broken, remarked = [], 0
    for index in indices:
        try:
            image = load(index) if how == "all" else load.size(index)
        except BadImage as error:
            broken.append((index, error.reason))
        else:
            remarked += not isinstance(image, tuple) and bool(remarks(image))
    return len(indices), broken, remarked
