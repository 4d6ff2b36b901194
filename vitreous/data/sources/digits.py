"""The embedded digits: scikit-learn's 1,797 handwritten digits of 8x8 pixels."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitreous.data.decoding.picture import Stored
from vitreous.data.sources.channels import check_of_photos
from vitreous.data.sources.options import DataOptions
from vitreous.data.sources.splits import ImageData, Loader, Split, hold_out

DIGITS = "digits"
TEST_FRACTION = 0.2  # of the digits, which have no test split of their own


@dataclass(frozen=True, eq=False)
class ArrayLoader(Loader):
    """Images from a byte array, "samples height width" if gray, or "samples height width channels"."""

    pixels: np.ndarray

    @property
    def in_memory(self) -> bool:
        return True

    def __call__(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def size(self, index: int) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[2]

    def content(self, index: int) -> bytes:
        return self.pixels[index].tobytes()

    def stored(self, index: int) -> Stored:
        return Stored(1 if self.pixels.ndim == 3 else self.pixels.shape[3], is_photo=True)


def open_digits(options: DataOptions) -> ImageData:
    """The digits, scaled from 0..16 to 0..255, of which a fixed fifth is the test split.

    Raises:
        InputError: other channels than 1 or 3 are asked for.
    """
    check_of_photos(DIGITS, options.channels)
    from sklearn.datasets import load_digits

    values, target = load_digits(return_X_y=True)
    values, target = np.asarray(values, np.float64), np.asarray(target, np.int64)
    pixels = np.rint(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    names = [f"{DIGITS}/{index:04}" for index in range(len(target))]
    indices: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for label in range(10):
        rest = np.flatnonzero(target == label)
        for name, fraction in (("test", TEST_FRACTION), ("validation", options.validation_fraction)):
            mask = hold_out([names[index] for index in rest.tolist()], fraction)
            indices[name] += rest[mask].tolist()
            rest = rest[~mask]
        indices["train"] += rest.tolist()

    def split(name: str) -> Split:
        chosen = indices[name]
        return Split(name, tuple(names[i] for i in chosen), target[chosen], ArrayLoader(pixels[chosen]))

    return ImageData(
        name=DIGITS,
        class_names=tuple("0123456789"),
        train=split("train"),
        validation=split("validation"),
        test=split("test"),
        native_size=(8, 8),
        channels=options.channels or 1,
        flip_ok=False,
        ignored={},
    )
