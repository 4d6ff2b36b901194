"""TIFF files with any number of channels, such as those of satellites, read within bounds.

tifffile reads the header and puts the bytes of each segment, a strip or tile, in order; `segments` decompresses them.
The channels are samples of the first page, or pages of one sample each if `Decoding.channels` is their number.
"""

import logging
import math
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from io import BytesIO
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vitreous.data.decoding.bands import MOST_CHANNELS, Bands, check_channels
from vitreous.data.decoding.depth import largest_of, scaled_to_bytes
from vitreous.data.decoding.formats import BITS, TIFF_STARTS, Tag, check_tags, tiff_pages
from vitreous.data.decoding.images import MAKE_SMALLER, MAX_SIDE, REMARKS, SIDEWAYS, UPRIGHT, BadImage, Decoding
from vitreous.data.decoding.segments import JPEG, NONE, decompressed, jpeg_decompressed, without_float_predictor
from vitreous.support.errors import InputError
from vitreous.support.extras import install_command

KIND_OF_PAGE = 254  # a tag, whose lowest bit means a smaller version of another page
PHOTOMETRIC, GRAY, RGB = 262, 1, 2
EXTRA_SAMPLES, ALPHA, UNPREMULTIPLIED = 338, (1, 2), 2
WIDTH, HEIGHT, ORIENTATION, SAMPLES_PER_PIXEL = 256, 257, 274, 277  # tags
PHOTO = 3  # channels
NEEDED = install_command("photos")
FLOAT_PREDICTOR = 3
TYPES = ("u1", "u2", "u4", "i2", "i4", "f2", "f4", "f8")
DECODED = 4  # bytes of an image, times those that a file may have
SLACK = 4096  # bytes that compression may add to a segment, beyond its size
_reading = threading.local()


def is_tiff(content: bytes) -> bool:
    """Whether a file starts as a TIFF does."""
    return content.startswith(TIFF_STARTS)


class Outline(NamedTuple):
    """What the header of a TIFF says of its channels.

    Args:
        channels: of the first page.
        pages: how many there are, if all have one channel and one size, and may be channels themselves; otherwise 1.
        alpha: what the first channel after gray or color is, if it is transparency; otherwise 0.
        is_reduced: whether the first page is a smaller version of a later one.
    """

    channels: int
    pages: int
    alpha: int
    is_reduced: bool


def outline(content: bytes) -> Outline | None:
    """The channels and pages of a TIFF; None for other files, and for broken ones."""
    if not is_tiff(content):
        return None
    try:
        pages = [_by_number(tags) for tags in islice(tiff_pages(content), MOST_CHANNELS + 1)]
    except ValueError:
        return None
    shapes = [(page.get(SAMPLES_PER_PIXEL, 1), page.get(WIDTH), page.get(HEIGHT)) for page in pages]
    if not shapes:
        return None
    channels = shapes[0][0]
    alike = channels == 1 and len(set(shapes)) == 1 and len(pages) <= MOST_CHANNELS
    first, *others = pages
    is_reduced = first.get(KIND_OF_PAGE, 0) & 1 == 1 and any(_area(page) > _area(first) for page in others)
    return Outline(channels, len(pages) if alike else 1, _alpha(first), is_reduced)


def _area(page: dict[int, int]) -> int:
    """The pixels of a page."""
    return page.get(WIDTH, 0) * page.get(HEIGHT, 0)


def is_cut_color(content: bytes) -> bool:
    """Whether a file is a color TIFF that can be read here, and that Pillow would cut to 8 bits or not read."""
    page = _first_page(content)
    channels, bits, kind = page.get(SAMPLES_PER_PIXEL, 1), page.get(BITS, 1), page.get(PHOTOMETRIC)
    is_cut = (channels in (PHOTO, PHOTO + 1) and kind == RGB and bits > 8) or (channels == PHOTO and kind == GRAY)
    return is_cut and _library() is not None


def is_cut_tiff(content: bytes) -> bool:
    """Whether a file is another TIFF with several channels of more than 8 bits: as a photo, it keeps the upper 8."""
    page = _first_page(content)
    return page.get(SAMPLES_PER_PIXEL, 1) > 1 and page.get(BITS, 1) > 8 and not is_cut_color(content)


