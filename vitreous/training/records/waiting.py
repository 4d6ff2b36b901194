"""Progress of the work before training: a bar on a terminal, a line every half minute elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vitreous.training.records.display import Display, duration

LINE_EVERY = 30.0  # seconds


@contextmanager
def waiting(display: Display, work: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how far some work is. The bar of training must not be shown yet.

    Args:
        display: of the run.
        work: such as "decoding images".
        total: number of items.

    Yields:
        A function to call with the number of items done so far.
    """
    console = display.progress.console
    if display.quiet or not console.is_terminal:
        yield _lines(display, work, total)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
    )
    display.progress.stop()  # a terminal has one live bar
    try:
        with Progress(*columns, console=console, transient=True, refresh_per_second=4) as progress:
            task = progress.add_task(work, total=total)
            yield lambda done: progress.update(task, completed=done)
    finally:
        display.progress.start()


def _lines(display: Display, work: str, total: int) -> Callable[[int], None]:
    """Prints a line from time to time."""
    started = printed = time.perf_counter()

    def report(done: int) -> None:
        nonlocal printed
        now = time.perf_counter()
        if now - printed >= LINE_EVERY:
            printed = now
            left = (now - started) / max(done, 1) * (total - done)
            display.print(f"{work}: {done:,} of {total:,}, about {duration(left)} left")

    return report
