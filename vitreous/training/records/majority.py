"""Models that have learned no more than the most frequent class, named as such."""

from collections.abc import Sequence

import numpy as np

from vitreous.evaluation.metrics import Outcome
from vitreous.support.text import shortened

WEIGH = "set balanced_sampling=true, so that small classes count as much as large ones"
LONGER = "train longer, or set another lr"


def majority_warning(outcome: Outcome, class_names: Sequence[str], split: str, weighs_classes: bool) -> str | None:
    """What to know of a model that is no better than one answer for every image; None for a better one.

    Args:
        outcome: of the model on a split.
        class_names: of the data.
        split: its name.
        weighs_classes: whether training made small classes count as much as large ones.
    """
    labels, answers = (
        np.bincount(numbers, minlength=len(class_names)) for numbers in (outcome.labels, outcome.predictions)
    )
    if np.count_nonzero(labels) < 2:
        return None
    hint = WEIGH if outcome.is_lopsided and not weighs_classes else LONGER
    if np.count_nonzero(answers) == 1:
        name = shortened(class_names[int(answers.argmax())])
        return f"this model answers '{name}' for every {split} image: {hint}"
    if outcome.correct > labels.max():
        return None
    name, share = shortened(class_names[int(labels.argmax())]), labels.max() / labels.sum()
    return f"always answering '{name}' would be right as often as this model, or more ({share:.1%}): {hint}"
