"""The table of objectives: which class learns a recipe's goal."""

from vitreous.support.errors import InputError
from vitreous.training.objectives.classification import Classification
from vitreous.training.objectives.distillation import Distilled
from vitreous.training.objectives.masked_patch import MaskedPatchPrediction
from vitreous.training.objectives.objective import Objective
from vitreous.training.objectives.section import ObjectiveSection

OBJECTIVES: dict[str, type[Objective]] = {
    "classes": Classification,
    "masked_patch": MaskedPatchPrediction,
}
TAUGHT: dict[str, type[Objective]] = {"classes": Distilled}  # the same goals with a teacher


def objective_class(options: ObjectiveSection) -> type[Objective]:
    """The objective of a recipe's goal.

    Raises:
        InputError: there is no such goal.
    """
    if options.goal not in OBJECTIVES:
        goals = " or ".join(map(repr, OBJECTIVES))
        raise InputError(f"the recipe's objective.goal is {options.goal!r}", f"it should be {goals}")
    if options.teacher is not None and options.goal in TAUGHT:
        return TAUGHT[options.goal]
    return OBJECTIVES[options.goal]


def check_options(options: ObjectiveSection) -> None:
    """Raises InputError for the first option that is set and that the goal would ignore."""
    for name in objective_class(options).unused:
        value = getattr(options, name)
        if value != ObjectiveSection.model_fields[name].default:
            cause = f"{name} is {value!r}, which the goal {options.goal!r} does not use"
            raise InputError(cause, f"leave {name} out, or set goal=classes")
