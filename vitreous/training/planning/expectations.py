"""What accuracy to expect from scratch, from the runs of docs/results.md; a test compares these numbers with them."""

import math
from typing import NamedTuple

DOCUMENT = "docs/results.md"
NEAR = math.log(10)  # of images and classes together, as logarithms of their ratios; beyond it nothing is expected


class Measured(NamedTuple):
    """A run whose accuracy was measured.

    Args:
        run: its name in experiments/results.
        images: trained on.
        classes: of the images.
        side: of the images, in pixels.
        minutes: that it took on two CPU cores, the mean over its seeds.
        accuracy: in [0, 1], the mean over its seeds.
    """

    run: str
    images: int
    classes: int
    side: int
    minutes: int
    accuracy: float


FROM_SCRATCH = (
    Measured("transfer/scratch", 201, 3, 64, 2, 0.595),
    Measured("photos-from-scratch/small-data", 2_374, 3, 64, 12, 0.821),
    Measured("cifar10/vitreous", 45_000, 10, 32, 16, 0.491),
    Measured("pretraining/supervised", 39_673, 45, 64, 41, 0.341),
)
# The same images as the first, from weights that were trained on other photos.
FROM_WEIGHTS = Measured("transfer/from-supervised", 201, 3, 64, 3, 0.782)


def expectation_line(images: int, classes: int) -> str | None:
    """What to expect from scratch: the measured run nearest in size, with its conditions; None if none is near.

    Args:
        images: to train on.
        classes: of the images.
    """
    distance, nearest = min((distance_of(row, images, classes), row) for row in FROM_SCRATCH)
    if distance > NEAR:
        return None
    side, comparison = nearest.side, ""
    if nearest == FROM_SCRATCH[0]:
        comparison = f", and {percent(FROM_WEIGHTS.accuracy)} from pre-trained weights"
    return (
        f"what to expect: the nearest measured run, {nearest.images:,} images of {nearest.classes} classes "
        f"(guessing: {1 / nearest.classes:.0%}; here: {1 / classes:.0%}), reached {percent(nearest.accuracy)} "
        f"from scratch at {side}×{side} pixels in {nearest.minutes} minutes{comparison} ({DOCUMENT})"
    )


def distance_of(row: Measured, images: int, classes: int) -> float:
    """How different a measured run is in size."""
    return abs(math.log(images / row.images)) + abs(math.log(classes / row.classes))


def percent(share: float) -> str:
    """A share as the document has it: 59.5 %."""
    return f"{100 * share:.1f} %"
