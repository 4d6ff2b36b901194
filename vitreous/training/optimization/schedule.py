"""The learning rate schedule: a pure function from a step to a factor of the peak rate."""

import math
from typing import Literal

Decay = Literal["cosine", "linear", "rsqrt", "constant"]


def lr_factor(step: int, total: int, warmup: int, decay: Decay = "cosine", cooldown: int = 0) -> float:
    """Linear warmup to 1, then decay.

    "cosine" and "linear" reach 0 at the end (arXiv 2010.11929, Table 3 and 4). "rsqrt" falls with the square root of
    the steps since the warmup, in units of its length (arXiv 2106.04560), and "constant" stays; both can end in a
    cooldown, which is linear to 0.

    Args:
        step: from 0.
        total: steps of the whole run; a decay to 0 would reach it one step after the last.
        warmup: its steps; the last one has the factor 1.
        decay: how the factor falls.
        cooldown: its steps.
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
