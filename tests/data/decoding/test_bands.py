"""Images of any number of channels are resized, cropped, augmented and shown like photos, channel by channel."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.data.augmentation import Augmentation
from vitreous.data.decoding.bands import Bands, picture_of
from vitreous.data.decoding.images import BadImage
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError
from vitreous.support.figures import visible


def values(height=12, width=17, channels=5, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def preprocessing_of(channels, **options):
    return Preprocessing((6, 8), mean=(0.5,) * channels, std=(0.5,) * channels, channels=channels, **options)


OPTIONS = [
    {},
    {"resize": "crop", "crop_fraction": 0.7, "interpolation": "bicubic"},
    {"interpolation": "bilinear", "antialias": False},
    {"trim": (1, 2)},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("channels", [2, 4, 5, 13])
def test_each_channel_is_preprocessed_as_a_gray_image(channels, options):
    pixels = preprocessing_of(channels, **options).pixels(picture_of(values(channels=channels)))
    gray = preprocessing_of(1, **options)
    for channel in range(channels):
        expected = gray.pixels(Image.fromarray(np.ascontiguousarray(values(channels=channels)[..., channel])))
        assert pixels[channel].equal(expected[0])


def test_augmentation_gives_all_channels_the_same_crop_and_flip():
    views = Augmentation(crop_scale=(0.2, 0.9))
    same = np.repeat(values(channels=1), 5, axis=2)
    seen = set()
    for seed in range(8):
        generators = [np.random.Generator(np.random.Philox(seed)) for _ in range(2)]
        pixels = views.pixels(picture_of(same), preprocessing_of(5), generators[0])
        gray = views.pixels(picture_of(same[..., 0]), preprocessing_of(1), generators[1])
        assert pixels.equal(gray.expand(5, -1, -1))
        seen.add(pixels.numpy().tobytes())
    assert len(seen) == 8


def test_three_channels_are_a_color_image_and_one_a_gray_one():
    assert picture_of(values(channels=3)).mode == "RGB"
    assert picture_of(values(channels=1)).mode == picture_of(values()[..., 0]).mode == "L"
    assert isinstance(picture_of(values(channels=2)), Bands)


def test_pillow_images_of_four_channels_are_used_as_they_are():
    image = Image.fromarray(values(channels=4), "RGBA")
    assert preprocessing_of(4).pixels(image).equal(preprocessing_of(4).pixels(picture_of(values(channels=4))))


@pytest.mark.parametrize(("picture", "channels"), [(5, 3), (5, 1), (5, 4), (3, 5)])
def test_another_number_of_channels_is_a_bad_image(picture, channels):
    with pytest.raises(BadImage, match=f"has {picture} channels, not {channels}"):
        preprocessing_of(channels).pixels(picture_of(values(channels=picture)))


def test_numbers_are_scaled_to_bytes():
    deep = np.array([[[0, 2048, 4095, 5000]]], np.uint16)
    assert picture_of(deep, max_value=4095).array().tolist() == [[[0, 128, 255, 255]]]
    assert picture_of(np.array([[[0, 257, 65535, 128]]], np.uint16)).array().tolist() == [[[0, 1, 255, 0]]]
    assert picture_of(np.array([[[0.0, 0.5, 1.0, 0.25]]])).array().tolist() == [[[0, 128, 255, 64]]]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(4, np.uint8), "shape"),
        (np.zeros((2, 2, 2, 2), np.uint8), "shape"),
        (np.zeros((0, 2, 4), np.uint8), "shape"),
        (np.zeros((2, 2, 2000), np.uint8), "shape"),
        (np.zeros((2, 2, 4), np.int64), "int64"),
        (np.full((2, 2, 4), 1.5), "floats outside"),
        (np.full((2, 2, 4), np.nan), "floats outside"),
        (np.zeros((2, 2), object), "object"),
    ],
)
def test_other_arrays_are_bad_images(array, reason):
    with pytest.raises(BadImage, match=reason):
        picture_of(array)


def test_the_settings_follow_the_channels():
    adapted = Preprocessing((8, 8), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)).adapted((8, 8), 5)
    assert adapted.channels == len(adapted.std) == 5
    assert adapted.mean == pytest.approx((0.2,) * 5)
    assert Preprocessing.from_dict(adapted.to_dict()) == adapted
    batch = adapted([picture_of(values()), picture_of(values(seed=1))])
    assert batch.shape == (2, 5, 8, 8)
    assert batch.dtype == torch.float32


@pytest.mark.parametrize(
    "options", [{"randaugment_layers": 2}, {"trivial_augment": True}, {"auto_augment": True}, {"color_jitter": 0.1}]
)
def test_operations_on_colors_are_refused_for_other_channels(options):
    views = Augmentation(**options)
    for channels in (1, 3):
        views.check_channels(channels)
    with pytest.raises(InputError, match=f"{next(iter(options))}=.* the images have 5 channels"):
        views.check_channels(5)
    replace(views, **dict.fromkeys(options, 0), erasing=0.5).check_channels(5)


def test_what_is_shown_of_other_channels_is_their_mean():
    pixels = values().transpose(2, 0, 1)
    assert visible(pixels[:3]) is not None
    assert (visible(pixels) == pixels.mean(axis=0, keepdims=True).astype(np.uint8)).all()
    assert visible(pixels[:3]).shape == (3, 12, 17)
