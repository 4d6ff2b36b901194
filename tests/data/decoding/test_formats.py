"""TIFF, PPM, AVIF and HEIC: their modes, their bounds, and what is missing without an extra; photos of any size."""

import struct
import sys

import numpy as np
import pytest
from PIL import Image

from tests.data.encoding import encoded, photo, values
from vitreous.data.augmentation import Augmentation
from vitreous.data.decoding import formats, images
from vitreous.data.decoding.images import BadImage, Decoding, decode_image, is_image_name
from vitreous.data.decoding.picture import picture_size
from vitreous.data.preprocessing import Preprocessing

COMPRESSIONS = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "tiff_deflate", "zstd")


def reason(content, decoding=images.DEFAULT):
    with pytest.raises(BadImage) as error:
        decode_image(content, decoding=decoding)
    assert str(error.value).isprintable()
    return error.value.reason


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressed_tiffs_keep_every_pixel(compression):
    content = encoded(photo(40, 30), "TIFF", compression=compression)
    assert np.array_equal(values(decode_image(content)), values(photo(40, 30)))
    assert picture_size(content) == (40, 30)


def test_a_tiff_gives_its_first_page_and_an_avif_its_first_frame():
    frames = [Image.new("RGB", (8, 8), color) for color in ((200, 0, 0), (0, 200, 0))]
    for format in ("TIFF", "AVIF"):
        content = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        assert np.abs(values(decode_image(content))[4, 4] - [200, 0, 0]).max() < 12


@pytest.mark.parametrize("format", ["TIFF", "AVIF", "HEIF"])
def test_transparency_becomes_white_in_each_format(format):
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (8, 0, 16, 16))
    seen = values(decode_image(encoded(clear, format)))
    assert seen[4, 3].min() > 245
    assert seen[4, 12].max() < 10


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_every_mode_of_a_tiff_has_the_colors_that_pillow_gives_it(mode):
    image = photo(24, 20).convert("RGB") if mode == "LAB" else photo(24, 20, mode)
    if mode == "LAB":
        image = Image.frombytes("LAB", image.size, image.tobytes())
    content = encoded(image, "TIFF")
    assert decode_image(content).mode == "RGB"
    if mode not in ("LA", "RGBA"):
        assert np.abs(values(decode_image(content)) - values(image.convert("RGB"))).max() <= 1


def test_the_three_portable_kinds_of_bits_grays_and_colors():
    assert decode_image(b"P1 2 1 0 1").tobytes() == bytes([255] * 3 + [0] * 3)  # 1 is black
    assert decode_image(b"P2 2 1 100 50 100").tobytes() == bytes([128] * 3 + [255] * 3)  # of at most 100
    assert decode_image(b"P6 1 1 255 \x0a\x14\x1e").tobytes() == bytes([10, 20, 30])


def test_a_heic_is_upright_once():
    exif = Image.Exif()
    exif[0x0112] = 6  # as phones write it, next to a rotation in the container that says the same
    content = encoded(photo(12, 16), "HEIF", exif=exif.tobytes(), quality=95)
    decoded = decode_image(content)
    assert picture_size(content) == (decoded.height, decoded.width) == (16, 12)
    turned = photo(12, 16).transpose(Image.Transpose.ROTATE_270)
    assert np.abs(values(decoded) - values(turned)).mean() < 25


