"""What an image costs is measured with the run's own updates, and changes nothing."""

import dataclasses
import time

import pytest
import torch

from vitreous.data.loading.batches import Batches
from vitreous.data.loading.shares import Share
from vitreous.support.files import write_text
from vitreous.training import run as runs
from vitreous.training import timing
from vitreous.training.learner import Learner
from vitreous.training.optimization.memory import MicroBatch
from vitreous.training.parallel import place
from vitreous.training.planning import budget
from vitreous.training.planning.plan import Plan, make_plan
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.run import run_training
from vitreous.training.timing import choose_loading, measure, thread_choices


@pytest.fixture
def plan(photos, quick) -> Plan:
    return make_plan(photos, "auto", "small-data", quick, print)


def with_run(plan: Plan, **settings: int | str) -> Plan:
    """The plan with other settings of its machine."""
    recipe = plan.recipe.model_copy(update={"run": plan.recipe.run.model_copy(update=settings)})
    workers = settings.get("workers", plan.workers)
    return dataclasses.replace(plan, recipe=recipe, workers=workers if isinstance(workers, int) else 0)


def test_loading_updates_and_scoring_are_all_counted(plan, monkeypatch):
    update, load, score = Learner.update, Batches.__getitem__, timing.score

    def slow(function, seconds):
        def slower(*arguments):
            time.sleep(seconds)
            return function(*arguments)

        return slower

    monkeypatch.setattr(Batches, "__getitem__", slow(load, 0.16))
    monkeypatch.setattr(Learner, "update", slow(update, 0.32))
    monkeypatch.setattr(timing, "score", slow(score, 0.48))
    cost = measure(plan)  # 16 images in the first batch
    assert 0.03 <= cost.training < 0.06
    assert 0.04 <= cost.validation < 0.08
    assert cost.threads == torch.get_num_threads()
    beside = measure(with_run(plan, workers=2))
    assert 0.02 <= beside.training < cost.training
    assert 0.03 <= beside.validation < cost.validation


def test_measuring_leaves_no_trace(plan, photos, tmp_path, quick):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    measure(plan)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    run_training(photos, "auto", "small-data", tmp_path / "first", quick, quiet=True)
    tuned = make_plan(photos, str(tmp_path / "first"), "finetune", {"epochs": 1, "device": "cpu"}, print)
    assert tuned.start is not None
    before = {name: tensor.clone() for name, tensor in tuned.start.stored.model.state_dict().items()}
    measure(tuned)
    after = tuned.start.stored.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_memory_may_run_out(plan, monkeypatch):
    sizes, run = [], MicroBatch.run

    def short(self, step, clear=lambda: None):
        def too_large(micro_batch):
            sizes.append(micro_batch)
            if micro_batch > 4:
                raise torch.OutOfMemoryError("out of memory")
            return step(micro_batch=micro_batch)

        return run(self, too_large, clear)

    monkeypatch.setattr(MicroBatch, "run", short)
    assert measure(plan).training > 0
    assert sizes[:4] == [16, 8, 4, 4]


def test_threads_are_compared_where_they_are_open(plan, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(timing, "usable_cores", lambda: 4)
    is_open = with_run(plan, threads="auto")
    assert thread_choices(is_open) == [1, 4]
    assert thread_choices(plan) == [torch.get_num_threads()]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_choices(is_open) == [torch.get_num_threads()]


@pytest.mark.parametrize(
    ("seconds", "threads"), [({1: 0.1, 4: 0.01}, 4), ({1: 0.1, 4: 0.095}, 1), ({1: 0.01, 4: 0.5}, 1)]
)
def test_the_faster_threads_are_taken_if_they_are_worth_it(plan, monkeypatch, seconds, threads):
    monkeypatch.setattr(timing, "thread_choices", lambda plan: [1, 4])
    monkeypatch.setattr(timing, "timed_update", lambda learner, batch: seconds[torch.get_num_threads()] * len(batch))
    monkeypatch.setattr(timing, "timed_scoring", lambda learner, batch: 0.0)
    assert measure(plan).threads == threads


def test_free_cores_load_images_where_that_takes_time(plan, monkeypatch):
    for module in (timing, place):
        monkeypatch.setattr(module, "usable_cores", lambda: 4)
    is_open = with_run(plan, workers="auto")
    assert choose_loading(is_open, threads=1, load=0.2, update=1.0) == 3
    assert choose_loading(is_open, threads=3, load=0.2, update=1.0) == 1
    assert choose_loading(is_open, threads=4, load=0.2, update=1.0) == 0
    assert choose_loading(is_open, threads=1, load=0.01, update=1.0) == 0
    assert choose_loading(with_run(plan, workers=2), threads=1, load=0.01, update=1.0) == 2
    assert choose_loading(dataclasses.replace(is_open, device=torch.device("mps")), 1, 0.2, 1.0) == 0
    assert choose_loading(dataclasses.replace(is_open, obstacle_of=lambda: "defined in the script"), 1, 0.2, 1.0) == 0


def test_a_run_of_a_few_minutes_is_fitted_recorded_and_repeated(photos, tmp_path, capsys, monkeypatch):
    """Its recipe.toml repeats it to the bit, and is not measured again."""
    monkeypatch.setattr(budget, "LEAST_SEEN", 100)
    settings = {"width": 32, "depth": 1, "mlp_dim": 32, "num_heads": 2, "minutes": 0.02, "device": "cpu", "threads": 1}
    first = run_training(photos, "auto", "small-data", tmp_path / "first", settings)
    lines = capsys.readouterr().out.splitlines()
    assert "measuring a few updates, to choose what fits 0.02 minutes" in lines
    chosen = next(line for line in lines if "minutes" in line and "×" in line)
    assert f"{len(first.rows)} epochs" in chosen
    assert not any(line.startswith("what to expect") for line in lines)  # of another shape
    recipe = Recipe.load(tmp_path / "first" / "recipe.toml")
    assert recipe.schedule.minutes == 0.02
    assert recipe.schedule.epochs == len(first.rows)
    monkeypatch.setattr(runs, "measure", lambda plan: pytest.fail("measured again"))
    again = run_training(photos, "auto", tmp_path / "first" / "recipe.toml", tmp_path / "again", quiet=True)
    assert [row["train_loss"] for row in again.rows] == [row["train_loss"] for row in first.rows]


def test_a_rank_measures_its_part(photos, quick):
    """Its images are mixed with each other, though their partners are another batch's."""
    plan = make_plan(photos, "auto", "small-data", {**quick, "mixup": 0.8, "cutmix": 1.0}, print)
    assert measure(dataclasses.replace(plan, share=Share(1, 3))).training > 0


def test_images_that_cannot_be_read_cost_nothing(plan, photos):
    for path in (photos / "train").rglob("*.png"):
        write_text(path, "no image")
    assert measure(plan).training == 0
