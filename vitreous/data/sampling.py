"""Randomness that depends on what it is for, never on what was drawn before: same seed, same bits.

Every generator is a Philox counter (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
whose stream is a function of a 128-bit key and a 256-bit counter. Ours are laid out in words of 64 bits as

    key     = (seed, purpose)
    counter = (0, index, epoch, 0)

The lowest word counts the blocks that a stream has drawn, so streams of different (seed, purpose, epoch,
index) never meet within 2^64 blocks, whatever the 64-bit values. Making one costs about 10 microseconds.
"""

import numpy as np

SAMPLE, ORDER, MIXING = 0, 1, 2  # purposes: one number each, never used twice


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample's augmentation. Raises ValueError for numbers that are not in 0..2^64-1."""
    return _generator(seed, SAMPLE, epoch, index)


def batch_generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """The generator of one batch's mixing. Raises ValueError for numbers that are not in 0..2^64-1."""
    return _generator(seed, MIXING, epoch, batch)


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """A permutation of 0..count-1, int64: the order in which an epoch sees each sample once."""
    return _generator(seed, ORDER, epoch, 0).permutation(count)


def _generator(seed: int, purpose: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of these four words."""
    try:
        key = np.array((seed, purpose), dtype=np.uint64)
        counter = np.array((0, index, epoch, 0), dtype=np.uint64)
    except OverflowError as error:
        raise ValueError(f"seed {seed}, epoch {epoch} and index {index} must be in 0..2^64-1") from error
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
