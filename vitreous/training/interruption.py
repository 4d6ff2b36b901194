"""Ctrl-C and SIGTERM as a request to stop where nothing is lost."""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from vitreous.training.parallel.group import Group

STOPPING_SOON, AGAIN = "stopping", "; a second signal ends the run at once, without a checkpoint"
STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A run was asked to stop, and stopped.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__("stopped" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}")
        self.number = number


class StopRequest:
    """Notes the first SIGINT or SIGTERM inside a `with` statement; a second one ends the process at once.

    Under torchrun a second one is ignored: a scheduler may signal both, and torchrun passes its own on.

    In other threads than the main one, where Python handles no signals, it does nothing.

    Args:
        group: the processes of the run; the first one says that it is stopping.

    Attributes:
        number: of the signal that came; None if none did.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.number: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def raise_if_any(self) -> None:
        """Raises Stopped if a signal came to any process. All of them call it together."""
        (number,) = self.group.highest(self.number or 0)
        if number:
            raise Stopped(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for other in STOPPING:
            signal.signal(other, signal.SIG_IGN if self.group.place.is_launched else signal.SIG_DFL)
        if self.group.leads:
            with suppress(OSError):  # nobody reads it
                os.write(2, (STOPPING_SOON + ("" if self.group.place.is_launched else AGAIN) + "\n").encode())
