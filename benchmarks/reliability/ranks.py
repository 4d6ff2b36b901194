"""Lines 7 and 9: runs of several processes under torchrun, resumed on another number of them, and killed."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.reliability.outcome import Lab, LeftOut, Outcome, Tally
from benchmarks.reliability.runs import Process, distance, environment, newest, rows, size_of, words
from vitreous.checkpoints.files.tensors import read_tensors

DATA = "digits"
# Without stochastic depth, which each rank draws from a generator of its own, and at a rate at which the rounding of
# another number of ranks does not grow with each update: at the recipe's it does, as that of another micro-batch.
SETTINGS: Mapping[str, Any] = {
    "threads": 1, "workers": 0, "device": "cpu", "micro_batch": 8, "checkpoint_minutes": 0.01, "warmup_epochs": 1,
    "stochastic_depth": 0.0, "lr": 1e-4,
}  # fmt: skip
TOLERANCE = 1e-5  # of the loss, relative
EPOCHS = 3  # 123 updates: differences of rounding between numbers of ranks grow from update to update
RESTARTS = "--max-restarts=3"
SLOWEST = 300.0  # seconds until a run under torchrun has to be done
MOST_MISSES = 5  # runs that end before their kill

# The command line, which notes the step and the samples of each update of this process.
RECORDER = """
import os, sys
from pathlib import Path
from vitreous.training.learner import Learner

update = Learner.update

def recorded(learner, turn):
    step = learner.step
    result = update(learner, turn)
    with Path(os.environ["SAMPLES"], f"{os.getpid()}.txt").open("a") as file:
        print(step, *turn.batch.indices.tolist(), file=file)
    return result

