"""Files whose pixels are complete are decoded and named; those that lack pixels stay bad."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.data.encoding import encoded, photo, values
from vitreous.data.decoding import repair
from vitreous.data.decoding.images import BadImage, Decoding, decode_image, remarks
from vitreous.data.decoding.picture import picture_size

JPEGS = (
    {"quality": 90},
    {"quality": 60, "optimize": True},
    {"quality": 75, "progressive": True},
    {"quality": 80, "restart_marker_blocks": 3},
    {"quality": 95, "progressive": True, "restart_marker_rows": 1},
)


def noisy(mode="RGB"):
    """A picture without flat parts, in which nothing can be missing unseen."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (45, 60, 3), np.uint8)).convert(mode)


def is_bad(content):
    try:
        decode_image(content)
    except BadImage:
        return True
    return False


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_without_its_end_marker_has_all_its_pixels(options, mode):
    content = encoded(noisy(mode), "JPEG", **options)
    expected = decode_image(content)
    assert remarks(expected) == ()
    for cut in (1, 2):
        decoded = decode_image(content[:-cut])
        assert decoded.tobytes() == expected.tobytes()
        assert picture_size(content[:-cut]) == (45, 60)


def test_a_repaired_jpeg_says_so_and_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(noisy(), "JPEG", exif=exif, progressive=True)
    decoded = decode_image(content[:-2])
    assert remarks(decoded) == ("repaired: its end marker is missing",)
    assert decoded.size == (45, 60)
    assert remarks(decoded.resize((8, 8))) == remarks(decoded)
    at_scale = decode_image(content[:-2], decoding=Decoding(at_least=8))
    assert at_scale.size == (12, 15)
    assert at_scale.tobytes() == decode_image(content, decoding=Decoding(at_least=8)).tobytes()


def test_what_is_missing_counts_although_a_small_scale_would_not_show_it():
    content = encoded(noisy(), "JPEG", quality=90)
    for cut in range(3, 25):
        with pytest.raises(BadImage):
            decode_image(content[:-cut], decoding=Decoding(at_least=5))


@pytest.mark.parametrize("options", JPEGS)
def test_a_jpeg_that_lacks_pixels_is_bad_wherever_it_ends(options):
    content = encoded(noisy(), "JPEG", **options)
    restarts = [at for at in range(len(content) - 2) if content[at] == 0xFF and 0xD0 <= content[at + 1] <= 0xDA]
    ends = {*np.linspace(700, len(content) - 40, 60, dtype=int).tolist(), *(at for at in restarts if at > 700)}
    assert [end for end in sorted(ends) if not is_bad(content[:end])] == []


def test_a_progressive_jpeg_without_its_last_scan_is_bad():
    content = encoded(photo(64, 64), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    assert is_bad(content[:last])
    assert repair.with_end_marker(content[:last], lambda jpeg: b"the same") is None


def chunk(kind, body, sound=True):
    checksum = zlib.crc32(kind + body) if sound else 0
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png_with(*chunks, image=None, options=None):
    """A PNG with these chunks after its header."""
    content = encoded(image or photo(), "PNG", **(options or {}))
    return content[:33] + b"".join(chunks) + content[33:]


BOMB = zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1))


@pytest.mark.parametrize(
    "bad",
    [
        chunk(b"iCCP", b"profile\0\0" + b"not zlib"),
        chunk(b"zTXt", b"Comment\0\0" + BOMB),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB),
        chunk(b"tEXt", b"Comment\0hello", sound=False),
        chunk(b"pHYs", b"\0"),
        chunk(b"gAMA", b"", sound=False),
        chunk(b"eXIf", b"II*\0", sound=False),
    ],
)
def test_a_png_with_a_bad_optional_chunk_has_all_its_pixels(bad):
    content = png_with(bad)
    decoded = decode_image(content)
    assert decoded.tobytes() == photo().tobytes()
    assert picture_size(content) == (12, 16)


def test_a_repaired_png_says_so():
    assert remarks(decode_image(png_with(chunk(b"zTXt", b"Comment\0\0" + BOMB)))) == (
        "repaired: its metadata is broken or too large",
    )
    assert remarks(decode_image(png_with())) == ()


def test_a_sound_orientation_and_transparency_survive_a_repair():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = photo()
    content = png_with(
        chunk(b"tEXt", b"a\0b", sound=False), options={"exif": exif, "transparency": image.getpixel((0, 0))}
    )
    decoded = decode_image(content)
    assert remarks(decoded)
    assert decoded.size == (12, 16)
    assert picture_size(content) == (16, 12)
    assert values(decoded)[0, -1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("where", [0.4, 0.6, 0.9])
def test_a_png_with_broken_pixels_stays_bad(where):
    content = bytearray(png_with(chunk(b"tEXt", b"a\0b", sound=False), image=noisy()))
    at = int(len(content) * where)
    content[at : at + 8] = bytes(8)
    assert is_bad(bytes(content))
    assert is_bad(bytes(content[:at]))


def test_a_repair_changes_no_limit():
    content = png_with(chunk(b"tEXt", b"a\0b", sound=False))
    with pytest.raises(BadImage, match="too large"):
        decode_image(content, decoding=Decoding(12 * 16 - 1))
    with pytest.raises(BadImage, match="too large"):
        decode_image(encoded(noisy(), "JPEG")[:-2], decoding=Decoding(45 * 60 - 1))


def test_real_photos_without_their_end_marker(data_folder):
    for path in sorted((data_folder / "ants_bees" / "val").rglob("*.jpg"))[::30]:
        content = path.read_bytes()
        end = content.rindex(b"\xff\xd9")
        assert decode_image(content[:end]).tobytes() == decode_image(content).tobytes()
        for cut in (100, 1000, end // 2):
            assert is_bad(content[: end - cut])
