"""Augmentation: a random view of an image, different in each epoch."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitreous.data.decoding.bands import Bands, Picture, check_color
from vitreous.data.decoding.images import cropped
from vitreous.data.photometric import (
    TRIES,
    auto_augment,
    color_jitter,
    erased,
    fitting_box,
    rand_augment,
    trivial_augment,
)
from vitreous.data.preprocessing import Pixels, Preprocessing
from vitreous.support.errors import InputError

MAXIMA = {"randaugment_layers": 10, "randaugment_magnitude": 30.0, "color_jitter": 1, "erasing": 1}
EXCLUSIVE = ("randaugment_layers", "trivial_augment", "auto_augment")


@dataclass(frozen=True)
class Augmentation:
    """A random resized crop (Szegedy et al., arXiv 1409.4842, section 6), a random flip, and optional operations.

    The order is: crop, resize, flip, one of RandAugment, TrivialAugment and AutoAugment, color jitter, erasing.

    Args:
        flip: whether to flip left to right with probability 1/2; not for digits or text.
        crop_scale: range of the crop's share of the area, drawn uniformly.
        crop_ratio: range of the crop's width / height, drawn uniformly in its logarithm.
        randaugment_layers: operations of RandAugment, from 0 (off) to 10.
        randaugment_magnitude: their strength on the authors' scale, from 0 to 30; AugReg uses 0, 10, 15 and 20.
        trivial_augment: whether to apply TrivialAugment; excludes RandAugment and AutoAugment.
        color_jitter: largest relative change of brightness, contrast and saturation, from 0 (off) to 1.
        erasing: probability of erasing a box, from 0 to 1.
        auto_augment: whether to apply AutoAugment; excludes the other two.

    Raises:
        InputError: a field has an invalid value, or two exclusive operations are on.
    """

    flip: bool = True
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    randaugment_layers: int = 0
    randaugment_magnitude: float = 10.0
    trivial_augment: bool = False
    color_jitter: float = 0.0
    erasing: float = 0.0
    auto_augment: bool = False

    def __post_init__(self) -> None:
        for name, (low, high), most in (("crop_scale", self.crop_scale, 1.0), ("crop_ratio", self.crop_ratio, 100.0)):
            if not 0 < low <= high <= most:
                raise InputError(f"{name} is {(low, high)}", f"use (lowest, highest), above 0 and at most {most:g}")
        for name, most in MAXIMA.items():
            if not 0 <= (value := getattr(self, name)) <= most:
                raise InputError(f"{name} is {value}", f"set it from 0 to {most:g}")
        exclusive = [f"{name} is {value}".lower() for name in EXCLUSIVE if (value := getattr(self, name))]
        if len(exclusive) > 1:
            raise InputError(" and ".join(exclusive), "set one of them, and leave the others at 0 or false")

    def pixels(self, image: Picture, preprocessing: Preprocessing, generator: np.random.Generator) -> Pixels:
        """One random view of the image, with the size, channels and interpolation of `preprocessing`.

        The number of draws depends on the settings alone, so later operations do not depend on how many tries the crop
        took. An operation that is off draws nothing.
        """
        image = preprocessing.convert(image)
        flip = generator.random() < 0.5
        top, left, height, width = self.crop(image.height, image.width, generator.random((TRIES, 4)))
        box = left, top, left + width, top + height
        view = preprocessing.resized(image.crop(box) if isinstance(image, Bands) else cropped(image, box))
        if flip and self.flip:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = preprocessing.to_tensor(view if isinstance(view, Bands) else self._recolored(view, generator))
        return erased(pixels, self.erasing, generator) if self.erasing else pixels

    def _recolored(self, view: Image.Image, generator: np.random.Generator) -> Image.Image:
        """The view after the operations on colors."""
        if self.randaugment_layers:
            view = rand_augment(view, self.randaugment_layers, self.randaugment_magnitude, generator)
        if self.trivial_augment:
            view = trivial_augment(view, generator)
        if self.auto_augment:
            view = auto_augment(view, generator)
        if self.color_jitter:
            view = color_jitter(view, self.color_jitter, generator)
        return view

    def check_channels(self, channels: int) -> None:
        """Raises InputError if an operation on colors is on, and images with these channels have none."""
        check_color(channels, {name: getattr(self, name) for name in (*EXCLUSIVE, "color_jitter")})

    def needed_side(self, image_size: tuple[int, int]) -> int:
        """The shorter side of an image, in pixels, from which the smallest crop still fills `image_size`."""
        return math.ceil(max(image_size) / math.sqrt(self.crop_scale[0]))

    def crop(self, height: int, width: int, draws: np.ndarray) -> tuple[int, int, int, int]:
        """The (top, left, height, width) of a crop of an image of height x width.

        Each try draws four numbers in [0, 1): area, ratio, top, left; the first box that fits is used. If none fits, as
        in long strips, the crop is the largest in the center that `crop_ratio` allows.
        """
        box = fitting_box(height, width, self.crop_scale, self.crop_ratio, draws)
        if box is not None:
            return box
        narrow, wide = self.crop_ratio
        rows = min(height, max(1, round(width / narrow)))
        columns = min(width, max(1, round(height * wide)))
        return (height - rows) // 2, (width - columns) // 2, rows, columns