def _alpha(page: dict[int, int]) -> int:
    """What the first channel after gray or color is, if it is transparency; otherwise 0."""
    extra = page.get(EXTRA_SAMPLES, 0)
    return extra if page.get(SAMPLES_PER_PIXEL, 1) in (2, PHOTO + 1) and extra in ALPHA else 0


def _first_page(content: bytes) -> dict[int, int]:
    """The values of the tags of a TIFF's first page; others, perhaps thousands, are not looked at."""
    try:
        return _by_number(next(tiff_pages(content), [])) if is_tiff(content) else {}
    except ValueError:
        return {}


def _by_number(tags: Sequence[Tag]) -> dict[int, int]:
    """The values of tags by their numbers."""
    return {tag.number: tag.value for tag in tags}


def require_reader() -> None:
    """Raises InputError if the library that reads the header is not installed."""
    if _library() is None:
        raise InputError("TIFF images with so many channels need the library tifffile", NEEDED)


def tiff_picture(name: str, content: bytes, decoding: Decoding) -> Bands:
    """The upright image. Raises BadImage: broken, too large, or with other channels."""
    values, orientation = _values(name, content, decoding)
    values, extra = values[:, :, : decoding.channels], values[:, :, decoding.channels :]
    remark = None
    if values.dtype != np.uint8:
        try:
            values, remark = scaled_to_bytes(values, decoding.max_value)
        except InputError as error:
            raise BadImage(name, error.cause, error.hint) from error
    if extra.size and (alpha := _alpha(_first_page(content))):
        values = _on_white(values, extra, alpha)
    bands = tuple(Image.fromarray(np.ascontiguousarray(values[:, :, band])) for band in range(values.shape[2]))
    picture = Bands(bands, {} if remark is None else {REMARKS: (remark,)})
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


def _on_white(color: np.ndarray, opacity: np.ndarray, alpha: int) -> np.ndarray:
    """Color in bytes on white, as far as it is transparent; its values may be multiplied by the opacity already."""
    most = 1 if opacity.dtype.kind == "f" else np.iinfo(opacity.dtype).max
    opaque = opacity.clip(0, most).astype(np.float32) / most
    shown = color * (opaque if alpha == UNPREMULTIPLIED else 1)
    return np.rint((shown + 255 * (1 - opaque)).clip(0, 255)).astype(np.uint8)


def tiff_size(name: str, content: bytes, decoding: Decoding) -> tuple[int, int]:
    """The upright (height, width) of the image; no pixel is decoded. Raises BadImage."""
    page = _pages(name, content, decoding)[0]
    height, width = page.imagelength, page.imagewidth
    return (width, height) if _orientation(page) in SIDEWAYS else (height, width)


def tiff_maximum(name: str, content: bytes, decoding: Decoding) -> int | float | None:
    """The largest value of the image; None if it has bytes. Raises BadImage."""
    if _pages(name, content, decoding)[0].dtype == np.uint8:
        return None
    return largest_of(_values(name, content, decoding)[0][:, :, : decoding.channels])


def _pages(name: str, content: bytes, decoding: Decoding) -> list[Any]:
    """The headers of the pages with the channels, checked: the first page, or as many as there are channels."""
    library, seen = _library(), outline(content)
    count = decoding.channels if seen is not None and seen.pages == decoding.channels else 1
    if library is None:
        has = f"is a TIFF image with {decoding.channels} channels" if seen else "is a TIFF image of many channels"
        raise BadImage(name, f"{has}, which needs {NEEDED}", NEEDED)
    # On hostile bytes it raises errors of many kinds; all of them mean that this image cannot be read.
    _reading.active = True
    try:
        for tags in islice(tiff_pages(content), count):
            check_tags(tags)
        file = library.TiffFile(BytesIO(content))
        pages = [file.pages[number] for number in range(count)]
    except Exception as error:
        raise BadImage(name, _reason(error)) from error
    finally:
        _reading.active = False
    for page in pages:
        _check(name, page, count, decoding)
    if len({page.dtype for page in pages}) > 1:
        raise BadImage(name, "has pages with values of several types", "save it with one")
    return pages


