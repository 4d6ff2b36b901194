"""Injects the faults and prints what survived; `--out` updates a document.

python -m benchmarks.reliability [--only LINES or cost] [--short] [--seed N] [--out docs/reliability.md]
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.reliability import cost, document
from benchmarks.reliability.document import Row
from benchmarks.reliability.outcome import Lab, LeftOut, Outcome
from benchmarks.reliability.table import EXPERIMENTS, Experiment

COST = "cost"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if something was not survived, or a control did not fail."""
    parser = argparse.ArgumentParser(prog="make reliability", description="Faults injected, and what survived.")
    lines = ", ".join(str(experiment.line) for experiment in EXPERIMENTS)
    parser.add_argument("--only", nargs="+", metavar="LINE", help=f"only some of {lines} and {COST}")
    parser.add_argument("--short", action="store_true", help="inject each fault a few times, and leave out the cost")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6, help="of the random moments")
    parser.add_argument("--out", type=Path, help="a document to update")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # line 2 forks this process, and OpenMP's threads do not survive that
    if given.out is not None and given.only not in (None, [COST]):
        parser.error(f"--out needs all lines, or {COST} alone, not --only some")
    chosen = [e for e in EXPERIMENTS if given.only is None or str(e.line) in given.only]
    has_cost = not given.short if given.only is None else COST in given.only
    if not chosen and not has_cost:
        parser.error(f"the lines are {lines} and {COST}")
    passed = not chosen or injected(chosen, given.seed, given.short, given.out)
    if has_cost:
        cost_of_checkpoints(given.out)
    return int(not passed)


def injected(chosen: Sequence[Experiment], seed: int, short: bool, out: Path | None) -> bool:
    """Runs experiments and prints their table, or writes it; returns whether all passed."""
    print(f"seed {seed}", flush=True)
    rows, found = [], ""
    for experiment in chosen:
        rows.append(measured(experiment, seed, short))
        found = "\n\n".join((document.machine(seed, short), document.table(rows)))
        if out is not None:
            document.write(found, out)
    print(found)
    print("\n".join(document.failures(rows)), file=sys.stderr)
    return all(row.outcome is None or row.outcome.passed for row in rows)


def cost_of_checkpoints(out: Path | None) -> None:
    """Measures the cost of checkpoints and prints its table, or writes it."""
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        found = cost.measured(Path(folder))
    found = f"Measured on {document.host()}.\n\n{found}"
    print(found)
    if out is not None:
        document.write(found, out, COST)


def measured(experiment: Experiment, seed: int, short: bool) -> Row:
    """An experiment with its outcome, in a folder of its own."""

    def log(line: str) -> None:
        print(f"  {line}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="reliability-", ignore_cleanup_errors=True) as folder:
        began = time.monotonic()
        draw = random.Random(f"{seed} {experiment.line}")  # the same moments with --only
        try:
            outcome = experiment.run(Lab(Path(folder), draw, short, log))
        except LeftOut as reason:
            return Row(experiment, None, 0.0, str(reason))
        except Exception:  # the other faults are still of interest
            traceback.print_exc()
            outcome = Outcome(1, 0, 0, "not reached", False, ("the experiment itself failed; see above",))
        seconds = time.monotonic() - began
    state = "passed" if outcome.passed else "FAILED"
    counts = f"{outcome.survived} of {outcome.injected}, {state} in {seconds:.0f} s"
    print(f"line {experiment.line}: {experiment.fault}: {counts}", flush=True)
    return Row(experiment, outcome, seconds)


if __name__ == "__main__":
    sys.exit(main())
