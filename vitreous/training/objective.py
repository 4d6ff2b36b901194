"""The classification losses."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

Loss = Literal["softmax", "sigmoid"]
Shares = Float[Tensor, "batch classes"]


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
