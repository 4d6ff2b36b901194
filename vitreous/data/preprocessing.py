"""The input a model expects: size, crop, interpolation, mean and standard deviation."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from vitreous.data.decoding.bands import MOST_CHANNELS, Bands, Box, Picture, check_channels
from vitreous.data.decoding.depth import MAX_VALUE, to_rgb
from vitreous.support.errors import InputError, unknown

RESIZES = ("squash", "crop")
ROUNDINGS = ("even", "down")
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
WITHOUT_ANTIALIAS = ("nearest", "bilinear", "bicubic")
Pixels = UInt8[Tensor, "channels height width"]
MAX_SIDE = 8192  # of a model's input, since files are not trusted
MAX_RESIZED = 2**26  # pixels, before the center crop


@dataclass(frozen=True)
class Preprocessing:
    """Converts images to model inputs: resizing and cropping give bytes, which are normalized on the device.

    Args:
        image_size: (height, width) of the result, in pixels.
        resize: "squash" resizes to `image_size / crop_fraction` and ignores the aspect ratio, "crop" keeps it and
            resizes to cover that size; then the center is cropped to `image_size`.
        crop_fraction: in (0, 1]; 0.875 is the usual 224 of 256.
        interpolation: the name of a Pillow filter.
        antialias: whether the filter widens when downsampling. The paper's pipeline did not.
        mean: per channel, for values in [0, 1].
        std: per channel, for values in [0, 1].
        channels: 3 (RGB), 1 (gray) or any other number, for images that have just as many.
        crop_rounding: how an offset of half a pixel is rounded: "even" as in torchvision, or "down" as in transformers.
        trim: rows and columns to cut off at the bottom and right after the crop, for weights whose own code ignores
            pixels beyond the last whole patch; `image_size` is the size after it.
        max_value: of 16-bit images, which becomes 255: that of the training images.

    Raises:
        InputError: a field has an invalid value.
    """

    image_size: tuple[int, int]
    resize: Literal["squash", "crop"] = "squash"
    crop_fraction: float = 1.0
    interpolation: str = "bilinear"
    antialias: bool = True
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    channels: int = 3
    crop_rounding: Literal["even", "down"] = "even"
    trim: tuple[int, int] = (0, 0)
    max_value: int = MAX_VALUE

    def __post_init__(self) -> None:
        _check(vars(self))

    def pixels(self, image: Picture) -> Pixels:
        """The image, of any mode and size, resized and cropped, as bytes."""
        return self.to_tensor(self.fitted(image))

    def fitted(self, image: Picture) -> Picture:
        """The image, of any mode and size, resized and cropped to `image_size`."""
        cropped = self._cropped(self.convert(image))
        height, width = self.image_size
        return cropped.crop((0, 0, width, height)) if any(self.trim) else cropped

    def normalize(
        self, images: UInt8[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """(x / 255 - mean) / std in float32 on the device of the images, as one multiply-add."""
        scale, shift = _scale_and_shift(self.mean, self.std, images.device)
        return images.float().mul_(scale).add_(shift)  # in place, without further buffers

    def __call__(self, images: Sequence[Picture]) -> Float[Tensor, "batch channels height width"]:
        """The images as a batch for the model."""
        return self.normalize(self.stack([self.pixels(image) for image in images]))

    def stack(self, pixels: list[Pixels]) -> UInt8[Tensor, "batch channels height width"]:
        """The bytes of several images as a batch, which may be empty."""
        return torch.stack(pixels) if pixels else torch.empty(0, self.channels, *self.image_size, dtype=torch.uint8)

    def convert(self, image: Picture) -> Picture:
        """The image in mode "RGB", "L" for one channel, or as Bands for other numbers.

        Raises:
            BadImage: it has another number of channels, and is not a photo that can be converted.
        """
        bands = image.getbands()
        if self.channels not in (1, 3) or isinstance(image, Bands):
            check_channels("the image", len(bands), self.channels)
            return image if isinstance(image, Bands) else Bands(image.split())
        if self.channels == 3:
            return to_rgb(image, self.max_value)
        return image if image.mode == "L" else to_rgb(image, self.max_value).convert("L")

    def resized(self, image: Picture) -> Picture:
        """The whole image resized to `image_size`, regardless of its aspect ratio."""
        height, width = self.image_size
        return self._resample(image, (width, height), (0, 0, image.width, image.height))

    def to_tensor(self, image: Picture) -> Pixels:
        """The bytes of an image that `convert` returned."""
        values = torch.from_numpy(image.array() if isinstance(image, Bands) else np.array(image))
        return values.unsqueeze(0) if self.channels == 1 else values.permute(2, 0, 1).contiguous()

    def adapted(self, image_size: tuple[int, int], channels: int) -> "Preprocessing":
        """A copy for another size and number of channels; new channels get the average of the statistics."""
        mean, std = self.mean, self.std
        if channels != self.channels:
            mean, std = ((sum(values) / self.channels,) * channels for values in (mean, std))
        trim = self.trim if image_size == self.image_size else (0, 0)
        return replace(self, image_size=image_size, mean=mean, std=std, channels=len(mean), trim=trim)

    def trimmed(self, image_size: tuple[int, int]) -> "Preprocessing":
        """A copy that cuts off the last rows and columns beyond `image_size`."""
        height, width = (whole - part for whole, part in zip(self.whole_size, image_size, strict=True))
        return replace(self, image_size=image_size, trim=(height, width))

    @property
    def whole_size(self) -> tuple[int, int]:
        """(height, width) before `trim`."""
        return self.image_size[0] + self.trim[0], self.image_size[1] + self.trim[1]

    @property
    def cover_size(self) -> tuple[int, int]:
        """(height, width) to resize to, or to cover, before the center crop."""
        height, width = self.whole_size
        # Plus a little, since 224 / (224 / 232) must be 232.
        return math.floor(height / self.crop_fraction + 1e-6), math.floor(width / self.crop_fraction + 1e-6)

    def summary(self) -> str:
        """A description on one line."""
        size = "×".join(map(str, self.whole_size))
        how = "squashed" if self.resize == "squash" else "resized"
        if self.crop_fraction < 1:
            how += f", center crop of {100 * self.crop_fraction:.3g}%,"
        elif self.resize == "crop":
            how += ", center crop"
        channels = [f"{tuple(round(v, 3) for v in values)}" for values in (self.mean, self.std)]
        size += f" and {self.trim[0]}×{self.trim[1]} cut off at the lower right" if any(self.trim) else ""
        deep = "" if self.max_value == MAX_VALUE else f", white at {self.max_value:,} in images of more than 8 bits"
        return f"{how} to {size}, {self.interpolation}, mean {channels[0]}, std {channels[1]}{deep}"

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`. Raises InputError for missing or unknown keys and invalid values."""
        later = {name: getattr(cls, name) for name in ("crop_rounding", "trim", "max_value")}
        values = {**later, **values}  # not in the first versions of files
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise unknown("preprocessing key", name, names)
        missing = [name for name in names if name not in values]
        if missing:
            raise InputError(f"the preprocessing has no {', '.join(missing)}", "save the model again")
        _check(values)
        pairs = {name: tuple(values[name]) for name in ("image_size", "trim")}
        statistics = {name: tuple(map(float, values[name])) for name in ("mean", "std")}
        converted: dict[str, Any] = {**values, **pairs, **statistics, "crop_fraction": float(values["crop_fraction"])}
        return cls(**converted)

    def _cropped(self, image: Picture) -> Picture:
        """The image resized to `image_size / crop_fraction` and center-cropped, with torchvision's bits."""
        height, width = self.whole_size
        cover_height, cover_width = self.cover_size
        if self.resize == "squash":
            rows, columns = cover_height, cover_width
        elif image.height * cover_width <= image.width * cover_height:  # the height is the tighter side
            rows, columns = cover_height, cover_height * image.width // image.height
        else:
            rows, columns = cover_width * image.height // image.width, cover_width
        half = round if self.crop_rounding == "even" else math.floor
        top, left = half((rows - height) / 2), half((columns - width) / 2)
        if rows * columns > MAX_RESIZED:  # a strip such as 1 x 60000: compute only the center, on the same grid
            y, x = image.height / rows, image.width / columns
            box = (left * x, top * y, (left + width) * x, (top + height) * y)
            return self._resample(image, (width, height), box)
        resized = self._resample(image, (columns, rows), (0, 0, image.width, image.height))
        return resized.crop((left, top, left + width, top + height))

    def _resample(self, image: Picture, size: tuple[int, int], box: Box) -> Picture:
        """A box of the image, resampled to `size`, (width, height)."""
        method = INTERPOLATIONS[self.interpolation]
        if self.antialias or image.size == size:
            return image.resize(size, method, box)
        return image.transform(size, Image.Transform.EXTENT, box, method)


