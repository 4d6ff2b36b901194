"""Untrusted image files, decoded within bounds from a few formats into upright RGB."""

import os
import stat
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from PIL import Image, UnidentifiedImageError

from vitreous.data.decoding import formats, repair
from vitreous.data.decoding.depth import MAX_VALUE, eight_bits, is_deep, largest_value, own_channels, to_rgb
from vitreous.data.decoding.formats import FORMATS, NOT_AN_IMAGE, SUFFIXES
from vitreous.support.errors import InputError
from vitreous.support.text import printable

MAX_PIXELS = 2**26  # a phone's 50 megapixels are 8192 x 6144
MAX_BYTES = 2**28  # of a file: four for each of these pixels, as many as a plain TIFF has
MAX_SIDE = 65_535  # in pixels; also the largest a JPEG can have
SAVE_AGAIN = "open and save it again as JPEG or PNG, or remove it"
MAKE_SMALLER = "make it smaller, or allow it with --set max_pixels=2e8 in train, --max-pixels 2e8 in predict"
JPEGS = ("JPEG", "MPO")
REMARKS = "remarks"  # the key in an image's info

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
_one_large_at_a_time = threading.RLock()


@dataclass(frozen=True)
class Decoding:
    """How image files are decoded.

    Args:
        max_pixels: more than these are refused, from the header.
        max_value: of 16-bit gray images, which becomes 255; 4095 for a 12-bit sensor. See `depth.eight_bits`.
        at_least: of a JPEG's shorter side, in pixels: a larger one is decoded at a half, a quarter or an eighth of its
            size, as long as this remains. None decodes every pixel.
        channels: of the images. 3 and 1 mean photos, decoded to RGB; an image with another number keeps its own
            channels, transparency included.
    """

    max_pixels: int = MAX_PIXELS
    max_value: int = MAX_VALUE
    at_least: int | None = None
    channels: int = 3

    @property
    def of_photos(self) -> bool:
        """Whether images are decoded to RGB."""
        return self.channels in (1, 3)

    @property
    def max_bytes(self) -> int:
        """Of a file; more for more pixels."""
        return max(MAX_BYTES, MAX_BYTES // MAX_PIXELS * self.max_pixels)


class Header(NamedTuple):
    """What the header of an image file says: its upright size, Pillow's mode, and whether it has transparency."""

    height: int
    width: int
    mode: str
    transparent: bool


@runtime_checkable
class HasInfo(Protocol):
    """A decoded image: Pillow's, or Bands."""

    @property
    def info(self) -> dict[Any, Any]:
        """What was noticed while decoding, among others."""
        ...


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

    Transparency becomes white, 16 bits are scaled to 8, and an animation gives its first frame, a TIFF its first page.
    The size in the header is checked before any pixel is decoded. Color profiles are ignored, as they were when the
    published weights were trained. `remarks` of the result says what was repaired or cut off.

    Args:
        source: a path, or the bytes of a file.
        name: of bytes, for messages; a path is its own.
        decoding: the limits and scales.

    Raises:
        BadImage: missing, not a regular file, too large, in another format, truncated or broken.
    """
    name, content = _content(source, name, decoding)
    image, remarks = _opened(name, content, decoding)
    try:
        return _with_remarks(_decoded(image, name, decoding), remarks)
    except BadImage:
        repaired, remark = _repaired(content, name, decoding)
        if repaired is None:
            raise
    return _with_remarks(_decoded(_open(name, repaired, decoding), name, decoding), (remark,))


def upright_rgb(image: Image.Image, name: str = "the image", decoding: Decoding = DEFAULT) -> Image.Image:
    """Converts an opened image as `decode_image` does a file; the given image is not changed.

    Raises:
        BadImage: it is truncated or broken, or its values are out of range.
    """
    # On hostile bytes Pillow raises OSError, SyntaxError, struct.error, IndexError, zlib.error, MemoryError and more
    # with each version. All of them mean that this image cannot be read.
    remark = None
    try:
        image.load()
        turn = UPRIGHT.get(_orientation(image))
        gray = image
        if is_deep(image.mode):
            gray, remark = eight_bits(image, decoding.max_value)
        rgb = to_rgb(gray) if decoding.of_photos else own_channels(gray)
    except InputError as error:
        raise BadImage(name, error.cause, error.hint) from error
    except Exception as error:
        raise BadImage(name, _reason(error)) from error
    upright = rgb if turn is None else rgb.transpose(turn)
    if upright is image:
        upright = image.copy()
    upright.info = {}  # without its EXIF, so that nobody turns it again
    return _with_remarks(upright, () if remark is None else (remark,))


def remarks(image: HasInfo) -> tuple[str, ...]:
    """What was repaired in the file of a decoded image, and which of its values were cut off; usually nothing."""
    return image.info.get(REMARKS, ())


def read_header(source: str | Path | bytes, name: str = "the image", decoding: Decoding = DEFAULT) -> Header:
    """What the header says; no pixel is decoded. Raises BadImage as `decode_image` does."""
    name, content = _content(source, name, decoding)
    image, _ = _opened(name, content, replace(decoding, at_least=None))
    # Without this condition, getexif() would decode a PNG. The size of a TIFF is upright already.
    sideways = "exif" in image.info and image.format != "TIFF" and _orientation(image) in SIDEWAYS
    height, width = image.size if sideways else (image.height, image.width)
    return Header(height, width, image.mode, image.has_transparency_data)


def deep_maximum(source: str | Path | bytes, name: str, decoding: Decoding = DEFAULT) -> int | float | None:
    """The largest value of an image with more than 8 bits; None for others, of which only the header is read.

    Raises:
        BadImage: as `decode_image`.
    """
    name, content = _content(source, name, decoding)
    image, _ = _opened(name, content, decoding)
    if not is_deep(image.mode):
        return None
    try:
        image.load()
        return largest_value(image)
    except Exception as error:  # see upright_rgb
        raise BadImage(name, _reason(error)) from error


def cropped(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """A part of a decoded image: (left, top, right, bottom), even one that Pillow would take for a bomb."""
    with _unlimited() if (box[2] - box[0]) * (box[3] - box[1]) > MAX_PIXELS else nullcontext():
        return image.crop(box)


def file_bytes(source: str | Path | bytes, name: str = "the image", decoding: Decoding = DEFAULT) -> bytes:
    """The bytes of an image file, within bounds. Raises BadImage if it cannot be read."""
    return _content(source, name, decoding)[1]


def file_stamp(path: str) -> bytes:
    """Something that differs from before if a file was written. Raises BadImage without a file.

    It has the time of the file's last change, which no program can set, unlike the size and the time of its content.
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:
        raise BadImage(path, f"cannot be read: {error}", "check its name and permissions") from error
    return os.fsencode(path) + f"\0{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}".encode()


def check_bytes(name: str, count: int, decoding: Decoding = DEFAULT) -> None:
    """Raises BadImage if a file has too many bytes."""
    if count > decoding.max_bytes:
        raise BadImage(name, f"has more than {decoding.max_bytes:,} bytes", MAKE_SMALLER)


def _content(source: str | Path | bytes, name: str, decoding: Decoding) -> tuple[str, bytes]:
    """The name for messages, and the bytes of a regular file or the given ones."""
    if isinstance(source, bytes):
        content = source
    else:
        name, content = str(source), _read(Path(source), decoding.max_bytes)
    if not content:
        raise BadImage(name, "is empty", "remove it, or copy it again")
    check_bytes(name, len(content), decoding)
    return name, content


def _read(path: Path, most: int) -> bytes:
    """The bytes of a regular file, at most one more than allowed."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):  # opening a FIFO may block forever, and a device may never end
            with path.open("rb") as file:
                return file.read(min(status.st_size, most + 1))  # allocates no more than the file has
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadImage(str(path), f"cannot be read: {reason}", "check its name and permissions") from error
    raise BadImage(str(path), "is not a file", "give an image file")


def _opened(name: str, content: bytes, decoding: Decoding) -> tuple[Image.Image, tuple[str, ...]]:
    """Opens an image, if need be without its metadata; also what was repaired."""
    try:
        return _open(name, content, decoding), ()
    except BadImage:
        repaired = repair.without_metadata(content)
        if repaired is None:
            raise
    return _open(name, repaired, decoding), (repair.NO_METADATA,)


def _open(name: str, content: bytes, decoding: Decoding) -> Image.Image:
    """Reads the header and checks the size in it."""
    try:
        image = _header(content, decoding.max_pixels)
        formats.correct_palette(image)
        width, height = image.size
    except formats.Missing as error:
        raise BadImage(name, *error.args) from error
    except UnidentifiedImageError as error:
        raise BadImage(name, NOT_AN_IMAGE) from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, above the default
        raise BadImage(name, f"has more than {decoding.max_pixels:,} pixels", MAKE_SMALLER) from error
    except Exception as error:  # see upright_rgb
        raise BadImage(name, _reason(error)) from error
    _check_size(name, width, height, decoding)
    if decoding.at_least is not None and image.format in JPEGS:
        image.draft(None, (decoding.at_least, decoding.at_least))
    return image


def _header(content: bytes, max_pixels: int) -> Image.Image:
    """Opens an image with the decoder of its format."""
    family = formats.family_of(content)
    formats.check_decoder(family)
    formats.check_tiff(content)
    formats.check_ppm(content)
    if family == "HEIC" and (heic := formats.heic_file()) is not None:
        return heic(BytesIO(content))
    try:
        with _quiet():
            return Image.open(BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        if max_pixels <= MAX_PIXELS:
            raise
    with _unlimited(), _quiet():
        return Image.open(BytesIO(content), formats=FORMATS)


def _check_size(name: str, width: int, height: int, decoding: Decoding) -> None:
    """Raises BadImage for too many pixels, or too long a side."""
    if width * height > decoding.max_pixels or max(width, height) > MAX_SIDE:
        allowed = f"{decoding.max_pixels:,} pixels and {MAX_SIDE:,} a side are allowed"
        raise BadImage(name, f"is too large: {width} x {height} pixels, {allowed}", MAKE_SMALLER)


def _decoded(image: Image.Image, name: str, decoding: Decoding) -> Image.Image:
    """The upright image in RGB, of the size that its header has."""
    with _unlimited() if image.width * image.height > MAX_PIXELS else nullcontext():
        upright = upright_rgb(image, name, decoding)
    _check_size(name, *upright.size, decoding)  # a HEIC may be larger than its header says
    return upright


def _repaired(content: bytes, name: str, decoding: Decoding) -> tuple[bytes | None, str]:
    """The bytes of a broken file whose pixels are complete, and what was repaired; None for other files."""

    def pixels(jpeg: bytes) -> bytes:
        whole = replace(decoding, at_least=None)
        return _decoded(_open(name, jpeg, whole), name, whole).tobytes()

    try:
        ended = repair.with_end_marker(content, pixels)
    except BadImage:
        ended = None
    return (ended, repair.NO_END_MARKER) if ended else (repair.without_metadata(content), repair.NO_METADATA)


def _with_remarks(image: Image.Image, more: tuple[str, ...]) -> Image.Image:
    """The image, whose remarks are extended in place."""
    if more:
        image.info[REMARKS] = (*remarks(image), *more)
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


@contextmanager
def _unlimited() -> Generator[None, None, None]:
    """Lifts Pillow's own limit on pixels, which is global, for one large image at a time.

    Its size has been checked, and several of them might not fit in memory.
    """
    with _one_large_at_a_time:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _reason(error: Exception) -> str:
    """Why Pillow failed, on one line."""
    if isinstance(error, MemoryError):
        return "needs more memory than is available"
    return f"is broken: {str(error) or type(error).__name__}"
