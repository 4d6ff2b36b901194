"""The learning rate's course: pure functions from a step to a factor of the highest rate."""

import math


def warmup_cosine(step: int, total: int, warmup: int) -> float:
    """Up in a line to 1 at the last step of the warmup, then down along half a cosine towards 0.

    Args:
        step: from 0.
        total: steps of the whole run; the step after the last would have the factor 0.
        warmup: steps of the way up; 0 for none.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
