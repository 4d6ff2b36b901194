"""MixUp and CutMix mix labels as they mix pixels."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vitreous.data.mixing import Mixing
from vitreous.data.sampling import batch_generator
from vitreous.support.errors import InputError

EVERY = [
    Mixing(mixup, cutmix, per_sample)
    for mixup, cutmix in ((0.8, 0.0), (0.0, 1.0), (0.3, 1.0))
    for per_sample in (False, True)
]


def generator(batch: int = 0) -> np.random.Generator:
    return batch_generator(0, 0, batch)


def data(count: int = 6, height: int = 10, width: int = 14) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, height, width), torch.eye(5)[torch.arange(count) % 5]


def plain(images: Tensor, targets: Tensor, mixing: Mixing, batch: int) -> tuple[Tensor, Tensor]:
    """The same draws applied one sample and one pixel at a time."""
    count, _, height, width = images.shape
    draws = mixing.draw(count, height, width, generator(batch))
    mixed, labels = images.clone(), targets.clone()
    for place in range(count):
        row = place if mixing.per_sample else 0
        partner, share = int(draws.partners[place]), float(draws.shares[row])
        if draws.uncut[row]:
            mixed[place] = share * images[place] + (1 - share) * images[partner]
        else:
            top, left, bottom, right = draws.boxes[row].tolist()
            taken = 0
            for y in range(top, bottom):
                for x in range(left, right):
                    mixed[place, :, y, x] = images[partner, :, y, x]
                    taken += 1
            share = 1 - taken / (height * width)
        labels[place] = share * targets[place] + (1 - share) * targets[partner]
    return mixed, labels


@pytest.mark.parametrize("mixing", EVERY, ids=repr)
def test_mixing_equals_a_plain_implementation(mixing):
    changed = 0
    for batch in range(8):
        images, targets = data()
        before = images.clone(), targets.clone()
        mixed, labels = mixing(images, targets, generator(batch))
        slow, slow_labels = plain(images, targets, mixing, batch)
        torch.testing.assert_close(mixed, slow, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(labels, slow_labels, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(labels.sum(1), torch.ones(6))
        assert torch.equal(images, before[0])
        assert torch.equal(targets, before[1])
        changed += not torch.equal(mixed, images)
    assert changed >= 6


@pytest.mark.parametrize("mixing", EVERY, ids=repr)
def test_labels_are_the_shares_of_the_pixels(mixing):
    """Each channel is 1 for one class, so the mean of its pixels must equal the label."""
    shares = []
    for batch in range(20):
        targets = torch.eye(5)[torch.arange(7) % 5]
        images = targets.view(7, 5, 1, 1).expand(7, 5, 11, 9).contiguous()
        mixed, labels = mixing(images, targets, generator(batch))
        torch.testing.assert_close(mixed.mean((2, 3)), labels, rtol=0, atol=1e-5)
        shares += (labels * targets).sum(1).tolist()
    assert min(shares) < 0.6
    assert max(shares) == pytest.approx(1)
    assert len({round(share, 4) for share in shares}) > 10


def test_shares_follow_the_beta_distribution():
    """The variance of Beta(a, a) is 1 / (4 (2 a + 1))."""
    for alpha in (0.2, 1.0, 5.0):
        shares = Mixing(mixup=alpha, per_sample=True).draw(4000, 8, 8, generator()).shares
        assert abs(shares.mean() - 0.5) < 0.03
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_cutmixs_share_accounts_for_clipping():
    draws = Mixing(cutmix=1.0, per_sample=True).draw(2000, 32, 48, generator())
    top, left, bottom, right = draws.boxes.T
    assert (top >= 0).all()
    assert (top <= bottom).all()
    assert (bottom <= 32).all()
    assert (left >= 0).all()
    assert (left <= right).all()
    assert (right <= 48).all()
    np.testing.assert_allclose(draws.shares, 1 - (bottom - top) * (right - left) / (32 * 48))
    assert ((top == 0) | (left == 0) | (bottom == 32) | (right == 48)).mean() > 0.3  # many boxes are clipped
    assert draws.shares.mean() > 0.55  # which leaves more than the 0.5 drawn


def test_a_box_has_the_drawn_area():
    """Beta(100, 100) is near 0.5, and so is the area of each box that is not clipped."""
    draws = Mixing(mixup=0.2, cutmix=100.0, per_sample=True).draw(2000, 320, 480, generator())
    top, left, bottom, right = draws.boxes.T
    free = (top > 0) & (left > 0) & (bottom < 320) & (right < 480)
    areas = (bottom - top) * (right - left) / (320 * 480)
    assert free.sum() > 100
    assert abs(areas[free].mean() - 0.5) < 0.02
    assert areas.max() < 0.7
    np.testing.assert_allclose(
        ((bottom - top) / (right - left))[free], 320 / 480, rtol=0.02
    )  # the image's aspect ratio


@pytest.mark.parametrize("per_sample", [False, True])
def test_with_both_each_is_used_half_of_the_time(per_sample):
    mixing = Mixing(0.5, 0.5, per_sample)
    uncut = np.concatenate([mixing.draw(4, 8, 8, generator(batch)).uncut for batch in range(200)])
    assert len(uncut) == (800 if per_sample else 200)
    assert 0.4 < uncut.mean() < 0.6


def test_per_batch_is_one_draw_and_per_sample_many():
    images, targets = data(64)
    for per_sample, least, most in ((False, 1, 1), (True, 40, 64)):
        draws = Mixing(0.8, 0.0, per_sample).draw(64, 10, 14, generator())
        assert least <= len({*draws.shares.tolist()}) <= most
        assert sorted(draws.partners.tolist()) == list(range(64))
        mixed, _ = Mixing(0.8, 0.0, per_sample)(images, targets, generator())
        assert mixed.shape == images.shape


@pytest.mark.parametrize("mixing", EVERY, ids=repr)
def test_the_same_generator_gives_the_same_bits_and_batches_differ(mixing):
    images, targets = data(16)
    one, same, other = (mixing(images, targets, generator(batch)) for batch in (1, 1, 2))
    assert torch.equal(one[0], same[0])
    assert torch.equal(one[1], same[1])
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("mixing", EVERY, ids=repr)
def test_a_batch_without_partners_is_unchanged(mixing, count):
    images, targets = data(count)
    mixed, labels = mixing(images, targets, generator())
    torch.testing.assert_close(mixed, images)
    torch.testing.assert_close(labels, targets)


def test_the_draws_are_frozen():
    """Resumed runs and the results of every recipe depend on them."""
    draws = Mixing(0.8, 1.0, True).draw(6, 8, 10, batch_generator(1, 2, 3))
    assert draws.partners.tolist() == [2, 3, 1, 5, 4, 0]
    assert Mixing(0.8, 1.0, True).partners(6, batch_generator(1, 2, 3)).tolist() == [2, 3, 1, 5, 4, 0]
    assert draws.uncut.tolist() == [False, True, False, True, False, False]
    assert draws.boxes[:3].tolist() == [[4, 0, 8, 4], [1, 0, 1, 1], [0, 2, 3, 8]]


def test_off_it_draws_nothing():
    images, targets = data()
    untouched = generator()
    mixed, labels = Mixing()(images, targets, untouched)
    assert mixed is images
    assert labels is targets
    assert untouched.random() == generator().random()


def test_dtypes_are_kept():
    images, targets = data()
    mixed, labels = Mixing(0.8, 1.0, True)(images.bfloat16(), targets.double(), generator())
    assert (mixed.dtype, labels.dtype) == (torch.bfloat16, torch.float64)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("value", [-0.1, 101.0, float("nan"), float("inf")])
def test_an_invalid_value_is_named(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}"):
        Mixing(**{name: value})
