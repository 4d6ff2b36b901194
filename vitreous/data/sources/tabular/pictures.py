"""Images that a program holds in memory or computes: PIL images, bytes, paths, arrays and tensors."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from vitreous.data.depth import is_deep, largest_value
from vitreous.data.images import BadImage, Decoding, decode_image, deep_maximum, file_bytes, header_size, upright_rgb
from vitreous.data.sources.splits import Loader
from vitreous.support.errors import InputError

CHANNELS = (1, 3, 4)
KINDS = "a PIL image, the bytes or the path of an image file, or 8-bit pixels as an array or tensor"
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

    def _opened(self, index: int) -> Any:
        """A PIL image, or the path or the bytes of a file."""
        name = self.names[index]
        try:
            return as_opened(self.picture(index))
        except BadImage:
            raise
        except Exception as error:  # the program's own code may raise anything
            raise BadImage(name, f"cannot be read: {type(error).__name__}: {error}", "check this sample") from error

    def __call__(self, index: int) -> Image.Image:
        opened, name = self._opened(index), self.names[index]
        if not isinstance(opened, Image.Image):
            return decode_image(opened, name, self.decoding)
        if opened.width * opened.height > self.decoding.max_pixels:
            raise BadImage(name, f"is too large: {opened.width} x {opened.height} pixels", "make it smaller")
        return upright_rgb(opened, name, self.decoding)

    def size(self, index: int) -> tuple[int, int]:
        opened = self._opened(index)
        if isinstance(opened, Image.Image):
            return opened.height, opened.width
        return header_size(opened, self.names[index], self.decoding)

    def content(self, index: int) -> bytes:
        opened = self._opened(index)
        if isinstance(opened, Image.Image):
            return f"{opened.mode} {opened.size} ".encode() + opened.tobytes()
        return file_bytes(opened, self.names[index], self.decoding)

    def maximum(self, index: int) -> int | float | None:
        opened = self._opened(index)
        if isinstance(opened, Image.Image):
            return largest_value(opened) if is_deep(opened.mode) else None
        return deep_maximum(opened, self.names[index], self.decoding)

    @property
    def settings(self) -> Decoding:
        return self.decoding

    def at_least(self, side: int) -> Self:
        return replace(self, decoding=replace(self.decoding, at_least=side))


def as_opened(picture: Any) -> Image.Image | str | Path | bytes:
    """A picture as a PIL image, or as the path or the bytes of a file.

    Arrays are "height width" or "height width channels", tensors "channels height width" or "height width", both of
    8 bits; gray ones may have 16 bits.

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
        return _from_pixels(picture)
    raise InputError(f"an image is a {type(picture).__name__}", f"give {KINDS}")


def _from_pixels(picture: Any) -> Image.Image:
    """An image from an array or a tensor."""
    is_tensor = type(picture).__module__.startswith(("torch", "torchvision"))
    pixels = np.asarray(picture.detach().cpu() if is_tensor else picture)
    shape = "x".join(map(str, pixels.shape))
    if pixels.dtype.kind == "f":
        raise InputError(f"an image is a {shape} {'tensor' if is_tensor else 'array'} of floats", UNNORMALIZED)
    if pixels.ndim == 3:
        first = pixels.shape[0] in CHANNELS and (is_tensor or pixels.shape[2] not in CHANNELS)
        pixels = np.moveaxis(pixels, 0, 2) if first else pixels
        if pixels.shape[2] not in CHANNELS:
            raise InputError(f"an image has the shape {shape}", "give 1, 3 or 4 channels")
        pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise InputError(f"an image has the shape {shape}", "give a height, a width and channels")
    if pixels.dtype == np.uint16 and pixels.ndim == 2:
        return Image.fromarray(np.ascontiguousarray(pixels))
    if pixels.dtype != np.uint8:
        raise InputError(f"an image is a {shape} array of {pixels.dtype}", "give uint8 pixels from 0 to 255")
    return Image.fromarray(np.ascontiguousarray(pixels))
