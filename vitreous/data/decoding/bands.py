"""Images with any number of channels, such as those of a satellite, which a Pillow image cannot hold."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from vitreous.data.decoding.images import MAX_VALUE, BadImage
from vitreous.support.errors import InputError
from vitreous.support.figures import visible

Box = tuple[int | float, int | float, int | float, int | float]  # left, top, right, bottom
MOST_CHANNELS = 1024


@dataclass(frozen=True, eq=False)
class Bands:
    """An image as one gray image per channel. It is resized and cropped as a Pillow image is, by the same methods.

    Args:
        bands: in mode "L", all of one size.
        info: as of a Pillow image: what was noticed while decoding.
    """

    bands: tuple[Image.Image, ...]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as of a Pillow image."""
        return self.bands[0].size

    @property
    def width(self) -> int:
        return self.bands[0].width

    @property
    def height(self) -> int:
        return self.bands[0].height

    def getbands(self) -> tuple[str, ...]:
        """The names of the channels: their numbers."""
        return tuple(map(str, range(len(self.bands))))

    def resize(self, size: tuple[int, int], method: Image.Resampling, box: Box) -> "Bands":
        """A box of the image, resampled to (width, height)."""
        return Bands(tuple(band.resize(size, method, box) for band in self.bands))

    def transform(
        self, size: tuple[int, int], method: Image.Transform, data: Box, resample: Image.Resampling
    ) -> "Bands":
        """A box of the image, sampled at (width, height) points."""
        return Bands(tuple(band.transform(size, method, data, resample) for band in self.bands))

    def crop(self, box: tuple[int, int, int, int]) -> "Bands":
        """A box of the image."""
        return Bands(tuple(band.crop(box) for band in self.bands))

    def transpose(self, method: Image.Transpose) -> "Bands":
        """The image, turned or mirrored."""
        return Bands(tuple(band.transpose(method) for band in self.bands), self.info)

    def shown(self) -> Image.Image:
        """The mean of the channels, as a gray image."""
        return Image.fromarray(visible(self.array().transpose(2, 0, 1))[0])

    def tobytes(self) -> bytes:
        """The bytes, with the channels last."""
        return self.array().tobytes()

    def array(self) -> np.ndarray:
        """The bytes, "height width channels"."""
        return np.stack([np.asarray(band) for band in self.bands], axis=-1)


Picture = Image.Image | Bands


def shown(picture: Picture) -> Image.Image:
    """An image as it can be shown: the mean of the channels of Bands."""
    return picture.shown() if isinstance(picture, Bands) else picture


def picture_of(values: np.ndarray, name: str = "the image", max_value: int = MAX_VALUE) -> Picture:
    """The image of an array: "height width" or "height width channels", as bytes, 16-bit numbers or floats in [0, 1].

    One channel gives a gray image and three a color image, both of Pillow; any other number gives Bands.

    Args:
        values: uint8; uint16, of which `max_value` becomes 255; or floats in [0, 1].
        name: for messages.
        max_value: of 16-bit numbers.

    Raises:
        BadImage: another shape or type, no pixels, or floats outside [0, 1].
    """
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or 0 in values.shape or values.shape[2] > MOST_CHANNELS:
        reason = f"has the shape {values.shape}, not (height, width) or (height, width, channels)"
        raise BadImage(name, reason, "move the channels to the end")
    if values.dtype == np.uint16:
        scaled = values.clip(0, max_value).astype(np.uint32) * 255 + max_value // 2
        values = (scaled // max_value).astype(np.uint8)
    elif values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):  # also NaN
            raise BadImage(name, "has floats outside [0, 1]", "scale them, or use uint8")
        values = np.rint(values * 255).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise BadImage(name, f"has values of type {values.dtype}", "use uint8, uint16 or floats in [0, 1]")
    values = np.ascontiguousarray(values)
    channels = values.shape[2]
    if channels in (1, 3):
        return Image.fromarray(values[:, :, 0] if channels == 1 else values)
    return Bands(tuple(Image.fromarray(np.ascontiguousarray(values[:, :, band])) for band in range(channels)))


def check_channels(name: str, channels: int, expected: int) -> None:
    """Raises BadImage if an image has other channels than the model, or the other images."""
    if channels != expected:
        hint = f"remove it, or train with channels={channels}"
        raise BadImage(name, f"has {channels} channel{'s' * (channels > 1)}, not {expected}", hint)


def check_color(channels: int, operations: dict[str, object]) -> None:
    """Raises InputError for operations on colors that are on, if the images have other channels than gray or RGB."""
    active = [f"{name}={value}".lower() for name, value in operations.items() if value]
    if channels not in (1, 3) and active:
        cause = f"{', '.join(active)} works on colors, and the images have {channels} channels"
        raise InputError(cause, "turn it off; crops, flips, erasing, mixup and cutmix work with any channels")
