"""The image formats that are read, by suffix and by content, and what each can hide from the check of its size."""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import NamedTuple

from PIL import Image, ImagePalette, features

from vitreous.support.extras import install_command

# MPO, a JPEG with several pictures from some phones, is read as a JPEG; the first picture counts.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".hif"),
)
NAMES = "JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF or HEIC"
NOT_AN_IMAGE = f"is not a {NAMES} image"

HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
AVIF_BRANDS = (b"avif", b"avis")
MOST_BRANDS = 32  # read in a file

PORTABLE_TEXT = (b"P1", b"P2", b"P3")  # in digits
PORTABLE = (*PORTABLE_TEXT, b"P4", b"P5", b"P6", b"Pf", b"P0", b"Py")
MOST_HEADER = 4096  # bytes of a PPM
MOST_COMMENTS = 1000

TIFF_STARTS = (b"II*\0", b"MM\0*", b"MM*\0", b"II\0*", b"II+\0", b"MM\0+")
BIG_TIFF = 43
BYTES_ONLY = (1, 2, 6, 7)  # the types of TIFF tags that are bytes or text
BITS, COLORS, SAMPLE_FORMAT, SIGNED = 258, 320, 339, 2  # three tags, and a value of the last
KINDS = {3: "H", 4: "L"}  # SHORT and LONG, as struct has them
MOST_TAGS = 2**17  # of a TIFF; a page has at most half of them
MOST_VALUES = 2**20  # of a TIFF tag; a 200-megapixel image in tiles of 16 x 16 has 800,000


class Missing(Exception):
    """A kind of image that cannot be read here, such as without its decoder: why, and what to type."""


def family_of(content: bytes) -> str | None:
    """The codec of a HEIF container, "HEIC" or "AVIF", by the brands that it declares; None for other files."""
    if content[4:8] != b"ftyp":
        return None
    length = min(int.from_bytes(content[:4], "big"), 16 + 4 * MOST_BRANDS)
    brands = {content[8:12], *(content[at : at + 4] for at in range(16, length, 4))}
    if brands.intersection(AVIF_BRANDS):
        return "AVIF"
    return "HEIC" if brands.intersection(HEIC_BRANDS) else None


def check_decoder(family: str | None) -> None:
    """Raises Missing if the decoder of a family is not installed."""
    if family == "AVIF" and not features.check("avif"):
        raise Missing("is an AVIF image, which this build of Pillow cannot read", "pip install --upgrade pillow")
    if family == "HEIC" and heic_file() is None:
        needed = install_command("photos")
        raise Missing(f"is a HEIC image, which needs {needed}", f"{needed}, or save it as JPEG")


def heic_file() -> Callable[[BytesIO], Image.Image] | None:
    """The class that opens HEIC files; it stays unregistered, so that Pillow is unchanged. None without the extra."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        return None
    return HeifImageFile


def check_ppm(content: bytes) -> None:
    """Raises ValueError if a PPM is full of comments, which its decoder reads one character at a time, in Python."""
    if content[:1] != b"P" or len(content) <= MOST_HEADER:
        return
    fields = 3 if content[:2] in (b"P1", b"P4") else 4  # kind, width, height, and the largest value unless it is 1
    if len(re.sub(rb"#[^\r\n]*", b"", content[:MOST_HEADER]).split()) < fields and content[:2] in PORTABLE:
        raise ValueError(f"its header has more than {MOST_HEADER:,} bytes")
    if content[:2] in PORTABLE_TEXT and content.count(b"#") > MOST_COMMENTS:
        raise ValueError(f"it has more than {MOST_COMMENTS:,} comments")


def is_cut_png(content: bytes) -> bool:
    """Whether a file is a PNG of 16 bits with colors or transparency, of which Pillow keeps the upper 8."""
    return content.startswith(b"\x89PNG") and content[24:25] == b"\x10" and content[25:26] in (b"\2", b"\4", b"\6")


class Tag(NamedTuple):
    """A tag of a TIFF: number, type, how many values, and the first of them if they are SHORT or LONG."""

    number: int
    kind: int
    count: int
    value: int


def check_tiff(content: bytes) -> None:
    """Checks the first page of a TIFF, of which Pillow makes an object of each number before any limit on pixels.

    Raises:
        ValueError: a tag claims far more numbers than an image has.
        Missing: the values are signed bytes, which Pillow reads as unsigned.
    """
    if content.startswith(TIFF_STARTS):
        tags = next(tiff_pages(content), [])
        check_tags(tags)
        if {(BITS, 8), (SAMPLE_FORMAT, SIGNED)} <= {(tag.number, tag.value) for tag in tags}:
            raise Missing("has values of type int8", "save it with 8 or 16 bits, without negative values")


def correct_palette(image: Image.Image) -> None:
    """Corrects the colors of a TIFF that stores them in 8 bits, not in 16, of which Pillow takes the upper 8."""
    if image.format == "TIFF" and image.mode == "P":
        colors = getattr(image, "tag_v2", {}).get(COLORS, ())
        if colors and max(colors) < 256:
            image.palette = ImagePalette.raw("RGB;L", bytes(colors))


def check_tags(tags: Sequence[Tag]) -> None:
    """Raises ValueError if a tag claims far more numbers than an image has."""
    for tag in tags:
        if tag.count > MOST_VALUES and tag.kind not in BYTES_ONLY:
            raise ValueError(f"tag {tag.number} has {tag.count:,} values, {MOST_VALUES:,} are allowed")


def tiff_pages(content: bytes) -> Iterator[list[Tag]]:
    """The tags of each page of a TIFF, as far as they can be read; the decoder says what is wrong with the rest.

    Raises:
        ValueError: there are too many tags, as where the pages follow each other in a circle.
    """
    order = "<" if content[:2] == b"II" else ">"
    big = BIG_TIFF in content[2:4]
    place, count, entry = ("Q", "Q", "HHQ") if big else ("L", "H", "HHL")
    start, size, inside = (8, 20, 12) if big else (4, 12, 8)
    left = MOST_TAGS

    def tag(at: int) -> Tag:
        number, kind, values = struct.unpack_from(order + entry, content, at)
        value, form = 0, KINDS.get(kind)
        if form is not None:
            is_inside = values * struct.calcsize(order + form) <= struct.calcsize(order + place)
            where = at + inside if is_inside else struct.unpack_from(order + place, content, at + inside)[0]
            if where + struct.calcsize(order + form) <= len(content):
                [value] = struct.unpack_from(order + form, content, where)
        return Tag(number, kind, values, value)

    try:
        [at] = struct.unpack_from(order + place, content, start)
        while at:
            [entries] = struct.unpack_from(order + count, content, at)
            at += struct.calcsize(order + count)
            left -= entries + 1
            if left < 0:
                raise ValueError(f"it has more than {MOST_TAGS:,} tags")
            yield [tag(at + number * size) for number in range(min(entries, (len(content) - at) // size))]
            [at] = struct.unpack_from(order + place, content, at + entries * size)
    except (struct.error, OverflowError):
        return
