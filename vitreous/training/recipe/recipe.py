"""Recipe: one validated description of a run; the built-in ones are vitreous/recipes/*.toml."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import tomli_w
from pydantic import ValidationError

from vitreous.model.config import ViTConfig
from vitreous.model.variants import variant
from vitreous.support.errors import InputError, unknown
from vitreous.support.text import toml_value
from vitreous.training.fields import Section
from vitreous.training.objectives.goals import objective_class
from vitreous.training.objectives.section import ObjectiveSection
from vitreous.training.recipe.files import merged, read_recipe
from vitreous.training.recipe.sections import (
    SHAPE,
    WITH_WEIGHTS,
    AugmentationSection,
    AveragingSection,
    DataSection,
    ModelSection,
    OptimizerSection,
    RunSection,
    ScheduleSection,
)


class Recipe(Section):
    """Everything that decides a run, except the data."""

    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    augmentation: AugmentationSection = AugmentationSection()
    objective: ObjectiveSection = ObjectiveSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    averaging: AveragingSection = AveragingSection()
    run: RunSection = RunSection()

    @classmethod
    def load(cls, source: str | Path, variant: str | None = None) -> Self:
        """Reads a TOML file, or a built-in recipe by name, with options after plus signs: "augreg+medium1".

        A file that begins with `extends = "small-data"` needs only what differs from that built-in recipe.

        Args:
            source: a file or a name.
            variant: of the model; a file's option of that name is applied, as the paper's tables have a row per model.

        Raises:
            InputError: no such recipe or option, not TOML, over 1 MiB, unknown keys, or invalid values.
        """
        return cls.from_dict(read_recipe(source, variant))

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> Self:
        """Builds a recipe from its tables, `{"optimizer": {"lr": 1e-3}}`.

        Raises:
            InputError: it names the key, its value and what is valid.
        """
        for section, table in tables.items():
            check_section(section, table)
        try:
            recipe = cls.model_validate(as_tuples(tables))
        except ValidationError as error:
            raise invalid(error, tables) from error
        objective_class(recipe.objective)  # raises for an unknown goal
        if {"warmup_epochs", "warmup_steps"} & set(tables.get("schedule", {})):
            return recipe
        return recipe.model_copy(update={"schedule": recipe.schedule.with_short_warmup()})

    def with_settings(self, settings: Mapping[str, Any]) -> Self:
        """A copy with some values changed. A new variant brings its own shape.

        Args:
            settings: values by leaf ("lr") or dotted path ("optimizer.lr"). Text that is TOML ("1e-3", "[0.5, 1]") is
                read as TOML; other text stays text.

        Raises:
            InputError: as `from_dict`.
        """
        changes: dict[str, dict[str, Any]] = {}
        for key, value in settings.items():
            section, leaf = find_leaf(key)
            changes.setdefault(section, {})[leaf] = toml_value(value) if isinstance(value, str) else value
        tables = self.model_dump(exclude_none=True)
        if "variant" in changes.get("model", {}):
            tables["model"] = {leaf: value for leaf, value in tables["model"].items() if leaf not in SHAPE}
        return self.from_dict(merged(tables, changes))

    def with_variant(self, name: str) -> Self:
        """A copy with another variant in its own shape; with fresh weights, unless init is "pretrained"."""
        tables = self.model_dump(exclude_none=True)
        kept = {key: value for key, value in tables["model"].items() if key not in (*SHAPE, "weights")}
        init = "random" if self.model.init == "auto" else self.model.init
        return self.from_dict(tables | {"model": kept | {"variant": name, "init": init}})

    def with_weights(self, name: str) -> Self:
        """A copy that starts from weights, which bring their own shape."""
        tables = self.model_dump(exclude_none=True)
        kept = {key: value for key, value in tables["model"].items() if key in WITH_WEIGHTS}
        return self.from_dict(tables | {"model": kept | {"weights": name, "init": "pretrained"}})

    def config(self, num_classes: int, channels: int) -> ViTConfig:
        """The config of a model with fresh weights.

        Args:
            num_classes: of the data; ignored if the objective needs no classifier.
            channels: of the images.

        Raises:
            InputError: there is no such variant, or the fields contradict each other.
        """
        fields = self.model.model_dump(exclude_none=True, exclude={"init", "weights", "head"})
        fields |= {"num_classes": num_classes, "channels": channels}
        objective = objective_class(self.objective)
        if not objective.classifies:
            fields |= {"num_classes": 0, "hidden_dim": None}
        if objective.mask_token:
            fields["mask_token"] = True
        try:
            name = fields.pop("variant")
            if fields.get("hidden_dim") == "width":
                fields["hidden_dim"] = fields.get("width") or variant(name).width
            return variant(name, **fields)
        except InputError as error:
            raise InputError(f"the recipe's [model] is not valid: {error.cause}", error.hint) from error

    @property
    def weighs_classes(self) -> bool:
        """Whether small classes count as much as large ones in training."""
        return self.data.balanced_sampling or self.objective.class_weights == "balanced"

    def to_toml(self) -> str:
        """The recipe as TOML, with every value except those that the variant sets."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


