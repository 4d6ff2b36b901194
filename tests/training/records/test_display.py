"""Progress, on terminals of several widths and where there is none."""

import io
import re
from itertools import pairwise
from typing import Any

import pytest
import torch
from rich.console import Console

from vitreous.training.optimization.step import StepResult, Totals
from vitreous.training.records.display import Display
from vitreous.training.records.meter import Meter

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
STEPS, VALIDATIONS = 40, 10  # of an epoch, and batches of a validation


class Clock:
    """A clock that the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeMeter(Meter):
    """A meter that reads the same at any time."""

    def __init__(self) -> None:
        pass

    def row(self, images: int) -> dict[str, Any]:
        return {"images_per_second": 12_345.6, "data_wait": 0.27, "memory_bytes": 12.3e9, "mfu": 0.41}


def console_of(width: int | None) -> Console:
    """A terminal of that width; None for a pipe."""
    return Console(file=io.StringIO(), width=width or 80, force_terminal=width is not None, soft_wrap=True)


def run(display: Display, clock: Clock, epochs: int, update: float, scoring: float, every: int = 1) -> list[float]:
    """Shows a run with so many seconds an update and a batch of a validation; the times when a line was printed."""
    totals, times = Totals(), [0.0]
    totals.add(0, 9.4e-4, StepResult(*torch.tensor([4 * 0.6447, 3.0, 4.0, 1.0]), torch.tensor(False)))

    def tick(seconds: float) -> None:
        display.progress.refresh()  # draws what is due in a real second
        clock.now += seconds
        if display.printed != times[-1]:
            times.append(display.printed)

    with display:
        display.begin(epochs, epochs * STEPS, STEPS, every, 0.5)
        for epoch in range(1, epochs + 1):
            display.begin_epoch(epoch)
            for step in range(STEPS):
                tick(update)
                display.step((epoch - 1) * STEPS + step + 1, totals, FakeMeter())
            validated = epoch % every == 0 or epoch == epochs
            for batch in range(VALIDATIONS if validated else 0):
                tick(scoring)
                display.validating(100 * (batch + 1), 100 * VALIDATIONS)
            row = {"epoch": epoch, "step": epoch * STEPS, "lr": 9.4e-4, "train_loss": 0.6447, "train_accuracy": 0.664}
            row |= {"val_loss": 0.6382 if validated else None, "val_accuracy": 0.68 if validated else None}
            display.end_epoch(row | FakeMeter().row(1))
    tick(0.0)
    return times


def printed(console: Console) -> list[str]:
    """What the console shows, a string for each line that was ever drawn."""
    assert isinstance(console.file, io.StringIO)
    return [line for line in re.split(r"[\r\n]+", CODES.sub("", console.file.getvalue())) if line.strip()]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_nothing_is_wider_than_the_terminal_and_epoch_lines_stay(width):
    console, clock = console_of(width), Clock()
    run(Display(console=console, clock=clock), clock, 12, update=400.0, scoring=200.0)
    lines = printed(console)
    assert max(map(len, lines)) <= width
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split("/")[0].split()[1] for line in epochs] == [str(epoch) for epoch in range(1, 13)]
    assert all("loss 0.6447" in line and "val  68.0%" in line and line.endswith(" left") for line in epochs)
    bars = [line for line in lines if "━" in line or "╺" in line]
    assert any("step 40/40" in line for line in bars) == (width >= 80)
    assert any(re.search(r"validating \d+/1,000", line) for line in bars)
    assert any("MFU 41%" in line for line in lines) == (width == 200)


def test_elsewhere_a_line_comes_at_least_every_half_minute():
    console, clock = console_of(None), Clock()
    times = run(Display(console=console, clock=clock), clock, 2, update=4.0, scoring=7.0)
    assert max(after - before for before, after in pairwise(times)) <= 30 + 7
    lines = printed(console)
    assert lines[0] == (
        "epoch 1/2  step 8/40  loss 0.6447  accuracy 75.0%  lr 9.4e-04  12,346 images/s  data 27%  12.3 GB  MFU 41%  "
        "6 min 08 s left"
    )
    assert any(line.startswith("epoch 1/2  validating 500/1,000  ") for line in lines)
    assert sum("val accuracy  68.0%" in line for line in lines) == 2
    assert lines[-1].endswith("MFU 41%  0 s left")


def test_short_epochs_have_one_line_each():
    console, clock = console_of(None), Clock()
    run(Display(console=console, clock=clock), clock, 5, update=0.01, scoring=0.01)
    assert [line.split()[1] for line in printed(console)] == ["1/5", "2/5", "3/5", "4/5", "5/5"]


def test_other_work_is_shown_too():
    for width in (None, 60):
        console, clock = console_of(width), Clock()
        display = Display(console=console, clock=clock)
        with display:
            for done in range(100):
                clock.now += 1.0
                display.working("checking", done + 1, 100)
                display.progress.refresh()
        assert any("checking  30/100" in line for line in printed(console)), width
        assert not display.progress.tasks[0].visible


def test_quiet_shows_nothing():
    for width in (None, 80):
        console, clock = console_of(width), Clock()
        run(Display(quiet=True, console=console, clock=clock), clock, 2, update=60.0, scoring=60.0)
        assert printed(console) == []
