"""What a person asked for: the recipe with everything that was said, and the weights to start from."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitreous.checkpoints.load import locate
from vitreous.checkpoints.sources.hub import is_remote
from vitreous.data.sources.open import DIGITS
from vitreous.model.variants import is_variant, variant
from vitreous.support.errors import InputError
from vitreous.training.planning.weights import choose_weights
from vitreous.training.recipe.recipe import Recipe

AUTO = "auto"
FROM_SCRATCH, FROM_WEIGHTS = "small-data", "finetune"  # recipes, where nobody names one


@dataclass(frozen=True)
class Request:
    """What a person asked for.

    Args:
        recipe: a file, the name of a built-in recipe or a Recipe; None leaves it to the data and the weights.
        model: a variant, weights, or "auto".
        settings: values that differ from the recipe's.
        is_digits: whether the data are the embedded digits.

    Raises:
        InputError: there is no such model.
    """

    recipe: str | Path | Recipe | None
    model: str
    settings: Mapping[str, Any]
    is_digits: bool

    def __post_init__(self) -> None:
        is_weights = is_remote(self.model) or Path(self.model).expanduser().exists()
        if self.model != AUTO and not self.is_shape and not is_weights:
            check_variant(self.model)
            locate(Path(self.model))  # raises: there is no such file

    @property
    def is_shape(self) -> bool:
        """Whether the model is a variant, which has fresh weights."""
        return is_variant(self.model)

    def draft(self) -> Recipe:
        """The recipe as far as it is known before the weights are.

        Raises:
            InputError: there is no such recipe or setting.
        """
        return self.applied_to(self.named() or Recipe())

    def decide(self, say: Callable[[str], None]) -> tuple[Recipe, str | None]:
        """The recipe with all that was asked for, and the weights to start from; None for fresh ones.

        Args:
            say: is told what was chosen, where nobody chose.

        Raises:
            InputError: there are no such weights.
        """
        named = self.named()
        weights = choose_weights(self.draft().model, say)
        base = named or self.load(FROM_SCRATCH if weights is None else FROM_WEIGHTS)
        if weights is None or (named is not None and named.model.weights is not None):
            return self.applied_to(base), weights
        # The recipe's own shape gives way to that of the weights.
        return base.with_weights(weights).with_settings(self.settings), weights

    def named(self) -> Recipe | None:
        """The recipe that was named, or that of the digits from scratch; None where there is none."""
        if isinstance(self.recipe, Recipe):
            return self.recipe
        if self.recipe is not None:
            return self.load(self.recipe)
        fresh = self.model == AUTO or self.is_shape
        pretrained = any(key.rpartition(".")[2] in ("weights", "init") for key in self.settings)
        return self.load(DIGITS) if self.is_digits and fresh and not pretrained else None

    def load(self, name: str | Path) -> Recipe:
        """A recipe with the row of its tables for the model."""
        asked = self.settings.get("variant", self.settings.get("model.variant"))
        return Recipe.load(name, self.model if self.is_shape else asked)

    def applied_to(self, base: Recipe) -> Recipe:
        """A recipe with the model and the settings that were asked for."""
        if self.model != AUTO:
            base = base.with_variant(self.model) if self.is_shape else base.with_weights(self.model)
        return base.with_settings(self.settings)


def check_variant(name: str) -> None:
    """Raises InputError for a name that looks like a variant's, and is none."""
    if not re.fullmatch(r"[A-Za-z0-9+]+(/\d+)?", name):
        return
    try:
        variant(name)
    except InputError as error:
        weights = "or give a run's folder, a weights file or a name such as hf:owner/name"
        raise InputError(error.cause, f"{error.hint}; {weights}") from error
