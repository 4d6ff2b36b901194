"""When a checkpoint is due, and writing it while training goes on."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from vitreous.support.errors import InputError
from vitreous.training.checkpointing.files import Checkpoints
from vitreous.training.parallel.passes import is_shard
from vitreous.training.parallel.state import host_copy

SHARE = 0.05  # of the run, between two checkpoints
SHORTEST, LONGEST = 1.0, 600.0  # seconds between two checkpoints


class Saver:
    """Writes the checkpoints of a run in a thread. Use it as a context: its end waits for the last one.

    Training waits while the state is copied to memory, and no longer. While a checkpoint is being written, the next
    one is not begun.

    Args:
        checkpoints: of the run's folder.
        minutes: between two checkpoints; None for 5 % of the run, 10 minutes at most.
        notify: called with a line if one cannot be written; the run goes on.
        clock: seconds from any moment on.

    Attributes:
        waited: seconds that training has waited for copies.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        minutes: float | None,
        notify: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.checkpoints, self.minutes, self.notify, self.clock = checkpoints, minutes, notify, clock
        self.thread: threading.Thread | None = None
        self.failure: BaseException | None = None
        self.waited = 0.0
        self.begun = clock()  # when the last copy was made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.wait()

    def is_due(self, expected: Callable[[], float | None]) -> bool:
        """Whether it is time for the next checkpoint.

        Args:
            expected: gives the seconds that the whole run takes, or None if they are not known.
        """
        passed = self.clock() - self.begun
        if self.minutes is not None:
            return passed >= self.minutes * 60
        if not self.is_worth:
            return False
        seconds = expected()
        return passed >= (LONGEST if seconds is None else min(LONGEST, SHARE * seconds))

    @property
    def is_worth(self) -> bool:
        """Whether enough time has passed since the last checkpoint for another one to be worth its cost."""
        return self.clock() - self.begun >= SHORTEST

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self.thread is not None and self.thread.is_alive()

    def save(self, state: dict[str, Any], step: int) -> bool:
        """Copies a state and begins to write it; returns False while another one is written, or if it cannot."""
        if self.is_busy:
            return False
        self.wait()
        started = self.begun = self.clock()
        try:
            unfinished = self.checkpoints.begin()
        except InputError as error:
            self.failure = error
            return False
        copy = copied(state)
        self.waited += self.clock() - started
        self.thread = threading.Thread(target=self._write, args=(copy, step, unfinished), name="checkpoint")
        self.thread.start()
        return True

    def save_now(self, state: dict[str, Any], step: int) -> bool:
        """Writes a state, after the one that is being written; returns whether it is there."""
        self.wait()
        self._write(state, step)
        return self.wait()

    def wait(self) -> bool:
        """Waits until nothing is being written; returns whether that went well, and notifies the user if not."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        failure, self.failure = self.failure, None
        if isinstance(failure, InputError):
            self.notify(f"warning: {failure.cause}; the run goes on, and the last checkpoint stays; {failure.hint}")
        elif failure is not None:
            raise failure
        return failure is None

    def _write(self, state: dict[str, Any], step: int, unfinished: Path | None = None) -> None:
        try:
            self.checkpoints.write(state, step, unfinished)
        except BaseException as error:  # of a thread: reported by `wait`
            self.failure = error


def copied(state: Any) -> Any:
    """A state whose tensors are copies in the host's memory; lists and dicts are new, too."""
    if isinstance(state, Tensor) and is_shard(state):
        return host_copy(state)
    if isinstance(state, Tensor):
        return torch.clone(state.detach()) if state.device.type == "cpu" else state.detach().to("cpu")
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copied(value) for value in state)
    return state
