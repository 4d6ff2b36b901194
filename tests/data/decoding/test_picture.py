"""Image files of any number of channels: exact pixels of TIFF layouts, and bounds on hostile files."""

import numpy as np
import pytest

from tests.data.satellites import satellite_folder, tiff, values_of
from vitreous.data.decoding.bands import Bands
from vitreous.data.decoding.images import BadImage, Decoding
from vitreous.data.decoding.picture import decode_picture, picture_size, stored_channels
from vitreous.data.sources.open import open_data
from vitreous.data.sources.options import DataOptions
from vitreous.support.errors import InputError

FIVE = Decoding(channels=5)
LAYOUTS = [
    {}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)},
    {"tile": (16, 32), "compression": "zlib", "predictor": True}, {"bigtiff": True}, {"byteorder": ">"},
    {"rowsperstrip": 7},
]  # fmt: skip


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("options", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_bands_of_a_tiff_are_exact(dtype, options, planar):
    values = values_of(dtype)
    expected = values if dtype == "u1" else ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    content = tiff(values, planar, **options)
    picture = decode_picture(content, "x", FIVE)
    assert isinstance(picture, Bands)
    assert (picture.array() == expected).all()
    assert picture_size(content, "x", FIVE) == (40, 37)
    assert stored_channels(content, "x").channels == 5


def test_floats_from_0_to_1_are_scaled():
    values = np.random.default_rng(0).random((8, 9, 5), dtype=np.float32)
    assert (decode_picture(tiff(values), "x", FIVE).array() == np.rint(values * 255)).all()


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}], ids=str)
def test_mutated_files_are_decoded_or_bad(options):
    generator = np.random.default_rng(1)
    whole = tiff(values_of("u2"), **options)
    outcomes = set()
    for number in range(400):
        content = bytearray(whole)
        for _ in range(generator.integers(1, 8)):
            content[generator.integers(0, min(len(content), 600))] = generator.integers(0, 256)
        kept = generator.integers(1, len(content) + 1) if number % 4 == 0 else len(content)
        try:
            assert len(decode_picture(bytes(content[:kept]), "x", FIVE).bands) == 5
            outcomes.add("decoded")
        except BadImage:
            outcomes.add("bad")
    assert outcomes == {"decoded", "bad"}


def test_too_many_pixels_are_refused_before_decoding():
    with pytest.raises(BadImage, match="too large"):
        decode_picture(tiff(values_of("u1")), "x", Decoding(max_pixels=40 * 37 - 1, channels=5))


def test_another_number_of_bands_is_a_bad_image():
    with pytest.raises(BadImage, match="5 channels"):
        decode_picture(tiff(values_of("u1")), "x", Decoding(channels=6))


# ---- a set


@pytest.fixture
def satellite(tmp_path):
    return satellite_folder(tmp_path)


def test_the_channels_and_the_range_come_from_the_training_images(satellite):
    data = open_data(satellite)
    assert (data.channels, data.decoding.max_value, data.native_size) == (5, 4095, (24, 24))
    assert any("5 channels" in note for note in data.notes)
    (satellite / "train/water/0.tif").write_bytes(tiff(values_of("u2", shape=(24, 24, 4))))
    mixed = open_data(satellite)
    assert mixed.channels == 5
    with pytest.raises(BadImage, match="4 channels"):
        mixed.train.load(mixed.train.names.index("train/water/0.tif"))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_channels_than_the_files_have_are_refused(satellite, channels):
    with pytest.raises(InputError, match="5"):
        open_data(satellite, DataOptions(channels=channels))
