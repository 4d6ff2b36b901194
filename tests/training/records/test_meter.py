import time

import pytest
import torch

from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sources.open import open_data
from vitreous.model.cost import nominal_multiply_adds
from vitreous.training.planning.defaults import resolve
from vitreous.training.planning.task import Task, make_task
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.records import meter as meters
from vitreous.training.records.meter import Meter, best_flops


@pytest.fixture
def task() -> Task:
    data = open_data("digits")
    recipe, config, preprocessing = resolve(Recipe.load("digits"), data)
    assert isinstance(preprocessing, Preprocessing)
    return make_task(recipe, data, config, preprocessing)


def test_the_time_that_batches_take_is_told_from_the_time_that_steps_take(task):
    def slow():
        for _ in range(3):
            time.sleep(0.03)
            yield from task.plain_batches(task.data.validation)

    meter, seen = Meter(task), 0
    for batch in meter.waited_for(slow()):
        seen += len(batch)
        time.sleep(0.01)
    row = meter.row(seen)
    assert seen == 3 * len(task.data.validation)
    assert 0.09 <= meter.waited < meter.seconds
    assert row["data_wait"] == pytest.approx(meter.waited / meter.seconds, rel=0.05)
    assert row["images_per_second"] == pytest.approx(seen / meter.seconds, rel=0.05)
    assert row["memory_bytes"] > 10**7
    assert "mfu" not in row, "of a CPU nobody knows it"


def test_what_a_device_can_do_is_measured():
    flops = best_flops(torch.device("cpu"), torch.float32, side=128)
    assert 10**7 < flops < 10**13


def test_mfu_is_the_share_of_a_matrix_product(task, monkeypatch):
    """The count is that of the formula, three passes of two operations for each multiply-add."""
    monkeypatch.setattr(meters, "best_flops", lambda device, dtype: 1e12)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 * 10**9)
    object.__setattr__(task, "device", torch.device("cuda"))
    row = Meter(task).row(100)
    executed = 6 * nominal_multiply_adds(task.config) * row["images_per_second"]
    assert row["mfu"] == pytest.approx(executed / 1e12, rel=1e-6)
    assert row["memory_bytes"] == 5 * 10**9