def test_a_heic_without_the_extra_names_it(monkeypatch):
    content = encoded(photo(), "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert reason(content) == "is a HEIC image, which needs pip install '.[photos]' in a clone of vitreous"
    with pytest.raises(BadImage, match="HEIC"):
        picture_size(content)


def test_an_avif_without_its_decoder_names_it(monkeypatch):
    monkeypatch.setattr("vitreous.data.decoding.formats.features.check", lambda name: False)
    assert reason(encoded(photo(), "AVIF")) == "is an AVIF image, which this build of Pillow cannot read"


def test_pillow_is_left_as_it_is(fresh_process):
    """In a new process: HEIC is decoded without being registered, and Pillow's own limit stays."""
    code = """
import io
from PIL import Image
from pillow_heif import from_pillow
from vitreous.data.decoding.images import Decoding, decode_image
limit = Image.MAX_IMAGE_PIXELS
file = io.BytesIO()
from_pillow(Image.new("RGB", (64, 64), "red")).save(file)
print(decode_image(file.getvalue()).size, "HEIF" in Image.OPEN)
file = io.BytesIO()
Image.new("1", (20_000, 10_000)).save(file, "PNG")
print(decode_image(file.getvalue(), decoding=Decoding(2 * 10**8)).size, Image.MAX_IMAGE_PIXELS == limit)
"""
    assert fresh_process(code).stdout.splitlines() == ["(64, 64) False", "(20000, 10000) True"]


def tiff(tags, big=False):
    """A TIFF whose first page has these (number, type, count, value) tags."""
    start = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHL", b"II", 42, 8)
    entries = [struct.pack("<HHQQ" if big else "<HHLL", *tag) for tag in sorted(tags)]
    return start + struct.pack("<Q" if big else "<H", len(tags)) + b"".join(entries) + bytes(16)


def claims(**changed):
    """The tags of a gray TIFF of 8 x 8 pixels, some changed."""
    tags = {"width": (256, 4, 1, 8), "height": (257, 4, 1, 8), "bits": (258, 3, 1, 8), "compression": (259, 3, 1, 1)}
    tags |= {"photometric": (262, 3, 1, 1), "strips": (273, 4, 1, 8), "rows": (278, 4, 1, 8), "bytes": (279, 4, 1, 64)}
    return [*(tags | changed).values()]


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_of_a_million_strips_is_refused_before_they_are_made(big, monkeypatch):
    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile._open", lambda self: pytest.fail("opened"))
    content = tiff(claims(strips=(273, 4, formats.MOST_VALUES + 1, 8)), big)
    assert reason(content) == "is broken: tag 273 has 1,048,577 values, 1,048,576 are allowed"


@pytest.mark.parametrize("size", [(9_000, 10_000), (70_000, 1), (2**31, 2**31)])
def test_the_size_that_a_tiff_claims_is_checked_before_decoding(size, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    width, height = size
    assert reason(tiff(claims(width=(256, 4, 1, width), height=(257, 4, 1, height))))


@pytest.mark.parametrize("claim", [(8, 100), (8, 2000), (2000, 8)])
def test_a_tiff_with_less_data_than_it_claims_is_bad(claim):
    width, height = claim
    assert reason(tiff(claims(width=(256, 4, 1, width), height=(257, 4, 1, height), rows=(278, 4, 1, height))))


@pytest.mark.parametrize("format", ["PPM", "AVIF"])
def test_the_size_in_other_headers_is_checked_before_decoding(format, monkeypatch):
    content = b"P5 20000 20000 255 " if format == "PPM" else encoded(photo(64, 64), format)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert "too large" in reason(content, Decoding(4000)) or "pixels" in reason(content, Decoding(4000))


def test_a_heic_that_grows_while_it_is_decoded_is_refused(monkeypatch):
    content = encoded(photo(64, 64), "HEIF")
    monkeypatch.setattr("pillow_heif.HeifFile.size", (8, 8), raising=False)
    monkeypatch.setattr("pillow_heif.HeifImageFile.size", (8, 8), raising=False)
    original = formats.heic_file()

    def small_header(file):
        image = original(file)
        image._size = (8, 8)
        return image

    monkeypatch.undo()
    monkeypatch.setattr(formats, "heic_file", lambda: small_header)
    assert decode_image(content, decoding=Decoding(4096)).size == (64, 64)
    assert "is too large: 64 x 64 pixels" in reason(content, Decoding(4095))


def test_a_photo_of_two_hundred_megapixels_is_a_setting():
    content = encoded(Image.new("1", (20_000, 10_000), 1), "TIFF", compression="group4")
    with pytest.raises(BadImage, match=r"200,000,000|too large|more than") as error:
        decode_image(content)
    assert "--set max_pixels=2e8" in error.value.hint
    large = Decoding(2 * 10**8)
    assert picture_size(content, decoding=large) == (10_000, 20_000)
    image = decode_image(content, decoding=large)
    assert image.size == (20_000, 10_000)
    view = Augmentation(crop_scale=(1.0, 1.0)).pixels(image, Preprocessing((8, 8)), np.random.default_rng(0))
    assert view.min() == 255


def test_more_pixels_allow_more_bytes():
    assert Decoding().max_bytes == images.MAX_BYTES == Decoding(1).max_bytes
    assert Decoding(2 * 10**8).max_bytes == 8 * 10**8


def test_new_suffixes_are_names_of_images():
    assert all(map(is_image_name, ("a.tif", "a.TIFF", "a.pgm", "a.ppm", "a.pbm", "a.avif", "IMG_1.HEIC", "a.heif")))
    assert not any(map(is_image_name, ("a.cr2", "a.nef", "a.dng", "a.psd", "a.svg", "a.jxl", "a.jp2")))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_is_large_enough(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = photo(96, 128).resize((1280, 960), Image.Resampling.BICUBIC)
    content = encoded(smooth, "JPEG", quality=95, exif=exif)
    full = decode_image(content)
    for least, shorter in ((961, 960), (481, 960), (480, 480), (241, 480), (240, 240), (120, 120), (1, 120)):
        small = decode_image(content, decoding=Decoding(at_least=least))
        assert min(small.size) == shorter, least
        assert (small.width < small.height) == (orientation == 6)
        difference = values(small.resize((64, 64))) - values(full.resize((64, 64)))
        assert np.abs(difference).mean() < 2.5
    assert picture_size(content, decoding=Decoding(at_least=1)) == (full.height, full.width)


def test_a_small_scale_is_for_jpegs_alone():
    for format in ("PNG", "WEBP", "TIFF", "HEIF"):
        content = encoded(photo(64, 80), format)
        whole, small = decode_image(content), decode_image(content, decoding=Decoding(at_least=8))
        assert whole.tobytes() == small.tobytes()


@pytest.mark.parametrize(
    "content", [b"P5 " + b"#x\n" * 2000 + b"1 1 255 a", b"P3 1 1 255 " + b"#x\n" * 2000 + b"1 1 1"]
)
def test_a_portable_image_full_of_comments_is_refused(content, monkeypatch):
    monkeypatch.setattr("PIL.PpmImagePlugin.PpmImageFile._open", lambda self: pytest.fail("opened"))
    assert reason(content).startswith("is broken: it")


def test_a_portable_image_may_have_comments_and_signs_in_its_pixels():
    pixels = b"#" * 5000
    assert decode_image(b"P5 # gimp\n100 50 255\n" + pixels).size == (100, 50)
    assert decode_image(b"P4 400 100\n" + pixels).size == (400, 100)
