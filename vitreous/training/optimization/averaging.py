"""An average of the weights over the updates, which often does better than the last ones."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from vitreous.model.vit import VisionTransformer
from vitreous.training.objectives.objective import Objective


class WeightAverage:
    """The exponential moving average of a model's weights; arXiv 2010.11929 uses it for fine-tuning at 512 pixels.

    Early in a run it forgets faster, min(decay, (1 + n) / (10 + n)) after n updates, so that the first weights do not
    linger.

    Args:
        model: being trained; it is copied.
        decay: the share of the average that an update keeps, such as 0.9999.
        objective: trained along with the model; its weights, if any, are averaged as well.
    """

    def __init__(self, model: VisionTransformer, decay: float, objective: Objective) -> None:
        self.decay, self.updates = decay, 0
        self.model = deepcopy(model).eval().requires_grad_(False)
        learns = next(objective.parameters(), None) is not None
        self.objective = deepcopy(objective).eval().requires_grad_(False) if learns else objective

    @torch.no_grad()
    def update(self, model: VisionTransformer, objective: Objective) -> None:
        """Moves the average towards the weights, in one pass over all of them.

        After a skipped step, these are the weights of the step before.
        """
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages: list[Tensor] = [*self.model.parameters(), *self.objective.parameters()]
        weights: list[Tensor] = [*model.parameters(), *objective.parameters()]
        torch._foreach_lerp_(averages, weights, weight=1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights, and how many updates are in them."""
        return {
            "updates": self.updates,
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a `state_dict`."""
        self.updates = state["updates"]
        self.model.load_state_dict(state["model"])
        self.objective.load_state_dict(state["objective"])
