"""What checkpoints cost: blocks of updates with one and without, in turns, and runs of short epochs."""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from benchmarks.reliability.runs import SETTINGS, make_photos, size_of
from vitreous.checkpoints.files.tensors import write_tensors
from vitreous.training.checkpointing.files import Checkpoints
from vitreous.training.checkpointing.saver import LONGEST, SHARE, Saver
from vitreous.training.learner import Learner
from vitreous.training.planning.plan import make_plan
from vitreous.training.run import run_training, tuned_and_seeded

MODEL: Mapping[str, Any] = {  # without averaging: the state is three times the weights
    **SETTINGS, "variant": "S/16", "depth": 12, "image_size": 224, "batch_size": 8, "micro_batch": 8,
    "ema_decay": 0.0, "threads": 2,
}  # fmt: skip
PAIRS, UPDATES = 8, 8  # of blocks, and in a block
DIGITS_PAIRS, DIGITS_EPOCHS = 5, 20
RUN = 600.0  # seconds of a short run, in which a checkpoint is due each 5 %


class Timed(Checkpoints):
    """Checkpoints that note the seconds of each write, on the clock and of the processor."""

    def __init__(self, folder: Path, notify: Callable[[str], None]) -> None:
        super().__init__(folder, notify)
        self.seconds: list[float] = []
        self.processor: list[float] = []

    def write(self, state: dict[str, Any], step: int, unfinished: Path | None = None) -> Path:
        """As of `Checkpoints`."""
        began, busy = time.monotonic(), time.thread_time()
        path = super().write(state, step, unfinished)
        self.seconds.append(time.monotonic() - began)
        self.processor.append(time.thread_time() - busy)
        return path


class Cost(NamedTuple):
    """The cost of one checkpoint, of each that was measured.

    Args:
        size: bytes of a checkpoint.
        waited: seconds that training waited for the copy.
        seconds: that the thread wrote.
        processor: seconds of the processor in them.
        blocks: seconds of a block of updates with a checkpoint, and of one without.
    """

    size: int
    waited: list[float]
    seconds: list[float]
    processor: list[float]
    blocks: list[tuple[float, float]]


def measure(folder: Path, settings: Mapping[str, Any] = MODEL, pairs: int = PAIRS, updates: int = UPDATES) -> Cost:
    """Trains on noise, in pairs of blocks, one with a checkpoint after its first update."""
    photos, run = make_photos(folder / "photos", size=(64, 64)), folder / "run"
    run.mkdir()
    plan = make_plan(photos, "auto", None, settings, lambda line: None)
    checkpoints, waits, blocks = Timed(run, print), [], []
    with tuned_and_seeded(plan), plan.processes, Saver(checkpoints, None, print) as saver:
        learner = Learner(plan, print)
        write_tensors(run / "model.safetensors", learner.model.state_dict())
        batches = list(plan.training_batches(1))
        learner.train()
        learner.update(batches[0])  # makes the optimizer's state

        def block(saves: bool) -> float:
            began = time.monotonic()
            for number, batch in enumerate(islice(cycle(batches), updates)):
                learner.update(batch)
                if saves and number == 0:
                    before = saver.waited
                    saver.save(learner.state_dict(), learner.step)
                    waits.append(saver.waited - before)
            seconds = time.monotonic() - began
            saver.wait()
            return seconds

        for _ in range(pairs):
            order = random.sample((True, False), 2)
            found = {saves: block(saves) for saves in order}
            blocks.append((found[True], found[False]))
    newest = max(checkpoints.path.iterdir())
    return Cost(size_of(newest), waits, checkpoints.seconds, checkpoints.processor, blocks)


def digits(folder: Path, pairs: int = DIGITS_PAIRS, epochs: int = DIGITS_EPOCHS) -> list[tuple[float, float]]:
    """Seconds of training on scikit-learn's digits, epochs of a fraction of a second, with checkpoints and without."""
    found = []
    for number in range(pairs):
        seconds = {}
        for saves in random.sample((True, False), 2):
            out = folder / f"digits{number}-{saves}"
            with patch.object(Saver, "save", Saver.save if saves else lambda self, state, step: False):
                run = run_training("digits", out=out, settings={"epochs": epochs}, quiet=True)
            seconds[saves] = run.rows[-1]["seconds"]
        found.append((seconds[True], seconds[False]))
    return found


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """A quarter, half and three quarters of the values are below these."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    """The median and, in brackets, the quartiles."""
    low, middle, high = (f"{scale * value:.{digits}f}" for value in quartiles(values))
    return f"{middle} ({low} to {high})"


def table(cost: Cost, epochs: Sequence[tuple[float, float]]) -> str:
    """Both measurements in Markdown."""
    wait = statistics.median(cost.waited)
    busy = statistics.median(cost.processor)
    extra = [with_one - without for with_one, without in cost.blocks]
    rows = [("size of a checkpoint", f"{cost.size / 1e6:,.0f} MB")]
    rows += [
        ("training waits for the copy", f"{spread(cost.waited, digits=3)} s"),
        ("a thread writes, meanwhile", f"{spread(cost.seconds)} s"),
        ("processor time of that thread", f"{spread(cost.processor)} s"),
        ("a block of updates takes longer by", f"{spread(extra)} s, of {spread([b for _, b in cost.blocks])} s"),
    ]
    for name, interval in ((f"each {LONGEST / 60:g} minutes", LONGEST), ("each 5 % of 10 minutes", SHARE * RUN)):
        text = f"{wait / interval:.2%} waiting, {busy / interval:.2%} of one core writing"
        rows.append((f"with a checkpoint {name}", text))
    if epochs:
        ratios = [with_them / without - 1 for with_them, without in epochs]
        rows.append(("`vitreous train digits`, short epochs", f"{spread(ratios, 100, 1)} % longer than without"))
    return "\n".join(("| what | median (quartiles) |", "|---|--:|", *(f"| {name} | {text} |" for name, text in rows)))


def measured(folder: Path) -> str:
    """The table, measured in an empty folder."""
    run_training("digits", out=folder / "first", settings={"epochs": 1}, quiet=True)  # what is loaded once
    return table(measure(folder), digits(folder))
