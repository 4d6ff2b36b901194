"""A source without some of its samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vitreous.data.decoding.bands import Picture
from vitreous.data.decoding.picture import Stored
from vitreous.data.preprocessing import Pixels, Preprocessing
from vitreous.data.sources.splits import ImageData, Loader, Split


@dataclass(frozen=True, eq=False)
class ChosenLoader(Loader):
    """Some of the samples of another loader.

    Args:
        load: of all samples.
        places: which of them, in order.
    """

    load: Loader
    places: np.ndarray

    @property
    def in_memory(self) -> bool:
        return self.load.in_memory

    @property
    def settings(self) -> object:
        return self.load.settings

    def __call__(self, index: int) -> Picture:
        return self.load(int(self.places[index]))

    def size(self, index: int) -> tuple[int, int]:
        return self.load.size(int(self.places[index]))

    def content(self, index: int) -> bytes:
        return self.load.content(int(self.places[index]))

    def decode(self, index: int, content: bytes) -> Picture:
        return self.load.decode(int(self.places[index]), content)

    def view(self, index: int, preprocessing: Preprocessing) -> Pixels:
        return self.load.view(int(self.places[index]), preprocessing)

    def stamp(self, index: int) -> bytes:
        return self.load.stamp(int(self.places[index]))

    def maximum(self, index: int) -> int | float | None:
        return self.load.maximum(int(self.places[index]))

    def stored(self, index: int) -> Stored | None:
        return self.load.stored(int(self.places[index]))

    def at_least(self, side: int) -> "ChosenLoader":
        return ChosenLoader(self.load.at_least(side), self.places)


def without(data: ImageData, dropped: Mapping[str, Sequence[int]]) -> ImageData:
    """The data without some of its samples; its classes stay.

    Args:
        data: of a source.
        dropped: the samples to leave out, by split.
    """
    splits = {split.name: _without(split, dropped.get(split.name, [])) for split in data.splits}
    return replace(data, train=splits["train"], validation=splits["validation"], test=splits.get("test"))


def _without(split: Split, dropped: Sequence[int]) -> Split:
    """A split without some of its samples; itself if there are none to leave out."""
    if not dropped:
        return split
    places = np.delete(np.arange(len(split)), dropped)
    names = tuple(split.names[place] for place in places.tolist())
    return Split(split.name, names, split.labels[places], ChosenLoader(split.load, places))
