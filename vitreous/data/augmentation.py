"""Augmentation: the same picture, seen a little differently in each epoch."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError

TRIES = 10


@dataclass(frozen=True)
class Augmentation:
    """A random crop, resized (Szegedy et al., arXiv 1409.4842, section 6), and a flip half of the time.

    Args:
        flip: whether left and right may be swapped; not for digits or text.
        crop_scale: the crop's share of the area, drawn evenly from (lowest, highest).
        crop_ratio: the crop's width / height, drawn from (lowest, highest), evenly in its logarithm.

    Raises:
        InputError: naming the range that is not one.
    """

    flip: bool = True
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        for name, (low, high), most in (
            ("crop_scale", self.crop_scale, 1.0),
            ("crop_ratio", self.crop_ratio, 100.0),
        ):
            if not 0 < low <= high <= most:
                raise InputError(f"{name} is {(low, high)}", f"it must be (lowest, highest), above 0, at most {most:g}")

    def pixels(
        self, image: Image.Image, preprocessing: Preprocessing, generator: np.random.Generator
    ) -> UInt8[Tensor, "channels height width"]:
        """One random view of the image, of the size, colours and interpolation that `preprocessing` says.

        The same count of numbers is drawn in the same order whatever the image, so that what comes after a
        crop does not depend on how many tries it took.
        """
        image = preprocessing.convert(image)
        flip = generator.random() < 0.5
        top, left, height, width = self.crop(image.height, image.width, generator.random((TRIES, 4)))
        view = preprocessing.resized(image.crop((left, top, left + width, top + height)))
        if flip and self.flip:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return preprocessing.to_tensor(view)

    def crop(self, height: int, width: int, draws: np.ndarray) -> tuple[int, int, int, int]:
        """The (top, left, height, width) of a crop of an image of height x width.

        Each try makes a shape of four numbers in [0, 1): area, ratio, top, left; the first shape that fits is
        taken. If none fits, which long strips come to, the middle is: all of it that the range of ratios
        allows.
        """
        (low, high), (narrow, wide) = self.crop_scale, self.crop_ratio
        for area, ratio, down, right in draws.tolist():
            target = height * width * (low + area * (high - low))
            shape = math.exp(math.log(narrow) + ratio * (math.log(wide) - math.log(narrow)))
            rows, columns = round(math.sqrt(target / shape)), round(math.sqrt(target * shape))
            if 0 < rows <= height and 0 < columns <= width:
                return int(down * (height - rows + 1)), int(right * (width - columns + 1)), rows, columns
        rows = min(height, max(1, round(width / narrow)))
        columns = min(width, max(1, round(height * wide)))
        return (height - rows) // 2, (width - columns) // 2, rows, columns
