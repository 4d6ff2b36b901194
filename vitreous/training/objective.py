"""The classification loss."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy against (1 - s) · one-hot + s / K (label smoothing, arXiv 1512.00567).

    Args:
        label_smoothing: s, in [0, 1).
    """

    label_smoothing: float = 0.0

    def __call__(self, logits: Float[Tensor, "batch classes"], labels: Int64[Tensor, " batch"]) -> Float[Tensor, ""]:
        """The sum over the batch, in nats; divide by the batch for the mean."""
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing, reduction="sum")
