"""Images of more than 8 bits keep their gray levels, whatever part of their range they use."""

import numpy as np
import pytest
from PIL import Image

from tests.data.encoding import encoded, photo, values
from vitreous.data.decoding.depth import MAX_VALUE, range_of, to_rgb
from vitreous.data.decoding.images import BadImage, Decoding, decode_image, deep_maximum, remarks
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.reading import read_batches
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.support.errors import InputError


def ramp(most, dtype=np.uint16):
    """256 gray levels from 0 to most."""
    return Image.fromarray(np.linspace(0, most, 256).reshape(16, 16).astype(dtype))


def levels(image):
    return len(np.unique(values(image)))


@pytest.mark.parametrize(
    ("maxima", "most"),
    [
        ([], MAX_VALUE),
        ([0, 0], MAX_VALUE),
        ([1], 255),
        ([255], 255),
        ([256], 1023),
        ([1023, 700], 1023),
        ([1024], 4095),
        ([90, 4095], 4095),
        ([4096], 16_383),
        ([16_384], MAX_VALUE),
        ([MAX_VALUE], MAX_VALUE),
        ([0.2, 1.0], 1),
        ([0.2, 1.5], 255),
        ([0.2, 1], 255),
        ([1e9], MAX_VALUE),
    ],
)
def test_the_range_is_the_smallest_that_holds_the_values(maxima, most):
    assert range_of(maxima) == most


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("most", [255, 1023, 4095, 16_383, 65_535])
def test_low_ranges_keep_their_gray_levels(most, format):
    content = encoded(ramp(most), format)
    assert deep_maximum(content, "a") == most
    decoded = decode_image(content, decoding=Decoding(max_value=most))
    assert values(decoded)[..., 0].ravel().tolist() == [round(v / most * 255) for v in values(ramp(most)).ravel()]
    assert levels(decoded) == 256
    assert remarks(decoded) == ()


def test_only_images_of_more_than_8_bits_are_decoded_for_their_maximum(monkeypatch):
    contents = [encoded(photo(), format) for format in ("JPEG", "PNG", "TIFF")]
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert [deep_maximum(content, "a") for content in contents] == [None] * 3


def test_values_above_the_range_are_cut_off_and_named():
    decoded = decode_image(encoded(ramp(5000)), decoding=Decoding(max_value=4095))
    assert values(decoded).max() == 255
    assert remarks(decoded) == ("values up to 5,000 are cut off at max_value, 4,095",)


@pytest.mark.parametrize("most", [1, 255, 65_535])
def test_floats_are_scaled_by_the_range_that_holds_them(most):
    decoded = decode_image(encoded(ramp(most, np.float32), "TIFF"))
    assert levels(decoded) == 256
    assert values(decoded).max() == 255


def test_floats_follow_a_range_that_is_given():
    content = encoded(ramp(0.5, np.float32), "TIFF")
    assert values(decode_image(content)).max() == 128
    assert values(decode_image(content, decoding=Decoding(max_value=1))).max() == 128
    assert values(decode_image(content, decoding=Decoding(max_value=255))).max() <= 1
    assert deep_maximum(content, "a") == 0.5


@pytest.mark.parametrize("image", [ramp(70_000, np.int32), ramp(-300, np.int32), ramp(1e6, np.float32)])
def test_values_outside_16_bits_are_refused_with_their_range(image):
    with pytest.raises(BadImage, match=r"has values from .* to .*, outside 0 to") as error:
        decode_image(encoded(image, "TIFF"))
    assert error.value.hint == "rescale it to 8 or 16 bits"
    with pytest.raises(InputError, match="outside 0 to"):
        to_rgb(image)


def test_nan_is_black_and_a_little_below_zero_too():
    floats = np.array([[np.nan, -0.005, 0.5, 1.0]], np.float32)
    assert values(decode_image(encoded(Image.fromarray(floats), "TIFF")))[0, :, 0].tolist() == [0, 0, 128, 255]
    with pytest.raises(BadImage, match="outside"):
        decode_image(encoded(Image.fromarray(np.array([[-0.5, 1.0]], np.float32)), "TIFF"))


def test_a_portable_graymap_declares_its_own_range():
    content = b"P5 4 1 4095 " + np.array([0, 1365, 2730, 4095], ">u2").tobytes()
    assert values(decode_image(content))[0, :, 0].tolist() == [0, 85, 170, 255]


def sensor_photos(folder, most=4095, count=6):
    """Two classes of 12-bit images, and some of 8 bits."""
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, most + 1, (8, 8)).astype(np.uint16)
            pixels[0, 0] = most
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
        photo(8, 8).save(folder / name / "eight.png")
    return folder


def test_the_range_comes_from_the_training_images(tmp_path):
    data = open_data(sensor_photos(tmp_path / "photos"))
    assert data.decoding.max_value == 4095
    [note] = [note for note in data.notes if "16-bit" in note]
    assert note.startswith("16-bit images: values 0..4095 become 0..255 (from 1")
    assert note.endswith(" training images; set max_value to change it)")
    assert all(split.load.decoding.max_value == 4095 for split in data.splits)
    assert levels(data.train.load(0)) > 30


def test_a_range_that_is_set_is_not_looked_for(tmp_path, monkeypatch):
    folder = sensor_photos(tmp_path / "photos")
    monkeypatch.setattr("vitreous.data.sources.trees.tree.picture_maximum", lambda *_: pytest.fail("looked"))
    data = open_data(folder, DataOptions(max_value=1023))
    assert data.decoding.max_value == 1023
    assert not data.notes


def test_images_of_8_bits_have_no_note(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo().save(tmp_path / name)
    data = open_data(tmp_path)
    assert data.decoding.max_value == MAX_VALUE
    assert data.notes == ()


def test_a_model_reads_new_images_in_the_range_of_its_training(tmp_path):
    ramp(4095).save(tmp_path / "a.png")
    preprocessing = Preprocessing((16, 16), max_value=4095)
    expected = values(ramp(4095)) * 255 // 4095
    for image in (str(tmp_path / "a.png"), ramp(4095), (tmp_path / "a.png").read_bytes()):
        [(_, [pixels])] = read_batches([image], preprocessing, 1)
        assert np.abs(pixels[0].numpy().astype(int) - expected).max() <= 1
    assert preprocessing.pixels(ramp(4095)).max() == 255
    assert Preprocessing((16, 16)).pixels(ramp(4095)).max() == 16
    gray = Preprocessing((16, 16), max_value=4095, channels=1, mean=(0.5,), std=(0.5,))
    assert gray.pixels(ramp(4095)).max() == 255


def test_the_range_is_stored_with_the_preprocessing():
    preprocessing = Preprocessing((16, 16), max_value=1023)
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing
    older = {name: value for name, value in preprocessing.to_dict().items() if name != "max_value"}
    assert Preprocessing.from_dict(older).max_value == MAX_VALUE
    assert preprocessing.summary().endswith("white at 1,023 in images of more than 8 bits")
    assert "8 bits" not in Preprocessing((16, 16)).summary()
    for value in (0, MAX_VALUE + 1, 4095.0, True, None):
        with pytest.raises(InputError, match="max_value"):
            Preprocessing.from_dict(older | {"max_value": value})
