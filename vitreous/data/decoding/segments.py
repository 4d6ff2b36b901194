"""The strips and tiles of TIFF files, decompressed, none to more bytes than it may have.

Pillow's libtiff decompresses what Python cannot: a segment gets a small TIFF file of its own, of one byte per pixel.
"""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image, TiffImagePlugin

NONE, DEFLATE, JPEG = 1, (8, 32946), 7  # compressions
BY_LIBTIFF = (5, 32773, 34925, 50000)  # LZW, PackBits, LZMA and Zstandard
LONG = 4  # a type of tags
GRAY_BYTES = {258: 8, 262: 1, 277: 1}  # tags: bits per sample, black is zero, samples per pixel


def decompressed(stored: bytes, compression: int, rows: int, row_size: int) -> bytes:
    """The bytes of a segment, `rows` rows of `row_size` bytes. Raises any error for broken ones."""
    size = rows * row_size
    if compression == NONE:
        return stored[:size]
    if compression in DEFLATE:
        return zlib.decompressobj().decompress(stored, size)
    if compression in BY_LIBTIFF:
        return _by_libtiff(stored, compression, rows, row_size)
    raise ValueError(f"its compression, number {compression}, is not supported with so many channels")


def jpeg_decompressed(stored: bytes, tables: bytes | None, rows: int, columns: int) -> bytes:
    """The bytes of a segment that is a gray JPEG, whose tables may be stored once for all segments."""
    if tables is not None:  # both begin with a start marker, and the tables end with an end marker
        stored = tables[:-2] + stored[2:]
    with Image.open(BytesIO(stored), formats=["JPEG"]) as image:
        if image.mode != "L" or image.size != (columns, rows):
            raise ValueError("its JPEG compression is not supported with so many channels")
        return image.tobytes()


def _by_libtiff(stored: bytes, compression: int, rows: int, row_size: int) -> bytes:
    header = 8 + 2 + 12 * (len(GRAY_BYTES) + 6) + 4
    tags = GRAY_BYTES | {256: row_size, 257: rows, 278: rows, 259: compression, 273: header, 279: len(stored)}
    entries = b"".join(struct.pack("<HHLL", tag, LONG, 1, tags[tag]) for tag in sorted(tags))
    whole = b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4) + stored
    return TiffImagePlugin.TiffImageFile(BytesIO(whole)).tobytes()  # Image.open would limit its pixels


def without_float_predictor(segment: bytes, dtype: np.dtype, rows: int, samples: int) -> bytes:
    """The floats of a segment, of which each row has been split into planes of bytes, then into differences.

    Args:
        segment: decompressed.
        dtype: of the values, with its byte order.
        rows: of the segment.
        samples: of a pixel: the differences are between bytes so far apart.
    """
    differences = np.frombuffer(segment, np.uint8).reshape(rows, -1, samples)
    planes = differences.cumsum(axis=1, dtype=np.uint8).reshape(rows, dtype.itemsize, -1)
    values = np.ascontiguousarray(planes.swapaxes(1, 2)).view(dtype.newbyteorder(">"))
    return values.astype(dtype).tobytes()
