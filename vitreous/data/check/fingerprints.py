"""Fingerprints of images, which hardly change when one is re-encoded or resized, and a search for near ones.

A fingerprint is two hashes of imagehash: of the frequencies in an image (phash) and of its gradients (dhash). Copies
have both near; other images seldom do. The distances were chosen by looking at pairs: see docs/data.md.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 32  # pixels of the gray thumbnail that is hashed
DECODED = 2 * SIDE  # the shorter side that a large JPEG is decoded to
FLAT = 2.0  # gray levels: an image with a smaller standard deviation has nothing to compare
FREQUENCIES, GRADIENTS = 4, 12  # of 64 bits, the most that differ between near images, in phash and dhash
BANDS = FREQUENCIES + 1  # parts of a phash, of which near ones share at least one
MOST_COMPARISONS = 1_000_000_000  # a minute of a busy core; a million different images need 300 million


class Fingerprint(NamedTuple):
    """Two hashes of 64 bits; `flat` if the image has no structure to hash."""

    frequencies: int
    gradients: int
    flat: bool


def fingerprint(image: Image.Image) -> Fingerprint:
    """The fingerprint of an upright image."""
    import imagehash

    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    flat = bool(np.asarray(small, np.float32).std() < FLAT)
    return Fingerprint(_bits(imagehash.phash(small).hash), _bits(imagehash.dhash(small).hash), flat)


def _bits(values: np.ndarray) -> int:
    """64 booleans as an integer."""
    return int.from_bytes(np.packbits(values).tobytes(), "big")


def near_pairs(hashes: np.ndarray, most: int = MOST_COMPARISONS) -> tuple[np.ndarray, int]:
    """Finds all pairs of near fingerprints.

    Near hashes share a band, so only those that share one are compared. Equal fingerprints must be given once.

    Args:
        hashes: uint64 "images 2": frequencies and gradients.
        most: comparisons to make at most.

    Returns:
        The pairs, int64 "pairs 2", perhaps repeated; and how many images have not been compared with all others.
    """
    found, incomplete = [np.empty((0, 2), np.int64)], np.zeros(len(hashes), bool)
    edges = np.linspace(0, 64, BANDS + 1).astype(int)
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        keys = (hashes[:, 0] >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(keys, kind="stable")
        keys, frequencies, gradients = keys[order], hashes[order, 0], hashes[order, 1]  # in order, for the cache
        first = np.arange(len(order) - 1)  # places whose image is compared with the one `step` places later
        for step in range(1, len(order)):
            first = first[first < len(order) - step]
            first = first[keys[first] == keys[first + step]]
            most -= len(first)
            if not len(first):
                break
            if most < 0:
                incomplete[order[first]] = True
                break
            near = first[np.bitwise_count(frequencies[first] ^ frequencies[first + step]) <= FREQUENCIES]
            near = near[np.bitwise_count(gradients[near] ^ gradients[near + step]) <= GRADIENTS]
            found.append(np.stack([order[near], order[near + step]], axis=1))
    return np.concatenate(found), int(incomplete.sum())


def near_groups(hashes: np.ndarray, numbers: np.ndarray, total: int) -> tuple[np.ndarray, int]:
    """Groups images whose fingerprints are near, or connected by near ones.

    Args:
        hashes: uint64 "images 2".
        numbers: of these images among all samples.
        total: the number of all samples.

    Returns:
        The group of each of all samples as `duplicates.equal_groups` returns them, and how many images have not been
        compared with all others.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from vitreous.data.check.duplicates import ALONE, renumbered

    groups = np.full(total, ALONE, np.int64)
    different, inverse = np.unique(hashes, axis=0, return_inverse=True)
    pairs, left_out = near_pairs(different)
    ones = np.ones(len(pairs), bool)
    links = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(len(different), len(different)))
    _, component = connected_components(links, directed=False)
    groups[numbers] = component[inverse.reshape(-1)]
    return renumbered(groups), left_out
