"""What an experiment found, and what it works with."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    """The result of one experiment.

    Args:
        injected: faults.
        survived: faults after which everything was as promised.
        lost: bytes of good state that could not be read any more.
        control: what became of those without the protection.
        control_failed: whether the control failed, as it must.
        failures: a line for each fault that was not survived.
        note: what was measured besides.
    """

    injected: int
    survived: int
    lost: int
    control: str
    control_failed: bool
    failures: tuple[str, ...] = ()
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether all faults were survived without loss, and the control failed."""
        return 0 < self.injected == self.survived and not self.lost and self.control_failed


class LeftOut(Exception):
    """An experiment needs what this machine does not have; says what."""


@dataclass
class Tally:
    """Counts the faults of an experiment."""

    injected: int = 0
    survived: int = 0
    lost: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, problem: str | None, lost: int = 0) -> None:
        """Adds a fault: None if it was survived, otherwise what went wrong, and the bytes of good state it cost."""
        self.injected += 1
        self.lost += lost
        if problem is None:
            self.survived += 1
        else:
            self.failures.append(problem)

    def outcome(self, control: str, control_failed: bool, note: str = "") -> Outcome:
        """The result, next to that of the control."""
        return Outcome(self.injected, self.survived, self.lost, control, control_failed, tuple(self.failures), note)


@dataclass
class Lab:
    """What an experiment works with.

    Args:
        folder: empty, its own.
        draw: of random moments and places.
        short: whether to inject few faults.
        log: prints a line.
    """

    folder: Path
    draw: random.Random
    short: bool
    log: Callable[[str], None]

    def count(self, full: int, short: int) -> int:
        """How many faults to inject."""
        return short if self.short else full

    def sub(self, name: str) -> Path:
        """A new folder inside."""
        path = self.folder / name
        path.mkdir(parents=True)
        return path
