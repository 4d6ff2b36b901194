"""Progress: a line for each epoch, a bar below them on a terminal, and lines in between elsewhere."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from vitreous.support.text import printable
from vitreous.training.optimization.step import Totals
from vitreous.training.records.forecast import Forecast
from vitreous.training.records.meter import Meter

REFRESH = 0.25  # seconds between two reads of the sums, each of which waits for the device
SILENCE = 30.0  # seconds without a line, where there is no bar
BAR = 10  # columns
Piece = tuple[int, str]  # of a line, with its rank: where the line is too long, the highest ranks are left out


class Display:
    """Shows the progress of a run. Use it as a context, around the run.

    On a terminal, a bar that fits its width is below the lines. Elsewhere there is a line at least every 30 seconds, as
    long as updates and batches take less.

    Args:
        quiet: show nothing at all.
        console: to print to; standard output if None.
        clock: seconds from any moment on.

    Attributes:
        shows_balanced: whether the balanced accuracy of validation is shown next to its accuracy.
    """

    def __init__(
        self, quiet: bool = False, console: Console | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.quiet, self.clock = quiet, clock
        self.shows_balanced = False
        self.console = console or Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.has_bar = self.console.is_terminal and not quiet
        self.progress = Progress(
            BarColumn(bar_width=BAR),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="crop")),
            console=self.console,
            disable=not self.has_bar,
            transient=True,
            refresh_per_second=4,
        )
        self.task = self.progress.add_task("", total=None, visible=False)
        self.forecast = Forecast(1, 1, 1, clock=clock)
        self.accuracy: list[Piece] = []  # of the last validation
        self.refreshed = self.printed = clock()

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.progress.stop()

    def print(self, line: str) -> None:
        """Prints a line, above the bar if there is one."""
        if not self.quiet:
            self.console.print(printable(line), highlight=False, markup=False, emoji=False, soft_wrap=True)
            self.printed = self.clock()

    def begin(
        self, epochs: int, steps: int, per_epoch: int, evaluate_every: int = 1, validation_share: float = 0.0
    ) -> None:
        """Begins a run of that length; the arguments are those of `Forecast`."""
        self.forecast = Forecast(epochs, steps, per_epoch, evaluate_every, validation_share, self.clock)
        self.accuracy = []

    def begin_epoch(self, epoch: int, step: int = 0) -> None:
        """Shows the number of an epoch, from 1, of which some updates may be done: `step` in the whole run."""
        self.forecast.begin_epoch(epoch, step)
        if self.has_bar:
            self._move(self.forecast.step, self.forecast.steps, [(0, self._epoch), *self.accuracy, *self._left()])

    def step(self, step: int, totals: Totals, meter: Meter) -> None:
        """Shows a step, from 1."""
        self.forecast.update(step)
        if not self._is_due():
            return
        loss, accuracy, count = totals.read()
        done, of = step - self.forecast.first, min(self.forecast.per_epoch, self.forecast.steps - self.forecast.first)
        pieces = [
            (0, self._epoch), (3, f"step {done:,}/{of:,}"), (2, f"loss {loss:.4f}"), (5, f"accuracy {accuracy:.1%}"),
            *self.accuracy, (9, f"lr {totals.lr:.1e}"), *speed_of(meter.row(count)), *self._left(),
        ]  # fmt: skip
        self._show(step, self.forecast.steps, pieces)

    def validating(self, done: int, images: int) -> None:
        """Shows that so many of the images are scored."""
        if self._is_due():
            pieces = [(0, self._epoch), (1, f"validating {done:,}/{images:,}"), *self._left(done / max(1, images))]
            self._show(self.forecast.step, self.forecast.steps, pieces)

    def working(self, title: str, done: int, of: int) -> None:
        """Shows something that is not an epoch, such as "checking", until all of it is done."""
        if self._is_due():
            self._show(done, of, [(0, title), (1, f"{done:,}/{of:,}")])
        if self.has_bar and done >= of:
            self.progress.update(self.task, visible=False)

    def end_epoch(self, row: Mapping[str, Any]) -> None:
        """Shows the numbers of a finished epoch, by the keys of metrics.jsonl."""
        validated = row["val_accuracy"] is not None
        epoch, validation = self._epoch, []
        self.forecast.step = row["step"]
        self.forecast.end_epoch(validated)
        if validated:
            self.accuracy = [(4, f"val {row['val_accuracy']:.1%}")]
            accuracy = "val" if self.has_bar else "val accuracy"
            validation = [(6, f"val loss {row['val_loss']:.4f}"), (1, f"{accuracy} {row['val_accuracy']:6.1%}")]
            if self.shows_balanced:
                validation.append((1, f"balanced {row['val_balanced_accuracy']:6.1%}"))
        pieces = [
            (0, epoch), (2, f"loss {row['train_loss']:.4f}"), (3, f"accuracy {row['train_accuracy']:6.1%}"),
            *validation, (9, f"lr {row['lr']:.1e}"), *speed_of(row), *self._left(),
        ]  # fmt: skip
        self.print(fitted(pieces, self._width))
        if self.has_bar:
            self.progress.update(self.task, completed=row["step"])

    @property
    def _epoch(self) -> str:
        epochs = self.forecast.epochs
        return f"epoch {self.forecast.epoch:>{len(str(epochs))}}/{epochs}"

    @property
    def _width(self) -> int | None:
        return self.console.width - 1 if self.has_bar else None

    def _left(self, scored: float = 0.0) -> list[Piece]:
        seconds = self.forecast.left(scored)
        return [] if seconds is None else [(1, f"{duration(seconds)} left")]

    def _is_due(self) -> bool:
        """Whether the bar is to be moved, or a line is to be printed where there is none."""
        now = self.clock()
        return not self.quiet and (now - self.refreshed >= REFRESH if self.has_bar else now - self.printed >= SILENCE)

    def _show(self, done: int, of: int, pieces: list[Piece]) -> None:
        if self.has_bar:
            self._move(done, of, pieces)
        else:
            self.print(fitted(pieces, None))

    def _move(self, done: int, of: int, pieces: list[Piece]) -> None:
        self.refreshed = self.clock()
        text = printable(fitted(pieces, self.console.width - BAR - 2))
        self.progress.update(self.task, completed=done, total=of, description=text, visible=True)


def fitted(pieces: list[Piece], width: int | None) -> str:
    """The pieces in a line of at most that width; those of the highest ranks are left out, but the last one stays."""
    kept = list(pieces)
    while True:
        line = "  ".join(text for _, text in kept)
        if width is None or len(line) <= width or len(kept) == 1:
            return line
        kept.remove(max(reversed(kept), key=lambda piece: piece[0]))


def speed_of(row: Mapping[str, Any]) -> list[Piece]:
    """Images per second, and what they cost: 1,234 images/s  data 3%  1.2 GB  MFU 41%."""
    pieces = [
        (4, f"{row['images_per_second']:,.0f} images/s"),
        (7, f"data {row['data_wait']:.0%}"),
        (8, f"{row['memory_bytes'] / 1e9:.1f} GB"),
    ]
    return [*pieces, (7, f"MFU {row['mfu']:.0%}")] if "mfu" in row else pieces


def duration(seconds: float) -> str:
    """A time in words: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
