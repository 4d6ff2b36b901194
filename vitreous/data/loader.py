"""Batches of a split: the same bits for any number of workers, and every skipped image reported."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitreous.data.augmentation import Augmentation
from vitreous.data.images import BadImage
from vitreous.data.preprocessing import Pixels, Preprocessing
from vitreous.data.sampling import balanced_order, earlier_visits, epoch_order, sample_generator
from vitreous.data.sources.splits import Split


@dataclass(eq=False)
class Batch:
    """The samples of one step as bytes, a quarter of the size of floats on the way to the device.

    Training calls `preprocessing.normalize(batch.images.to(device))`. A batch whose images are all broken has length 0,
    and `bad` lists them.

    Args:
        images: the pixels.
        labels: class numbers.
        indices: of the samples in the split.
        bad: name and reason of each skipped image.
    """

    images: UInt8[Tensor, "batch channels height width"]
    labels: Int64[Tensor, " batch"]
    indices: Int64[Tensor, " batch"]
    bad: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self) -> "Batch":
        """A copy in pinned memory, from which copies to a GPU are asynchronous."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.indices.pin_memory(), self.bad)


@dataclass(frozen=True)
class Batches(Dataset[Batch]):
    """The batches of one epoch by number. Each depends on these fields alone, so any worker can load it.

    Besides the arguments of `batches`, `order` has the indices of each batch's samples in the split, and `visits` how
    often each of these occurred earlier in the epoch.
    """

    split: Split
    preprocessing: Preprocessing
    augmentation: Augmentation | None
    seed: int
    epoch: int
    order: list[np.ndarray]
    visits: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Batch:
        pixels, good, bad = [], [], []
        for sample, visit in zip(self.order[index].tolist(), self.visits[index].tolist(), strict=True):
            try:
                pixels.append(self.pixels(sample, visit))
                good.append(sample)
            except BadImage as error:
                bad.append((self.split.names[sample], error.reason))
        indices = torch.tensor(good, dtype=torch.int64)
        labels = torch.from_numpy(self.split.labels)[indices]
        return Batch(self.preprocessing.stack(pixels), labels, indices, bad)

    def pixels(self, sample: int, visit: int) -> Pixels:
        """The view of one sample, different at each visit."""
        if self.augmentation is None:
            return self.split.load.view(sample, self.preprocessing)
        image = self.split.load(sample)
        generator = sample_generator(self.seed, self.epoch, sample, visit)
        return self.augmentation.pixels(image, self.preprocessing, generator)


def batches(
    split: Split,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    shuffle: bool,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    epoch: int = 0,
    workers: int = 0,
    balanced: bool = False,
) -> "DataLoader[Batch]":
    """One epoch over a split, as an iterable of `Batch` with a length; the same for any number of workers.

    Every sample occurs once, unless classes are balanced; the last batch may be smaller.

    Args:
        split: the samples.
        preprocessing: of the model.
        batch_size: samples per batch. Broken images leave their batch smaller; later samples do not move up.
        shuffle: whether the order is a permutation drawn for this (seed, epoch), or that of the split.
        augmentation: random views, drawn for each (seed, epoch, sample); None for evaluation.
        seed: of the order and the views.
        epoch: of the order and the views.
        workers: loading processes; 0 loads in this one.
        balanced: whether each class occurs equally often, which needs `shuffle`: samples of small classes repeat, each
            time with another view, and of large classes only a part occurs.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size} and must be at least 1")
    if balanced and not shuffle:
        raise ValueError("balanced needs shuffle=True")
    count = len(split)
    if balanced:
        order = balanced_order(seed, epoch, split.labels)
    else:
        order = epoch_order(seed, epoch, count) if shuffle else np.arange(count)
    visits = earlier_visits(order)
    parts = [slice(start, start + batch_size) for start in range(0, count, batch_size)]
    chunks = [order[part] for part in parts], [visits[part] for part in parts]
    return DataLoader(
        Batches(split, preprocessing, augmentation, seed, epoch, *chunks),
        batch_size=None,  # the dataset returns whole batches
        num_workers=workers,  # each with one thread
        pin_memory=torch.cuda.is_available(),
        # DataLoader draws a seed for its workers, which from torch's own generator would change the model's dropout.
        generator=torch.Generator(),
    )
