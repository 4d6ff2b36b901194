"""Batches are the same for any number of workers, and account for every sample."""

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.data.augmentation import Augmentation
from vitreous.data.loading.batches import batches
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sources.open import open_data

PREPROCESSING = Preprocessing((12, 12), interpolation="bicubic", channels=1, mean=(0.5,), std=(0.5,))


@pytest.fixture(scope="module")
def digits():
    return open_data("digits").validation


@pytest.fixture
def photos(tmp_path):
    """A split of two classes with eight photos each, and their folder."""
    generator = np.random.default_rng(0)
    for name in ("ant", "bee"):
        for split in ("train", "val"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(8):
                pixels = generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    return open_data(tmp_path).train, tmp_path


def bits(epoch):
    return [(b.images.tolist(), b.labels.tolist(), b.indices.tolist(), b.bad) for b in epoch]


def test_batches_do_not_depend_on_the_number_of_workers(digits):
    def epoch(workers):
        loader = batches(
            digits,
            PREPROCESSING,
            batch_size=32,
            shuffle=True,
            augmentation=Augmentation(crop_scale=(0.5, 1.0)),
            seed=3,
            epoch=2,
            workers=workers,
        )
        return bits(loader)

    alone = epoch(0)
    assert epoch(1) == alone
    assert epoch(2) == alone


@pytest.fixture
def uneven(tmp_path):
    """A split of twelve photos of ants and three of bees."""
    generator = np.random.default_rng(0)
    for name, count in (("ant", 12), ("bee", 3)):
        for split in ("train", "val"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    return open_data(tmp_path).train


def balanced(split, workers=0, augmentation=None, batch_size=4):
    return batches(
        split,
        Preprocessing((8, 8)),
        batch_size=batch_size,
        shuffle=True,
        augmentation=augmentation,
        seed=3,
        epoch=2,
        workers=workers,
        balanced=True,
    )


def test_balanced_batches_repeat_small_classes_with_different_views(uneven):
    epoch = list(balanced(uneven, augmentation=Augmentation()))
    assert [len(batch) for batch in epoch] == [4, 4, 4, 3]
    labels = torch.cat([batch.labels for batch in epoch])
    assert sorted(labels.bincount().tolist()) == [7, 8]
    places = torch.cat([batch.indices for batch in epoch]).tolist()
    assert labels.tolist() == uneven.labels[places].tolist()
    views = [view.numpy().tobytes() for batch in epoch for view in batch.images]
    assert len(set(places)) < len(set(views)) == 15
    plain = batches(
        uneven, Preprocessing((8, 8)), batch_size=15, shuffle=False, augmentation=Augmentation(), seed=3, epoch=2
    )
    (once,) = plain
    firsts = {place: views[places.index(place)] for place in places}
    assert firsts == {
        place: once.images[place].numpy().tobytes() for place in firsts
    }  # the first visit is as without balancing


def test_balanced_batches_do_not_depend_on_workers_or_batch_size(uneven):
    alone = bits(balanced(uneven, 0, Augmentation()))
    assert bits(balanced(uneven, 2, Augmentation())) == alone
    (whole,) = bits(balanced(uneven, 0, Augmentation(), batch_size=15))
    assert whole[0] == [image for batch in alone for image in batch[0]]


def test_without_augmentation_a_repeated_sample_is_identical(uneven):
    for batch in balanced(uneven):
        for image, place in zip(batch.images, batch.indices.tolist(), strict=True):
            assert torch.equal(image, Preprocessing((8, 8)).pixels(uneven.load(place)))


def test_a_balanced_order_must_be_shuffled(digits):
    with pytest.raises(ValueError, match="balanced"):
        batches(digits, PREPROCESSING, batch_size=4, shuffle=False, balanced=True)


def test_an_epoch_has_each_sample_once_with_its_label_and_pixels(digits):
    loader = batches(digits, PREPROCESSING, batch_size=50, shuffle=True, seed=1)
    epoch = list(loader)
    assert len(epoch) == len(loader) == 3
    assert [len(batch) for batch in epoch] == [50, 50, len(digits) - 100]
    assert sorted(i for batch in epoch for i in batch.indices.tolist()) == list(range(len(digits)))
    for batch in epoch:
        assert batch.images.dtype == torch.uint8
        assert batch.bad == []
        for image, label, index in zip(batch.images, batch.labels, batch.indices.tolist(), strict=True):
            assert label == digits.labels[index]
            assert torch.equal(image, PREPROCESSING.pixels(digits.load(index)))


def test_evaluation_keeps_the_order_and_the_last_batch(digits):
    epoch = list(batches(digits, PREPROCESSING, batch_size=100, shuffle=False))
    assert [i for batch in epoch for i in batch.indices.tolist()] == list(range(len(digits)))


def test_seed_and_epoch_change_order_and_views(photos):
    split, _ = photos

    def epoch(seed, number, shuffle=True):
        (batch,) = batches(
            split,
            Preprocessing((8, 8)),
            batch_size=16,
            shuffle=shuffle,
            augmentation=Augmentation(),
            seed=seed,
            epoch=number,
        )
        return batch

    orders = [epoch(*key).indices.tolist() for key in ((0, 0), (0, 1), (1, 0))]
    assert len(set(map(tuple, orders))) == 3
    assert not torch.equal(epoch(0, 0, False).images, epoch(0, 1, False).images)
    assert not torch.equal(epoch(0, 0, False).images, epoch(1, 0, False).images)


def test_a_view_depends_on_its_sample_not_on_the_batch(photos):
    split, _ = photos

    def views(batch_size, shuffle):
        loader = batches(
            split, Preprocessing((8, 8)), batch_size=batch_size, shuffle=shuffle, augmentation=Augmentation()
        )
        return {i: v.tolist() for b in loader for i, v in zip(b.indices.tolist(), b.images, strict=True)}

    assert views(16, False) == views(3, True)


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_and_vanished_files_are_skipped_and_reported(photos, workers):
    split, folder = photos
    (folder / "train/ant/3.png").write_bytes((folder / "train/ant/3.png").read_bytes()[:300])
    (folder / "train/bee/0.png").unlink()
    (batch,) = batches(split, Preprocessing((8, 8)), batch_size=16, shuffle=False, workers=workers)
    names = [name for name, _ in batch.bad]
    assert names == ["train/ant/3.png", "train/bee/0.png"]
    assert batch.bad[0][1].startswith("is broken: ")
    assert batch.bad[1][1] == "cannot be read: No such file or directory"
    assert batch.indices.tolist() == [i for i in range(16) if i not in (3, 8)]
    assert batch.labels.tolist() == [0] * 7 + [1] * 7
    whole = Preprocessing((8, 8)).pixels(split.load(4))
    assert torch.equal(batch.images[3], whole)  # the images keep their labels


def test_views_do_not_depend_on_other_broken_samples(photos):
    split, folder = photos

    def views():
        loader = batches(split, Preprocessing((8, 8)), batch_size=4, shuffle=True, augmentation=Augmentation())
        return {i: v.tolist() for b in loader for i, v in zip(b.indices.tolist(), b.images, strict=True)}

    before = views()
    (folder / "train/ant/0.png").unlink()
    assert views() == {i: v for i, v in before.items() if i != 0}


def test_a_batch_of_broken_files_is_empty_and_still_reports(photos):
    split, folder = photos
    for number in range(8):
        (folder / f"train/ant/{number}.png").write_text("gone")
    first, second = batches(split, Preprocessing((8, 6)), batch_size=8, shuffle=False)
    assert len(first) == 0
    assert first.images.shape == (0, 3, 8, 6)
    assert first.labels.dtype == torch.int64
    assert len(first.bad) == 8
    assert (len(second), second.bad) == (8, [])


@pytest.mark.parametrize("workers", [0, 1])
def test_torchs_generator_is_not_advanced(digits, workers):
    before = torch.get_rng_state()
    list(batches(digits, PREPROCESSING, batch_size=100, shuffle=True, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_bug_is_not_mistaken_for_a_broken_image(digits):
    class Buggy(type(digits.load)):
        def __call__(self, index):
            raise RuntimeError("a bug")

    broken = type(digits)(digits.name, digits.names, digits.labels, Buggy(digits.load.pixels))
    with pytest.raises(RuntimeError, match="a bug"):
        list(batches(broken, PREPROCESSING, batch_size=10, shuffle=False))


@pytest.mark.parametrize("numbers", [{"batch_size": 0}, {"batch_size": -1}, {"batch_size": 1, "workers": -1}])
def test_invalid_numbers_are_refused(digits, numbers):
    with pytest.raises(ValueError, match=r"batch_size|workers"):
        batches(digits, PREPROCESSING, shuffle=False, **numbers)
