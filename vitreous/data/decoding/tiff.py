"""TIFF files with any number of channels, such as those of satellites, read within bounds.

tifffile reads the header. The segments, strips or tiles, are decompressed here, none to more bytes than its size, and
tifffile puts the bytes of each in order.
"""

import logging
import math
import struct
import threading
import zlib
from functools import lru_cache
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from vitreous.data.decoding.bands import MOST_CHANNELS, Bands
from vitreous.data.decoding.depth import largest_of, scaled_to_bytes
from vitreous.data.decoding.formats import BIG_TIFF, TIFF_STARTS, check_tiff
from vitreous.data.decoding.images import MAKE_SMALLER, MAX_SIDE, REMARKS, SIDEWAYS, UPRIGHT, BadImage, Decoding
from vitreous.support.errors import InputError
from vitreous.support.extras import install_command

SAMPLES_PER_PIXEL = 277  # tags
ORIENTATION = 274
SHORT = 3  # a type of tags
NEEDED = install_command("photos")
NONE, DEFLATE = 1, (8, 32946)  # compressions
OTHERS = {5: "lzw", 32773: "packbits", 34925: "lzma", 50000: "zstd"}  # by the package imagecodecs
TYPES = ("u1", "u2", "u4", "i2", "i4", "f2", "f4", "f8")
DECODED = 4  # bytes of an image, times those that a file may have
SLACK = 4096  # bytes that compression may add to a segment, beyond its size
_reading = threading.local()


def is_tiff(content: bytes) -> bool:
    """Whether a file starts as a TIFF does."""
    return content.startswith(TIFF_STARTS)


