"""Every image is decoded upright in RGB, or is bad with a reason on one line."""

import io
import os
import pickle
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.data.encoding import FORMATS, LOSSLESS, encoded, photo, values
from vitreous.data.decoding import images
from vitreous.data.decoding.depth import to_rgb
from vitreous.data.decoding.images import BadImage, Decoding, decode_image, is_image_name
from vitreous.data.decoding.picture import picture_size


def reason(content):
    with pytest.raises(BadImage) as error:
        decode_image(content)
    assert str(error.value).isprintable()
    return error.value.reason


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_decoded_from_bytes_and_from_a_file(format, tmp_path):
    image, content = photo(), encoded(photo(), format)
    (tmp_path / "a.jpg").write_bytes(content)  # the content decides, not the name
    decoded = decode_image(content)
    assert decoded.mode == "RGB"
    assert decoded.size == image.size
    # JPEG, WebP, AVIF, HEIC and GIF's palette lose a little.
    assert np.abs(values(decoded) - values(image)).mean() < (0.5 if format in LOSSLESS else 25)
    assert values(decode_image(tmp_path / "a.jpg")).tolist() == values(decoded).tolist()
    assert values(decode_image(str(tmp_path / "a.jpg"))).tolist() == values(decoded).tolist()
    assert picture_size(content) == (12, 16)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright_once(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photo(), format, exif=exif)
    decoded = decode_image(content)
    assert values(decoded).tolist() == values(ImageOps.exif_transpose(Image.open(io.BytesIO(content)))).tolist()
    assert picture_size(content) == (decoded.height, decoded.width)
    assert values(ImageOps.exif_transpose(decoded)).tolist() == values(decoded).tolist()


