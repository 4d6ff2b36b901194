"""Runs what is not finished, each command in its own process, and keeps its result."""

import os
import resource
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from experiments import image_sets
from experiments.results import FACTS, METRICS, Result, is_finished, read_curve, read_epochs, read_facts
from experiments.table import Experiment, Run, find, words
from vitreous.support.errors import InputError
from vitreous.support.text import toml_value

ROOT = Path(__file__).parents[1]
POLL = 0.25  # seconds between two polls of a process
TAIL = 5  # lines of the log of a failed run


class Usage(NamedTuple):
    """The time of a process: seconds, and processor time in all and at the end of each epoch."""

    wall_seconds: float
    cpu_seconds: float | None
    at_epochs: list[float]


@dataclass(frozen=True)
class Runner:
    """Runs experiments.

    Args:
        table: of all experiments.
        data: the folder of the image sets.
        root: below it are runs/results, experiments/results and the folder that commands run in.
        again: whether to repeat finished runs.
    """

    table: tuple[Experiment, ...]
    data: Path | None
    root: Path = ROOT
    again: bool = False

    def folder(self, experiment: Experiment, run: Run, seed: int) -> Path:
        """Where a run writes, relative to the root."""
        return Path("runs", "results", experiment.name, f"{run.name}-seed{seed}")

    def shown(self, experiment: Experiment, run: Run, seed: int) -> list[str]:
        """A run's command as the document shows it."""
        return words(run, seed, image_sets.shown(experiment.data), self.needed(run))

    def needed(self, run: Run) -> str:
        """The folder of the run that a run needs, relative to the root."""
        if run.needs is None:
            return ""
        experiment, needed = find(run.needs, self.table)
        return self.folder(experiment, needed, needed.seeds[0]).as_posix()

    def result(self, experiment: Experiment, run: Run, seed: int) -> Result | None:
        """The kept result of a run; None if there is none, or the command in the table has changed."""
        path = result_path(self.root, experiment.name, run.name, seed)
        if not path.is_file():
            return None
        result = Result.read(path)
        return result if result.command == self.shown(experiment, run, seed) else None

    def run(self, experiment: Experiment, run: Run, seed: int) -> bool:
        """Runs a command if it is not finished, after the one it needs; returns whether it ran.

        A finished folder in the run's place that has no result yet is adopted if its recipe is the same: runs made
        elsewhere can be handed in, and a run that outlived this program is kept.

        Raises:
            InputError: the image set is missing, the process failed, or the folder is another run's.
        """
        if not self.again and self.result(experiment, run, seed) is not None:
            return False
        self.work(experiment, run, seed)
        return True

    def work(self, experiment: Experiment, run: Run, seed: int) -> None:
        """Runs a command, or takes over its finished folder, and writes its result. Raises InputError as `run`."""
        folder = self.root / self.folder(experiment, run, seed)
        shown = self.shown(experiment, run, seed)
        known = result_path(self.root, experiment.name, run.name, seed).is_file()
        if is_finished(folder) and not known and not self.again:
            check_same(folder, shown)
            epochs = read_epochs(folder)
            usage = Usage(epochs[-1]["seconds"] if epochs else 0.0, None, [])
        else:
            if run.needs is not None:
                self.need(run.needs)
            data = image_sets.find(experiment.data, self.data, self.root)
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            command = [*words(run, seed, data, self.needed(run)), "--out", str(folder.relative_to(self.root))]
            usage = execute(command, folder, self.root)
        Result(
            command=shown,
            seed=seed,
            wall_seconds=round(usage.wall_seconds, 1),
            cpu_seconds=None if usage.cpu_seconds is None else round(usage.cpu_seconds, 1),
            curve=read_curve(folder, usage.at_epochs),
            **read_facts(folder),
        ).write(result_path(self.root, experiment.name, run.name, seed))

    def need(self, needs: str) -> None:
        """Makes sure that a needed run has its folder, since a result alone has no model."""
        experiment, run = find(needs, self.table)
        if not is_finished(self.root / self.folder(experiment, run, run.seeds[0])):
            self.work(experiment, run, run.seeds[0])


def result_path(root: Path, experiment: str, run: str, seed: int) -> Path:
    """The file of a result."""
    return root / "experiments" / "results" / experiment / f"{run}-seed{seed}.json"


def execute(command: list[str], folder: Path, root: Path) -> Usage:
    """Runs a command in its own process, with its output in a log next to its folder.

    Args:
        command: "vitreous" or "python -m MODULE" and its arguments.
        folder: the command's output.
        root: the current folder of the command.

    Raises:
        InputError: it failed; the message has the last lines of its log.
    """
    arguments = command[1:] if command[0] == "python" else ["-m", *command]
    log = folder.with_name(folder.name + ".log")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    before, started, at_epochs = children_seconds(), time.monotonic(), []
    with log.open("wb") as output, subprocess.Popen(
        [sys.executable, *arguments], cwd=root, env=environment, stdout=output, stderr=subprocess.STDOUT
    ) as process:  # fmt: skip
        try:
            while process.poll() is None:
                time.sleep(POLL)
                ended = count_lines(folder / METRICS) - len(at_epochs)
                if ended > 0 and (used := process_seconds(process.pid)) is not None:
                    at_epochs += [used] * ended
        except BaseException:
            process.terminate()
            raise
    wall = time.monotonic() - started
    if process.returncode or not is_finished(folder):
        lines = " | ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:])
        raise InputError(f"{' '.join(command)} failed: {lines}", f"see {log}")
    return Usage(wall, children_seconds() - before, at_epochs)


def check_same(folder: Path, command: list[str]) -> None:
    """Raises InputError if a finished folder's recipe contradicts a command."""
    if (folder / FACTS).is_file():
        return
    from vitreous.training.recipe.recipe import find_leaf

    tables = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    for before, pair in pairwise(command):
        if before == "--set":
            key, _, value = pair.partition("=")
            section, leaf = find_leaf(key)
            if (actual := tables[section].get(leaf)) != toml_value(value):
                raise InputError(f"{folder} has {leaf} = {actual}, not {value}", "remove it, or run with --again")


def count_lines(path: Path) -> int:
    """The lines of a file; 0 if there is none."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def children_seconds() -> float:
    """The processor time of all ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def process_seconds(number: int) -> float | None:
    """The processor time of a running process and its ended children; None if unknown."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