def channels_in(content: bytes) -> int | None:
    """The channels on the first page of a TIFF, from its header; None for other files, and for broken ones."""
    if not is_tiff(content):
        return None
    order = "<" if content[:2] == b"II" else ">"
    big = BIG_TIFF in content[2:4]
    start, first, count, size, value = (8, "Q", "Q", 20, 12) if big else (4, "L", "H", 12, 8)
    try:
        [at] = struct.unpack_from(order + first, content, start)
        [entries] = struct.unpack_from(order + count, content, at)
        at += struct.calcsize(order + count)
        for number in range(min(entries, (len(content) - at) // size)):
            tag, kind = struct.unpack_from(order + "HH", content, at + number * size)
            if tag == SAMPLES_PER_PIXEL and kind == SHORT:
                return struct.unpack_from(order + "H", content, at + number * size + value)[0]
    except (struct.error, OverflowError):
        return None
    return 1


def require_reader() -> None:
    """Raises InputError if the library that reads the header is not installed."""
    if _library() is None:
        raise InputError("TIFF images with so many channels need the library tifffile", NEEDED)


def tiff_picture(name: str, content: bytes, decoding: Decoding) -> Bands:
    """The upright image on the first page. Raises BadImage: broken, too large, or with other channels."""
    values, orientation = _values(name, content, decoding)
    remark = None
    if values.dtype != np.uint8:
        try:
            values, remark = scaled_to_bytes(values, decoding.max_value)
        except InputError as error:
            raise BadImage(name, error.cause, error.hint) from error
    bands = tuple(Image.fromarray(np.ascontiguousarray(values[:, :, band])) for band in range(values.shape[2]))
    picture = Bands(bands, {} if remark is None else {REMARKS: (remark,)})
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


def tiff_size(name: str, content: bytes, decoding: Decoding) -> tuple[int, int]:
    """The upright (height, width) of the image on the first page; no pixel is decoded. Raises BadImage."""
    page = _page(name, content, decoding)
    height, width = page.imagelength, page.imagewidth
    return (width, height) if _orientation(page) in SIDEWAYS else (height, width)


def tiff_maximum(name: str, content: bytes, decoding: Decoding) -> int | float | None:
    """The largest value of the image on the first page; None if it has bytes. Raises BadImage."""
    if _page(name, content, decoding).dtype == np.uint8:
        return None
    return largest_of(_values(name, content, decoding)[0])


def _page(name: str, content: bytes, decoding: Decoding) -> Any:
    """The header of the first page, checked."""
    library = _library()
    if library is None:
        raise BadImage(name, f"is a TIFF image with {channels_in(content)} channels, which needs {NEEDED}", NEEDED)
    # On hostile bytes it raises errors of many kinds; all of them mean that this image cannot be read.
    _reading.active = True
    try:
        check_tiff(content)
        page = library.TiffFile(BytesIO(content)).pages[0]
    except Exception as error:
        raise BadImage(name, _reason(error)) from error
    finally:
        _reading.active = False
    _check(name, page, decoding)
    return page


def _check(name: str, page: Any, decoding: Decoding) -> None:
    """Raises BadImage if a header is not that of an image within the limits."""
    height, width, channels, dtype = page.imagelength, page.imagewidth, page.samplesperpixel, page.dtype
    numbers = (height, width, channels, page.imagedepth, page.rowsperstrip, page.tilelength, page.tilewidth)
    if not all(isinstance(number, int) and number >= 0 for number in numbers) or 0 in (height, width, channels):
        raise BadImage(name, "is broken: it has no size")
    if height * width > decoding.max_pixels or max(height, width) > MAX_SIDE:
        allowed = f"{decoding.max_pixels:,} pixels and {MAX_SIDE:,} a side are allowed"
        raise BadImage(name, f"is too large: {width} x {height} pixels, {allowed}", MAKE_SMALLER)
    if channels != decoding.channels or channels > MOST_CHANNELS:
        raise BadImage(name, f"has {channels} channels, not {decoding.channels}", "remove it")
    if page.imagedepth != 1 or page.planarconfig not in (1, 2) or page.is_subsampled:
        raise BadImage(name, "is a TIFF image of an unusual kind")
    if dtype is None or dtype.str[1:] not in TYPES:
        hint = "save it with 8 or 16 bits, or as floats"
        raise BadImage(name, f"has values of {page.bitspersample} bits in format {page.sampleformat}", hint)
    most = DECODED * decoding.max_bytes
    if height * width * channels * dtype.itemsize > most or _segment_values(page) * dtype.itemsize > most:
        raise BadImage(name, f"needs more than {most:,} bytes when it is decoded", MAKE_SMALLER)


def _segment_values(page: Any) -> int:
    """The values of a whole strip or tile."""
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    return rows * columns * samples


def _values(name: str, content: bytes, decoding: Decoding) -> tuple[np.ndarray, int]:
    """The values, "height width channels", and the orientation."""
    page = _page(name, content, decoding)
    _reading.active = True
    try:
        return _decoded(page, content), _orientation(page)
    except BadImage:
        raise
    except Missing as error:
        raise BadImage(name, *error.args) from error
    except Exception as error:  # see _page
        raise BadImage(name, _reason(error)) from error
    finally:
        _reading.active = False


class Missing(Exception):
    """A decoder that is not installed: why, and what to type."""


def _decoded(page: Any, content: bytes) -> np.ndarray:
    """The values of a page that was checked."""
    height, width, channels = page.imagelength, page.imagewidth, page.samplesperpixel
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
    planes = channels if page.planarconfig == 2 else 1
    count = planes * math.ceil(height / rows) * math.ceil(width / columns)
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:count]
    if len(places) < count:
        raise ValueError(f"it has {len(places):,} strips or tiles, not {count:,}")
    size = _segment_values(page) * page.dtype.itemsize
    compression, page.compression = int(page.compression), NONE  # before tifffile chooses how to decompress
    values = np.zeros((planes, height, width, channels // planes), page.dtype)
    for number, (at, length) in enumerate(places):
        if length == 0:  # not stored, all zero
            continue
        stored = content[at : at + min(length, 2 * size + SLACK)]
        segment, (plane, _, top, left, _), _ = page.decode(_decompressed(stored, compression, size), number)
        target = values[plane, top : top + rows, left : left + columns]
        target[:] = segment[0, : target.shape[0], : target.shape[1]]
    return values[0] if planes == 1 else values[..., 0].transpose(1, 2, 0)


def _decompressed(stored: bytes, compression: int, size: int) -> bytes:
    """A segment of at most `size` bytes, decompressed."""
    if compression == NONE:
        return stored[:size]
    if compression in DEFLATE:
        return zlib.decompressobj().decompress(stored, size)
    if compression not in OTHERS:
        raise ValueError(f"its compression, number {compression}, is not supported with so many channels")
    codec = OTHERS[compression]
    try:
        imagecodecs = import_module("imagecodecs")
    except ImportError:
        hint = "pip install imagecodecs, or save it with deflate or without compression"
        raise Missing(f"is compressed by {codec}, which needs pip install imagecodecs", hint) from None
    return getattr(imagecodecs, f"{codec}_decode")(stored, out=size)  # fails rather than grow


def _orientation(page: Any) -> int:
    """As EXIF has it; 1 is upright."""
    value = page.tags.valueof(ORIENTATION, default=1)
    return value if isinstance(value, int) else 1


def _reason(error: Exception) -> str:
    """Why it failed, on one line."""
    if isinstance(error, MemoryError):
        return "needs more memory than is available"
    return f"is broken: {str(error) or type(error).__name__}"


@lru_cache
def _library() -> Any:
    """tifffile, whose log is silent while a file is read here; None if it is not installed."""
    try:
        import tifffile
    except ImportError:
        return None
    logging.getLogger("tifffile").addFilter(lambda record: not getattr(_reading, "active", False))
    return tifffile
