"""What a person asked for: the recipe with everything that was said, and the weights to start from."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vitreous.checkpoints.hub import is_remote
from vitreous.checkpoints.resolve import is_variant
from vitreous.data.sources import DIGITS
from vitreous.model.variants import variant
from vitreous.support.errors import InputError
from vitreous.training.recipe import Recipe
from vitreous.training.start import choose_weights

FROM_SCRATCH, FROM_WEIGHTS = "small-data", "finetune"  # recipes, where nobody names one


def choose_plan(
    recipe: str | Path | Recipe | None,
    model: str,
    settings: Mapping[str, Any],
    is_digits: bool,
    say: Callable[[str], None],
) -> tuple[Recipe, str | None]:
    """The recipe with all that a person asked for, and the weights to start from; None for fresh ones.

    Raises:
        InputError: there is no such recipe, model or setting, or no such weights.
    """
    is_shape = is_variant(model)
    if model not in ("auto", "") and not is_shape and not is_remote(model) and not Path(model).expanduser().exists():
        check_variant(model)

    def planned(base: Recipe) -> Recipe:
        named = base if model == "auto" else base.with_variant(model) if is_shape else base.with_weights(model)
        return named.with_settings(settings)

    def loaded(name: str | Path) -> Recipe:
        return Recipe.load(name, model if is_shape else None)

    if isinstance(recipe, Recipe):
        base: Recipe | None = recipe
    elif recipe is None:
        base = loaded(DIGITS) if is_digits else None
    else:
        base = loaded(recipe)
    if base is not None:
        plan = planned(base)
        weights = choose_weights(plan.model, say)
        given = base.model.weights
    else:
        weights = choose_weights(planned(Recipe()).model, say)
        base = loaded(FROM_SCRATCH if weights is None else FROM_WEIGHTS)
        plan, given = planned(base), None
    if weights is not None and given is None:  # the recipe's own shape gives way to that of the weights
        plan = base.with_weights(weights).with_settings(settings)
    return plan, weights


def check_variant(name: str) -> None:
    """Raises InputError for the name of a model that is neither a variant nor weights."""
    try:
        variant(name)
    except ValueError as error:
        cause, _, mend = str(error).partition("; ")
        raise InputError(
            cause, f"{mend}; or give a run's folder, a weights file or a name such as hf:owner/name"
        ) from error