Learner.update = recorded
sys.argv[0] = "vitreous"
from vitreous.cli.app import main
main()
"""


def torchrun(folder: Path, ranks: int, arguments: list[str], options: list[str] | None = None) -> Process:
    """Starts `vitreous train` on some ranks, recorded in `folder / "samples"`."""
    recorder, samples = folder / "recorder.py", folder / "samples"
    recorder.write_text(RECORDER)
    samples.mkdir(exist_ok=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *(options or [])]
    head = launcher if ranks > 1 else []
    return subprocess.Popen(
        [sys.executable, *head, str(recorder), "train", *arguments],
        cwd=folder, env=environment() | {"SAMPLES": str(samples)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def whole_run(lab: Lab, name: str, ranks: int, epochs: int) -> tuple[Path, float]:
    """The folder of a run that nothing disturbs, and its seconds."""
    folder, began = lab.sub(name), time.monotonic()
    process = torchrun(folder, ranks, [DATA, "--out", "run", *words({**SETTINGS, "epochs": epochs})])
    output, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"a run of {ranks} ranks that nothing disturbs fails: {output[-500:]}")
    return folder, time.monotonic() - began


# ---- line 7


def changing_ranks(lab: Lab) -> Outcome:
    """Runs of 1, then 2, then 1 ranks, stopped by SIGTERM, next to one that stays on one rank."""
    epochs, tally, largest = EPOCHS, Tally(), 0.0
    whole, _ = whole_run(lab, "whole", 1, epochs)
    steps = len(updates(whole / "samples"))
    for trial in range(lab.count(10, 1)):
        folder = lab.sub(f"trial{trial}")
        problem = three_parts(lab, folder, epochs, steps)
        if problem is None:
            difference = loss_distance(whole / "run", folder / "run")
            largest = max(largest, difference)
            uneven = samples_missed(folder / "samples", whole / "samples", epochs)
            problem = uneven or (None if difference <= TOLERANCE else f"the loss differs by {difference:.1e}")
        tally.add(None if problem is None else f"1, 2, 1 ranks, trial {trial}: {problem}")
    least = weights_alone(lab, whole, epochs, steps // epochs)
    control = f"model.safetensors alone resumed: the loss differs by {least:.1e}"
    return tally.outcome(control, least > TOLERANCE, f"the loss differs by {largest:.1e} at most")


def three_parts(lab: Lab, folder: Path, epochs: int, steps: int) -> str | None:
    """Trains on 1, 2 and 1 ranks, each until a signal but the last; returns what is wrong."""
    arguments = [DATA, "--out", "run", *words({**SETTINGS, "epochs": epochs})]
    stops = sorted(lab.draw.sample(range(1, steps - steps // epochs), 2))
    for ranks, step in zip((1, 2, 1), (*stops, None), strict=True):
        process = torchrun(folder, ranks, arguments)
        if step is not None and wait_for_step(process, folder / "samples", step):
            process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()
        if step is None and process.returncode != 0:
            return f"exit status {process.returncode}: {output[-300:]}"
        if step is not None and newest(folder / "run") is None:
            return f"no checkpoint after a stop at step {step}: {output[-300:]}"
        arguments = ["--resume", "run"]
    return None


def wait_for_step(process: Process, samples: Path, step: int) -> bool:
    """Waits for an update; False if the process ends before."""
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < SLOWEST:
        if max(updates(samples), default=-1) >= step:
            return True
        time.sleep(0.01)
    return False


def updates(samples: Path) -> dict[int, list[int]]:
    """The samples of each update by its step, of all ranks; where a process made it again, that of the last ones."""
    found: dict[int, dict[str, list[int]]] = {}
    for path in sorted(samples.iterdir(), key=lambda path: path.stat().st_mtime):
        for line in path.read_text().splitlines():
            step, *indices = map(int, line.split())
            found.setdefault(step, {})[path.name] = indices
    return {step: [index for part in parts.values() for index in part] for step, parts in found.items()}


def samples_missed(samples: Path, whole: Path, epochs: int) -> str | None:
    """What is wrong with the samples of the updates: those of an undisturbed run, each once in an epoch."""
    found, expected = updates(samples), updates(whole)
    if [*sorted(found)] != [*sorted(expected)]:
        return f"{len(found)} steps, not {len(expected)}"
    differing = [step for step in found if sorted(found[step]) != sorted(expected[step])]
    if differing:
        return f"other samples at step {differing[0]}"
    steps = len(found) // epochs
    for epoch in range(epochs):
        counts = Counter(index for step in range(epoch * steps, (epoch + 1) * steps) for index in found[step])
        if {*counts.values()} != {1}:
            return f"epoch {epoch + 1}: a sample comes {max(counts.values())} times"
    return None


def loss_distance(one: Path, other: Path) -> float:
    """The largest relative difference between the losses of two runs; infinite if they have other epochs."""
    largest, ours, theirs = 0.0, rows(one), rows(other)
    if [row["epoch"] for row in ours] != [row["epoch"] for row in theirs]:
        return math.inf
    for a, b in zip(ours, theirs, strict=True):
        for name in (name for name in a if name.endswith("_loss") and a[name] is not None):
            largest = max(largest, abs(a[name] - b[name]) / abs(a[name]))
    return largest


def weights_alone(lab: Lab, whole: Path, epochs: int, steps: int) -> float:
    """How far the loss is off after a stop, if only model.safetensors is left to start from."""
    folder = lab.sub("alone")
    half = epochs // 2 or 1
    settings = {**SETTINGS, "epochs": epochs}
    process = torchrun(folder, 1, [DATA, "--out", "run", *words(settings)])
    if wait_for_step(process, folder / "samples", half * steps + steps // 2):
        process.send_signal(signal.SIGTERM)
    process.communicate()
    left = {**SETTINGS, "epochs": epochs - half, "warmup_epochs": 0}
    again = [DATA, "--model", "run/model.safetensors", "--out", "again", *words(left)]
    torchrun(folder, 1, again).communicate()
    ours, theirs = rows(whole / "run"), rows(folder / "again")
    losses = [
        [row["train_loss"] for row in found if row.get("train_loss") is not None][-1:] for found in (ours, theirs)
    ]
    if not all(losses):
        return math.inf
    (a,), (b,) = losses
    return abs(a - b) / abs(a)


# ---- line 9


def killed_ranks(lab: Lab) -> Outcome:
    """SIGKILL to a random one of two ranks at a random moment; torchrun starts both again."""
    epochs, tally, largest, exact = lab.count(6, 3), Tally(), 0.0, 0
    whole, seconds = whole_run(lab, "whole", 2, epochs)
    again, _ = whole_run(lab, "again", 2, epochs)
    repeated = weights_distance(whole / "run", again / "run")
    wanted, missed = lab.count(10, 1), 0
    while tally.injected < wanted:
        folder = lab.sub(f"trial{tally.injected + missed}")
        moment = lab.draw.uniform(0, seconds)
        process = torchrun(folder, 2, [DATA, "--out", "run", *words({**SETTINGS, "epochs": epochs})], [RESTARTS])
        if not kill_a_rank(process, moment, lab.draw):
            process.communicate()
            missed += 1
            if missed > MOST_MISSES:
                raise LeftOut("the runs end before their kill")
            continue
        output, _ = process.communicate()
        name = f"a rank killed after {moment:.2f} s"
        if process.returncode != 0:
            lost = size_of(folder) if newest(folder / "run") is None else 0
            tally.add(f"{name}: exit status {process.returncode}: {output[-300:]}", lost)
            continue
        difference = weights_distance(whole / "run", folder / "run")
        largest, exact = max(largest, difference), exact + (difference == 0)
        lab.log(f"{name}: the weights differ by {difference:.1e}")
        tally.add(None if difference <= max(TOLERANCE, repeated) else f"{name}: weights differ by {difference:.1e}")
    ends = [unprotected(lab, epochs, seconds, trial) for trial in range(lab.count(5, 1))]
    note = f"{exact} to the bit, otherwise {largest:.0e} at most; two clean runs differ by {repeated:.0e}"
    control = f"without --max-restarts: {sum(ends)} of {len(ends)} runs end without a model"
    return tally.outcome(control, all(ends), note)


def ranks_of(process: Process) -> list[int]:
    """The ranks that torchrun has started."""
    path = Path(f"/proc/{process.pid}/task")
    try:
        words_of = [word for task in path.iterdir() for word in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []
    return [pid for pid in map(int, words_of) if b"recorder.py" in command_of(pid)]


def command_of(pid: int) -> bytes:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def kill_a_rank(process: Process, moment: float, draw: random.Random) -> bool:
    """Kills one of two ranks so many seconds after their start; False if the run ends before."""
    while len(ranks_of(process)) < 2:
        if process.poll() is not None:
            return False
        time.sleep(0.01)
    time.sleep(moment)
    ranks = ranks_of(process)
    if len(ranks) < 2:
        return False
    os.kill(draw.choice(ranks), signal.SIGKILL)
    return True


def weights_distance(one: Path, other: Path) -> float:
    """The largest difference between the models of two runs."""
    models = []
    for folder in (one, other):
        with read_tensors(folder / "model.safetensors") as file:
            models.append({name: file[name] for name in file})
    return distance(*models)


def unprotected(lab: Lab, epochs: int, seconds: float, trial: int) -> bool:
    """Whether a run whose rank is killed ends without a finished model if torchrun starts nothing again."""
    folder = lab.sub(f"control{trial}")
    process = torchrun(folder, 2, [DATA, "--out", "run", *words({**SETTINGS, "epochs": epochs})])
    killed = kill_a_rank(process, lab.draw.uniform(0, seconds / 2), lab.draw)
    process.communicate()
    return killed and process.returncode != 0 and not (folder / "run/results.csv").exists()
