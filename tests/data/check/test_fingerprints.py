"""Fingerprints: near for copies, far for other images, and found without comparing all pairs."""

import time
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from tests.data.check.faults import picture
from vitreous.data.check.fingerprints import FREQUENCIES, GRADIENTS, fingerprint, near_groups, near_pairs


def test_they_are_the_hashes_of_imagehash():
    import imagehash

    small = picture(1, (32, 32), "L")
    found = fingerprint(small)
    assert f"{found.frequencies:016x}" == str(imagehash.phash(small))
    assert f"{found.gradients:016x}" == str(imagehash.dhash(small))
    assert not found.flat


def test_an_image_of_one_color_is_flat():
    assert fingerprint(Image.new("RGB", (50, 40), (200, 10, 30))).flat
    noise = np.random.default_rng(0).integers(100, 103, (50, 40), dtype=np.uint8)
    assert fingerprint(Image.fromarray(noise)).flat
    assert not fingerprint(picture(3)).flat


def by_hand(hashes: np.ndarray) -> set[tuple[int, int]]:
    """All near pairs, each compared."""
    most = np.array([FREQUENCIES, GRADIENTS])
    return {
        (i, j)
        for i, j in combinations(range(len(hashes)), 2)
        if (np.bitwise_count(hashes[i] ^ hashes[j]) <= most).all()
    }


def test_every_near_pair_is_found():
    generator = np.random.default_rng(0)
    hashes = [generator.integers(0, 2**63, 2, dtype=np.uint64) for _ in range(40)]
    for original in hashes[:40]:
        for _ in range(4):
            changed = original.copy()
            for part, most in ((0, FREQUENCIES + 1), (1, GRADIENTS + 1)):
                for bit in generator.choice(64, generator.integers(0, most + 1), replace=False).tolist():
                    changed[part] ^= np.uint64(1 << bit)
            hashes.append(changed)
    stacked = np.unique(np.stack(hashes), axis=0)
    pairs, left_out = near_pairs(stacked)
    expected = by_hand(stacked)
    assert {(min(a, b), max(a, b)) for a, b in pairs.tolist()} == expected
    assert len(expected) > 100
    assert left_out == 0


def test_many_images_are_not_all_compared():
    hashes = np.random.default_rng(0).integers(0, 2**63, (100_000, 2), dtype=np.uint64)
    begin = time.process_time()
    pairs, left_out = near_pairs(hashes, most=10_000_000)
    assert (len(pairs), left_out) == (0, 0), "all pairs would be 5,000,000,000"
    assert time.process_time() - begin < 10


def test_what_was_not_compared_is_counted():
    hashes = np.zeros((1000, 2), np.uint64)
    hashes[:, 1] = np.arange(1000)
    _, left_out = near_pairs(hashes, most=100)
    assert left_out == 999


def test_equal_fingerprints_are_one_group_at_no_cost():
    hashes = np.tile(np.array([[7, 9]], np.uint64), (200_000, 1))
    begin = time.process_time()
    groups, left_out = near_groups(hashes, np.arange(200_000), 200_001)
    assert (groups[:-1] == 0).all()
    assert (groups[-1], left_out) == (-1, 0)
    assert time.process_time() - begin < 5


def test_connected_images_are_one_group():
    hashes = np.array([[0, 0], [0b1111, 0], [0b11111111, 0], [2**40 - 1, 5]], np.uint64)
    groups, _ = near_groups(hashes, np.array([4, 2, 0, 1]), 5)
    assert groups.tolist() == [0, -1, 0, -1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_other_images_are_far(seed):
    a, b = fingerprint(picture(seed)), fingerprint(picture(seed + 100))
    assert (a.frequencies ^ b.frequencies).bit_count() > FREQUENCIES
