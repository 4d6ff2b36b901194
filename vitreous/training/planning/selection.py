"""Which validation number selects the model that a run keeps."""

from vitreous.support.errors import InputError
from vitreous.training.objectives.goals import objective_class
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.recipe.sections import KeepBy


def choose_keep_by(recipe: Recipe) -> KeepBy:
    """The recipe's `keep_by`; of "auto", balanced accuracy if training weighs classes alike, accuracy otherwise.

    Raises:
        InputError: it is a metric of classes, and the objective has none.
    """
    chosen, classifies = recipe.schedule.keep_by, objective_class(recipe.objective).classifies
    if chosen == "auto":
        return "balanced_accuracy" if recipe.weighs_classes and classifies else "accuracy"
    if not classifies and chosen in ("balanced_accuracy", "macro_f1"):
        cause = f"keep_by is {chosen!r}, but the goal {recipe.objective.goal!r} has no classes"
        raise InputError(cause, "set keep_by=loss or keep_by=accuracy")
    return chosen
