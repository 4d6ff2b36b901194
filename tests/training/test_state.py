"""Everything that changes in training is in the state of its owner, and matters."""

import copy
import io
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import torch
from torch import Tensor, nn

from vitreous.training.learner import Learner
from vitreous.training.loop import fit
from vitreous.training.objectives.objective import Verdict
from vitreous.training.optimization.precision import LossScale
from vitreous.training.planning.plan import make_plan
from vitreous.training.records.display import Display
from vitreous.training.records.log import Log
from vitreous.training.run import tuned_and_seeded
from vitreous.training.safeguard import Safeguard

DROPOUT = {"dropout": 0.2, "stochastic_depth": 0.2, "depth": 2, "mixup": 0.2}
# The attributes that change in training: by owner, with their key in its state.
CHANGING = {
    "learner": {
        "step": "step", "model": "model", "optimizer": "optimizer", "average": "average", "streak": "streak",
        "begun": "begun", "micro_batch": "micro_batch",
    },
    "log": {
        "rows": "rows", "row": "row", "best": "best", "worse": "worse", "totals": "totals", "meter": "meter",
        "pictured": "pictured", "started": "seconds", "bad_files": "bad_files",
    },
}  # fmt: skip
NAN = torch.tensor(torch.nan, requires_grad=True)
SHOWN = {"display", "board"}  # what users see: made anew from the rows
FIXED = {
    *("plan", "objective", "folder", "loss_scale", "failure", "before", "pause"),
    *("group", "parallel", "passes", "blank", "whole"),  # of several processes
}


def copied(state: dict) -> dict:
    """The state as a file would hold it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def values(thing: object, depth: int = 0) -> Iterator[object]:
    """All numbers, texts and tensors inside a value, in order."""
    if isinstance(thing, Tensor):
        yield thing.tolist()
    elif isinstance(thing, nn.Module | torch.optim.Optimizer):
        yield from values(thing.state_dict(), depth + 1)
    elif isinstance(thing, dict):
        yield from (value for key in thing for value in (key, *values(thing[key], depth + 1)))
    elif isinstance(thing, list | tuple):
        yield from (value for item in thing for value in values(item, depth + 1))
    elif thing is None or isinstance(thing, int | float | str):
        yield thing
    elif depth < 2 and hasattr(thing, "__dict__"):
        yield from values({name: value for name, value in vars(thing).items() if name != "plan"}, depth + 1)


class Watcher(Safeguard):
    """Notes after each update and epoch which attributes have changed since the run began."""

    def __enter__(self) -> "Watcher":
        self.owners = {"learner": self.learner, "log": self.log}
        self.first = self.all_values()
        self.changed: dict[str, set[str]] = {"learner": set(), "log": set()}
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def all_values(self) -> dict[str, dict[str, list[object]]]:
        skipped = SHOWN | {"plan"}
        return {
            owner: {name: [*values(value)] for name, value in vars(thing).items() if name not in skipped}
            for owner, thing in self.owners.items()
        }

    def pause(self) -> None:
        for owner, now in self.all_values().items():
            self.changed[owner] |= {name for name, value in now.items() if value != self.first[owner][name]}

    after_epoch = pause


def failing_once(forward: Callable[..., Verdict]) -> Callable[..., Verdict]:
    """An objective whose third loss is not a number."""
    calls = count(1)
    return lambda *inputs: forward(*inputs)._replace(**({"loss": NAN} if next(calls) == 3 else {}))


def test_every_attribute_that_changes_is_in_the_state(photos, tmp_path, quick, monkeypatch):
    settings = quick | DROPOUT | {"ema_decay": 0.9, "micro_batch": 4, "patience": 5, "epochs": 3, "lr": 1e-12}
    plan = make_plan(photos, "auto", None, settings, print)
    with tuned_and_seeded(plan), Display(quiet=True) as display, Log(tmp_path / "run", plan, display) as log:
        learner = Learner(plan, print)
        learner.micro_batch.size = 8  # as if memory had been short
        before = torch.get_rng_state()
        with Watcher(learner, log, {}) as watcher:
            learner.micro_batch.size = 4
            (photos / "train/red/3.png").write_bytes(b"broken")
            monkeypatch.setattr(learner.objective, "forward", failing_once(learner.objective.forward))
            fit(learner, log, watcher)
        assert watcher.changed == {owner: set(names) for owner, names in CHANGING.items()}
        assert not torch.equal(torch.get_rng_state(), before)
        assert {name for thing in watcher.owners.values() for name in vars(thing)} == (
            SHOWN | FIXED | {name for names in CHANGING.values() for name in names}
        )
        states = {"learner": learner.state_dict(), "log": log.state_dict()}
    for owner, names in CHANGING.items():
        assert set(names.values()) <= set(states[owner])
    assert "random" in states["learner"]


@pytest.mark.parametrize("without", ["random", "optimizer", "model"])
def test_a_run_without_a_part_of_its_state_goes_another_way(without, photos, quick):
    """So that no part of the state can be missing unnoticed."""
    plan = make_plan(photos, "auto", None, quick | DROPOUT, print)
    with tuned_and_seeded(plan):
        learner = Learner(plan, print)
        learner.train()
        for batch in plan.training_batches(1):
            learner.update(batch)
        state = copy.deepcopy(learner.state_dict())
    losses = []
    for part in ("", without):
        with tuned_and_seeded(plan):
            other = Learner(plan, print)
            other.load_state_dict(state | ({part: copy.deepcopy(other.state_dict()[part])} if part else {}))
            other.train()
            results = [other.update(batch) for batch in plan.training_batches(2)]
            losses.append([result.loss.item() for result in results if result is not None])
    assert losses[0] != losses[1]


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
