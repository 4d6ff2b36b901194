"""Untrusted image files, decoded within bounds from a few formats into upright RGB."""

import os
import stat
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vitreous.support.errors import InputError
from vitreous.support.text import printable

# MPO, a JPEG with several pictures from some phones, is read as a JPEG; the first picture counts.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".gif")
NOT_AN_IMAGE = "is not a JPEG, PNG, WebP, BMP or GIF image"
MAX_BYTES = 64 * 2**20  # of a file
MAX_PIXELS = 2**26  # a phone's 50 megapixels are 8192 x 6144
MAX_VALUE = 65_535  # of 16 bits
MAX_SIDE = 65_535  # in pixels; also the largest a JPEG can have
SAVE_AGAIN = "open and save it again as JPEG or PNG, or remove it"

ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # swap height and width

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Decoding:
    """How image files are decoded.

    Args:
        max_pixels: more than these are refused, from the header.
        max_value: of 16-bit gray images, which becomes 255; 4095 for a 12-bit sensor.
    """

    max_pixels: int = MAX_PIXELS
    max_value: int = MAX_VALUE


DEFAULT = Decoding()


class BadImage(InputError):
    """An image that cannot be used. The message is `name` followed by `reason`, on one line."""

    def __init__(self, name: str, reason: str, hint: str = SAVE_AGAIN) -> None:
        self.name = name
        self.reason = printable(reason)[:300]
        super().__init__(f"{name!r} {self.reason}", hint)
        self.args = (name, reason, hint)  # the arguments for unpickling


def is_image_name(path: str | Path) -> bool:
    """Whether a file has the suffix of a supported image format and is not hidden, as `._cat.jpg` is."""
    name = str(path).rpartition(os.sep)[2].lower()  # faster than a Path, for a million files
    return not name.startswith(".") and name.endswith(SUFFIXES)


def decode_image(source: str | Path | bytes, name: str = "the image", decoding: Decoding = DEFAULT) -> Image.Image:
    """Decodes an image into mode "RGB", turned upright by its EXIF orientation.

    Transparency becomes white, 16 bits are scaled to 8, and an animation gives its first frame. The size in the header
    is checked before any pixel is decoded. Color profiles are ignored, as they were when the published weights were
    trained.

    Args:
        source: a path, or the bytes of a file.
        name: of bytes, for messages; a path is its own.
        decoding: the limits and scales.

    Raises:
        BadImage: missing, not a regular file, too large, in another format, truncated or broken.
    """
    name, content = _content(source, name)
    return upright_rgb(_open(name, content, decoding), name, decoding)


def upright_rgb(image: Image.Image, name: str = "the image", decoding: Decoding = DEFAULT) -> Image.Image:
    """Converts an opened image as `decode_image` does a file; the given image is not changed.

    Raises:
        BadImage: it is truncated or broken.
    """
    # On hostile bytes Pillow raises OSError, SyntaxError, struct.error, IndexError, zlib.error, MemoryError and more
    # with each version. All of them mean that this image cannot be read.
    try:
        image.load()
        turn = UPRIGHT.get(_orientation(image))
        rgb = to_rgb(image, decoding.max_value)
    except Exception as error:
        raise BadImage(name, _reason(error)) from error
    upright = rgb if turn is None else rgb.transpose(turn)
    if upright is image:
        upright = image.copy()
    upright.info = {}  # without its EXIF, so that nobody turns it again
    return upright


def header_size(source: str | Path | bytes, name: str = "the image", decoding: Decoding = DEFAULT) -> tuple[int, int]:
    """The upright (height, width) in the header; no pixel is decoded. Raises BadImage as `decode_image` does."""
    image = _open(*_content(source, name), decoding)
    sideways = "exif" in image.info and _orientation(image) in SIDEWAYS  # otherwise getexif() would decode a PNG
    return image.size if sideways else (image.height, image.width)


