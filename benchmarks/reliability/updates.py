"""Lines 11 and 12: numbers that are not finite, and too little memory."""

import io
import math
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.reliability.outcome import Lab, Outcome, Tally
from benchmarks.reliability.places import torch_weights
from benchmarks.reliability.runs import SETTINGS, make_photos, state_distance
from vitreous.data.loading.batches import Batch
from vitreous.training.checkpointing.saver import copied
from vitreous.training.learner import Learner
from vitreous.training.optimization.memory import MicroBatch
from vitreous.training.parallel.group import Turn
from vitreous.training.run import run_training

VALUES = (math.nan, math.inf, -math.inf)
KINDS = ("image", "loss", "gradient")
STEPS = 3  # of an epoch
BATCH = 16
TOLERANCE = 1e-5  # of weights whose gradients were summed in other parts
PLAIN = {**SETTINGS, "dropout": 0.0, "stochastic_depth": 0.0, "algorithm": "sgd", "lr": 0.1, "micro_batch": BATCH}


class Spoiler:
    """Makes one update of each epoch not finite, and notes what that changed.

    Args:
        lab: draws the updates.
        kind: of what is not finite.
        value: that it has.
    """

    def __init__(self, lab: Lab, kind: str, value: float) -> None:
        self.kind, self.value, self.original = kind, value, Learner.update
        epochs = SETTINGS["epochs"]
        self.steps = {STEPS * epoch + lab.draw.randrange(STEPS) for epoch in range(epochs)}
        self.unchanged: dict[int, bool] = {}  # by step
        self.names: dict[int, str] = {}

    def update(self, learner: Learner, turn: Turn) -> Any:
        """Stands for `Learner.update`."""
        if learner.step not in self.steps:
            return self.original(learner, turn)
        step, is_first = learner.step, not learner.optimizer.state  # whose moments are made by the first step, zero
        before = copied(state_of(learner, is_first))
        handle = self.inject(learner)
        result = self.original(learner, turn)
        handle()
        self.unchanged[step] = state_distance(before, state_of(learner, is_first)) == 0
        self.names[step] = learner.plan.data.train.names[int(turn.batch.indices[0])]
        return result

    def inject(self, learner: Learner) -> Callable[[], object]:
        """Spoils the next update; returns what ends that."""
        if self.kind == "loss":
            return learner.objective.register_forward_hook(
                lambda module, given, verdict: verdict._replace(loss=verdict.loss * self.value)
            ).remove
        if self.kind == "gradient":
            parameter = next(learner.model.parameters())
            return parameter.register_hook(self.spoiled).remove
        prepare = learner.prepare

        def spoiled(batch: Batch) -> Any:
            images, targets = prepare(batch)
            return self.spoiled(images), targets

        learner.prepare = spoiled
        return lambda: delattr(learner, "prepare")

    def spoiled(self, tensor: Tensor) -> Tensor:
        """The tensor with one value that is not finite."""
        tensor = tensor.clone()
        tensor.view(-1)[0] = self.value
        return tensor


def state_of(learner: Learner, weights_alone: bool) -> dict[str, Any]:
    """What an update moves: the weights and the optimizer's moments."""
    moments = None if weights_alone else learner.optimizer.state_dict()["state"]
    return {"weights": learner.model.state_dict(), "moments": moments}


def not_finite(lab: Lab) -> Outcome:
    """A pixel, a loss or a gradient that is NaN or infinite, in one update of each epoch."""
    tally, photos = Tally(), make_photos(lab.folder / "photos")
    for kind in KINDS:
        for value in VALUES[: lab.count(3, 1)]:
            spoiler, printed = Spoiler(lab, kind, value), io.StringIO()
            out = lab.folder / f"{kind} {value}"
            with (
                patch.object(Learner, "update", lambda learner, turn, s=spoiler: s.update(learner, turn)),
                redirect_stdout(printed),
            ):
                run_training(photos, out=out, settings=SETTINGS)
            lines = [line for line in printed.getvalue().splitlines() if "skipped updates" in line]
            for step in sorted(spoiler.steps):
                problem = None
                if not spoiler.unchanged[step]:
                    problem = "the weights changed"
                elif not any(f"at steps {step + 1};" in line and spoiler.names[step] in line for line in lines):
                    problem = "the batch is not named"
                tally.add(None if problem is None else f"{kind} {value} at step {step}: {problem}")
    broken = sum(plain_update(value) for value in VALUES)
    control = f"a plain update: the weights are not finite after {broken} of {len(VALUES)}"
    return tally.outcome(control, broken == len(VALUES))


def plain_update(value: float) -> bool:
    """Whether an ordinary step with a pixel that is not finite spoils the weights."""
    model = nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    nn.functional.cross_entropy(model(torch.full((1, 4), value)), torch.tensor([0])).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return not all(parameter.isfinite().all() for parameter in model.parameters())


# ---- memory


def limited_memory(lab: Lab, least: int) -> Callable[..., Any]:
    """A hook of the objective: from a random batch on, more images than a random number do not fit."""
    calls, first, most = 0, lab.draw.randrange(8), lab.draw.randrange(least, BATCH)

    def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
        nonlocal calls
        calls += 1
        if calls > first and module.training and len(given[1]) > most:
            raise torch.OutOfMemoryError("no memory left")

    return hook


def out_of_memory(lab: Lab) -> Outcome:
    """Too little memory from a random batch on, for a random number of images."""
    tally, photos = Tally(), make_photos(lab.folder / "photos")
    run_training(photos, out=lab.folder / "whole", settings=PLAIN, quiet=True)
    whole, largest = torch_weights(lab.folder / "whole"), 0.0
    for trial in range(lab.count(24, 1)):
        out, printed = lab.folder / f"run{trial}", io.StringIO()
        with redirect_stdout(printed):
            train_with(limited_memory(lab, 1), photos, out)
        weights = torch_weights(out)
        difference = max((a - b).abs().max().item() for a, b in zip(weights, whole, strict=True))
        largest = max(largest, difference)
        problem = None
        if difference > TOLERANCE:
            problem = f"the weights differ by {difference:.1e}"
        elif "out of memory: " not in printed.getvalue():
            problem = "no line says so"
        tally.add(problem)
    control = "without the retry: " + ("the run ends" if control_ends(lab, photos) else "the run goes on")
    ends = control.endswith("ends")
    return tally.outcome(control, ends, f"weights differ by {largest:.0e} at most")


def train_with(hook: Callable[..., Any], photos: Path, out: Path) -> None:
    """Trains with a hook before each forward pass of the objective."""
    original = Learner.__init__

    def begin(learner: Learner, *arguments: Any) -> None:
        original(learner, *arguments)
        learner.objective.register_forward_pre_hook(hook)

    with patch.object(Learner, "__init__", begin):
        run_training(photos, out=out, settings=PLAIN)


def control_ends(lab: Lab, photos: Path) -> bool:
    """Whether too little memory ends a run that does not try again."""
    with patch.object(MicroBatch, "run", lambda self, step, clear=None: step(micro_batch=self.size)):
        try:
            with redirect_stdout(io.StringIO()):
                train_with(limited_memory(lab, 1), photos, lab.folder / "control")
        except torch.OutOfMemoryError:
            return True
    return False