def _check(values: Mapping[str, Any]) -> None:
    """Raises InputError for the first field whose value is invalid; values may have any type."""
    if values["interpolation"] not in tuple(INTERPOLATIONS):  # not a dict lookup: a file may contain []
        raise unknown("interpolation", str(values["interpolation"]), INTERPOLATIONS)
    channels, fraction, antialias, std = (values[n] for n in ("channels", "crop_fraction", "antialias", "std"))
    unsmoothed = antialias is False and values["interpolation"] in WITHOUT_ANTIALIAS
    deepest = values["max_value"]
    each = f"a list of {channels} finite numbers, one per channel"
    rules = (
        ("channels", _is_whole(channels) and 1 <= channels <= MOST_CHANNELS, f"from 1 to {MOST_CHANNELS}"),
        ("image_size", _is_size(values["image_size"]), f"(height, width), each from 1 to {MAX_SIDE}"),
        ("resize", values["resize"] in RESIZES, " or ".join(RESIZES)),
        ("crop_fraction", _are_numbers([fraction]) and 0 < fraction <= 1, "in (0, 1]"),
        ("antialias", antialias is True or unsmoothed, f"true, or false with {', '.join(WITHOUT_ANTIALIAS)}"),
        ("crop_rounding", values["crop_rounding"] in ROUNDINGS, " or ".join(ROUNDINGS)),
        ("trim", _is_size(values["trim"], least=0), f"(rows, columns), each from 0 to {MAX_SIDE}"),
        ("mean", _are_numbers(values["mean"]) and len(values["mean"]) == channels, each),
        ("max_value", _is_whole(deepest) and 1 <= deepest <= MAX_VALUE, f"a whole number from 1 to {MAX_VALUE:,}"),
        ("std", _are_numbers(std) and len(std) == channels and min(std) > 0, f"{each}, above 0"),
    )
    for name, holds, valid in rules:
        if not holds:
            raise InputError(f"the preprocessing's {name} is {values[name]!r}", f"it must be {valid}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: object, least: int = 1) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2
    return pair and all(_is_whole(side) and least <= side <= MAX_SIDE for side in value)


def _are_numbers(values: object) -> bool:
    if not isinstance(values, list | tuple) or not all(isinstance(v, float) or _is_whole(v) for v in values):
        return False
    return all(abs(v) <= sys.float_info.max for v in values)  # not isfinite, which fails for 10**400


@lru_cache(maxsize=16)
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Scale and shift, each "channels 1 1": x * scale + shift == (x / 255 - mean) / std."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(-1, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(-1, 1, 1)
    return scale, shift
