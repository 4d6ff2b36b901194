"""Randomness that depends on what it is for, never on what was drawn before: same seed, same bits.

Every generator is a Philox counter (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
whose stream is a function of a 128-bit key and a 256-bit counter. Ours are laid out in words of 64 bits as

    key     = (seed, purpose)
    counter = (0, index, epoch, visit)

The lowest word counts the blocks that a stream has drawn, so streams of different (seed, purpose, epoch,
index, visit) never meet within 2^64 blocks, whatever the 64-bit values. Making one costs about 10 microseconds.
"""

import numpy as np

SAMPLE, ORDER, MIXING = 0, 1, 2  # purposes: one number each, never used twice
BALANCE = 3
MASKING = 4


def sample_generator(seed: int, epoch: int, index: int, visit: int = 0) -> np.random.Generator:
    """The generator of one sample's augmentation.

    Args:
        seed: of the run.
        epoch: of the run.
        index: the sample's place in its split.
        visit: how often this epoch has seen the sample before.

    Raises:
        ValueError: a number is not in 0..2^64-1.
    """
    return _generator(seed, SAMPLE, epoch, index, visit)


def batch_generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """The generator of one batch's mixing. Raises ValueError for numbers that are not in 0..2^64-1."""
    return _generator(seed, MIXING, epoch, batch)


def masking_generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """The generator of one batch's masked patches. Raises ValueError for numbers that are not in 0..2^64-1."""
    return _generator(seed, MASKING, epoch, batch)


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """A permutation of 0..count-1, int64: the order in which an epoch sees each sample once."""
    return _generator(seed, ORDER, epoch, 0).permutation(count)


def balanced_order(seed: int, epoch: int, labels: np.ndarray, classes: int) -> np.ndarray:
    """An order of as many samples as there are, int64, in which each class comes as often as any other, or once more.

    Of a large class this epoch sees a part. Each sample of a small class comes again once all of its class have come as
    often. A class without samples is left out.

    Args:
        seed: of the run.
        epoch: of the run.
        labels: class numbers, one per sample.
        classes: how many there are.
    """
    if not len(labels):
        return np.arange(0)
    generator = _generator(seed, BALANCE, epoch, 0)
    counts = np.bincount(labels, minlength=classes)
    groups = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    members = [group for group in groups if len(group)]
    each, rest = divmod(len(labels), len(members))
    wanted = each + (generator.permutation(len(members)) < rest)
    drawn = []
    for group, times in zip(members, wanted.tolist(), strict=True):
        passes = np.tile(group, (-(-times // len(group)), 1))  # one a row, each in an order of its own
        drawn.append(generator.permuted(passes, axis=1).ravel()[:times])
    return generator.permutation(np.concatenate(drawn))


def earlier_visits(order: np.ndarray) -> np.ndarray:
    """For each entry of an order, how often its sample came before it; int64."""
    by_sample = np.argsort(order, kind="stable")
    firsts = np.flatnonzero(np.diff(order[by_sample], prepend=-1))
    visits = np.empty(len(order), dtype=np.int64)
    visits[by_sample] = np.arange(len(order)) - np.repeat(firsts, np.diff(firsts, append=len(order)))
    return visits


def _generator(seed: int, purpose: int, epoch: int, index: int, visit: int = 0) -> np.random.Generator:
    """The generator of these five words."""
    try:
        key = np.array((seed, purpose), dtype=np.uint64)
        counter = np.array((0, index, epoch, visit), dtype=np.uint64)
    except OverflowError as error:
        words = f"seed {seed}, epoch {epoch}, index {index} and visit {visit}"
        raise ValueError(f"{words} must be in 0..2^64-1") from error
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
