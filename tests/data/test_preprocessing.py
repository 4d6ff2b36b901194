"""Resizing and cropping equal torchvision's, bit for bit, and normalization is the formula."""

import dataclasses
import json
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from vitreous.data.preprocessing import INTERPOLATIONS, Preprocessing
from vitreous.support.errors import InputError

GRAY = {"channels": 1, "mean": (0.5,), "std": (0.5,)}


def noise(height, width, mode="RGB"):
    values = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "lanczos"])
@pytest.mark.parametrize(("fraction", "side"), [(0.875, 64), (1.0, 56), (224 / 232, 58), (0.9, 62)])
@pytest.mark.parametrize("shape", [(80, 80), (75, 131), (131, 75), (20, 33), (57, 56), (300, 40)])
def test_crop_is_torchvisions_resize_and_center_crop(interpolation, fraction, side, shape):
    image = noise(*shape)
    theirs = v2.Compose([v2.Resize(side, v2.InterpolationMode(interpolation)), v2.CenterCrop(56)])
    ours = Preprocessing((56, 56), "crop", fraction, interpolation)
    assert torch.equal(ours.pixels(image), v2.functional.pil_to_tensor(theirs(image)))


@pytest.mark.parametrize("shape", [(48, 32), (20, 90), (1, 1)])
def test_squash_is_torchvisions_resize(shape):
    image = noise(*shape)
    theirs = v2.PILToTensor()(v2.Resize([32, 48], v2.InterpolationMode.BICUBIC)(image))
    assert torch.equal(Preprocessing((32, 48), "squash", interpolation="bicubic").pixels(image), theirs)


@pytest.mark.parametrize("shape", [(80, 80), (75, 131), (20, 33), (1, 1)])
def test_squash_with_a_crop_keeps_the_center(shape):
    image = noise(*shape)
    theirs = v2.Compose([v2.Resize([64, 48], v2.InterpolationMode.BICUBIC), v2.CenterCrop([32, 24]), v2.PILToTensor()])
    assert torch.equal(Preprocessing((32, 24), "squash", 0.5, "bicubic").pixels(image), theirs(image))


def test_without_antialias_it_interpolates_between_neighbors():
    image = noise(64, 64)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    theirs = torch.nn.functional.interpolate(pixels, (24, 24), mode="bilinear", antialias=False)[0]
    ours = Preprocessing((24, 24), antialias=False).pixels(image)
    assert (ours - theirs.floor()).abs().max() <= 1  # Pillow truncates
    assert (Preprocessing((24, 24)).pixels(image) - theirs).abs().max() > 20


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.sampled_from(["squash", "crop"]),
    st.sampled_from(sorted(INTERPOLATIONS)),
    st.floats(0.05, 1),
    st.booleans(),
)
def test_any_image_gives_the_right_size_and_stays_within_its_colors(
    shape, size, resize, interpolation, fraction, plain
):
    image = Image.new("RGB", shape[::-1], (10, 200, 77))
    antialias = not (plain and interpolation in ("nearest", "bilinear", "bicubic"))
    pixels = Preprocessing(size, resize, fraction, interpolation, antialias).pixels(image)
    assert pixels.shape == (3, *size)
    assert pixels.dtype == torch.uint8
    # A uniform color stays: there is no border from outside the image.
    assert (pixels.int() - torch.tensor([10, 200, 77]).view(3, 1, 1)).abs().max() <= 1


def test_a_rectangular_crop_keeps_the_center_and_the_aspect_ratio():
    columns = np.tile(np.arange(200, dtype=np.uint8), (50, 1))  # 50 x 200, brighter to the right
    pixels = Preprocessing((40, 80), "crop", 0.8, **GRAY).pixels(Image.fromarray(columns)).float()
    # 40 / 0.8 = 50 rows: nothing is resized; the middle 80 of 200 columns are kept.
    assert pixels[0, 0].tolist() == list(range(60, 140))


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1)])
def test_a_long_strip_is_cheap(shape):
    image = Image.new("RGB", shape[::-1], (1, 2, 3))
    start = time.perf_counter()
    for resize in ("crop", "squash"):
        assert Preprocessing((224, 224), resize, 0.875).pixels(image)[:, 5, 5].tolist() == [1, 2, 3]
    assert time.perf_counter() - start < 2


def test_colors_and_gray():
    image = noise(9, 9, "RGB")
    assert Preprocessing((9, 9)).pixels(image).permute(1, 2, 0).tolist() == np.asarray(image).tolist()
    assert Preprocessing((9, 9), **GRAY).pixels(image)[0].tolist() == np.asarray(image.convert("L")).tolist()
    gray = noise(9, 9, "L")
    assert Preprocessing((9, 9), **GRAY).pixels(gray)[0].tolist() == np.asarray(gray).tolist()
    assert Preprocessing((9, 9)).pixels(gray)[2].tolist() == np.asarray(gray).tolist()
    deep = Image.fromarray(np.array([[0, 257 * 99, 65535]], dtype=np.uint16))
    assert Preprocessing((1, 3), **GRAY).pixels(deep).tolist() == [[[0, 99, 255]]]


