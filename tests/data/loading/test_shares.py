"""Ranks share each batch: together they have what one rank has, to the bit."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from vitreous.data.augmentation import Augmentation
from vitreous.data.decoding.images import BadImage
from vitreous.data.loading.batches import Batch, batches
from vitreous.data.loading.shares import Part, Share, parts_of, walk
from vitreous.data.loading.workers import Workers
from vitreous.data.mixing import Mixing
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sampling import batch_generator
from vitreous.data.sources.splits import Loader, Split

PREPROCESSING = Preprocessing((9, 7))  # 63 pixels, so that vectorized loops have rests
SEED, EPOCH, CLASSES = 3, 2, 4
MIXINGS = [
    Mixing(),
    *(Mixing(*alphas, per_sample) for alphas in ((0.8, 0.0), (0.3, 1.0)) for per_sample in (False, True)),
]


@dataclass(frozen=True, eq=False)
class Noise(Loader):
    """Images of noise, some of them broken."""

    broken: frozenset[int]

    def __call__(self, index: int) -> Image.Image:
        if index in self.broken:
            raise BadImage(f"image {index}", "is broken")
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (12, 10, 3), dtype=np.uint8))

    def size(self, index: int) -> tuple[int, int]:
        return 12, 10

    def content(self, index: int) -> bytes:
        return bytes([index])


def noise(count: int, broken: set[int] | None = None) -> Split:
    """A split of four classes, of which the first has half of the images."""
    labels = np.maximum(0, np.arange(count) % (2 * CLASSES) - CLASSES)
    return Split("train", tuple(f"{index}.png" for index in range(count)), labels, Noise(frozenset(broken or ())))


def epoch_of(
    split: Split, batch_size: int, ranks: int, mixing: Mixing, *, balanced: bool = False, workers: int | Workers = 0
) -> list[list[Batch]]:
    """For each rank, its batches of a training epoch."""
    return [
        list(
            batches(
                split, PREPROCESSING, batch_size=batch_size, shuffle=True, augmentation=Augmentation(), seed=SEED,
                epoch=EPOCH, balanced=balanced, workers=workers, share=Share(rank, ranks), mixing=mixing,
            )
        )
        for rank in range(ranks)
    ]  # fmt: skip


def mixed(batch: Batch, mixing: Mixing, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and targets of a batch as training has them."""

    def known(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return PREPROCESSING.normalize(batch.images), F.one_hot(batch.labels, CLASSES).float()

    borrowed = None if batch.borrowed is None else known(batch.borrowed)
    return mixing(*known(batch), batch_generator(SEED, EPOCH, number), batch.part, borrowed)


def rows(batch: Batch, mixing: Mixing, number: int) -> Iterator[tuple[int, int, bytes, bytes]]:
    """For each image its position in the whole batch, its index, and the bits of the image and its target."""
    images, targets = mixed(batch, mixing, number)
    for row in zip(batch.part.positions.tolist(), batch.indices.tolist(), images, targets, strict=True):
        yield row[0], row[1], row[2].numpy().tobytes(), row[3].numpy().tobytes()


def assert_same_epoch(ranks: list[list[Batch]], whole: list[Batch], mixing: Mixing) -> None:
    """The parts of all ranks, in the order of their positions, are the whole batches, and so are the reports."""
    for number, parts in enumerate(zip(*ranks, strict=True)):
        together = sorted(row for part in parts for row in rows(part, mixing, number))
        assert together == [*rows(whole[number], mixing, number)]
        assert sorted(report for part in parts for report in part.bad) == sorted(whole[number].bad)
        assert {part.part.size for part in parts} == {whole[number].part.size}


@given(
    count=st.integers(1, 30),
    batch_size=st.integers(1, 16),
    ranks=st.integers(1, 4),
    broken=st.sets(st.integers(0, 29), max_size=12),
    mixing=st.sampled_from(MIXINGS),
    balanced=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_the_parts_together_are_the_whole_batches(count, batch_size, ranks, broken, mixing, balanced):
    split = noise(count, broken)
    (alone,) = epoch_of(split, batch_size, 1, mixing, balanced=balanced)
    shares = epoch_of(split, batch_size, ranks, mixing, balanced=balanced)
    assert len(shares) == ranks
    assert_same_epoch(shares, alone, mixing)
    for parts in zip(*shares, strict=True):
        lengths = [len(part) + len(part.bad) for part in parts]
        assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("balanced", [False, True])
def test_the_parts_are_the_same_for_any_number_of_workers(balanced):
    split, mixing = noise(26, {3, 11, 12}), MIXINGS[-1]
    (alone,) = epoch_of(split, 8, 1, mixing, balanced=balanced)
    with Workers(2) as workers:
        for ranks in (1, 3, 4):
            here = epoch_of(split, 8, ranks, mixing, balanced=balanced)
            there = epoch_of(split, 8, ranks, mixing, balanced=balanced, workers=workers)
            assert_same_epoch(there, alone, mixing)
            assert borrowed(there) == borrowed(here)


def borrowed(shares: list[list[Batch]]) -> list[list[int]]:
    """The indices that each batch borrows."""
    batches = [batch.borrowed for share in shares for batch in share]
    return [[] if batch is None else batch.indices.tolist() for batch in batches]


def test_mixing_draws_as_if_no_image_were_broken():
    """The others have the same partners and shares; where the partner is broken, an image stays as it is."""
    mixing, broken = Mixing(mixup=0.8, per_sample=True), {5}
    ((whole,),) = epoch_of(noise(12), 12, 1, mixing)
    ((batch,),) = epoch_of(noise(12, broken), 12, 1, mixing)
    before = {row[1]: row for row in rows(whole, mixing, 0)}
    after = {row[1]: row for row in rows(batch, mixing, 0)}
    partners = mixing.partners(12, batch_generator(SEED, EPOCH, 0))
    (position,) = np.flatnonzero(whole.indices.numpy() == 5)
    alone = int(whole.indices[np.flatnonzero(partners == position)])
    assert alone != 5
    assert {index for index in after if after[index] != before[index]} == {alone}
    plain = PREPROCESSING.normalize(batch.images)[batch.indices == alone]
    assert after[alone][2] == plain.numpy().tobytes()


def test_what_is_borrowed_is_reported_by_its_own_rank_alone():
    """Each image is broken in turn; some rank borrows it."""
    mixing, borrowers = MIXINGS[1], 0
    for index in range(12):
        shares = epoch_of(noise(12, {index}), 12, 3, mixing)
        assert [name for (part,) in shares for name, _ in part.bad] == [f"{index}.png"]
        borrowers += sum(len(part.part.broken) > len(part.bad) for (part,) in shares)
    assert borrowers


def test_a_rank_may_get_nothing_of_the_last_batch():
    shares = epoch_of(noise(10), 8, 4, MIXINGS[-1])
    last = [part for *_, part in shares]
    assert sorted(map(len, last)) == [0, 0, 1, 1]
    empty = min(last, key=len)
    images, targets = mixed(empty, MIXINGS[-1], 1)
    assert images.shape == (0, 3, 9, 7)
    assert targets.shape == (0, CLASSES)
    assert (empty.bad, empty.borrowed) == ([], None)


def test_batches_that_are_done_are_left_out_on_every_rank():
    split, mixing = noise(26), MIXINGS[-1]
    for rank, whole in enumerate(epoch_of(split, 8, 3, mixing)):
        rest = batches(
            split, PREPROCESSING, batch_size=8, shuffle=True, augmentation=Augmentation(), seed=SEED, epoch=EPOCH,
            share=Share(rank, 3), mixing=mixing, done=2,
        )  # fmt: skip
        assert [batch.indices.tolist() for batch in rest] == [batch.indices.tolist() for batch in whole[2:]]


@given(count=st.integers(0, 60), batch_size=st.integers(1, 20), ranks=st.integers(1, 7))
@settings(deadline=None)
def test_without_mixing_whole_shares_differ_by_at_most_one(count, batch_size, ranks):
    """As evaluation needs it: each sample once."""
    split = noise(count)
    shares = [
        [
            batch.indices.tolist()
            for batch in batches(split, PREPROCESSING, batch_size=batch_size, shuffle=False, share=Share(rank, ranks))
        ]
        for rank in range(ranks)
    ]
    lengths = [sum(map(len, share)) for share in shares]
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(count))
    assert max(lengths) - min(lengths) <= 1
    for number, parts in enumerate(zip(*shares, strict=True)):
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert {index // batch_size for part in parts for index in part} == {number}


permutations = st.integers(1, 40).flatmap(lambda count: st.permutations(range(count))).map(np.array)


@given(permutations, st.integers(1, 5))
def test_a_part_borrows_the_partners_it_lacks_and_these_are_few(partners, ranks):
    parts = [
        parts_of(Share(rank, ranks), len(partners), len(partners), lambda *_: partners)[0] for rank in range(ranks)
    ]
    assert sorted(np.concatenate([part.positions for part in parts]).tolist()) == list(range(len(partners)))
    for part in parts:
        assert (np.diff(part.positions) > 0).all()
        assert set(part.borrowed.tolist()) == set(partners[part.positions].tolist()) - set(part.positions.tolist())
        assert len(part.borrowed) <= 2
        assert part.loaded[part.rows_of(partners)].tolist() == partners[part.positions].tolist()


@given(permutations)
def test_the_walk_follows_the_partners(partners):
    steps = walk(partners).tolist()
    assert sorted(steps) == list(range(len(partners)))
    jumps = sum(partners[one] != other for one, other in pairwise(steps))
    cycles = {min(cycle(partners, position)) for position in steps}
    assert jumps == len(cycles) - 1


def cycle(partners: np.ndarray, position: int) -> set[int]:
    """The positions that the partners lead to."""
    found: set[int] = set()
    while position not in found:
        found.add(position)
        position = int(partners[position])
    return found


def test_other_partners_than_those_of_the_part_are_a_bug():
    partners = np.array([1, 0, 3, 2])
    (part,) = parts_of(Share(0, 2), 4, 4, lambda *_: partners)
    assert part.rows_of(partners).tolist() == [1, 0]
    with pytest.raises(AssertionError, match="partners"):
        part.rows_of(np.array([2, 3, 0, 1]))


def test_a_whole_batch_is_not_copied():
    drawn = np.arange(6)
    assert Part.whole(6).cut(drawn) is drawn
    assert Part.whole(6).without([]).cut(drawn) is drawn
    assert Part.whole(6).without([4]).cut(drawn).tolist() == [0, 1, 2, 3, 5]


@pytest.mark.parametrize(("rank", "size"), [(-1, 2), (2, 2), (0, 0)])
def test_an_impossible_rank_is_refused(rank, size):
    with pytest.raises(ValueError, match=f"rank is {rank}"):
        Share(rank, size)
