"""An average of the weights over the updates, which often does better than the last ones."""

from copy import deepcopy

import torch
from torch import Tensor

from vitreous.model.vit import VisionTransformer


class WeightAverage:
    """The exponential moving average of a model's weights; arXiv 2010.11929 has it where it fine-tunes at 512 pixels.

    Early in a run it forgets faster, min(decay, (1 + n) / (10 + n)) after n updates, so that the first weights do not
    stay in it.

    Args:
        model: being trained; its own weights are not touched.
        decay: the share of the average that stays at an update, such as 0.9999.
    """

    def __init__(self, model: VisionTransformer, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.model = deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: VisionTransformer) -> None:
        """Moves the average towards the weights, in one pass over all of them."""
        self.updates += 1
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages: list[Tensor] = list(self.model.parameters())
        weights: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(averages, weights, weight=1 - kept)
