"""A run fits its minutes: what is open is chosen from the cost, what is given stays."""

import math

import numpy as np
import pytest

from vitreous.data.sources.digits import ArrayLoader
from vitreous.data.sources.splits import ImageData, Split
from vitreous.model.cost import nominal_multiply_adds
from vitreous.training.planning.budget import LEAST_SEEN, Budget, Cost, budget_line, fit
from vitreous.training.planning.defaults import resolve_recipe
from vitreous.training.recipe.recipe import Recipe

SMALL_DATA = Recipe.load("small-data")


def data_of(images: int = 244, native_size: tuple[int, int] = (375, 500)) -> ImageData:
    """Photos that are never loaded, a tenth as many to validate."""
    nothing = ArrayLoader(np.zeros((0, 1, 1), dtype=np.uint8))
    train, validation = (
        Split(name, ("a.png",) * count, np.zeros(count, dtype=np.int64), nothing)
        for name, count in (("train", images), ("validation", images // 10))
    )
    return ImageData("photos", ("a", "b"), train, validation, None, native_size, 3, True, {})


class Machine:
    """A machine of so many multiply-adds a second, that counts how often it was measured."""

    def __init__(self, speed: float, threads: int = 1, workers: int = 0) -> None:
        self.speed, self.threads, self.workers, self.measured = speed, threads, workers, 0

    def __call__(self, recipe, config, preprocessing) -> Cost:
        self.measured += 1
        seconds = nominal_multiply_adds(config) / self.speed
        return Cost(3 * seconds, seconds, self.threads, self.workers)


def fitted(machine: Machine, data: ImageData, recipe: Recipe = SMALL_DATA) -> tuple[Recipe, Budget | None]:
    """The resolved recipe, and how it fits."""
    chosen, budget = fit(recipe, data, None, machine, lambda line: None)
    return resolve_recipe(chosen, data)[0], budget


def test_a_fast_machine_gets_what_suits_the_images():
    for images in (244, 2_374, 30_000, 300_000):
        recipe, budget = fitted(Machine(1e18), data_of(images))
        free = resolve_recipe(SMALL_DATA, data_of(images))[0]
        assert recipe.model == free.model
        assert recipe.schedule == free.schedule.model_copy(update={"minutes": 15.0})
        assert budget is not None
        assert budget.fits


@pytest.mark.parametrize(
    ("speed", "images", "variant", "side", "epochs"),
    [
        (5e11, 244, "mu/4", 224, 300),
        (5e10, 244, "mu/4", 128, 300),
        (3e10, 244, "mu/2", 64, 300),
        (1e10, 244, "mu/2", 64, 114),
        (1e11, 30_000, "mu/2", 64, 9),
        (6e11, 30_000, "mu/4", 128, 30),
        (2e12, 30_000, "Ti/4", 128, 30),
    ],
)
def test_the_largest_choice_that_fits_is_taken(speed, images, variant, side, epochs):
    recipe, budget = fitted(Machine(speed), data_of(images))
    assert (recipe.model.variant, recipe.model.image_size) == (variant, (side, side))
    assert recipe.schedule.epochs == epochs
    assert budget is not None
    assert budget.seconds <= 15 * 60
    assert budget.chosen == (f"{side}×{side} pixels", variant, f"{epochs} epochs")
    assert budget.chose_all


def test_more_minutes_never_choose_less():
    sizes, epochs = [], []
    for minutes in (1, 2, 5, 10, 20, 50, 100, 1000):
        recipe, _ = fitted(Machine(2e10), data_of(), SMALL_DATA.with_settings({"minutes": minutes}))
        assert recipe.schedule.minutes == minutes
        sizes.append(recipe.model.image_size)
        epochs.append(recipe.schedule.epochs)
    assert sizes == sorted(sizes)
    assert sizes[0] != sizes[-1]
    assert epochs == sorted(epochs)


@pytest.mark.parametrize(
    "given",
    [
        {"image_size": 224},
        {"variant": "Ti/16"},
        {"variant": "S/8", "depth": 2},
        {"epochs": 7, "minutes": 15},
        {"steps": 500, "minutes": 15},
        {"image_size": 96, "epochs": 9, "minutes": 15},
        {"patch_size": 16},
    ],
    ids=str,
)
def test_what_is_given_stays_and_the_rest_adapts(given: dict):
    asked = SMALL_DATA.with_settings(given)
    choices = []
    for speed in (1e8, 1e18):
        recipe, budget = fitted(Machine(speed), data_of(30_000), asked)
        for name, value in given.items():
            section = next(s for s in (recipe.model, recipe.schedule) if name in type(s).model_fields)
            assert getattr(section, name) == getattr(asked.model if section is recipe.model else asked.schedule, name)
            assert getattr(section, name) in (value, (value, value), float(value) if name == "minutes" else value)
        choices.append(recipe)
        assert budget is not None
        assert budget.chose_all == (given.keys() <= {"patch_size"})
    assert choices[0] != choices[1]


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 7},
        {"steps": 500},
        {"minutes": 0},
        {"minutes": 10, "epochs": 7, "variant": "Ti/16", "image_size": 64},
    ],
    ids=str,
)
def test_nothing_is_measured_where_nothing_is_open(given: dict):
    machine, asked = Machine(1.0), SMALL_DATA.with_settings(given)
    recipe, budget = fitted(machine, data_of(), asked)
    assert (machine.measured, budget) == (0, None)
    assert recipe == resolve_recipe(asked, data_of())[0]
    assert recipe.schedule.minutes == given.get("minutes", 0)


