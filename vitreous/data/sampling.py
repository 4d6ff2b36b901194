"""Random generators that depend on their purpose, never on earlier draws: same seed, same bits.

Every generator is a Philox counter (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
whose stream is a function of a 128-bit key and a 256-bit counter. In words of 64 bits they are

    key     = (seed, purpose)
    counter = (0, index, epoch, visit)

The lowest word counts the blocks drawn, so the streams of different (seed, purpose, epoch, index, visit) never overlap
within 2^64 blocks. Creating a generator takes about 10 microseconds.
"""

import numpy as np

SAMPLE, ORDER, MIXING, BALANCE, MASKING = range(5)  # purposes; a number is never reused


def sample_generator(seed: int, epoch: int, index: int, visit: int = 0) -> np.random.Generator:
    """The generator of one sample's augmentation, at its first or a later visit in the epoch.

    Raises ValueError for a number outside 0..2^64-1.
    """
    return _generator(seed, SAMPLE, epoch, index, visit)


def batch_generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """The generator of one batch's mixing. Raises ValueError for a number outside 0..2^64-1."""
    return _generator(seed, MIXING, epoch, batch)


def masking_generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """The generator of one batch's masked patches. Raises ValueError for a number outside 0..2^64-1."""
    return _generator(seed, MASKING, epoch, batch)


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of an epoch: a permutation of 0..count-1, int64."""
    return _generator(seed, ORDER, epoch, 0).permutation(count)


def balanced_order(seed: int, epoch: int, labels: np.ndarray) -> np.ndarray:
    """An order of the same length, int64, in which the counts of any two classes differ by at most one.

    Of a large class, the epoch has a part. A sample of a small class repeats only after all others of its class.
    `labels` has the class number of each sample.
    """
    if not len(labels):
        return np.arange(0)
    generator = _generator(seed, BALANCE, epoch, 0)
    _, counts = np.unique(labels, return_counts=True)
    groups = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    each, rest = divmod(len(labels), len(groups))
    quotas = each + (generator.permutation(len(groups)) < rest)
    drawn = []
    for group, quota in zip(groups, quotas.tolist(), strict=True):
        passes = np.tile(group, (-(-quota // len(group)), 1))  # each row is shuffled on its own
        drawn.append(generator.permuted(passes, axis=1).ravel()[:quota])
    return generator.permutation(np.concatenate(drawn))


def earlier_visits(order: np.ndarray) -> np.ndarray:
    """For each entry of an order, how often its sample occurs before it; int64."""
    by_sample = np.argsort(order, kind="stable")
    firsts = np.flatnonzero(np.diff(order[by_sample], prepend=-1))
    visits = np.empty(len(order), dtype=np.int64)
    visits[by_sample] = np.arange(len(order)) - np.repeat(firsts, np.diff(firsts, append=len(order)))
    return visits


def _generator(seed: int, purpose: int, epoch: int, index: int, visit: int = 0) -> np.random.Generator:
    """The generator for these five words."""
    try:
        key = np.array((seed, purpose), dtype=np.uint64)
        counter = np.array((0, index, epoch, visit), dtype=np.uint64)
    except OverflowError as error:
        words = f"seed {seed}, epoch {epoch}, index {index} and visit {visit}"
        raise ValueError(f"{words} must be in 0..2^64-1") from error
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
