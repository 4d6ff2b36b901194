"""A run that fits its minutes: image size, model size and epochs, chosen from measured costs."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sources.splits import ImageData
from vitreous.model.config import ViTConfig
from vitreous.support.text import counted, listed
from vitreous.training.planning.defaults import (
    LARGEST_SIDE,
    MOST_EPOCHS,
    SIZES,
    choose_shape,
    choose_size,
    resolve_recipe,
    suitable_epochs,
)
from vitreous.training.planning.weights import Start
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.recipe.sections import ModelSection

MINUTES = 15.0  # of a run from scratch whose length is open
SHARE = 0.9  # of the minutes, for epochs; the rest is for the start, the test and the pictures
SIDES = (64, 128, 160, LARGEST_SIDE)  # pixels
FIRST_SIDE = 128  # the image grows to this side before the model does, and further after it
LEAST_SEEN = 20_000  # images that a model from scratch has to see in order to learn anything


@dataclass(frozen=True)
class Cost:
    """Seconds that one image takes on this machine.

    Args:
        training: its view is loaded and goes through an update.
        validation: it is loaded and scored.
        threads: of a CPU operation, that this was measured with.
        workers: processes that load images, that this holds for.
    """

    training: float
    validation: float
    threads: int
    workers: int


Measure = Callable[[Recipe, ViTConfig, Preprocessing], Cost]


@dataclass(frozen=True)
class Budget:
    """How a run was fitted into its minutes.

    Args:
        minutes: at most.
        seconds: that the run is expected to take.
        chosen: what was not given, in words.
        chose_all: whether image size, the model's shape and the length were all open.
    """

    minutes: float
    seconds: float
    chosen: tuple[str, ...]
    chose_all: bool = False

    @property
    def fits(self) -> bool:
        """Whether the run is expected to end in time."""
        return self.seconds <= self.minutes * 60


def fit(
    recipe: Recipe, data: ImageData, start: Start | None, measure: Measure, notify: Callable[[str], None]
) -> tuple[Recipe, Budget | None]:
    """Chooses what is open of image size, variant and epochs, so that the run fits its minutes.

    From scratch and with an open length, a run has 15 minutes unless the recipe says otherwise. Choices are tried from
    the cheapest on, and the last one that leaves time for all suitable epochs is taken; if there is none, the cheapest
    one with fewer epochs. What is given stays. Threads and loading processes that are open become the faster
    ones.

    Args:
        recipe: as requested.
        data: to learn from.
        start: the weights to start from, which bring their own shape; None for fresh ones.
        measure: the cost of a resolved recipe; called for a few of them, or never if nothing is open or limited.
        notify: called with a line before the first measurement.

    Returns:
        The recipe with what was chosen, and how it fits; None if nothing was measured.

    Raises:
        InputError: as `resolve_recipe`.
    """
    minutes = recipe.schedule.minutes
    if minutes == "auto":
        minutes = MINUTES if has_open_length(recipe) and start is None else 0.0
    shapes = choices(recipe.model, data) if minutes and start is None else [recipe.model]
    if not minutes or (len(shapes) == 1 and not has_open_length(recipe)):
        return recipe, None
    notify(f"measuring a few updates, to choose what fits {in_minutes(minutes)}")
    best: tuple[Recipe, Budget] | None = None
    for shape in shapes:
        candidate, budget, enough = try_shape(recipe, shape, minutes, data, start, measure)
        if enough or best is None:
            best = candidate, budget
        if not enough:
            break
    assert best is not None, "there is at least one choice"
    return best


def try_shape(
    recipe: Recipe, shape: ModelSection, minutes: float, data: ImageData, start: Start | None, measure: Measure
) -> tuple[Recipe, Budget, bool]:
    """A recipe with a shape and the epochs that fit, how it fits, and whether it leaves time for enough epochs."""
    images = len(data.train)
    suitable = suitable_epochs(images)
    candidate = recipe.model_copy(update={"model": shape})
    resolved, config, preprocessing = resolve_recipe(with_length(candidate, minutes, suitable), data, start)
    cost = measure(resolved, config, preprocessing)
    epoch = seconds_of_epoch(cost, data, recipe.schedule.evaluate_every)
    available = SHARE * minutes * 60
    if has_open_length(recipe):
        least = 1 if start is not None else min(math.ceil(LEAST_SEEN / images), MOST_EPOCHS)
        fitting = int(available / epoch) if epoch else suitable
        epochs = min(suitable, max(fitting, least))
        enough = fitting >= suitable
    else:
        assert isinstance(resolved.schedule.epochs, int), "the recipe is resolved"
        epochs = resolved.schedule.epochs
        enough = epochs * epoch <= available
    chosen = in_words(recipe, config, resolved, epochs)
    chose_all = len(chosen) == 3 and not given_shape(recipe.model)
    budget = Budget(minutes, epochs * epoch / SHARE, chosen, chose_all)
    measured = {"threads": cost.threads, "workers": cost.workers}
    machine = {name: value for name, value in measured.items() if getattr(recipe.run, name) == "auto"}
    candidate = candidate.model_copy(update={"run": recipe.run.model_copy(update=machine)})
    return with_length(candidate, minutes, epochs), budget, enough


def choices(model: ModelSection, data: ImageData) -> list[ModelSection]:
    """The model's sections that a budget may choose, the cheapest first; only what is open differs.

    The smallest model comes first, on 64 and 128 pixels, then larger models up to that for the number of images, then
    more pixels. No image is larger than its own size.
    """
    largest = choose_size(len(data.train))
    sizes = [size for size in reversed(SIZES) if size[0] <= largest[0]]
    small = [(size, side) for side in SIDES if side <= FIRST_SIDE for size in sizes[:1]]
    middle = [(size, FIRST_SIDE) for size in sizes[1:]]
    large = [(sizes[-1], side) for side in SIDES if side > FIRST_SIDE]
    sections: list[ModelSection] = []
    for size, side in (*small, *middle, *large):
        section = ModelSection.model_validate(choose_shape(model, data, side, size))
        if section not in sections:
            sections.append(section)
    return sections


def has_open_length(recipe: Recipe) -> bool:
    """Whether neither epochs nor steps are given."""
    return recipe.schedule.steps is None and recipe.schedule.epochs == "auto"


def with_length(recipe: Recipe, minutes: float, epochs: int) -> Recipe:
    """The recipe with its minutes and, if its length is open, with so many epochs."""
    schedule = recipe.schedule.model_copy(update={"minutes": minutes})
    if has_open_length(recipe):
        schedule = schedule.model_copy(update={"epochs": epochs}).with_short_warmup()
    return recipe.model_copy(update={"schedule": schedule})


def seconds_of_epoch(cost: Cost, data: ImageData, evaluate_every: int) -> float:
    """What an epoch takes, with its share of the validations."""
    return cost.training * len(data.train) + cost.validation * len(data.validation) / evaluate_every


def in_words(recipe: Recipe, config: ViTConfig, resolved: Recipe, epochs: int) -> tuple[str, ...]:
    """What was open in a recipe and is chosen now: 64×64 pixels, mu/8, 120 epochs."""
    words = []
    if recipe.model.weights is None and recipe.model.image_size == "auto":
        height, width = config.image_size
        words.append(f"{height}×{width} pixels")
    if recipe.model.weights is None and recipe.model.variant == "auto":
        given = given_shape(recipe.model)
        words.append(resolved.model.variant + (f" with the given {listed(given)}" if given else ""))
    if has_open_length(recipe):
        words.append(counted(epochs, "epoch"))
    return tuple(words)


def given_shape(model: ModelSection) -> list[str]:
    """The fields of a variant's size that were given."""
    return [name for name in ("width", "depth", "mlp_dim", "num_heads") if getattr(model, name) is not None]


def in_minutes(minutes: float) -> str:
    """A limit in words: 0.5 minutes, 1 minute."""
    return f"{minutes:g} minute{'' if minutes == 1 else 's'}"


def budget_line(budget: Budget) -> str:
    """How a run was fitted into its minutes: chosen for 15 minutes: 64×64 pixels, mu/2, 120 epochs (about 14 min)."""
    minutes = round(budget.seconds / 60)
    time = f"about {round(minutes / 60)} h" if minutes >= 120 else f"about {minutes} min"
    time = time if minutes else "less than a minute"
    chosen = ", ".join(budget.chosen)
    if budget.fits:
        return f"chosen for {in_minutes(budget.minutes)}: {chosen} ({time}); for another limit: --set minutes=60"
    return (
        f"warning: {in_minutes(budget.minutes)} is too short: even the smallest choice, {chosen}, takes {time}; "
        f"let it run, or set minutes or epochs"
    )
