"""Batches of a split: the same bits whatever the number of workers, and nothing lost in silence."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitreous.data.augmentation import Augmentation
from vitreous.data.images import BadImage
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sampling import balanced_order, earlier_visits, epoch_order, sample_generator
from vitreous.data.sources.open import Split


@dataclass(eq=False)
class Batch:
    """Samples of one step, as bytes: a quarter of what floats cost on the way to the device.

    Training calls `preprocessing.normalize(batch.images.to(device))`. A batch whose images are all broken has
    length 0: there is nothing to compute, and `bad` still says what happened.

    Args:
        images: the pixels.
        labels: class numbers.
        indices: places in the split.
        bad: name and reason of every image that was skipped.
    """

    images: UInt8[Tensor, "batch channels height width"]
    labels: Int64[Tensor, " batch"]
    indices: Int64[Tensor, " batch"]
    bad: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self) -> "Batch":
        """The same in pinned memory, from which a copy to a GPU does not stop the program."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.indices.pin_memory(), self.bad)


@dataclass(frozen=True)
class Batches(Dataset[Batch]):
    """One epoch's batches by number: each depends on these fields alone, so any worker may make it.

    Args:
        split: where samples come from.
        preprocessing: what the model expects.
        augmentation: random views, or None.
        seed: of the views.
        epoch: of the views.
        order: the places in the split of each batch's samples.
        visits: how often each of these samples came before in the epoch.
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
        for place, visit in zip(self.order[index].tolist(), self.visits[index].tolist(), strict=True):
            try:
                pixels.append(self.pixels(place, visit))
                good.append(place)
            except BadImage as error:
                bad.append((self.split.names[place], error.reason))
        height, width = self.preprocessing.image_size
        images = torch.empty(len(good), self.preprocessing.channels, height, width, dtype=torch.uint8)
        if pixels:
            torch.stack(pixels, out=images)
        indices = torch.tensor(good, dtype=torch.int64)
        return Batch(images, torch.from_numpy(self.split.labels)[indices], indices, bad)

    def pixels(self, place: int, visit: int) -> UInt8[Tensor, "channels height width"]:
        """One sample's view, another one at each visit."""
        image = self.split.load(place)
        if self.augmentation is None:
            return self.preprocessing.pixels(image)
        generator = sample_generator(self.seed, self.epoch, place, visit)
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
    """One epoch over a split: an iterable of `Batch` with a length, the same for any number of workers.

    Every sample comes once, unless classes are balanced; the last batch may be smaller.

    Args:
        split: where samples come from.
        preprocessing: what the model expects.
        batch_size: samples of a batch. Broken images leave their batch smaller; no others move up.
        shuffle: whether the order is a permutation drawn for this (seed, epoch), or the split's own.
        augmentation: random views, drawn for each (seed, epoch, sample); None for evaluation.
        seed: of the order and the views.
        epoch: of the order and the views.
        workers: processes that load; 0 loads in this one.
        balanced: whether each class comes equally often, which needs `shuffle`: a sample of a small class comes several
            times, each time as another view, and of a large class only a part comes.
    """
    if batch_size < 1 or workers < 0:
        raise ValueError(f"batch_size is {batch_size}, workers is {workers}: from 1 and from 0")
    if balanced and not shuffle:
        raise ValueError("balanced is true and shuffle is false: a balanced order is a drawn one")
    count = len(split)
    if balanced:
        order = balanced_order(seed, epoch, split.labels, int(split.labels.max(initial=-1)) + 1)
        visits = earlier_visits(order)
    else:
        order = epoch_order(seed, epoch, count) if shuffle else np.arange(count)
        visits = np.zeros(count, dtype=np.int64)
    parts = [slice(start, start + batch_size) for start in range(0, count, batch_size)]
    chunks = [order[part] for part in parts], [visits[part] for part in parts]
    return DataLoader(
        Batches(split, preprocessing, augmentation, seed, epoch, *chunks),
        batch_size=None,  # our batches are made already
        num_workers=workers,  # each with one thread, so that they do not wait for each other
        pin_memory=torch.cuda.is_available(),
        # It draws a number for its workers: from torch's own generator, that would move the model's dropout.
        generator=torch.Generator(),
    )
