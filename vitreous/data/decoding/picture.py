"""Image files of any number of channels: photos as Pillow decodes them, others as Bands."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from vitreous.data.decoding.bands import Bands, Picture, check_channels
from vitreous.data.decoding.formats import NOT_AN_IMAGE, is_cut_png
from vitreous.data.decoding.images import (
    DEFAULT,
    BadImage,
    Decoding,
    Header,
    decode_image,
    deep_maximum,
    file_bytes,
    read_header,
)
from vitreous.data.decoding.tiff import (
    is_cut_color,
    is_cut_tiff,
    is_tiff,
    outline,
    tiff_maximum,
    tiff_picture,
    tiff_size,
)

MODES = {"1": 1, "L": 1, "LA": 2, "La": 2, "P": 3, "PA": 4, "RGBA": 4, "RGBa": 4, "RGBX": 4, "CMYK": 4}
MOST_OF_PHOTO = 4
GRAY = ("I", "F")  # the starts of modes with one channel


class Stored(NamedTuple):
    """What an image has before it is decoded.

    Args:
        channels: how many.
        is_photo: whether it is a photo unless the user says otherwise: RGB or gray, perhaps with transparency, or CMYK.
        in_tiff: whether it is a TIFF file.
        pages: of a TIFF file, if each has one channel and the same size.
        in_array: whether it is an array or tensor.
        is_cut: whether a photo of it has only the upper 8 of its 16 bits.
        is_reduced: whether what is read of it is a smaller version of a later page.
    """

    channels: int
    is_photo: bool
    in_tiff: bool = False
    pages: int = 1
    in_array: bool = False
    is_cut: bool = False
    is_reduced: bool = False


def decode_picture(source: str | Path | bytes, name: str = "the image", decoding: Decoding = DEFAULT) -> Picture:
    """Decodes an image file, upright, to the channels of `decoding`.

    Photos, of 3 channels or 1, become RGB as `decode_image` says. Others keep the channels of their file: a TIFF may
    have any number, a PNG with transparency 4.

    Args:
        source: a path, or the bytes of a file.
        name: of bytes, for messages; a path is its own.
        decoding: the limits, scales and channels.

    Raises:
        BadImage: as `decode_image`, or it has another number of channels.
    """
    name, content = named(source, name), file_bytes(source, name, decoding)
    bands = _as_bands(content, decoding)
    if bands is not None:
        read = tiff_picture(name, content, bands)
        return as_photo(read) if decoding.of_photos else read
    with _explained(content, decoding):
        picture = decode_image(content, name, decoding)
    if not decoding.of_photos:
        check_channels(name, len(picture.getbands()), decoding.channels)
    return picture


def picture_header(source: str | Path | bytes, name: str = "the image", decoding: Decoding = DEFAULT) -> Header:
    """What the header says; no pixel is decoded. An image without a mode of Pillow has the mode "".

    Raises:
        BadImage: as `decode_picture`.
    """
    name, content = named(source, name), file_bytes(source, name, decoding)
    bands = _as_bands(content, decoding)
    if bands is not None:
        return Header(*tiff_size(name, content, bands), "RGB" if decoding.of_photos else "", False)
    with _explained(content, decoding):
        header = read_header(content, name, decoding)
    if not decoding.of_photos:
        check_channels(name, channels_of(header), decoding.channels)
    return header


def picture_size(source: str | Path | bytes, name: str = "the image", decoding: Decoding = DEFAULT) -> tuple[int, int]:
    """The upright (height, width) in the header. Raises BadImage as `decode_picture`."""
    header = picture_header(source, name, decoding)
    return header.height, header.width


def picture_maximum(
    source: str | Path | bytes, name: str = "the image", decoding: Decoding = DEFAULT
) -> int | float | None:
    """The largest value of an image with more than 8 bits; None for others. Raises BadImage as `decode_picture`."""
    name, content = named(source, name), file_bytes(source, name, decoding)
    bands = _as_bands(content, decoding)
    if bands is not None:
        return tiff_maximum(name, content, bands)
    return deep_maximum(content, name, decoding)


def stored_channels(source: str | Path | bytes, name: str = "the image", decoding: Decoding = DEFAULT) -> Stored:
    """The channels of an image file, from its header.

    Raises:
        BadImage: the header cannot be read.
    """
    name, content = named(source, name), file_bytes(source, name, decoding)
    tiff = outline(content)
    try:
        header = read_header(content, name, replace(decoding, channels=3))
    except BadImage:
        if tiff is None or max(tiff.channels, tiff.pages) < 2:
            raise
        return Stored(tiff.channels, False, True, tiff.pages, is_reduced=tiff.is_reduced)
    if tiff is None:
        channels = channels_of(header)
        return Stored(channels, channels <= MOST_OF_PHOTO, is_cut=is_cut_png(content))
    # Pillow drops a fifth channel, and a second one that is not transparency.
    is_photo = tiff.channels <= MOST_OF_PHOTO and (tiff.channels != 2 or tiff.alpha > 0)
    cut, reduced = is_cut_tiff(content), tiff.is_reduced
    return Stored(tiff.channels, is_photo, True, tiff.pages, is_cut=cut, is_reduced=reduced)


def channels_of(header: Header) -> int:
    """The channels that an image file has by its header, as `decode_picture` keeps them."""
    if header.mode == "P" and header.transparent:
        return 4
    return MODES.get(header.mode, 1 if header.mode.startswith(GRAY) else 3)


def _as_bands(content: bytes, decoding: Decoding) -> Decoding | None:
    """The decoding of an image that is read as bands: a TIFF, if it is no photo, or if Pillow would cut it."""
    if decoding.of_photos:
        return replace(decoding, channels=3) if is_cut_color(content) else None
    return decoding if is_tiff(content) else None


def as_photo(bands: Bands) -> Image.Image:
    """Three bands as an RGB image."""
    photo = Image.merge("RGB", bands.bands)
    photo.info |= bands.info
    return photo


@contextmanager
def _explained(content: bytes, decoding: Decoding) -> Generator[None, None, None]:
    """Replaces the error of an image that is not a photo by one on its channels or pages if they are why."""
    try:
        yield
    except BadImage as error:
        tiff = outline(content) if decoding.of_photos else None
        if tiff is None:
            raise
        if max(tiff.channels, tiff.pages) in (1, 3):
            if error.reason != NOT_AN_IMAGE:
                raise
            cause = "is a TIFF image whose type of values or layout is not read"
            raise BadImage(error.name, cause, "save it with 8 or 16 bits, or as 32-bit floats") from error
        if tiff.pages > 1:
            cause = f"cannot be read as a photo, and has {tiff.pages} pages of one channel"
            hint = f"train with channels={tiff.pages} to read the pages as channels"
            raise BadImage(error.name, cause, hint) from error
        cause = f"has {tiff.channels} channels, not {decoding.channels}"
        raise BadImage(error.name, cause, f"remove it, or train with channels={tiff.channels}") from error


def named(source: str | Path | bytes, name: str) -> str:
    """The name for messages: a path is its own."""
    return name if isinstance(source, bytes) else str(source)
