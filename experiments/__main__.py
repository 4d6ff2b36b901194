"""`python -m experiments`: runs the unfinished experiments and rewrites docs/results.md."""

import argparse
import os
import sys
from pathlib import Path

from experiments import document
from experiments.runner import ROOT, Runner
from experiments.table import TABLE, Experiment
from vitreous.cli.app import STOPPED
from vitreous.support.errors import InputError


def parser() -> argparse.ArgumentParser:
    """The options of the program."""
    options = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    options.add_argument("--only", metavar="NAME", help="one experiment: " + ", ".join(one.name for one in TABLE))
    options.add_argument("--data", type=Path, help="the folder of the image sets; by default VITREOUS_DATA")
    options.add_argument("--again", action="store_true", help="also repeat finished runs")
    options.add_argument("--document", action="store_true", help="run nothing; rewrite the document")
    return options


def main(arguments: list[str], table: tuple[Experiment, ...] = TABLE, root: Path = ROOT) -> int:
    """Runs the experiments; returns the exit code: 0, 1 if some failed, 2 for bad input, 130 if stopped."""
    options = parser().parse_args(arguments)
    chosen = [one for one in table if options.only in (None, one.name)]
    if not chosen:
        print(f"error: there is no experiment {options.only!r}", file=sys.stderr)
        print(f"try: {', '.join(one.name for one in table)}", file=sys.stderr)
        return 2
    named = os.environ.get("VITREOUS_DATA")
    data = options.data or (Path(named) if named else None)
    runner = Runner(table, data and data.resolve(), root, options.again)
    try:
        failures = 0 if options.document else run_all(runner, chosen)
    except KeyboardInterrupt:
        print("stopped; finished runs are kept", file=sys.stderr)
        return STOPPED
    finally:
        document.write(runner)
    return 1 if failures else 0


def run_all(runner: Runner, chosen: list[Experiment]) -> int:
    """Runs the unfinished runs of these experiments; returns how many failed."""
    failures = 0
    for experiment in chosen:
        for run in experiment.runs:
            for seed in run.seeds:
                name = f"{experiment.name}/{run.name} seed {seed}"
                try:
                    print(f"{name}: {'done' if runner.run(experiment, run, seed) else 'kept'}", flush=True)
                except InputError as error:
                    print(f"{name}: error: {error.cause}; {error.hint}", file=sys.stderr, flush=True)
                    failures += 1
    return failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
