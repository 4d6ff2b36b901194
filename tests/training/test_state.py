"""Saving and loading the state of a run in the middle: the rest is the same, bit for bit."""

import io
from pathlib import Path

import pytest
import torch

from vitreous.checkpoints.store import load_model
from vitreous.training.learner import Learner
from vitreous.training.loop import finish, fit
from vitreous.training.optimization.precision import LossScale
from vitreous.training.planning.plan import Plan, make_plan
from vitreous.training.records.display import Display
from vitreous.training.records.log import Log
from vitreous.training.run import tuned_and_seeded

WAYS = {
    "classes": {"dropout": 0.2, "stochastic_depth": 0.2, "depth": 2, "mixup": 0.2},
    "averaged": {"dropout": 0.2, "ema_decay": 0.9, "algorithm": "sgd"},
    "masked patches": {"goal": "masked_patch", "ema_decay": 0.9, "algorithm": "adam"},
    "stalled": {"lr": 1e-12, "patience": 3, "epochs": 9},
}
TIMES = ("images_per_second", "data_wait", "memory_bytes", "seconds")


def copied(state: dict) -> dict:
    """The state as a file would hold it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


class Interrupted(Exception):
    """Stops a run after an epoch."""


class StoppingLog(Log):
    """A log that stops its run when an epoch has ended, and keeps the states at that moment."""

    stop: int
    learner: Learner
    states: tuple[dict, dict]

    def end_epoch(self, row: dict) -> None:
        super().end_epoch(row)
        if row["epoch"] == self.stop:
            self.states = copied(self.learner.state_dict()), copied(self.state_dict())
            raise Interrupted


def numbers(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def run_until(plan: Plan, path: Path, stop: int) -> tuple[dict, dict]:
    with tuned_and_seeded(plan), Display(quiet=True) as display, StoppingLog(path, plan, display) as log:
        learner = Learner(plan, print)
        log.stop, log.learner = stop, learner
        with pytest.raises(Interrupted):
            fit(learner, log)
        return log.states


@pytest.mark.parametrize("way", WAYS)
def test_stopping_and_continuing_gives_the_same_bits(way, photos, tmp_path, quick):
    (photos / "train/red/3.png").write_bytes(b"broken")
    plan = make_plan(photos, "auto", None, quick | {"epochs": 4} | WAYS[way], print)
    with tuned_and_seeded(plan), Display(quiet=True) as display, Log(tmp_path / "whole", plan, display) as log:
        whole_learner = Learner(plan, print)
        fit(whole_learner, log)
        whole = finish(whole_learner, log)
    learner_state, log_state = run_until(plan, tmp_path / "stopped", stop=2)

    plan = make_plan(photos, "auto", None, quick | {"epochs": 4} | WAYS[way], print)
    with tuned_and_seeded(plan), Display(quiet=True) as display, Log(tmp_path / "rest", plan, display) as log:
        learner = Learner(plan, print)
        torch.rand(7)  # the random state is part of the learner's
        learner.load_state_dict(learner_state)
        log.load_state_dict(log_state)
        log.folder.model.write_bytes((tmp_path / "stopped/model.safetensors").read_bytes())
        fit(learner, log)
        rest = finish(learner, log)
        assert log.bad_files.count == 1

    assert numbers(rest.rows) == numbers(whole.rows)
    assert numbers([rest.best]) == numbers([whole.best])
    assert [row["epoch"] for row in rest.rows] == list(range(1, len(whole.rows) + 1))
    assert (way == "stalled") == (len(whole.rows) < 9 and plan.epochs == 9)
    for part in ("model", "objective", "average"):
        a, b = (flat(each.state_dict()[part]) for each in (whole_learner, learner))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    kept = [load_model(run.folder / "model.safetensors") for run in (whole, rest)]
    assert kept[0].metadata == kept[1].metadata
    states = [each.model.state_dict() for each in kept]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert all(row["seconds"] > log_state["rows"][-1]["seconds"] for row in rest.rows[2:])


def flat(state: object) -> list[torch.Tensor]:
    """The tensors of a nested state, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    return [tensor for value in state.values() for tensor in flat(value)] if isinstance(state, dict) else []


def test_a_run_without_its_state_goes_another_way(photos, tmp_path, quick):
    """So that the test above cannot pass by chance: the random state and the optimizer's matter."""
    plan = make_plan(photos, "auto", None, quick | {"epochs": 4} | WAYS["classes"], print)
    learner_state, _ = run_until(plan, tmp_path / "stopped", stop=2)
    losses = []
    for without in ("", "random", "optimizer"):
        plan = make_plan(photos, "auto", None, quick | {"epochs": 4} | WAYS["classes"], print)
        with tuned_and_seeded(plan):
            learner = Learner(plan, print)
            own = learner.state_dict()
            learner.load_state_dict(learner_state | ({without: own[without]} if without else {}))
            learner.train()
            results = [learner.update(batch) for batch in plan.training_batches(3)]
            losses.append([result.loss.item() for result in results if result is not None])
    assert losses[1] != losses[0]
    assert losses[2] != losses[0]


def test_a_loss_scale_and_a_streak_continue(photos, quick):
    scale = LossScale(torch.device("cpu"), first=8.0, patience=2)
    scale.update(torch.tensor(True))
    other = LossScale(torch.device("cpu"), patience=2)
    other.load_state_dict(copied(scale.state_dict()))
    for each in (scale, other):
        each.update(torch.tensor(True))
        assert each.factor == 16.0

    plan = make_plan(photos, "auto", None, quick | {"max_skipped": 3}, print)
    first, second = Learner(plan, print), Learner(plan, print)
    for step in range(2):
        first.streak.add(step, torch.tensor(True))
    first.micro_batch.size = 5
    second.load_state_dict(copied(first.state_dict()))
    assert second.micro_batch.size == 5
    assert second.streak.read() is None
    second.streak.add(2, torch.tensor(True))
    assert second.streak.read() == 2
