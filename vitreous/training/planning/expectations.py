"""What accuracy to expect from scratch, from the runs of docs/results.md; a test compares these numbers with them."""

import math
from typing import NamedTuple

DOCUMENT = "docs/results.md"
SPREAD = 0.05  # of an expectation, to both sides
NEAR = math.log(10)  # of images and classes together, as logarithms of their ratios; beyond it nothing is expected


class Measured(NamedTuple):
    """A run from scratch whose accuracy was measured.

    Args:
        run: its name in experiments/results.
        images: trained on.
        classes: of the images.
        accuracy: in [0, 1], the mean over its seeds.
    """

    run: str
    images: int
    classes: int
    accuracy: float


FROM_SCRATCH = (
    Measured("transfer/scratch", 201, 3, 0.595),
    Measured("photos-from-scratch/small-data", 2_374, 3, 0.821),
    Measured("cifar10/vitreous", 45_000, 10, 0.491),
    Measured("pretraining/supervised", 39_673, 45, 0.341),
)
# The same images as the first, from weights that were trained on other photos.
FROM_WEIGHTS = Measured("transfer/from-supervised", 201, 3, 0.782)


def expectation_line(images: int, classes: int) -> str:
    """What to expect from scratch, in a line: a range if a run of about that size was measured, and that run.

    Args:
        images: to train on.
        classes: of the images.
    """
    distance, nearest = min((distance_of(row, images, classes), row) for row in FROM_SCRATCH)
    known = f"{shown(nearest)} reached {percent(nearest.accuracy)} ({DOCUMENT})"
    if distance <= NEAR:
        expected = among(classes, nearest)
        low, high = (min(max(in_fives(expected + side), 0), 100) for side in (-SPREAD, SPREAD))
        start = f"from scratch, expect roughly {low} to {high} % on new photos: {known}"
    else:
        start = f"from scratch on {images:,} images of {classes:,} classes, no similar run was measured: {known}"
    gain = f"from {percent(FROM_SCRATCH[0].accuracy)} to {percent(FROM_WEIGHTS.accuracy)}"
    return f"{start}; pre-trained weights took {shown(FROM_WEIGHTS)} {gain}: give some with --model"


def distance_of(row: Measured, images: int, classes: int) -> float:
    """How different a measured run is in size."""
    return abs(math.log(images / row.images)) + abs(math.log(classes / row.classes))


def among(classes: int, row: Measured) -> float:
    """The accuracy of a run for another number of classes, with the same share of what guessing misses."""
    skill = (row.accuracy - 1 / row.classes) / (1 - 1 / row.classes)
    return 1 / classes + skill * (1 - 1 / classes)


def in_fives(share: float) -> int:
    """A share in percent, to the nearest 5."""
    return 5 * round(20 * share)


def shown(row: Measured) -> str:
    """Its size: 201 images of 3 classes."""
    return f"{row.images:,} images of {row.classes} classes"


def percent(share: float) -> str:
    """A share as the document has it: 59.5 %."""
    return f"{100 * share:.1f} %"
