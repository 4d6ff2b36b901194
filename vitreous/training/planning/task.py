"""A task: images, how the model gets to see them, and on which device."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from vitreous.data.augmentation import Augmentation
from vitreous.data.loader import Batch, batches
from vitreous.data.mixing import Mixing
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sampling import batch_generator
from vitreous.data.sources.open import ImageData, Split
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError
from vitreous.support.host import best_device, free_memory, usable_cores
from vitreous.training.optimization.precision import Precision, choose_precision
from vitreous.training.recipe.recipe import Recipe

MOST_WORKERS = 16
PREFETCHED = 2  # batches that torch has each worker make in advance
FOR_BATCHES = 0.25  # of the free memory
ABSENT = (RuntimeError, AssertionError, ImportError)  # what torch says of a device that it does not have


@dataclass(frozen=True)
class Task:
    """What is to be learned, and where.

    Args:
        data: the images.
        recipe: resolved.
        preprocessing: what the model expects.
        augmentation: the random views of training.
        mixing: of the images of a batch with each other.
        config: of the model.
        device: of the model.
        precision: of the activations.
        workers: processes that load.
        metadata: what is known of the weights that the run starts from; it stays with the model.
    """

    data: ImageData
    recipe: Recipe
    preprocessing: Preprocessing
    augmentation: Augmentation
    mixing: Mixing
    config: ViTConfig
    device: torch.device
    precision: Precision
    workers: int
    metadata: Mapping[str, Any]

    @property
    def batch_size(self) -> int:
        """Images of a batch."""
        assert isinstance(self.recipe.data.batch_size, int), "the recipe is not resolved"
        return self.recipe.data.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Updates of an epoch; the last batch may be smaller than the others."""
        return math.ceil(len(self.data.train) / self.batch_size)

    @property
    def total_steps(self) -> int:
        """Updates of the run; its last epoch may end early."""
        return self.recipe.schedule.total_steps(self.steps_per_epoch)

    @property
    def epochs(self) -> int:
        """Passes over the images, the last of which may end early."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def training_batches(self, epoch: int) -> "DataLoader[Batch]":
        """The random views of one epoch, in its order."""
        return batches(
            self.data.train, self.preprocessing, batch_size=self.batch_size, workers=self.workers,
            augmentation=self.augmentation, shuffle=True, seed=self.recipe.run.seed, epoch=epoch,
            balanced=self.recipe.data.balanced_sampling,
        )  # fmt: skip

    def plain_batches(self, split: Split) -> "DataLoader[Batch]":
        """The images of a split as they are, each once."""
        return batches(split, self.preprocessing, batch_size=self.batch_size, workers=self.workers, shuffle=False)

    def tensors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Normalized images and labels, on the device."""
        images = batch.images.to(self.device, non_blocking=True)
        return self.preprocessing.normalize(images), batch.labels.to(self.device, non_blocking=True)

    def mixed_tensors(self, batch: Batch, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """As `tensors`, for training: images mixed with each other, and their shares of the classes, if so asked.

        Args:
            batch: the samples.
            epoch: from 1.
            number: of the batch in its epoch.
        """
        images, labels = self.tensors(batch)
        if not (self.mixing.mixup or self.mixing.cutmix):
            return images, labels
        shares = F.one_hot(labels, len(self.data.class_names)).float()
        return self.mixing(images, shares, batch_generator(self.recipe.run.seed, epoch, number))


def make_task(
    recipe: Recipe,
    data: ImageData,
    config: ViTConfig,
    preprocessing: Preprocessing,
    metadata: Mapping[str, Any] = MappingProxyType({}),
) -> Task:
    """Puts together what a resolved recipe says about the images, and where to work. Raises InputError."""
    views = recipe.augmentation
    assert isinstance(views.flip, bool)  # the recipe is resolved
    augmentation = Augmentation(
        views.flip, views.crop_scale, views.crop_ratio, views.randaugment_layers, views.randaugment_magnitude,
        views.trivial_augment, views.color_jitter, views.erasing, views.auto_augment,
    )  # fmt: skip
    mixing = Mixing(views.mixup, views.cutmix, views.mix_per_sample)
    device = choose_device(recipe.run.device)
    workers = recipe.run.workers
    if workers == "auto":  # on a CPU, the cores have enough to do with the model
        workers = 0 if device.type == "cpu" else choose_workers(recipe, data, preprocessing)
    precision = choose_precision(recipe.run.precision, device)
    return Task(data, recipe, preprocessing, augmentation, mixing, config, device, precision, workers, metadata)


def choose_workers(recipe: Recipe, data: ImageData, preprocessing: Preprocessing) -> int:
    """A process for each core, but no more than an epoch has batches, or than a part of the memory has room for."""
    assert isinstance(recipe.data.batch_size, int), "the recipe is not resolved"
    ready = PREFETCHED * recipe.data.batch_size * preprocessing.channels * math.prod(preprocessing.image_size)
    free = free_memory()
    room = MOST_WORKERS if free is None else int(FOR_BATCHES * free / ready)
    return max(1, min(usable_cores(), MOST_WORKERS, math.ceil(len(data.train) / recipe.data.batch_size), room))


def choose_device(name: str) -> torch.device:
    """The device of that name, or the fastest there is for "auto". Raises InputError if it does not work."""
    try:
        device = torch.device(best_device() if name == "auto" else name)
        torch.zeros(1, device=device).item()
    except ABSENT as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the device {name!r} cannot be used: {reason}", "set device=auto") from error
    return device
