"""An average of the weights over the updates, which often does better than the last ones."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from vitreous.model.vit import VisionTransformer
from vitreous.training.objectives.objective import Objective
from vitreous.training.parallel.passes import local


class WeightAverage(nn.Module):
    """The exponential moving average of a model's weights; arXiv 2010.11929 uses it for fine-tuning at 512 pixels.

    Early in a run it forgets faster, min(decay, (1 + n) / (10 + n)) after n updates, so that the first weights do not
    linger.

    Args:
        model: being trained; it is copied.
        decay: the share of the average that an update keeps, such as 0.9999.
        objective: trained along with the model; its weights, if any, are averaged as well.
    """

    def __init__(self, model: VisionTransformer, decay: float, objective: Objective) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("updates", torch.tensor(0))
        self.model = deepcopy(model).eval().requires_grad_(False)
        learns = next(objective.parameters(), None) is not None
        self.objective = deepcopy(objective).eval().requires_grad_(False) if learns else objective

    @torch.no_grad()
    def update(self, model: VisionTransformer, objective: Objective) -> None:
        """Moves the average towards the weights, in one pass over all of them.

        After a skipped step, these are the weights of the step before.
        """
        self.updates += 1
        count = int(self.updates)
        decay = min(self.decay, (1 + count) / (10 + count))
        averages: list[Tensor] = [*self.model.parameters(), *self.objective.parameters()]
        weights: list[Tensor] = [*model.parameters(), *objective.parameters()]
        torch._foreach_lerp_([*map(local, averages)], [*map(local, weights)], weight=1 - decay)
