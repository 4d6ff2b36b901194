"""Batches of a split: the same bits for any number of workers, and every skipped image reported."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vitreous.data.augmentation import Augmentation
from vitreous.data.loading.connection import Loaded, Unavailable
from vitreous.data.loading.views import IDLE, Progress, Request, Views
from vitreous.data.loading.workers import BatchFailed, Workers
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sampling import balanced_order, earlier_visits, epoch_order
from vitreous.data.sources.splits import Split
from vitreous.support.errors import InputError
from vitreous.support.text import listed

SHOWN = 3  # names of a batch in a message
HINTS = {  # by a part of the reason
    "SIGKILL": "the memory may be full: set fewer workers, or workers=0",
    "progress": "remove the image, or set a longer worker_timeout",
    "": "remove the image, or set workers=0 to load in the main process",
}


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
        """The same in pinned memory, from which copies to a GPU are asynchronous; what is there is not copied."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.indices.pin_memory(), self.bad)


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of one epoch, as an iterable with a length; the same bits for any number of workers.

    Args:
        split: the samples.
        views: of the samples.
        requests: one per batch.
        workers: load the batches, if there are any.
        done: how many of the batches an iteration leaves out at its beginning.
    """

    split: Split
    views: Views
    requests: list[Request]
    workers: Workers
    done: int = 0

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Batch]:
        done = self.done
        if self.workers.count and done < len(self.requests):
            try:
                with self.workers.opened() as workers:
                    for loaded in workers.load(self.views, self.requests[done:]):
                        done += 1
                        yield self._batch(done - 1, loaded)
            except Unavailable as error:
                self.workers.note_once(f"images are loaded in the main process: {error}")
            except BatchFailed as error:
                raise self._failure(done, error) from None
        for number in range(done, len(self)):
            yield self[number]

    def __getitem__(self, number: int) -> Batch:
        """One batch, loaded in this process."""
        request = self.requests[number]
        images = torch.empty(self.views.shape(len(request.samples)), dtype=torch.uint8)
        good, bad = self.views.fill(images.numpy(), request, Progress())
        return self._batch(number, Loaded(images[: len(good)], good, bad))

    def names(self, number: int) -> list[str]:
        """The names of a batch's images."""
        return [self.split.names[sample] for sample in self.requests[number].samples.tolist()]

    def _batch(self, number: int, loaded: Loaded) -> Batch:
        """The loaded images with their labels and names; in pinned memory if there is a GPU."""
        samples = self.requests[number].samples
        indices = torch.from_numpy(samples[loaded.good])
        labels = torch.from_numpy(self.split.labels)[indices]
        bad = [(self.split.names[samples[position]], reason) for position, reason in loaded.bad]
        batch = Batch(loaded.images, labels, indices, bad)
        return batch.pin_memory() if torch.cuda.is_available() else batch

    def _failure(self, number: int, error: BatchFailed) -> InputError:
        """The error of a batch on which two processes died."""
        names = self.names(number)
        at = "" if error.position == IDLE else f", at {names[error.position]!r}"
        count = len(names)
        return InputError(
            f"a loading process {error.reason}{at}, and so did its replacement; their batch of {count} images has "
            f"{listed(names, SHOWN)}",
            next(hint for part, hint in HINTS.items() if part in error.reason),
        )


def batches(
    split: Split,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    shuffle: bool,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    epoch: int = 0,
    workers: int | Workers = 0,
    balanced: bool = False,
    done: int = 0,
) -> Batches:
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
        workers: loading processes, or how many to start for each iteration; 0 loads in this process.
        balanced: whether each class occurs equally often, which needs `shuffle`: samples of small classes repeat, each
            time with another view, and of large classes only a part occurs.
        done: how many batches an iteration leaves out at its beginning.
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
    return Batches(
        split,
        Views(split.load, preprocessing, augmentation),
        [Request(seed, epoch, order[part], visits[part]) for part in parts],
        Workers(workers) if isinstance(workers, int) else workers,
        done,
    )
