"""What a run learns. A new objective is one file with a subclass of `Objective`, and a line in goals.py."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vitreous.data.loading.batches import Batch
from vitreous.data.mixing import Mixing
from vitreous.data.preprocessing import Preprocessing
from vitreous.evaluation.metrics import Outcome
from vitreous.model.config import ViTConfig
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.training.objectives.section import ObjectiveSection

VALIDATION = 0  # the epoch that validation batches belong to; training counts from 1
MOST_VIEWS = 16  # in the picture of a batch

InParts = Callable[..., list[Any]]
View = tuple[Float[np.ndarray, "height width channels"], str]


@runtime_checkable
class Targets(Protocol):
    """The targets of a batch, such as a tensor of labels. They split as the images do, into micro-batches."""

    def split(self, size: int, /) -> "tuple[Targets, ...]":
        """Parts of `size` images; the last one may have fewer."""


class Verdict(NamedTuple):
    """Sums over the images of a batch, as scalars on the device."""

    loss: Float[Tensor, ""]
    correct: Float[Tensor, ""]  # correct images, or fractions of an image


class Prepared(NamedTuple):
    """A batch with the images as the model sees them, and their targets."""

    batch: Batch
    images: Images
    targets: Targets


@dataclass(frozen=True)
class Score:
    """How well an objective without classes does on a split: means over its images.

    Args:
        loss: in nats, or the objective's own unit.
        accuracy: in [0, 1]; 0 for an objective that has none.
        count: of the images.
    """

    loss: float
    accuracy: float
    count: int


@dataclass(frozen=True, eq=False)
class Setup:
    """What an objective knows of its run.

    Args:
        options: the recipe's [objective].
        config: of the model.
        preprocessing: of the images.
        mixing: of the images of a training batch with each other.
        class_names: of the data.
        labels: class numbers of the training images.
        seed: of whatever is drawn for a batch.
        device: of the model.
    """

    options: ObjectiveSection
    config: ViTConfig
    preprocessing: Preprocessing
    mixing: Mixing
    class_names: tuple[str, ...]
    labels: Int64[np.ndarray, " samples"]
    seed: int
    device: torch.device

    def normalized(self, batch: Batch) -> Images:
        """The images of a batch, normalized and on the device."""
        return self.preprocessing.normalize(batch.images.to(self.device, non_blocking=True))

    def pixels(self, images: Images) -> Float[np.ndarray, "batch height width channels"]:
        """The values in [0, 1] that were normalized."""
        mean, std = (
            torch.tensor(values).view(-1, 1, 1) for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        values = (images.detach().float().cpu() * std + mean).clamp(0, 1)
        return values.permute(0, 2, 3, 1).numpy()


def at_least_float32(x: Tensor) -> Tensor:
    """The same numbers, in float32 if they have 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Objective(nn.Module):
    """What a run learns: targets, loss, validation score and picture. Its own parameters, if any, are trained too.

    Attributes:
        classifies: whether the model has a classifier of the data's classes, and validation gives an `Outcome`.
        mask_token: whether the model has a mask token.
        mixes: whether the images of a training batch are mixed with each other, if the recipe says so.
        one_pass: whether a step is one forward and backward pass of the model, and no other model runs.
        unused: options in the recipe's [objective] that do nothing here, so that setting one is an error.
    """

    classifies: ClassVar[bool] = True
    mask_token: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    one_pass: ClassVar[bool] = True
    unused: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def make(cls, setup: Setup) -> Self:
        """Builds the objective of a run. Raises InputError for options that do not fit."""
        raise NotImplementedError

    def prepare(self, batch: Batch, setup: Setup, epoch: int, number: int) -> tuple[Images, Targets]:
        """The images as the model sees them, and their targets: by default unchanged, with their labels.

        Anything random is drawn from (seed, epoch, number) for the whole batch, `batch.part.size` images, of which
        `batch.part.cut` has the rows of this batch: so every number of ranks or workers agrees, and every restart.

        Args:
            batch: one rank's part of a whole batch; usually all of it.
            setup: of the run.
            epoch: from 1 in training, or VALIDATION.
            number: of the batch in its epoch.
        """
        return setup.normalized(batch), batch.labels.to(setup.device, non_blocking=True)

    def forward(self, model: VisionTransformer, images: Images, targets: Targets) -> Verdict:
        """Runs the model; the loss is a sum over the images.

        Args:
            model: being trained.
            images: normalized, perhaps mixed.
            targets: of these images.
        """
        raise NotImplementedError

    def evaluate(self, model: VisionTransformer, batches: Iterable[Prepared], in_parts: InParts) -> Outcome | Score:
        """The score of a split; there is at least one batch.

        Args:
            model: in evaluation mode.
            batches: of the split.
            in_parts: calls a function with images and targets, a micro-batch at a time, and lists the results.
        """
        sums, count = torch.zeros(2, dtype=torch.float64), 0
        for batch, images, targets in batches:
            verdicts = in_parts(partial(self, model), images, targets)
            sums += torch.stack([torch.stack(verdict).double().cpu() for verdict in verdicts]).sum(0)
            count += len(batch)
        loss, accuracy = (sums / count).tolist()
        return Score(loss, accuracy, count)

    def views(self, images: Images, targets: Targets, setup: Setup) -> list[View]:
        """The first images of a batch with a caption each, for the run's picture of its first batch."""
        return [(pixels, "") for pixels in setup.pixels(images[:MOST_VIEWS])]
