"""The views of a split's samples, which depend on a request alone, so that any process can load any batch."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from vitreous.data.augmentation import Augmentation
from vitreous.data.decoding.images import BadImage
from vitreous.data.preprocessing import Pixels, Preprocessing
from vitreous.data.sampling import sample_generator
from vitreous.data.sources.splits import Loader

IDLE = -1  # the position of a process that loads no image


class Request(NamedTuple):
    """One batch.

    Args:
        seed: of the views.
        epoch: of the views.
        samples: their indices in the split.
        visits: how often each occurred earlier in the epoch.
    """

    seed: int
    epoch: int
    samples: Int64[np.ndarray, " batch"]
    visits: Int64[np.ndarray, " batch"]


class Progress:
    """How far a process is: images begun in its life, and the position of the current one in its batch.

    Args:
        numbers: the two of them, in memory that another process can read.
    """

    def __init__(self, numbers: Int64[np.ndarray, "2"] | None = None) -> None:
        self.numbers = np.array((0, IDLE), np.int64) if numbers is None else numbers

    def begin(self, position: int) -> None:
        """Records that an image is begun; IDLE for none."""
        self.numbers[1] = position
        self.numbers[0] += 1

    @property
    def begun(self) -> int:
        """Grows with each image."""
        return int(self.numbers[0])

    @property
    def position(self) -> int:
        """Of the current image in its batch; IDLE between batches."""
        return int(self.numbers[1])


@dataclass(frozen=True, eq=False)
class Views:
    """Loads views; all that a loading process needs to know of a split.

    Args:
        load: decodes a sample.
        preprocessing: of the model.
        augmentation: makes random views; None for the image itself.
    """

    load: Loader
    preprocessing: Preprocessing
    augmentation: Augmentation | None

    def is_like(self, other: "Views") -> bool:
        """Whether these load the same bits."""
        same = self.preprocessing == other.preprocessing and self.augmentation == other.augmentation
        return same and self.load is other.load

    def shape(self, count: int) -> tuple[int, int, int, int]:
        """The (batch, channels, height, width) of so many views."""
        return count, self.preprocessing.channels, *self.preprocessing.image_size

    def pixels(self, request: Request, position: int) -> Pixels:
        """One view, different at each visit. Raises BadImage."""
        sample, visit = int(request.samples[position]), int(request.visits[position])
        if self.augmentation is None:
            return self.load.view(sample, self.preprocessing)
        image = self.load(sample)
        generator = sample_generator(request.seed, request.epoch, sample, visit)
        return self.augmentation.pixels(image, self.preprocessing, generator)

    def fill(
        self, rows: UInt8[np.ndarray, "batch channels height width"], request: Request, progress: Progress
    ) -> tuple[list[int], list[tuple[int, str]]]:
        """Loads a batch into the first rows.

        Args:
            rows: as many as the batch has samples, or more.
            request: the batch.
            progress: counts the images.

        Returns:
            The position in the batch of the sample in each row; position and reason of each broken image.
        """
        good: list[int] = []
        bad: list[tuple[int, str]] = []
        for position in range(len(request.samples)):
            progress.begin(position)
            try:
                rows[len(good)] = self.pixels(request, position).numpy()
            except BadImage as error:
                bad.append((position, error.reason))
            else:
                good.append(position)
        progress.begin(IDLE)
        return good, bad
