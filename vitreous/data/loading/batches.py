"""Batches of a split: the same bits for any number of workers and ranks, and every skipped image reported."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vitreous.data.augmentation import Augmentation
from vitreous.data.loading.connection import Loaded, Unavailable
from vitreous.data.loading.shares import ALONE, Part, Share, parts_of
from vitreous.data.loading.views import IDLE, Progress, Request, Views
from vitreous.data.loading.workers import BatchFailed, Workers
from vitreous.data.mixing import Mixing
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sampling import balanced_order, batch_generator, earlier_visits, epoch_order
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
    and `bad` lists them. So has the batch of a rank that gets none of a last batch smaller than the number of ranks:
    nothing of it goes through the model, but the rank still takes part in what the ranks do together, with zeros for
    its gradient and its sums. A mean over the whole batch divides by the ranks' lengths together, which only they know,
    since broken images count nowhere.

    Args:
        images: the pixels.
        labels: class numbers.
        indices: of the samples in the split.
        bad: name and reason of each skipped image.
        part: where the images are in the whole batch of all ranks.
        borrowed: images of other ranks that are mixed into these, in the order of `part.borrowed`; None for none.
    """

    images: UInt8[Tensor, "batch channels height width"]
    labels: Int64[Tensor, " batch"]
    indices: Int64[Tensor, " batch"]
    bad: list[tuple[str, str]]
    part: Part
    borrowed: "Batch | None" = None

    @classmethod
    def whole(
        cls,
        images: UInt8[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"],
        indices: Int64[Tensor, " batch"],
    ) -> "Batch":
        """These images as a whole batch."""
        return cls(images, labels, indices, [], Part.whole(len(labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self) -> "Batch":
        """The same in pinned memory, from which copies to a GPU are asynchronous; what is there is not copied."""
        borrowed = None if self.borrowed is None else self.borrowed.pin_memory()
        images, labels, indices = self.images.pin_memory(), self.labels.pin_memory(), self.indices.pin_memory()
        return replace(self, images=images, labels=labels, indices=indices, borrowed=borrowed)


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of one epoch, as an iterable with a length; the same bits for any number of workers.

    Args:
        split: the samples.
        views: of the samples.
        parts: what this rank has of each batch.
        requests: the samples of each part, the borrowed ones last.
        workers: load the batches, if there are any.
        done: how many of the batches an iteration leaves out at its beginning.
    """

    split: Split
    views: Views
    parts: list[Part]
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
        """The names of the images that are loaded for a batch."""
        return [self.split.names[sample] for sample in self.requests[number].samples.tolist()]

    def _batch(self, number: int, loaded: Loaded) -> Batch:
        """The loaded images with their labels and names; in pinned memory if there is a GPU."""
        requested, samples = self.parts[number], self.requests[number].samples
        part = requested.without([position for position, _ in loaded.bad])
        indices = torch.from_numpy(samples[loaded.good])
        labels = torch.from_numpy(self.split.labels)[indices]
        reports = loaded.bad[: len(requested.positions) - len(part.positions)]  # others report what is borrowed
        bad = [(self.split.names[samples[position]], reason) for position, reason in reports]
        own = len(part.positions)
        batch = Batch(loaded.images[:own], labels[:own], indices[:own], bad, part)
        if len(part.borrowed):
            batch.borrowed = Batch.whole(loaded.images[own:], labels[own:], indices[own:])
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
    share: Share = ALONE,
    mixing: Mixing | None = None,
) -> Batches:
    """One epoch over a split, as an iterable of `Batch` with a length; the same for any number of workers.

    Every sample occurs once, unless classes are balanced; the last batch may be smaller. Several ranks have as many
    batches as one, and of each batch a part: together the images of the whole batch, each once. A part may be empty.

    Args:
        split: the samples.
        preprocessing: of the model.
        batch_size: samples per whole batch. Broken images leave their batch smaller; later samples do not move up.
        shuffle: whether the order is a permutation drawn for this (seed, epoch), or that of the split.
        augmentation: random views, drawn for each (seed, epoch, sample); None for evaluation.
        seed: of the order and the views.
        epoch: of the order and the views.
        workers: loading processes, or how many to start for each iteration; 0 loads in this process.
        balanced: whether each class occurs equally often, which needs `shuffle`: samples of small classes repeat, each
            time with another view, and of large classes only a part occurs.
        done: how many batches an iteration leaves out at its beginning.
        share: of this rank.
        mixing: of the images of a batch with each other, so that each rank also has what its images are mixed with;
            None if they are not mixed.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size} and must be at least 1")
    if balanced and not shuffle:
        raise ValueError("balanced needs shuffle=True")
    if balanced:
        order = balanced_order(seed, epoch, split.labels)
    else:
        order = epoch_order(seed, epoch, len(split)) if shuffle else np.arange(len(split))
    parts = parts_of(share, len(split), batch_size, _partners(mixing, seed, epoch))
    return Batches(
        split,
        Views(split.load, preprocessing, augmentation),
        parts,
        _requests(parts, batch_size, order, seed, epoch),
        Workers(workers) if isinstance(workers, int) else workers,
        done,
    )


def _partners(mixing: Mixing | None, seed: int, epoch: int) -> Callable[[int, int], np.ndarray] | None:
    """The position of each image's partner, by the number and the size of a batch; None if images are not mixed."""
    if mixing is None or not mixing.is_on:
        return None
    return lambda number, size: mixing.partners(size, batch_generator(seed, epoch, number))


def _requests(parts: list[Part], batch_size: int, order: np.ndarray, seed: int, epoch: int) -> list[Request]:
    """The samples of each part of an epoch in this order."""
    visits = earlier_visits(order)
    places = [number * batch_size + part.loaded for number, part in enumerate(parts)]
    return [Request(seed, epoch, order[place], visits[place]) for place in places]