def test_the_resolved_recipe_repeats_the_run_without_a_measurement():
    first, _ = fitted(Machine(1e10), data_of())
    machine = Machine(1e7)
    again, budget = fitted(machine, data_of(), Recipe.from_dict(first.model_dump(exclude_none=True)))
    assert again == first
    assert (machine.measured, budget) == (0, None)


@pytest.mark.parametrize("name", ["threads", "workers"])
def test_the_faster_threads_and_processes_are_recorded_unless_they_are_given(name):
    machine = Machine(1e10, threads=3, workers=3)
    assert getattr(fitted(machine, data_of())[0].run, name) == 3
    assert getattr(fitted(machine, data_of(), SMALL_DATA.with_settings({name: 2}))[0].run, name) == 2


def test_a_machine_that_is_too_slow_is_said_to_be():
    data = data_of(2_374)
    recipe, budget = fitted(Machine(1e9), data)
    assert budget is not None
    assert not budget.fits
    assert recipe.schedule.epochs == math.ceil(LEAST_SEEN / 2_374)
    assert budget_line(budget) == (
        "warning: 15 minutes is too short: even the smallest choice, 64×64 pixels, mu/2, 9 epochs, takes "
        "about 115 min; let it run, or set minutes or epochs"
    )


def test_how_it_fits_is_a_line():
    assert budget_line(Budget(1.0, 50.0, ("9 epochs",))).startswith("chosen for 1 minute: 9 epochs (about 1 min)")
    assert budget_line(Budget(15.0, 840.0, ("64×64 pixels", "mu/2", "120 epochs"))) == (
        "chosen for 15 minutes: 64×64 pixels, mu/2, 120 epochs (about 14 min); for another limit: --set minutes=60"
    )
    assert "(about 3 h)" in budget_line(Budget(240.0, 10_800.0, ("3 epochs",)))
    assert budget_line(Budget(1.0, 58.0, ("1 epoch",))).startswith("chosen for 1 minute: 1 epoch (about 1 min)")
    assert "(less than a minute)" in budget_line(Budget(0.5, 20.0, ("3 epochs",)))


def test_a_measurement_without_a_readable_image_decides_nothing():
    recipe, _ = fitted(Machine(math.inf), data_of())
    assert recipe.schedule.epochs == 300


def test_a_new_limit_replaces_a_length_and_a_new_length_a_limit():
    long = SMALL_DATA.with_settings({"epochs": 50})
    limited = long.with_settings({"minutes": 5})
    assert (limited.schedule.epochs, limited.schedule.minutes) == ("auto", 5)
    again = limited.with_settings({"epochs": 3})
    assert (again.schedule.epochs, again.schedule.minutes) == (3, "auto")
    assert SMALL_DATA.with_settings({"epochs": 50, "minutes": 5}).schedule.epochs == 50
    assert long.with_settings({"minutes": 0}).schedule.epochs == 50
    steps = Recipe.load("masked-patch").with_settings({"minutes": 5})
    assert (steps.schedule.steps, steps.schedule.warmup_steps, steps.schedule.epochs) == (None, None, "auto")


def test_a_given_shape_is_not_said_to_be_chosen():
    _, budget = fitted(Machine(1e10), data_of(), SMALL_DATA.with_settings({"width": 96, "depth": 3, "num_heads": 3}))
    assert budget is not None
    assert budget.chosen[1] == "mu/2 with the given width, depth, num_heads"
    assert not budget.chose_all