@pytest.mark.parametrize(
    "junk", [b"", b"\xff" * 40, b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x07\0" * 9, b"MM\0*\xff\xff\xff\xff"]
)
def test_broken_exif_does_not_make_the_picture_bad(junk):
    content = encoded(photo(), "JPEG", exif=b"Exif\0\0" + junk)
    assert decode_image(content).size == (16, 12)
    assert picture_size(content) == (12, 16)


def test_odd_metadata_raises_no_warning_and_leaves_the_filters_unchanged():
    content = encoded(
        photo(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0" + b"\x12\x01\x07\0\xff\xff\0\0\xff\xff\0\0" * 2
    )
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [decode_image(content) for _ in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_becomes_white(mode):
    image = Image.new(mode, (3, 1))
    image.putdata(
        [(0, 0), (0, 255), (100, 51)] if mode == "LA" else [(0, 0, 0, 0), (0, 0, 0, 255), (100, 100, 100, 51)]
    )
    assert values(decode_image(encoded(image)))[0, :, 0].tolist() == [
        255,
        0,
        224,
    ]  # 224 = 255 x 0.8 + 100 x 0.2


def test_palettes_and_declared_transparent_colors():
    palette = Image.new("P", (3, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.putdata([0, 1, 2])
    assert values(decode_image(encoded(palette))).tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    seen = [[[255, 255, 255], [40, 50, 60], [70, 80, 90]]]
    assert values(decode_image(encoded(palette, transparency=0))).tolist() == seen
    assert values(decode_image(encoded(palette, transparency=bytes([0, 255, 255])))).tolist() == seen
    assert values(decode_image(encoded(palette, "GIF", transparency=0))).tolist() == seen
    rgb = palette.convert("RGB")
    assert values(decode_image(encoded(rgb, transparency=(10, 20, 30)))).tolist() == seen
    gray = Image.new("L", (2, 1), 7)
    gray.putpixel((1, 0), 9)
    assert values(decode_image(encoded(gray, transparency=7)))[0, :, 0].tolist() == [255, 9]


def test_sixteen_bits_are_scaled_not_clipped():
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    decoded = decode_image(encoded(Image.fromarray(deep)))
    assert values(decoded)[..., 1].ravel().tolist() == list(range(256))
    near = Image.fromarray(np.array([[0, 128, 129, 65535 - 128, 65535]], dtype=np.uint16))
    assert values(decode_image(encoded(near)))[0, :, 0].tolist() == [0, 0, 1, 255, 255]
    assert values(decode_image(encoded(near, transparency=129)))[0, :, 0].tolist() == [0, 0, 255, 255, 255]


def test_every_mode_of_pillow_becomes_rgb():
    for mode in (
        "1",
        "L",
        "LA",
        "P",
        "PA",
        "RGB",
        "RGBA",
        "RGBa",
        "RGBX",
        "CMYK",
        "YCbCr",
        "LAB",
        "HSV",
        "I",
        "F",
        "I;16",
        "I;16B",
    ):
        assert to_rgb(Image.new(mode, (3, 2))).mode == "RGB", mode
    assert values(to_rgb(Image.new("I", (1, 1), 65535))).max() == 255
    assert values(to_rgb(Image.new("F", (1, 1), 127.6)))[0, 0].tolist() == [128] * 3
    assert values(to_rgb(Image.new("F", (1, 1), float("nan")))).max() == 0
    assert values(to_rgb(Image.new("1", (1, 1), 1)))[0, 0].tolist() == [255] * 3


def test_cmyk_and_gray_jpegs_keep_their_colors():
    red = decode_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(values(red)[4, 4] - [255, 0, 0]).max() < 12
    gray = decode_image(encoded(Image.new("L", (8, 8), 77), "JPEG"))
    assert np.abs(values(gray)[4, 4] - [77] * 3).max() < 3


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "MPO"])
def test_an_animation_gives_its_first_frame(format):
    frames = [Image.new("RGB", (8, 8), color) for color in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert getattr(Image.open(io.BytesIO(content)), "n_frames", 1) == 3
    assert np.abs(values(decode_image(content))[4, 4] - [200, 0, 0]).max() < 8
    assert picture_size(content) == (8, 8)


def png_header(width, height):
    """A PNG with a size in its header and no pixels."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "size", [(9_000, 10_000), (9_500, 10_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1), (70_000, 1)]
)
def test_the_size_in_the_header_is_checked_before_decoding(size, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert "pixels" in reason(png_header(*size))
    with pytest.raises(BadImage, match="pixels"):
        picture_size(png_header(*size))


@pytest.mark.parametrize(
    ("limit", "least", "why"),
    [("MAX_BYTES", None, "bytes"), ("MAX_SIDE", 16, "15 a side")],
)
def test_an_image_at_the_limit_is_decoded_and_one_above_it_is_refused(limit, least, why, monkeypatch):
    content = encoded(photo(12, 16))
    least = least or len(content)
    monkeypatch.setattr(images, limit, least)
    assert decode_image(content).size == (16, 12)
    monkeypatch.setattr(images, limit, least - 1)
    assert why in reason(content)


def test_the_most_pixels_are_a_setting():
    content = encoded(photo(12, 16))
    assert decode_image(content, decoding=Decoding(12 * 16)).size == (16, 12)
    with pytest.raises(BadImage, match="16 x 12 pixels, 191 pixels and"):
        decode_image(content, decoding=Decoding(12 * 16 - 1))
    with pytest.raises(BadImage, match="16 x 12 pixels, 191 pixels and"):
        picture_size(content, decoding=Decoding(12 * 16 - 1))


def test_special_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "empty.jpg").touch()
    for path, why in (
        (tmp_path / "fifo.jpg", "is not a file"),
        (tmp_path, "is not a file"),
        ("/dev/zero", "is not a file"),
        (tmp_path / "empty.jpg", "is empty"),
        (tmp_path / "missing.jpg", "cannot be read: No such file or directory"),
        ("a\0b", "cannot be read: "),
        ("n" * 300, "cannot be read: File name too long"),
    ):
        assert why in reason(path)


@pytest.mark.parametrize("format", ["ICO", "TGA", "PDF", "JPEG2000", "EPS", "PCX", "SGI"])
def test_other_formats_are_refused_under_any_name(format, tmp_path):
    path = tmp_path / "a.jpg"
    photo(32, 32).save(path, format)
    assert reason(path) == "is not a JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF or HEIC image"


@pytest.mark.parametrize(
    "content", [b"hello", b"<svg/>", b"\xff\xd8", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\0\0\0\0WEBP"]
)
def test_text_and_bare_signatures_are_refused(content):
    assert reason(content)


@pytest.mark.parametrize("format", FORMATS)
def test_a_truncated_image_is_bad_at_every_length(format):
    content = encoded(photo(40, 40), format)
    for length in np.linspace(1, len(content) * 0.9, 40, dtype=int).tolist():
        assert reason(content[:length])


@pytest.mark.parametrize("format", FORMATS)
def test_mutated_images_are_decoded_or_bad(format):
    generator = np.random.default_rng(FORMATS.index(format))
    exif = (
        {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"}
        if format in ("JPEG", "PNG")
        else {}
    )
    content = np.frombuffer(encoded(photo(24, 20), format, **exif), np.uint8)
    outcomes, lines = [], []
    for _ in range(400):
        mutated = content.copy()
        for place in generator.integers(0, len(content), generator.integers(1, 12)):
            mutated[place] = generator.integers(0, 256)
        if generator.random() < 0.3:
            mutated = np.roll(mutated, 1)[: generator.integers(1, len(content))]
        try:
            image = decode_image(mutated.tobytes(), decoding=Decoding(100_000))
        except BadImage as error:
            lines.append(str(error))
            continue
        outcomes.append(image)
    assert lines
    assert all(line.isprintable() for line in lines)
    assert outcomes
    for image in outcomes:
        assert image.mode == "RGB"
        assert image.width * image.height <= 100_000
        assert len(image.tobytes()) == image.width * image.height * 3


@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF....WEBPVP8 "]),
    st.binary(max_size=200),
)
def test_random_bytes_are_bad(start, content):
    assert reason(start + content)


def test_any_error_of_the_decoder_is_a_bad_image(monkeypatch):
    for error in (
        MemoryError(),
        RuntimeError("a\nb\x1b[0m"),
        struct.error("x"),
        IndexError(),
        RecursionError("deep"),
    ):

        def load(self, error=error):
            raise error

        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
        assert reason(encoded(photo()))


def test_a_bad_image_can_be_pickled():
    error = pickle.loads(pickle.dumps(BadImage("a.jpg", "is broken", "fix it")))
    assert (error.name, error.reason, str(error)) == ("a.jpg", "is broken", "'a.jpg' is broken; fix it")


def test_names_of_images():
    assert all(map(is_image_name, ("a.jpg", "/x.y/B.JPEG", "a.b.PnG", "a.webp", "a.bmp", "a.gif")))
    assert not any(
        map(
            is_image_name,
            (".DS_Store", "Thumbs.db", "._a.jpg", "/photos/.a.png", "a.txt", "jpg", "a.jpg.zip", "/a.jpg/b"),
        )
    )


def test_real_photos_are_decoded(data_folder):
    names = sorted((data_folder / "ants_bees" / "val").rglob("*.jpg"))[::15]
    assert names
    for name in names:
        with Image.open(name) as image:
            theirs = ImageOps.exif_transpose(image).convert("RGB")
        assert np.array_equal(values(decode_image(name)), values(theirs))
