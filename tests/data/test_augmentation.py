"""Random views crop and flip like torchvision, and depend on the generator alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from vitreous.data.augmentation import Augmentation
from vitreous.data.photometric import auto_augment, color_jitter, erased, rand_augment, trivial_augment
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sampling import sample_generator
from vitreous.support.errors import InputError

PREPROCESSING = Preprocessing((16, 24), interpolation="bicubic")


def noise(height, width):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from([(0.08, 1.0), (0.5, 0.5), (1.0, 1.0), (0.01, 0.02)]),
    st.sampled_from([(3 / 4, 4 / 3), (1.0, 1.0), (0.1, 10.0), (2.0, 3.0)]),
    st.integers(0, 2**32),
)
def test_a_crop_lies_inside_the_image(shape, scale, ratio, seed):
    draws = np.random.default_rng(seed).random((10, 4))
    top, left, height, width = Augmentation(True, scale, ratio).crop(shape[0], shape[1], draws)
    assert height >= 1
    assert width >= 1
    assert 0 <= top <= shape[0] - height
    assert 0 <= left <= shape[1] - width


def test_crops_have_the_configured_areas_and_ratios():
    augmentation = Augmentation(True, (0.2, 0.4), (0.5, 2.0))
    crops = [augmentation.crop(1000, 1000, sample_generator(0, 0, i).random((10, 4))) for i in range(2000)]
    areas = np.array([h * w / 1e6 for _, _, h, w in crops])
    ratios = np.log([w / h for _, _, h, w in crops])
    assert areas.min() > 0.199
    assert areas.max() < 0.401
    assert abs(areas.mean() - 0.3) < 0.02
    assert np.abs(ratios).max() < math.log(2) + 0.01
    assert abs(ratios.mean()) < 0.03  # uniform in the logarithm: as often wide as tall
    tops = np.array([top / (1000 - h) for top, _, h, _ in crops])
    assert tops.min() < 0.01
    assert tops.max() > 0.99


def test_the_fallback_is_torchvisions():
    """If no crop fits, as in a long strip, both take the center."""
    for shape in ((10, 400), (400, 10)):
        theirs = v2.RandomResizedCrop(8, (0.9, 1.0)).make_params([torch.empty(3, *shape)])
        ours = Augmentation(True, (0.9, 1.0)).crop(*shape, np.full((10, 4), 0.5))
        assert ours == tuple(theirs[name] for name in ("top", "left", "height", "width"))


def test_a_view_is_cropped_resized_and_flipped():
    image, augmentation, seen = noise(50, 70), Augmentation(), set()
    for index in range(12):
        generator = sample_generator(1, 2, index)
        flip = generator.random() < 0.5
        top, left, height, width = augmentation.crop(50, 70, generator.random((10, 4)))
        part = image.crop((left, top, left + width, top + height))
        theirs = v2.Resize([16, 24], v2.InterpolationMode.BICUBIC)(part)
        theirs = v2.PILToTensor()(v2.RandomHorizontalFlip(1.0)(theirs) if flip else theirs)
        assert torch.equal(augmentation.pixels(image, PREPROCESSING, sample_generator(1, 2, index)), theirs)
        seen.add(flip)
    assert seen == {True, False}


def test_without_flip_and_crop_it_equals_the_preprocessing():
    image = noise(40, 40)
    still = Augmentation(False, (1.0, 1.0), (1.0, 1.0))
    for index in range(5):
        view = still.pixels(image, PREPROCESSING, sample_generator(0, 0, index))
        assert torch.equal(view, PREPROCESSING.pixels(image))


def test_flips_are_half_of_the_views():
    image = Image.fromarray(np.array([[0, 255]], dtype=np.uint8))
    plain = Preprocessing((1, 2), channels=1, mean=(0.5,), std=(0.5,))
    augmentation = Augmentation(True, (1.0, 1.0), (2.0, 2.0))
    firsts = [augmentation.pixels(image, plain, sample_generator(0, 0, i))[0, 0, 0].item() for i in range(400)]
    assert set(firsts) == {0, 255}
    assert 150 < firsts.count(0) < 250


def test_the_count_of_draws_does_not_depend_on_the_image():
    rest = []
    for image in (noise(50, 50), noise(2, 90)):
        generator = sample_generator(0, 0, 0)
        Augmentation().pixels(image, PREPROCESSING, generator)
        rest.append(generator.random())
    assert rest[0] == rest[1]


def test_torchs_generator_is_not_used():
    before = torch.get_rng_state()
    views = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        views.append(Augmentation().pixels(noise(50, 50), PREPROCESSING, sample_generator(0, 0, 0)))
    assert torch.equal(*views)
    torch.set_rng_state(before)
    Augmentation().pixels(noise(50, 50), PREPROCESSING, sample_generator(0, 0, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_one_channel_and_the_smallest_image_work():
    gray = Preprocessing((8, 8), channels=1, mean=(0.5,), std=(0.5,))
    assert Augmentation().pixels(noise(1, 1), gray, sample_generator(0, 0, 0)).shape == (1, 8, 8)


@pytest.mark.parametrize("name", ["crop_scale", "crop_ratio"])
@pytest.mark.parametrize("value", [(0.0, 1.0), (0.9, 0.1), (-1.0, 1.0), (0.5, 1000.0), (float("nan"), 1.0)])
def test_an_invalid_range_is_named(name, value):
    with pytest.raises(InputError, match=name):
        Augmentation(**{name: value})


KINDS = {
    "randaugment_layers": (2, lambda view, generator: rand_augment(view, 2, 9.0, generator)),
    "trivial_augment": (True, trivial_augment),
    "auto_augment": (True, auto_augment),
}


@pytest.mark.parametrize("name", KINDS)
def test_operations_follow_the_flip_in_order(name):
    image, still = noise(40, 40), {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": False}
    value, change = KINDS[name]
    more = {name: value, "randaugment_magnitude": 9.0, "color_jitter": 0.3, "erasing": 0.5}
    for index in range(6):
        generator = sample_generator(0, 0, index)
        generator.random(1 + 10 * 4)  # flip and crop come first
        view = color_jitter(change(PREPROCESSING.resized(image), generator), 0.3, generator)
        theirs = erased(PREPROCESSING.to_tensor(view), 0.5, generator)
        ours = Augmentation(**still, **more).pixels(image, PREPROCESSING, sample_generator(0, 0, index))
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, PREPROCESSING.pixels(image))


def test_the_crop_and_the_flip_do_not_depend_on_operations():
    """Erasing changes a view only inside its box."""
    image = noise(50, 70)
    for index in range(6):
        plain = Augmentation().pixels(image, PREPROCESSING, sample_generator(0, 0, index))
        more = Augmentation(erasing=1.0).pixels(image, PREPROCESSING, sample_generator(0, 0, index))
        assert 0 < (plain != more).any(0).float().mean() < 0.45


def test_one_channel_supports_every_operation():
    gray = Preprocessing((8, 8), channels=1, mean=(0.5,), std=(0.5,))
    for index in range(30):
        augmentation = Augmentation(randaugment_layers=3, color_jitter=1.0, erasing=1.0)
        assert augmentation.pixels(noise(9, 9), gray, sample_generator(0, 0, index)).shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("randaugment_layers", -1),
        ("randaugment_layers", 11),
        ("randaugment_magnitude", -0.1),
        ("randaugment_magnitude", 31.0),
        ("color_jitter", 1.1),
        ("color_jitter", float("nan")),
        ("erasing", -0.5),
        ("erasing", 2.0),
    ],
)
def test_an_invalid_value_is_named(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}"):
        Augmentation(**{name: value})


@pytest.mark.parametrize(
    ("names", "cause"),
    [
        (("randaugment_layers", "trivial_augment"), "randaugment_layers is 2 and trivial_augment is true"),
        (("randaugment_layers", "auto_augment"), "randaugment_layers is 2 and auto_augment is true"),
        (("trivial_augment", "auto_augment"), "trivial_augment is true and auto_augment is true"),
        (tuple(KINDS), "randaugment_layers is 2 and trivial_augment is true and auto_augment is true"),
    ],
)
def test_exclusive_augmentations_are_refused(names, cause):
    with pytest.raises(InputError, match=cause):
        Augmentation(**{name: KINDS[name][0] for name in names})
