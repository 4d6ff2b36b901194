"""Image files of any number of channels: photos as Pillow decodes them, others as Bands."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from vitreous.data.decoding.bands import Picture
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
from vitreous.data.decoding.tiff import channels_in, is_tiff, tiff_maximum, tiff_picture, tiff_size

MODES = {"1": 1, "L": 1, "LA": 2, "La": 2, "P": 3, "PA": 4, "RGBA": 4, "RGBa": 4, "RGBX": 4, "CMYK": 4}
MOST_OF_PHOTO = 4
GRAY = ("I", "F")  # the starts of modes with one channel


class Stored(NamedTuple):
    """What an image has before it is decoded.

    Args:
        channels: how many.
        is_photo: whether it is a photo unless the user says otherwise: RGB or gray, perhaps with transparency, or CMYK.
        in_tiff: whether it is a TIFF file.
    """

    channels: int
    is_photo: bool
    in_tiff: bool = False


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
    if _is_of_bands(content, decoding):
        return tiff_picture(name, content, decoding)
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
    if _is_of_bands(content, decoding):
        return Header(*tiff_size(name, content, decoding), "", False)
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
    if _is_of_bands(content, decoding):
        return tiff_maximum(name, content, decoding)
    return deep_maximum(content, name, decoding)


def stored_channels(source: str | Path | bytes, name: str = "the image", decoding: Decoding = DEFAULT) -> Stored:
    """The channels of an image file, from its header.

    Raises:
        BadImage: the header cannot be read.
    """
    name, content = named(source, name), file_bytes(source, name, decoding)
    in_tiff = channels_in(content)
    try:
        header = read_header(content, name, replace(decoding, channels=3))
    except BadImage:
        if in_tiff is None or in_tiff < 2:
            raise
        return Stored(in_tiff, is_photo=False, in_tiff=True)
    channels = in_tiff or channels_of(header)
    return Stored(channels, channels <= MOST_OF_PHOTO, in_tiff is not None)  # Pillow drops the fifth channel, or sixth


def channels_of(header: Header) -> int:
    """The channels that an image file has by its header, as `decode_picture` keeps them."""
    if header.mode == "P" and header.transparent:
        return 4
    return MODES.get(header.mode, 1 if header.mode.startswith(GRAY) else 3)


def check_channels(name: str, channels: int, expected: int) -> None:
    """Raises BadImage if an image has other channels than the others."""
    if channels != expected:
        s = "s" * (channels > 1)
        raise BadImage(name, f"has {channels} channel{s}, not {expected}", "remove it, or set channels")


def _is_of_bands(content: bytes, decoding: Decoding) -> bool:
    """Whether an image is a TIFF that may have any number of channels."""
    return not decoding.of_photos and is_tiff(content)


@contextmanager
def _explained(content: bytes, decoding: Decoding) -> Generator[None, None, None]:
    """Replaces the error of an image that is not a photo by one on its channels if they are why."""
    try:
        yield
    except BadImage as error:
        channels = channels_in(content) if decoding.of_photos else None
        if channels is None or channels in (1, 3):
            raise
        cause = f"has {channels} channels, not {decoding.channels}"
        raise BadImage(error.name, cause, f"set channels={channels}") from error


def named(source: str | Path | bytes, name: str) -> str:
    """The name for messages: a path is its own."""
    return name if isinstance(source, bytes) else str(source)
