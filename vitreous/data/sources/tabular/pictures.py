"""Images that a program holds in memory or computes: PIL images, bytes, paths, arrays and tensors."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from vitreous.data.decoding.bands import MOST_CHANNELS, Picture, picture_of
from vitreous.data.decoding.depth import is_deep, largest_of, largest_value, scaled_to_bytes
from vitreous.data.decoding.images import REMARKS, BadImage, Decoding, file_bytes, upright_rgb
from vitreous.data.decoding.picture import (
    Stored,
    check_channels,
    decode_picture,
    picture_maximum,
    picture_size,
    stored_channels,
)
from vitreous.data.sources.splits import Loader
from vitreous.support.errors import InputError

CHANNELS = (1, 3, 4)  # of photos
KINDS = "a PIL image, the bytes or the path of an image file, or 8- or 16-bit pixels as an array or tensor"
UNNORMALIZED = "remove ToTensor, ToDtype and Normalize from its transform: the preprocessing of the model does this"


@dataclass(frozen=True, eq=False)
class ObjectLoader(Loader):
    """Loads images of any kind that a program holds.

    Args:
        names: of the images.
        decoding: of their files and of 16-bit pixels.
    """

    names: tuple[str, ...]
    decoding: Decoding

    @abstractmethod
    def picture(self, index: int) -> Any:
        """The image as the program holds it."""

    def _opened(self, index: int) -> Image.Image | np.ndarray | str | Path | bytes:
        """A PIL image, pixels "height width channels", or the path or the bytes of a file."""
        name = self.names[index]
        try:
            return as_opened(self.picture(index), self.decoding.channels)
        except BadImage:
            raise
        except Exception as error:  # the program's own code may raise anything
            raise BadImage(name, f"cannot be read: {type(error).__name__}: {error}", "check this sample") from error

    def __call__(self, index: int) -> Picture:
        opened, name = self._opened(index), self.names[index]
        if not isinstance(opened, Image.Image | np.ndarray):
            return decode_picture(opened, name, self.decoding)
        height, width = self._checked(opened, name)
        if height * width > self.decoding.max_pixels:
            raise BadImage(name, f"is too large: {width} x {height} pixels", "make it smaller")
        picture = self._of_pixels(opened, name) if isinstance(opened, np.ndarray) else opened
        return upright_rgb(picture, name, self.decoding) if isinstance(picture, Image.Image) else picture

    def size(self, index: int) -> tuple[int, int]:
        opened, name = self._opened(index), self.names[index]
        if isinstance(opened, Image.Image | np.ndarray):
            return self._checked(opened, name)
        return picture_size(opened, name, self.decoding)

    def _checked(self, opened: Image.Image | np.ndarray, name: str) -> tuple[int, int]:
        """The (height, width) of an image in memory. Raises BadImage if it has other channels than the others."""
        expected, of_photos = self.decoding.channels, self.decoding.of_photos
        if isinstance(opened, Image.Image):
            if not of_photos:
                check_channels(name, len(opened.getbands()), expected)
            return opened.height, opened.width
        height, width, channels = opened.shape
        if not (of_photos and channels in CHANNELS):
            check_channels(name, channels, expected)
        return height, width

    def _of_pixels(self, pixels: np.ndarray, name: str) -> Picture:
        """The picture of an array; four channels are RGB and transparency, unless all images have four channels."""
        remark = None
        if pixels.dtype != np.uint8:
            pixels, remark = scaled_to_bytes(pixels, self.decoding.max_value)
        if self.decoding.of_photos and pixels.shape[2] == 4:
            picture = Image.fromarray(np.ascontiguousarray(pixels))
        else:
            picture = picture_of(pixels, name)
        if remark is not None:
            picture.info[REMARKS] = (remark,)
        return picture

    def content(self, index: int) -> bytes:
        opened = self._opened(index)
        if isinstance(opened, Image.Image):
            return f"{opened.mode} {opened.size} ".encode() + opened.tobytes()
        if isinstance(opened, np.ndarray):
            return f"{opened.dtype} {opened.shape} ".encode() + opened.tobytes()
        return file_bytes(opened, self.names[index], self.decoding)

    def maximum(self, index: int) -> int | float | None:
        opened = self._opened(index)
        if isinstance(opened, Image.Image):
            return largest_value(opened) if is_deep(opened.mode) else None
        if isinstance(opened, np.ndarray):
            return largest_of(opened) if opened.dtype == np.uint16 else None
        return picture_maximum(opened, self.names[index], self.decoding)

    def stored(self, index: int) -> Stored:
        opened = self._opened(index)
        if isinstance(opened, Image.Image):
            return Stored(len(opened.getbands()), is_photo=True)
        if isinstance(opened, np.ndarray):
            return Stored(opened.shape[2], is_photo=opened.shape[2] == 4, in_array=True)
        return stored_channels(opened, self.names[index], self.decoding)

    @property
    def settings(self) -> Decoding:
        return self.decoding

    def at_least(self, side: int) -> Self:
        return replace(self, decoding=replace(self.decoding, at_least=side))


def as_opened(picture: Any, channels: int = 3) -> Image.Image | np.ndarray | str | Path | bytes:
    """A picture as a PIL image, as an array "height width channels", or as the path or the bytes of a file.

    Arrays are "height width" or "height width channels", tensors "channels height width" or "height width", both of
    8 or 16 bits. Either may have its channels at the other end, if that is the end that has `channels`, those of a
    photo, or else fewer.

    Args:
        picture: of any kind.
        channels: that it probably has.

    Raises:
        InputError: it is of another kind, such as a tensor of floats.
    """
    if isinstance(picture, Image.Image | str | Path | bytes):
        return picture
    if isinstance(picture, bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, dict) and {"bytes", "path"} & picture.keys():  # as `datasets` has images undecoded
        content = picture.get("bytes")
        return content if content is not None else str(picture.get("path") or "")
    if hasattr(picture, "shape") and hasattr(picture, "dtype"):
        return _pixels(picture, channels)
    raise InputError(f"an image is of the type {type(picture).__name__}", f"give {KINDS}")


def _pixels(picture: Any, channels: int) -> np.ndarray:
    """The pixels of an array or a tensor, "height width channels"."""
    is_tensor = type(picture).__module__.startswith(("torch", "torchvision"))
    pixels = np.asarray(picture.detach().cpu() if is_tensor else picture)
    shape = "x".join(map(str, pixels.shape))
    if pixels.dtype.kind == "f":
        cause = f"an image is a {shape} {'tensor' if is_tensor else 'array'} of floats"
        raise InputError(cause, UNNORMALIZED if is_tensor else "give uint8 pixels from 0 to 255")
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise InputError(f"an image has the shape {shape}", "give a height, a width and channels")
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    elif _has_channels_first(pixels.shape, channels, is_tensor):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.shape[2] > MOST_CHANNELS:
        raise InputError(f"an image has the shape {shape}", f"give from 1 to {MOST_CHANNELS} channels")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"an image is a {shape} array of {pixels.dtype}", "give uint8 or uint16 pixels, from 0")
    return pixels


def _has_channels_first(shape: tuple[int, ...], channels: int, is_tensor: bool) -> bool:
    """Whether the channels are at the start of a shape: where the wanted ones are, a photo's, or else the fewer."""
    first, _, last = shape
    for wanted in ((channels,), CHANNELS):
        if first in wanted or last in wanted:
            return first in wanted and (is_tensor or last not in wanted)
    return first <= last if is_tensor else first < last
