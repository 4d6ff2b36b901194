"""The samples of all splits in one row, so that they can be compared by number."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vitreous.data.check.findings import Row
from vitreous.data.sources.splits import ImageData, Loader, Split


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of a source, numbered through its splits: train first."""

    data: ImageData

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def starts(self) -> np.ndarray:
        """The number of the first sample of each split, and the number of all samples."""
        return np.cumsum([0, *(len(split) for split in self.data.splits)])

    @cached_property
    def splits(self) -> np.ndarray:
        """The split of each sample, by its place in `data.splits`."""
        return np.repeat(np.arange(len(self.data.splits), dtype=np.int8), np.diff(self.starts))

    @cached_property
    def labels(self) -> np.ndarray:
        """The class number of each sample."""
        return np.concatenate([split.labels for split in self.data.splits])

    def place(self, number: int) -> tuple[Split, int]:
        """The split of a sample, and its index there."""
        split = int(self.splits[number])
        return self.data.splits[split], number - int(self.starts[split])

    def loader(self, number: int) -> tuple[Loader, int]:
        """The loader of a sample, and its index there."""
        split, index = self.place(number)
        return split.load, index

    def name(self, number: int) -> str:
        """The path of a sample in its source."""
        split, index = self.place(number)
        return split.names[index]

    def row(self, number: int) -> tuple[str, str, str]:
        """The split, class and name of a sample."""
        split, index = self.place(number)
        return split.name, self.data.class_names[int(self.labels[number])], split.names[index]

    def rows(self, numbers: Iterable[int]) -> tuple[Row, ...]:
        """The rows of several samples."""
        return tuple(self.row(number) for number in numbers)