LEAVES: Mapping[str, str] = MappingProxyType(
    {leaf: section for section, field in Recipe.model_fields.items() for leaf in type(field.default).model_fields}
)  # the section of every leaf; their names are unique


def find_leaf(key: str) -> tuple[str, str]:
    """The (section, leaf) of a leaf or a dotted path. Raises InputError with the nearest one."""
    section, dot, leaf = key.rpartition(".")
    if leaf not in LEAVES:
        raise unknown("recipe key", leaf, LEAVES)
    if dot and section != LEAVES[leaf]:
        raise InputError(f"there is no recipe key {key!r}", f"did you mean '{LEAVES[leaf]}.{leaf}'?")
    return LEAVES[leaf], leaf


def check_section(section: str, table: object) -> None:
    """Raises InputError for a section or a key that does not exist or is in the wrong place."""
    if section in LEAVES:
        raise InputError(f"the recipe key {section!r} is outside its section", f"put it below [{LEAVES[section]}]")
    if section not in Recipe.model_fields:
        raise unknown("recipe section", section, Recipe.model_fields)
    if not isinstance(table, Mapping):
        raise InputError(f"the recipe's {section!r} is {table!r:.100}", f"it must be a table, [{section}]")
    for key in table:
        find_leaf(f"{section}.{key}")


def invalid(error: ValidationError, tables: Mapping[str, Any]) -> InputError:
    """The error for the first value that pydantic rejects."""
    problems = error.errors(include_url=False)
    section, leaf = map(str, problems[0]["loc"][:2])
    # A key of several types has a problem for each of them.
    valid = [
        in_words(leaf, problem["type"], problem["msg"]) for problem in problems if problem["loc"][:2] == (section, leaf)
    ]
    choices = " or ".join(dict.fromkeys(valid))
    return InputError(f"the recipe's {section}.{leaf} is {tables[section][leaf]!r:.100}", f"it should be {choices}")


def in_words(leaf: str, kind: str, message: str) -> str:
    """What a value should be, to follow "it should be"."""
    if kind in ("missing", "too_long"):
        return "a pair of numbers"
    if kind.startswith("bool_"):
        return "true or false"
    if kind == "tuple_type":  # TOML has none
        return 'a list of names, such as ["backbone"]' if leaf == "frozen" else "a list of numbers"
    return message.removeprefix("Input should be ")


def as_tuples(value: Any) -> Any:
    """The same with tuples for lists, as frozen models hold them."""
    if isinstance(value, Mapping):
        return {key: as_tuples(inner) for key, inner in value.items()}
    return tuple(as_tuples(inner) for inner in value) if isinstance(value, list | tuple) else value
