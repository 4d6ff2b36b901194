"""The learning rate's course: pure functions from a step to a factor of the highest rate."""

import math
from dataclasses import dataclass
from typing import Literal

Decay = Literal["cosine", "linear", "rsqrt", "constant"]


def lr_factor(step: int, total: int, warmup: int, decay: Decay = "cosine", cooldown: int = 0) -> float:
    """Up in a line to 1 at the last step of the warmup, then down.

    "cosine" and "linear" reach 0 at the end (arXiv 2010.11929, Table 3 and 4). "rsqrt" falls with the square root of
    the steps since the warmup, in units of its length (arXiv 2106.04560), "constant" stays; both can end
    in a cooldown, a line down to 0.

    Args:
        step: from 0.
        total: steps of the whole run; the step after the last would have the factor 0, where it falls to 0.
        warmup: steps of the way up; 0 for none.
        decay: how it falls.
        cooldown: steps of the line at the end.
    """
    if step < warmup:
        return (step + 1) / warmup
    after = step - warmup
    if decay == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * after / (total - warmup)))
    elif decay == "linear":
        factor = 1 - after / (total - warmup)
    elif decay == "rsqrt":
        factor = math.sqrt(max(warmup, 1) / (max(warmup, 1) + after))
    else:
        factor = 1.0
    return factor * min(1.0, (total - step) / (cooldown + 1)) if cooldown else factor


@dataclass(frozen=True)
class Course:
    """The learning rate's course over one run.

    Args:
        lr: the highest rate.
        total: steps of the run.
        warmup: steps of the way up.
        cooldown: steps of the line at the end.
        decay: how it falls.
    """

    lr: float
    total: int
    warmup: int = 0
    cooldown: int = 0
    decay: Decay = "cosine"

    def __call__(self, step: int) -> float:
        """The rate of a step, from 0."""
        return self.lr * lr_factor(step, self.total, self.warmup, self.decay, self.cooldown)