def to_rgb(image: Image.Image, max_value: int = MAX_VALUE) -> Image.Image:
    """The image in mode "RGB", from any mode: 16 bits scaled to 8, transparency on white."""
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image, max_value)
    if image.has_transparency_data:
        transparent = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(transparent, mask=transparent)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image, max_value: int) -> Image.Image:
    """Scales 16 bits to 8, rounded, so that max_value becomes 255. Floats are assumed to be in 0..255."""
    values = np.asarray(image)
    if image.mode == "F":
        return Image.fromarray(np.nan_to_num(values).clip(0, 255).round().astype(np.uint8))
    scaled = ((values.clip(0, max_value).astype(np.uint32) * 255 + max_value // 2) // max_value).astype(np.uint8)
    scaled[values == image.info.get("transparency", -1)] = 255  # a PNG may declare one gray transparent
    return Image.fromarray(scaled)


def file_bytes(source: str | Path | bytes, name: str = "the image") -> bytes:
    """The bytes of an image file, within bounds. Raises BadImage if it cannot be read."""
    return _content(source, name)[1]


def file_stamp(path: str) -> bytes:
    """The path, size and time of a file, which differ from before if it was written. Raises BadImage without it."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:
        raise BadImage(path, f"cannot be read: {error}", "check its name and permissions") from error
    return os.fsencode(path) + f"\0{status.st_size} {status.st_mtime_ns} {status.st_ino}".encode()


def check_bytes(name: str, count: int) -> None:
    """Raises BadImage if a file has too many bytes."""
    if count > MAX_BYTES:
        raise BadImage(name, f"has more than {MAX_BYTES:,} bytes", "make it smaller")


def _content(source: str | Path | bytes, name: str) -> tuple[str, bytes]:
    """The name for messages, and the bytes of a regular file or the given ones."""
    if isinstance(source, bytes):
        content = source
    else:
        name, content = str(source), _read(Path(source))
    if not content:
        raise BadImage(name, "is empty", "remove it, or copy it again")
    check_bytes(name, len(content))
    return name, content


def _read(path: Path) -> bytes:
    """The bytes of a regular file, at most one more than allowed."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):  # opening a FIFO may block forever, and a device may never end
            with path.open("rb") as file:
                return file.read(min(status.st_size, MAX_BYTES + 1))  # allocates no more than the file has
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadImage(str(path), f"cannot be read: {reason}", "check its name and permissions") from error
    raise BadImage(str(path), "is not a file", "give an image file")


def _open(name: str, content: bytes, decoding: Decoding) -> Image.Image:
    """Reads the header and checks the size in it."""
    try:
        with _quiet():
            image = Image.open(BytesIO(content), formats=FORMATS)
        width, height = image.size
    except UnidentifiedImageError as error:
        raise BadImage(name, NOT_AN_IMAGE) from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, above the default
        raise BadImage(name, f"has more than {decoding.max_pixels:,} pixels", "make it smaller") from error
    except Exception as error:  # see decode_image
        raise BadImage(name, _reason(error)) from error
    if width * height > decoding.max_pixels or max(width, height) > MAX_SIDE:
        allowed = f"{decoding.max_pixels:,} pixels and {MAX_SIDE:,} a side are allowed"
        raise BadImage(name, f"is too large: {width} x {height} pixels, {allowed}", "make it smaller")
    return image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) if it is missing or broken, since the pixels are still good."""
    try:
        with _quiet():
            value = image.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Silences Pillow's warnings about odd metadata, which a filter could turn into errors.

    The filters are global, so threads take turns; the slow part, decoding, is not inside.
    """
    with _one_at_a_time, warnings.catch_warnings(action="ignore"):
        yield


def _reason(error: Exception) -> str:
    """Why Pillow failed, on one line."""
    if isinstance(error, MemoryError):
        return "needs more memory than is available"
    return f"is broken: {str(error) or type(error).__name__}"
