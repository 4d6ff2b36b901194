"""What happened to every tensor on its way in or out: nothing is lost silently."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vitreous.checkpoints.family import Guess

SHOWN = 3  # keys named of a group


@dataclass(frozen=True)
class LoadReport:
    """What was read, from whom, what was guessed and what was left out.

    Args:
        source: the file or name.
        family: its title.
        tensors: how many were taken.
        parameters: how many numbers our model has of them.
        guesses: choices that the file does not hold.
        dropped: keys left out, and the rule that drops them.
        notes: what else a person should know, a sentence each.
    """

    source: str
    family: str
    tensors: int
    parameters: int
    guesses: tuple[Guess, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        return {
            "source": self.source,
            "family": self.family,
            "tensors": self.tensors,
            "parameters": self.parameters,
            "guessed": [{"field": g.field, "value": g.value, "why": g.why} for g in self.guesses],
            "dropped": dict(self.dropped),
            "notes": list(self.notes),
        }

    def remarks(self) -> list[str]:
        """What a person should know, a line each; none where all was certain and all was taken."""
        return [f"guessed: {guess}" for guess in self.guesses] + left_out(self.dropped) + list(self.notes)

    def __str__(self) -> str:
        head = f"read {self.tensors:,} tensors, {self.parameters:,} parameters, from {self.source} ({self.family})"
        return "\n".join([head, *(f"  {remark}" for remark in self.remarks())])


@dataclass(frozen=True)
class ExportReport:
    """What was written, and what was left out.

    Args:
        target: the file or folder.
        family: its title.
        tensors: how many were written.
        files: all that were written.
        dropped: parameters of ours without a place there, and why that is no loss.
        notes: what else a person should know, a sentence each.
    """

    target: str
    family: str
    tensors: int
    files: tuple[str, ...]
    dropped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        return {
            "target": self.target,
            "family": self.family,
            "tensors": self.tensors,
            "files": list(self.files),
            "dropped": dict(self.dropped),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        head = f"wrote {self.tensors:,} tensors to {', '.join(self.files)} ({self.family})"
        return "\n".join([head, *(f"  {remark}" for remark in [*left_out(self.dropped), *self.notes])])


def left_out(dropped: Mapping[str, str]) -> list[str]:
    """A line for each rule that dropped keys, with how many and the first of them."""
    groups: dict[str, list[str]] = {}
    for key, why in dropped.items():
        groups.setdefault(why, []).append(key)
    return [
        f"left out: {', '.join(keys[:SHOWN])}{f' and {len(keys) - SHOWN:,} more' if len(keys) > SHOWN else ''} ({why})"
        for why, keys in groups.items()
    ]
