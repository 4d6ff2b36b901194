"""Models that have learned no more than the most frequent class, named as such."""

import numpy as np

from vitreous.support.text import shortened
from vitreous.training.records.results import Run

WEIGH = "set balanced_sampling=true, so that small classes count as much as large ones"
LONGER = "train longer, or set another lr"


def majority_warning(run: Run) -> str | None:
    """What to know of a model that is no better than one answer for every image; None for a better one."""
    outcome, names = run.outcome, run.data.class_names
    if outcome is None:
        return None
    labels, answers = (np.bincount(numbers, minlength=len(names)) for numbers in (outcome.labels, outcome.predictions))
    if np.count_nonzero(labels) < 2:
        return None
    weighs = run.recipe.data.balanced_sampling or run.recipe.objective.class_weights == "balanced"
    hint = WEIGH if outcome.is_lopsided and not weighs else LONGER
    if np.count_nonzero(answers) == 1:
        name = shortened(names[int(answers.argmax())])
        return f"this model answers {name!r} for every {run.split} image: {hint}"
    share = labels.max() / labels.sum()
    if outcome.accuracy > share:
        return None
    name = shortened(names[int(labels.argmax())])
    return f"always answering {name!r} would be right as often as this model, or more ({share:.1%}): {hint}"
