"""Reports of what was read and written, with everything that was guessed or left out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vitreous.checkpoints.families.shared.reading import Guess

SHOWN = 3  # keys named per reason


@dataclass(frozen=True)
class LoadReport:
    """What was read from a file of another family.

    Args:
        source: the file or name.
        family: its title.
        tensors: number of tensors read.
        parameters: number of parameters of the model.
        guesses: choices that the file does not record.
        dropped: keys left out, with the reason.
        notes: other remarks, one sentence each.
    """

    source: str
    family: str
    tensors: int
    parameters: int
    guesses: tuple[Guess, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {"guessed" if name == "guesses" else name: value for name, value in asdict(self).items()}

    def remarks(self) -> list[str]:
        """Guesses, dropped keys and notes, one line each; empty if the file recorded everything."""
        return [f"guessed: {guess}" for guess in self.guesses] + left_out(self.dropped) + list(self.notes)

    def __str__(self) -> str:
        head = f"read {self.tensors:,} tensors, {self.parameters:,} parameters, from {self.source} ({self.family})"
        return "\n".join([head, *(f"  {remark}" for remark in self.remarks())])


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Args:
        target: the file or folder.
        family: its title.
        tensors: number of tensors written.
        files: all files written.
        dtype: of the numbers in them.
        dropped: parameters without a place in the format, and why that does not matter.
        notes: other remarks, one sentence each.
    """

    target: str
    family: str
    tensors: int
    files: tuple[str, ...]
    dtype: str
    dropped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        head = f"wrote {self.tensors:,} tensors to {', '.join(self.files)} ({self.family}, {self.dtype})"
        return "\n".join([head, *(f"  {remark}" for remark in [*left_out(self.dropped), *self.notes])])


def left_out(dropped: Mapping[str, str]) -> list[str]:
    """One line for each reason to drop keys, with the first of them and their number."""
    groups: dict[str, list[str]] = {}
    for key, why in dropped.items():
        groups.setdefault(why, []).append(key)
    return [
        f"left out: {', '.join(keys[:SHOWN])}{f' and {len(keys) - SHOWN:,} more' if len(keys) > SHOWN else ''} ({why})"
        for why, keys in groups.items()
    ]