def _check(name: str, page: Any, pages: int, decoding: Decoding) -> None:
    """Raises BadImage if a header is not that of one of the pages of an image within the limits."""
    height, width, samples, dtype = page.imagelength, page.imagewidth, page.samplesperpixel, page.dtype
    numbers = (height, width, samples, page.imagedepth, page.rowsperstrip, page.tilelength, page.tilewidth)
    if not all(isinstance(number, int) and number >= 0 for number in numbers) or 0 in (height, width, samples):
        raise BadImage(name, "is broken: it has no size")
    if height * width > decoding.max_pixels or max(height, width) > MAX_SIDE:
        allowed = f"{decoding.max_pixels:,} pixels and {MAX_SIDE:,} a side are allowed"
        raise BadImage(name, f"is too large: {width} x {height} pixels, {allowed}", MAKE_SMALLER)
    channels = samples * pages
    if (channels, decoding.channels) != (PHOTO + 1, PHOTO):  # the fourth is transparency, or left out
        check_channels(name, channels, decoding.channels)
    if page.imagedepth != 1 or page.planarconfig not in (1, 2) or page.is_subsampled:
        raise BadImage(name, "is a TIFF image of an unusual kind")
    if dtype is None or dtype.str[1:] not in TYPES:
        values = f"type {dtype}" if dtype is not None else f"{page.bitspersample} bits in format {page.sampleformat}"
        raise BadImage(name, f"has values of {values}", "save it with 8 or 16 bits, or as floats")
    most = DECODED * decoding.max_bytes
    if height * width * channels * dtype.itemsize > most or math.prod(_segment(page)) * dtype.itemsize > most:
        raise BadImage(name, f"needs more than {most:,} bytes when it is decoded", MAKE_SMALLER)


def _segment(page: Any) -> tuple[int, int, int]:
    """The rows, columns and samples of a whole strip or tile."""
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    return rows, columns, page.samplesperpixel if page.planarconfig == 1 else 1


def _values(name: str, content: bytes, decoding: Decoding) -> tuple[np.ndarray, int]:
    """The values, "height width channels", of which a photo may have a fourth, and the orientation."""
    pages = _pages(name, content, decoding)
    _reading.active = True
    try:
        values = [_decoded(page, content) for page in pages]
        return values[0] if len(values) == 1 else np.concatenate(values, axis=2), _orientation(pages[0])
    except Exception as error:  # see _pages
        raise BadImage(name, _reason(error)) from error
    finally:
        _reading.active = False


def _decoded(page: Any, content: bytes) -> np.ndarray:
    """The values of a page that was checked."""
    height, width, channels = page.imagelength, page.imagewidth, page.samplesperpixel
    rows, columns, samples = _segment(page)
    planes = channels // samples
    down = math.ceil(height / rows)
    count = planes * down * math.ceil(width / columns)
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:count]
    if len(places) < count:
        raise ValueError(f"it has {len(places):,} strips or tiles, not {count:,}")
    size = rows * columns * samples * page.dtype.itemsize
    decompress = _decompressor(page)
    values = np.zeros((planes, height, width, samples), page.dtype)
    for number, (at, length) in enumerate(places):
        if length == 0:  # not stored, all zero
            continue
        inside = rows if page.is_tiled else min(rows, height - number % down * rows)  # the last strip may be shorter
        stored = content[at : at + min(length, 2 * size + SLACK)]
        segment, (plane, _, top, left, _), _ = page.decode(decompress(stored, inside), number)
        target = values[plane, top : top + rows, left : left + columns]
        target[:] = segment[0, : target.shape[0], : target.shape[1]]
    if page.nodata:  # GDAL's value for a pixel without data
        values[values == page.nodata] = 0
    return values[0] if planes == 1 else values[..., 0].transpose(1, 2, 0)


def _decompressor(page: Any) -> Callable[[bytes, int], bytes]:
    """What makes values of the bytes and rows of a segment. To tifffile, the page is uncompressed from now on."""
    _, columns, samples = _segment(page)
    dtype, compression, tables = page.dtype.newbyteorder(page.parent.byteorder), int(page.compression), page.jpegtables
    has_float_predictor = page.predictor == FLOAT_PREDICTOR and dtype.kind == "f"
    page.compression = NONE
    if has_float_predictor:
        page.predictor = NONE

    def decompress(stored: bytes, rows: int) -> bytes:
        if compression == JPEG and samples == 1 and dtype == np.uint8:
            return jpeg_decompressed(stored, tables, rows, columns)
        segment = decompressed(stored, compression, rows, columns * samples * dtype.itemsize)
        return without_float_predictor(segment, dtype, rows, samples) if has_float_predictor else segment

    return decompress


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