def test_normalize_is_the_formula():
    preprocessing = Preprocessing((16, 16), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    normal = preprocessing.normalize(pixels)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    torch.testing.assert_close(normal.double(), (pixels.double() / 255 - mean) / std, rtol=0, atol=1e-6)
    assert normal.dtype == torch.float32
    assert pixels[0, 0, 0, 5] == 5  # the bytes are unchanged


def test_calling_it_with_images_returns_a_batch():
    preprocessing = Preprocessing((8, 6), "crop")
    images = [noise(30, 20), noise(8, 40)]
    expected = preprocessing.normalize(torch.stack([preprocessing.pixels(image) for image in images]))
    assert torch.equal(preprocessing(images), expected)
    assert preprocessing([]).shape == (0, 3, 8, 6)


def test_it_round_trips_through_json():
    preprocessing = Preprocessing((8, 6), "crop", 0.875, "bicubic", False, (0.1,), (0.2,), 1)
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("image_size", v) for v in (8, [8], [8, 0], [8, 8.0], [8, 10**9], ["8", 8], [True, 8], None)),
        *(("resize", v) for v in ("stretch", None, [])),
        *(("crop_fraction", v) for v in (0, -1, 1.01, float("nan"), "1", None)),
        *(("interpolation", v) for v in ("bilinaer", None, [])),
        *(("antialias", v) for v in (1, "yes", None)),
        *(("mean", v) for v in ([0.5], [0.5, 0.5, "x"], [0.5, 0.5, float("inf")], [0.5, 0.5, 10**400], 0.5, None)),
        *(("std", v) for v in ([0.5], [0.5, 0.5, 0], [1, 1, float("nan")], None)),
        *(("channels", v) for v in (2000, 0, "3", True, 3.0, None)),
    ],
)
def test_each_bad_value_from_a_file_is_named(name, value):
    values = Preprocessing((8, 8)).to_dict() | {name: value}
    with pytest.raises(InputError) as error:
        Preprocessing.from_dict(values)
    assert name in str(error.value)


def test_missing_and_unknown_keys_are_named():
    values = Preprocessing((8, 8)).to_dict()
    with pytest.raises(InputError, match="did you mean 'resize'"):
        Preprocessing.from_dict(values | {"reszie": "crop"})
    for name in values.keys() - {"crop_rounding", "trim", "max_value"}:
        with pytest.raises(InputError, match=f"has no {name}"):
            Preprocessing.from_dict({k: v for k, v in values.items() if k != name})


def test_constructor_arguments_are_checked():
    with pytest.raises(InputError, match="one per channel"):
        Preprocessing((8, 8), channels=1)
    with pytest.raises(InputError, match="antialias"):
        Preprocessing((8, 8), interpolation="lanczos", antialias=False)
    with pytest.raises(InputError, match="crop_fraction"):
        dataclasses.replace(Preprocessing((8, 8)), crop_fraction=2.0)


@pytest.mark.parametrize(("surplus", "even", "down"), [(1, 0, 0), (2, 1, 1), (3, 2, 1), (5, 2, 2), (7, 4, 3)])
def test_an_offset_of_half_a_pixel_is_rounded_as_configured(surplus: int, even: int, down: int):
    """torchvision rounds half a pixel to even, transformers down."""
    columns = np.tile(np.arange(8 + surplus, dtype=np.uint8), (8, 1))
    for rounding, left in (("even", even), ("down", down)):
        preprocessing = Preprocessing((8, 8), "crop", crop_rounding=rounding)
        assert preprocessing.pixels(Image.fromarray(columns))[0, 0, 0] == left


def test_files_of_the_first_version_round_to_even():
    values = Preprocessing((8, 8), "crop").to_dict()
    del values["crop_rounding"]
    assert Preprocessing.from_dict(values).crop_rounding == "even"
    with pytest.raises(InputError, match="crop_rounding is 'up'; it must be even or down"):
        Preprocessing.from_dict(values | {"crop_rounding": "up"})


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_trimming_keeps_the_upper_left(resize: str):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 61, 3), dtype=np.uint8))
    whole = Preprocessing((30, 34), resize, 0.9)
    trimmed = whole.trimmed((28, 28))
    assert (trimmed.image_size, trimmed.whole_size) == ((28, 28), (30, 34))
    assert torch.equal(trimmed.pixels(image), whole.pixels(image)[:, :28, :28])
    assert Preprocessing.from_dict(json.loads(json.dumps(trimmed.to_dict()))) == trimmed
    assert "cut off" in trimmed.summary()
    assert trimmed.adapted((56, 56), 3).trim == (0, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop_fraction": 0.9}, "resized, center crop of 90%, to 8×6, "),
        ({"crop_fraction": 0.875, "crop_rounding": "down"}, "resized, center crop of 87.5%, to 8×6, "),
        ({}, "resized, center crop to 8×6, "),
        ({"resize": "squash"}, "squashed to 8×6, "),
        ({"resize": "squash", "crop_fraction": 0.9}, "squashed, center crop of 90%, to 8×6, "),
    ],
)
def test_the_summary_names_the_crop(changes, words):
    preprocessing = Preprocessing(**{"image_size": (8, 6), "resize": "crop", "crop_fraction": 1.0} | changes)
    assert preprocessing.summary().startswith(words)
