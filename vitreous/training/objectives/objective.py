"""What a run learns: an objective makes the targets of a batch, and judges what the model says of it.

This file has that of classification; masked_patch.py and distillation.py have the others.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer

Loss = Literal["softmax", "sigmoid"]
Shares = Float[Tensor, "batch classes"]


@runtime_checkable
class Targets(Protocol):
    """What a batch should give; a tensor is one. It can be cut as the images are, into micro-batches."""

    def split(self, size: int, /) -> "tuple[Targets, ...]":
        """Parts of so many images, the last one perhaps of fewer."""
        ...


class Verdict(NamedTuple):
    """Sums over the images of a batch, as scalars on the device."""

    loss: Float[Tensor, ""]
    correct: Float[Tensor, ""]  # images that are right, or the share of an image that is


class Objective(nn.Module):
    """The base of what can be learned. What it learns beside the model, such as a decoder, are its own parameters."""

    def forward(self, model: VisionTransformer, images: Images, targets: Targets) -> Verdict:
        """Sends the images through the model and judges the answer; the loss is a sum over images, in nats or the like.

        Args:
            model: being trained.
            images: normalized, perhaps mixed.
            targets: of these images.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class CrossEntropy:
    """Cross-entropy of classes: by softmax, or each class by itself by sigmoid (arXiv 2006.07159).

    Targets are class numbers, or shares of every class as mixed images have them. Label smoothing (arXiv 1512.00567)
    makes them (1 - s) · target + s / K.

    Args:
        label_smoothing: s, in [0, 1).
        loss: "softmax" or "sigmoid".
        class_weights: factors for the classes' terms of the loss, on the device of the logits; None for 1.
    """

    label_smoothing: float = 0.0
    loss: Loss = "softmax"
    class_weights: Float[Tensor, " classes"] | None = None

    def __call__(
        self, logits: Float[Tensor, "batch classes"], targets: Int64[Tensor, " batch"] | Shares
    ) -> Float[Tensor, ""]:
        """The sum over the batch, in nats; divide by the batch for the mean."""
        logits, weights = logits.to(torch.promote_types(logits.dtype, torch.float32)), self.class_weights
        if self.loss == "softmax":
            smoothing = self.label_smoothing
            return F.cross_entropy(logits, targets, weights, label_smoothing=smoothing, reduction="sum")
        classes = logits.shape[1]
        shares = F.one_hot(targets, classes).to(logits.dtype) if targets.ndim == 1 else targets
        shares = shares * (1 - self.label_smoothing) + self.label_smoothing / classes
        return F.binary_cross_entropy_with_logits(logits, shares, weights, reduction="sum")


def balanced_weights(labels: np.ndarray, classes: int) -> Float[Tensor, " classes"]:
    """Weights by which every class counts as much as every other, whatever the number of its images; 1 on average."""
    counts = np.bincount(labels, minlength=classes).clip(min=1)
    return torch.from_numpy(len(labels) / (classes * counts)).float()


class Classification(Objective):
    """Learns the classes from labels.

    Args:
        loss: of the logits.
    """

    def __init__(self, loss: CrossEntropy) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, model: VisionTransformer, images: Images, targets: Targets) -> Verdict:
        """Targets are class numbers, or shares of every class, of which the largest is what counts as correct."""
        assert isinstance(targets, Tensor), "classes are told by a tensor"
        logits = model(images)
        return Verdict(self.loss(logits, targets), count_correct(logits, targets))


def count_correct(logits: Float[Tensor, "batch classes"], targets: Tensor) -> Float[Tensor, ""]:
    """How many images' largest logit is that of their class, or of their class with the largest share."""
    labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
    return (logits.argmax(dim=1) == labels).sum().float()
