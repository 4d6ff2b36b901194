"""Augmentation: the same picture, seen a little differently in each epoch."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vitreous.data.photometric import (
    TRIES,
    auto_augment,
    color_jitter,
    erased,
    fitting_box,
    rand_augment,
    trivial_augment,
)
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError

MOST_LAYERS = 10
MOST_MAGNITUDE = 30.0


@dataclass(frozen=True)
class Augmentation:
    """A random crop, resized (Szegedy et al., arXiv 1409.4842, section 6), a flip half of the time, and more if asked.

    In this order: crop, resize, flip, one of RandAugment, TrivialAugment and AutoAugment, color jitter, erasing.

    Args:
        flip: whether left and right may be swapped; not for digits or text.
        crop_scale: the crop's share of the area, drawn evenly from (lowest, highest).
        crop_ratio: the crop's width / height, drawn from (lowest, highest), evenly in its logarithm.
        randaugment_layers: operations of RandAugment, from 0 (none) to 10.
        randaugment_magnitude: their strength on its authors' scale, from 0 to 30; AugReg's are 0, 10, 15 and 20.
        trivial_augment: whether there is one operation of TrivialAugment; not together with RandAugment or AutoAugment.
        color_jitter: brightness, contrast and saturation each change by up to this share, from 0 (none) to 1.
        erasing: how often a box is erased, from 0 (never) to 1.
        auto_augment: whether there is one pair of operations of AutoAugment; not together with the other two.

    Raises:
        InputError: naming the field whose value is not valid.
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
        for name, (low, high), most in (
            ("crop_scale", self.crop_scale, 1.0),
            ("crop_ratio", self.crop_ratio, 100.0),
        ):
            if not 0 < low <= high <= most:
                raise InputError(f"{name} is {(low, high)}", f"it must be (lowest, highest), above 0, at most {most:g}")
        for name, value, most in (
            ("randaugment_layers", self.randaugment_layers, MOST_LAYERS),
            ("randaugment_magnitude", self.randaugment_magnitude, MOST_MAGNITUDE),
            ("color_jitter", self.color_jitter, 1),
            ("erasing", self.erasing, 1),
        ):
            if not 0 <= value <= most:
                raise InputError(f"{name} is {value}", f"it must be from 0 to {most:g}")
        given = [
            f"{name} is {value}".lower()
            for name, value in (
                ("randaugment_layers", self.randaugment_layers),
                ("trivial_augment", self.trivial_augment),
                ("auto_augment", self.auto_augment),
            )
            if value
        ]
        if len(given) > 1:
            raise InputError(" and ".join(given), "set one of them, and leave the others at 0 or false")

    def pixels(
        self, image: Image.Image, preprocessing: Preprocessing, generator: np.random.Generator
    ) -> UInt8[Tensor, "channels height width"]:
        """One random view of the image, of the size, colors and interpolation that `preprocessing` says.

        The same count of numbers is drawn in the same order whatever the image, so that what comes after a
        crop does not depend on how many tries it took; for what is switched off, nothing is drawn.
        """
        image = preprocessing.convert(image)
        flip = generator.random() < 0.5
        top, left, height, width = self.crop(image.height, image.width, generator.random((TRIES, 4)))
        view = preprocessing.resized(image.crop((left, top, left + width, top + height)))
        if flip and self.flip:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.randaugment_layers:
            view = rand_augment(view, self.randaugment_layers, self.randaugment_magnitude, generator)
        if self.trivial_augment:
            view = trivial_augment(view, generator)
        if self.auto_augment:
            view = auto_augment(view, generator)
        if self.color_jitter:
            view = color_jitter(view, self.color_jitter, generator)
        pixels = preprocessing.to_tensor(view)
        return erased(pixels, self.erasing, generator) if self.erasing else pixels

    def crop(self, height: int, width: int, draws: np.ndarray) -> tuple[int, int, int, int]:
        """The (top, left, height, width) of a crop of an image of height x width.

        Each try makes a shape of four numbers in [0, 1): area, ratio, top, left; the first shape that fits is
        taken. If none fits, which long strips come to, the middle is: all of it that the range of ratios
        allows.
        """
        box = fitting_box(height, width, self.crop_scale, self.crop_ratio, draws)
        if box is not None:
            return box
        narrow, wide = self.crop_ratio
        rows = min(height, max(1, round(width / narrow)))
        columns = min(width, max(1, round(height * wide)))
        return (height - rows) // 2, (width - columns) // 2, rows, columns
