"""The outcomes as a table, for the terminal and for docs/reliability.md."""

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.reliability.outcome import Outcome
from benchmarks.reliability.table import Experiment

HEAD = ("line", "fault", "passes", "injected", "survived", "bytes lost", "seconds", "control, without the protection")
ALIGN = ("--:", "---", "---", "--:", "--:", "--:", "--:", "---")


class Row(NamedTuple):
    """An experiment with its outcome.

    Args:
        experiment: what was injected.
        outcome: None if it was left out.
        seconds: that it took.
        left_out: why, if it was.
    """

    experiment: Experiment
    outcome: Outcome | None
    seconds: float
    left_out: str = ""


def table(rows: Iterable[Row]) -> str:
    """The table in Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'|'.join(ALIGN)}|"]
    for row in rows:
        e, o = row.experiment, row.outcome
        if o is None:
            cells = [str(e.line), e.fault, e.passes, "left out", "", "", "", row.left_out]
        else:
            passes = f"{e.passes} ({o.note})" if o.note else e.passes
            control = o.control if o.control_failed else f"{o.control}: **did not fail**"
            numbers = [f"{o.injected:,}", f"{o.survived:,}", f"{o.lost:,}", f"{row.seconds:.0f}"]
            cells = [str(e.line), e.fault, passes, *numbers, control]
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |"))
    return "\n".join(lines)


def machine(seed: int, short: bool) -> str:
    """What the numbers were measured on, and how to draw the same moments."""
    return f"Measured with seed {seed} and {'the short counts' if short else 'the full counts'}: {host()}."


def host() -> str:
    """This machine in a line."""
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"Python {platform.python_version()}, torch {torch.__version__}, {system}"


def failures(rows: Iterable[Row]) -> list[str]:
    """A line for each fault that was not survived, and for each control that did not fail."""
    lines = []
    for row in rows:
        if row.outcome is not None:
            lines += [f"line {row.experiment.line}: {failure}" for failure in row.outcome.failures]
            if not row.outcome.control_failed:
                lines.append(f"line {row.experiment.line}: the control did not fail: {row.outcome.control}")
    return lines


def write(content: str, path: Path, mark: str = "reliability") -> None:
    """Replaces what is between two marks in a document."""
    text = path.read_text(encoding="utf-8")
    pattern = rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)"
    text, count = re.subn(pattern, lambda match: f"{match[1]}{content}\n{match[2]}", text, flags=re.DOTALL)
    assert count == 1, f"{path} has no marks"
    path.write_text(text, encoding="utf-8")
