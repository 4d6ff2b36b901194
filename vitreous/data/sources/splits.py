"""Labeled images, opened and split: what every source gives, and how images are held out for validation."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from PIL import Image


@dataclass(frozen=True, eq=False)
class Split:
    """Samples of one split, classes one after the other.

    Args:
        name: "train", "validation" or "test".
        names: what each sample is called: its path relative to the source, with "/".
        labels: class numbers, int64, one per sample.
        load: decodes one sample by its place; raises BadImage. Can be sent to a worker process.
    """

    name: str
    names: tuple[str, ...]
    labels: np.ndarray
    load: Callable[[int], Image.Image]

    def __len__(self) -> int:
        return len(self.names)

    def class_counts(self, num_classes: int) -> list[int]:
        """Samples of each class."""
        return np.bincount(self.labels, minlength=num_classes).tolist()


@dataclass(frozen=True, eq=False)
class ImageData:
    """A source, opened and split.

    Args:
        name: the source, as it was given.
        class_names: a label is a place in here; sorted as people count.
        train: what is learned from.
        validation: what choices are made on.
        test: what is read once, at the end; None where there is none.
        native_size: the usual (height, width) of the images: the median over some of train.
        channels: 3 (RGB) or 1 (gray).
        flip_ok: whether an image swapped left and right is still of its class.
        ignored: what the source holds besides, and how many; not what systems leave, such as .DS_Store.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None
    native_size: tuple[int, int]
    channels: int
    flip_ok: bool
    ignored: dict[str, int]


def hold_out(names: Sequence[str], fraction: float) -> np.ndarray:
    """Which of one class's names are held out, as a mask: a `fraction`, those with the smallest hashes.

    Of n names max(1, round(n * fraction)), but one stays: of a single name, none is held out.
    """
    count = min(max(1, round(len(names) * fraction)), len(names) - 1)
    hashes = [blake2b(os.fsencode(name), digest_size=8).digest() for name in names]
    mask = np.zeros(len(names), dtype=bool)
    mask[sorted(range(len(names)), key=lambda place: (hashes[place], names[place]))[:count]] = True
    return mask
