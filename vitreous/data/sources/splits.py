"""Labeled images in splits, which every source returns, and how images are held out for validation."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from vitreous.data.decoding.bands import Picture
from vitreous.data.decoding.images import DEFAULT, Decoding
from vitreous.data.decoding.picture import Stored
from vitreous.data.preprocessing import Pixels, Preprocessing
from vitreous.support.counts import spread

SAMPLED = 32  # images that stand for all of a split: in their size, their channels and the range of their values


class Loader(ABC):
    """Loads the samples of a split by their index; errors are BadImage.

    It can be pickled for a worker process, and called by several threads at once.
    """

    @property
    def in_memory(self) -> bool:
        """Whether the samples are arrays, none of which can be broken."""
        return False

    @abstractmethod
    def __call__(self, index: int) -> Picture:
        """The decoded image."""

    @abstractmethod
    def size(self, index: int) -> tuple[int, int]:
        """The (height, width) of the image, without decoding it where its format allows."""

    @abstractmethod
    def content(self, index: int) -> bytes:
        """What identifies a sample: the bytes of its file, or its pixels if it has none."""

    def decode(self, index: int, content: bytes) -> Picture:
        """The decoded image of a sample whose `content` is at hand, so that no file is read again."""
        return self(index)

    def maximum(self, index: int) -> int | float | None:
        """The largest value of an image with more than 8 bits; None for others.

        A loader that scales such images by its `decoding` returns it without that scale.
        """
        return None

    def stored(self, index: int) -> Stored | None:
        """The channels of the sample as its source has it; None if the source says how many channels there are."""
        return None

    def stamp(self, index: int) -> bytes:
        """Something that changes with the file of a sample, and is known without reading the file if possible."""
        return self.content(index)

    def at_least(self, side: int) -> "Loader":
        """A loader that may reduce large images while decoding, to a shorter side of at least `side` pixels."""
        return self

    def view(self, index: int, preprocessing: Preprocessing) -> Pixels:
        """The pixels that a model evaluates."""
        return preprocessing.pixels(self(index))

    @property
    def settings(self) -> object:
        """What else decides the decoded image; its `repr` is compared."""
        return None


@dataclass(frozen=True, eq=False)
class Split:
    """The samples of one split, ordered by class.

    Args:
        name: "train", "validation" or "test".
        names: the path of each sample relative to the source, with "/".
        labels: class numbers, int64, one per sample.
        load: decodes a sample by its index.
    """

    name: str
    names: tuple[str, ...]
    labels: np.ndarray
    load: Loader

    def __len__(self) -> int:
        return len(self.names)

    def sampled(self) -> list[int]:
        """A few samples that stand for all, spread evenly."""
        return spread(len(self), SAMPLED).tolist()


@dataclass(frozen=True, eq=False)
class ImageData:
    """An opened source of labeled images.

    Args:
        name: the source as the user named it.
        class_names: of the labels, in natural order.
        train: for training.
        validation: for model selection.
        test: read once, at the end; None if the source has no test split.
        native_size: the median (height, width) of some training images.
        channels: of the images that a model gets: 3 (RGB), 1 (gray), or as many as the images have.
        flip_ok: whether an image flipped left to right still has its class.
        ignored: how many other files and folders there are, by kind; without clutter such as .DS_Store.
        notes: what the user should know of how the source was read, a sentence each.
        decoding: of its images.
        in_python: whether the source is an object of a program, which no command line can name.
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
    notes: tuple[str, ...] = ()
    decoding: Decoding = DEFAULT
    in_python: bool = False

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that there are, train first."""
        return tuple(split for split in (self.train, self.validation, self.test) if split is not None)


def hold_out(names: Sequence[str], fraction: float) -> np.ndarray:
    """A mask over the names of one class: true for the fraction with the smallest hashes.

    Of n names, max(1, round(n * fraction)) are held out, but never all: of a single name, none.
    """
    count = min(max(1, round(len(names) * fraction)), len(names) - 1)
    hashes = [blake2b(os.fsencode(name), digest_size=8).digest() for name in names]
    mask = np.zeros(len(names), dtype=bool)
    mask[sorted(range(len(names)), key=lambda index: (hashes[index], names[index]))[:count]] = True
    return mask
