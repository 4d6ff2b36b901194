"""Progress: a bar on a terminal, a line for each epoch elsewhere."""

import time
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from vitreous.support.text import printable
from vitreous.training.optimization.step import Totals
from vitreous.training.records.meter import Meter

REFRESH = 0.25  # seconds between two reads of the sums, each of which waits for the device


class Display:
    """Shows the progress of a run. Use it as a context, around the run.

    Args:
        quiet: show nothing at all.

    Attributes:
        shows_balanced: whether the balanced accuracy of validation is shown next to its accuracy.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.epochs = 1
        self.shows_balanced = False
        self.quiet = quiet
        console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}", markup=False),
            BarColumn(bar_width=16),
            # On a narrow terminal it wraps, so that nothing is cut off.
            TextColumn("{task.fields[seen]}", markup=False, table_column=Column(no_wrap=False)),
            TimeRemainingColumn(compact=True),
            TextColumn("left{task.fields[validation]}", markup=False),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
            refresh_per_second=4,
        )
        self.task = self.progress.add_task("", total=None, epoch="", seen="", validation="", visible=False)
        self.refreshed = time.perf_counter()

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def begin(self, epochs: int, steps: int) -> None:
        """Shows the bar of a run of that length."""
        self.epochs = epochs
        self.progress.update(self.task, total=steps, epoch=f"1/{epochs}", visible=True)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.progress.stop()

    def print(self, line: str) -> None:
        """Prints a line, above the bar if there is one."""
        if not self.quiet:
            self.progress.console.print(printable(line))

    def begin_epoch(self, epoch: int) -> None:
        """Shows the number of an epoch, from 1."""
        self.progress.update(self.task, epoch=f"{epoch}/{self.epochs}")

    def step(self, step: int, totals: Totals, meter: Meter) -> None:
        """Moves the bar to a step, from 1."""
        now = time.perf_counter()
        if self.progress.disable or now - self.refreshed < REFRESH:
            return
        self.refreshed = now
        loss, accuracy, count = totals.read()
        seen = f"loss {loss:.3f}  accuracy {accuracy:.1%}  lr {totals.lr:.1e}  {speed_of(meter.row(count))}"
        self.progress.update(self.task, completed=step, seen=seen)

    def end_epoch(self, row: Mapping[str, Any]) -> None:
        """Shows the numbers of a finished epoch, by the keys of metrics.jsonl."""
        validated = row["val_accuracy"] is not None
        self.progress.update(self.task, completed=row["step"])
        if validated:
            balanced = f" (balanced {row['val_balanced_accuracy']:.1%})" if self.shows_balanced else ""
            self.progress.update(self.task, validation=f"  val {row['val_accuracy']:.1%}{balanced}")
        if self.progress.disable:
            remaining = row["seconds"] / row["epoch"] * (self.epochs - row["epoch"])
            validation = ""
            if validated:
                validation = f"val loss {row['val_loss']:.4f}  val accuracy {row['val_accuracy']:6.1%}  "
                validation += f"balanced {row['val_balanced_accuracy']:6.1%}  " if self.shows_balanced else ""
            self.print(
                f"epoch {row['epoch']:>{len(str(self.epochs))}}/{self.epochs}  "
                f"loss {row['train_loss']:.4f}  accuracy {row['train_accuracy']:6.1%}  {validation}"
                f"lr {row['lr']:.1e}  {speed_of(row)}  {duration(remaining)} left"
            )


def speed_of(row: Mapping[str, Any]) -> str:
    """Images per second, and what they cost: 1,234 images/s  data 3%  1.2 GB  MFU 41%."""
    speed = f"{row['images_per_second']:,.0f} images/s  data {row['data_wait']:.0%}  {row['memory_bytes'] / 1e9:.1f} GB"
    return speed + (f"  MFU {row['mfu']:.0%}" if "mfu" in row else "")


def duration(seconds: float) -> str:
    """A time in words: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
