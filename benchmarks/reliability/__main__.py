"""Injects the faults and prints what survived; `--out` updates a document.

python -m benchmarks.reliability [--only LINES] [--short] [--seed N] [--out docs/reliability.md]
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reliability import document
from benchmarks.reliability.document import Row
from benchmarks.reliability.outcome import Lab, LeftOut, Outcome
from benchmarks.reliability.table import EXPERIMENTS, Experiment


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if something was not survived, or a control did not fail."""
    parser = argparse.ArgumentParser(prog="make reliability", description="Faults injected, and what survived.")
    parser.add_argument("--only", type=int, nargs="+", metavar="LINE", help="only the faults with these numbers")
    parser.add_argument("--short", action="store_true", help="inject each fault a few times")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6, help="of the random moments")
    parser.add_argument("--out", type=Path, help="a document to update")
    given = parser.parse_args(arguments)
    if given.out is not None and given.only:
        parser.error("--out needs all lines, not --only some")
    chosen = [e for e in EXPERIMENTS if given.only is None or e.line in given.only]
    if not chosen:
        parser.error(f"the lines are {', '.join(str(e.line) for e in EXPERIMENTS)}")
    print(f"seed {given.seed}", flush=True)
    rows, found = [], ""
    for experiment in chosen:
        rows.append(measured(experiment, given.seed, given.short))
        found = "\n\n".join((document.machine(given.seed, given.short), document.table(rows)))
        if given.out is not None:
            document.write(found, given.out)
    print(found)
    problems = document.failures(rows)
    print("\n".join(problems), file=sys.stderr)
    return int(any(row.outcome is not None and not row.outcome.passed for row in rows))


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
