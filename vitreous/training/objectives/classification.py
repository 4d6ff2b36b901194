"""Classification: learning the classes from labels."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from vitreous.data.loading.batches import Batch
from vitreous.data.sampling import batch_generator
from vitreous.evaluation.metrics import Outcome
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.fonts import drawable
from vitreous.support.text import shortened
from vitreous.training.objectives.objective import (
    MOST_VIEWS,
    VALIDATION,
    InParts,
    Objective,
    Prepared,
    Setup,
    Targets,
    Verdict,
    View,
    at_least_float32,
)
from vitreous.training.objectives.section import Loss

TOP = 3  # classes that an outcome keeps for each sample
LINE = 28  # characters of a caption that fit on one line

Shares = Float[Tensor, "batch classes"]


@dataclass(frozen=True, eq=False)
class CrossEntropy:
    """Cross-entropy of classes: softmax, or a sigmoid for each class (arXiv 2006.07159).

    Targets are class numbers, or each class's share in a mixed image. Label smoothing (arXiv 1512.00567) makes them
    (1 - s) · target + s / K.

    Args:
        label_smoothing: s, in [0, 1).
        loss: "softmax" or "sigmoid".
        class_weights: factors of the classes' terms, on the device of the logits; None for 1.
    """

    label_smoothing: float = 0.0
    loss: Loss = "softmax"
    class_weights: Float[Tensor, " classes"] | None = None

    def __call__(
        self, logits: Float[Tensor, "batch classes"], targets: Int64[Tensor, " batch"] | Shares
    ) -> Float[Tensor, ""]:
        """The sum over the batch, in nats; divide by the batch for the mean."""
        logits, weights = at_least_float32(logits), self.class_weights
        if self.loss == "softmax":
            smoothing = self.label_smoothing
            return F.cross_entropy(logits, targets, weights, label_smoothing=smoothing, reduction="sum")
        classes = logits.shape[1]
        shares = F.one_hot(targets, classes).to(logits.dtype) if targets.ndim == 1 else targets
        shares = shares * (1 - self.label_smoothing) + self.label_smoothing / classes
        return F.binary_cross_entropy_with_logits(logits, shares, weights, reduction="sum")


class Classification(Objective):
    """Learns the classes from labels."""

    mixes = True

    def __init__(self, loss: CrossEntropy) -> None:
        super().__init__()
        self.loss = loss

    @classmethod
    def make(cls, setup: Setup) -> Self:
        """The loss that the recipe describes."""
        return cls(make_loss(setup))

    def prepare(self, batch: Batch, setup: Setup, epoch: int, number: int) -> tuple[Images, Targets]:
        """Training images may be mixed with each other, and so are their labels: shares of every class."""
        if epoch == VALIDATION or not setup.mixing.is_on:
            return super().prepare(batch, setup, epoch, number)
        images, shares = with_shares(batch, setup)
        borrowed = None if batch.borrowed is None else with_shares(batch.borrowed, setup)
        return setup.mixing(images, shares, batch_generator(setup.seed, epoch, number), batch.part, borrowed)

    def forward(self, model: VisionTransformer, images: Images, targets: Targets) -> Verdict:
        """Targets are class numbers, or shares of every class, of which the largest counts as correct."""
        assert isinstance(targets, Tensor), "class targets must be a tensor"
        logits = model(images)
        return Verdict(self.loss(logits, targets), count_correct(logits, targets))

    def evaluate(self, model: VisionTransformer, batches: Iterable[Prepared], in_parts: InParts) -> Outcome:
        """The predictions for a split; the loss has neither label smoothing nor class weights."""
        loss = replace(self.loss, label_smoothing=0.0, class_weights=None)
        places, labels, tops, losses = [], [], [], []
        for batch, images, targets in batches:
            assert isinstance(targets, Tensor), "class targets must be a tensor"
            logits = torch.cat(in_parts(lambda part, _: model(part), images, targets)).float()
            places.append(batch.indices)
            labels.append(batch.labels)
            tops.append(logits.softmax(1).topk(min(TOP, logits.shape[1])))
            losses.append(loss(logits, targets).where(logits.isfinite().all(), math.nan))
        return Outcome(
            torch.cat(places).numpy(),
            torch.cat(labels).numpy(),
            torch.cat([top.indices for top in tops]).cpu().numpy(),
            torch.cat([top.values for top in tops]).cpu().numpy(),
            torch.stack(losses).cpu().double().sum().item() / sum(map(len, labels)),
        )

    def views(self, images: Images, targets: Targets, setup: Setup) -> list[View]:
        """The first images, each with its class or its share of two."""
        assert isinstance(targets, Tensor), "class targets must be a tensor"
        captions = [caption(target, setup.class_names) for target in targets[:MOST_VIEWS].cpu()]
        return list(zip(setup.pixels(images[:MOST_VIEWS]), captions, strict=True))


def with_shares(batch: Batch, setup: Setup) -> tuple[Images, Shares]:
    """The images, and their labels as shares of every class."""
    labels = batch.labels.to(setup.device, non_blocking=True)
    return setup.normalized(batch), F.one_hot(labels, len(setup.class_names)).float()


def make_loss(setup: Setup) -> CrossEntropy:
    """The loss that a recipe describes."""
    options, weights = setup.options, None
    if options.class_weights == "balanced":
        weights = balanced_weights(setup.labels, len(setup.class_names)).to(setup.device)
    return CrossEntropy(options.label_smoothing, options.loss, weights)


def balanced_weights(labels: np.ndarray, classes: int) -> Float[Tensor, " classes"]:
    """Weights by which every class counts the same, however many images it has; 1 on average over the images."""
    counts = np.bincount(labels, minlength=classes).clip(min=1)
    return torch.from_numpy(len(labels) / (classes * counts)).float()


def count_correct(logits: Float[Tensor, "batch classes"], targets: Tensor) -> Float[Tensor, ""]:
    """How many images have their largest logit at their class, or at the class with their largest share."""
    labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
    return (logits.argmax(dim=1) == labels).sum().float()


def shown(class_names: tuple[str, ...], number: int) -> str:
    """The name of a class as a picture can show it."""
    return drawable(shortened(class_names[number]), f"class {number}")


def caption(target: Int64[Tensor, ""] | Float[Tensor, " classes"], class_names: tuple[str, ...]) -> str:
    """The class; for a mixed image the two with the largest shares, such as "pizza 70 % + steak 30 %"."""
    if target.ndim == 0:
        return shown(class_names, int(target))
    shares, classes = target.topk(min(2, len(class_names)))
    percents = [round(100 * share) for share in shares.tolist()]
    names = [shown(class_names, number) for number in classes.tolist()]
    if len(names) == 1 or percents[1] == 0:
        return names[0]
    parts = [f"{name} {percent} %" for name, percent in zip(names, percents, strict=True)]
    line = " + ".join(parts)
    return line if len(line) <= LINE else "\n+ ".join(parts)
