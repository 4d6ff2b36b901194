"""Lines 1 and 2: runs and saves that are killed."""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.reliability.outcome import Lab, Outcome, Tally
from benchmarks.reliability.runs import (
    SETTINGS,
    Process,
    make_photos,
    newest,
    rows,
    run_distance,
    size_of,
    start,
    words,
)
from benchmarks.reliability.tracing import killed_before
from vitreous.training.checkpointing.files import NAME, Checkpoints
from vitreous.training.checkpointing.saver import SHORTEST

LONG = {**SETTINGS, "batch_size": 4, "micro_batch": 2}
STEPS_PER_EPOCH = 9
# Steps that a kill may cost besides those of a second: the epoch in flight, and the one whose save is in flight.
AT_MOST = 2 * STEPS_PER_EPOCH
NUMBERS = 50_000  # of the state in a save

# An update, and the usual way to save it: torch.save over the last file.
IN_PLACE = """
import sys, torch
weights = torch.zeros(100_000)
while True:
    weights += 1
    torch.save({"weights": weights, "step": int(weights[0])}, sys.argv[-1])
"""


def killed_runs(lab: Lab) -> Outcome:
    """SIGKILL at random moments from the start of the process on; after each, the run is resumed."""
    tally, most_lost = Tally(), 0
    photos = make_photos(lab.folder / "photos")
    settings = words({**LONG, "epochs": lab.count(40, 8)})
    began = time.monotonic()
    whole = start(lab.folder, [photos.name, "--out", "whole", *settings])
    whole.communicate()
    seconds = time.monotonic() - began
    wanted, number = lab.count(100, 1), 0
    while tally.injected < wanted:
        number += 1
        out = lab.folder / f"killed{number}"
        arguments, is_last = [photos.name, "--out", out.name, *settings], False
        while not is_last:
            is_last = tally.injected == wanted
            process = start(lab.folder, arguments)
            if not is_last:
                moment = lab.draw.uniform(0, seconds)
                is_last = ended_within(process, moment)
            if is_last:
                _, error = process.communicate()
                problem = error.strip() or (None if run_distance(lab.folder / "whole", out) == 0 else "another result")
                if problem is not None:
                    tally.failures.append(f"after the kills of {out.name}: {problem}")
                    tally.survived -= 1
                break
            process.kill()
            process.communicate()
            problem, lost, steps = after_kill(out)
            most_lost = max(most_lost, steps)
            tally.add(None if problem is None else f"killed after {moment:.2f} s: {problem}", lost)
            lab.log(f"killed after {moment:.2f} s: {steps} steps lost")
            if (out / "recipe.toml").is_file():
                arguments = ["--resume", out.name]
            elif out.exists():
                shutil.rmtree(out)
    tries = lab.count(20, 2)
    broken = sum(not loads_after_kill(lab, trial) for trial in range(tries))
    note = f"at most {most_lost} steps made again: those of about a second"
    return tally.outcome(f"`torch.save` in place: {broken} of {tries} do not load", broken > 0, note)


def ended_within(process: Process, seconds: float) -> bool:
    """Whether a process ends by itself within a time."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def after_kill(out: Path) -> tuple[str | None, int, int]:
    """What is wrong with a killed run, the bytes of state that it lost, and the steps that it must make again."""
    finished = sorted(path for path in (out / "checkpoints").glob("*") if NAME.fullmatch(path.name))
    lines: list[str] = []
    found = newest(out, lines)
    done = max((row.get("step") or 0 for row in rows(out)), default=0)
    if not finished:
        seconds = times(out)
        return (None if not seconds or seconds[-1] < 2 * SHORTEST else f"no checkpoint after {done} steps"), 0, done
    if found is None or found.path != finished[-1]:
        return f"the newest checkpoint does not load: {lines}", size_of(finished[-1]), done
    steps = max(0, done - found.state["learner"]["step"])
    seconds = times(out)
    recent = sum(moment > seconds[-1] - SHORTEST for moment in seconds)  # epochs without a checkpoint
    return (None if steps <= AT_MOST + recent * STEPS_PER_EPOCH else f"{steps} steps lost"), 0, steps


def times(out: Path) -> list[float]:
    """When each epoch of a run ended, in seconds since it began."""
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [row["seconds"] for row in map(json.loads, lines) if "seconds" in row]


def loads_after_kill(lab: Lab, trial: int) -> bool:
    """Whether a state that is overwritten in place loads after a SIGKILL at a random moment."""
    path = lab.folder / f"control{trial}.pt"
    process = start(lab.folder, [str(path)], IN_PLACE)
    while not path.exists() or path.stat().st_size == 0:
        time.sleep(0.01)
    time.sleep(lab.draw.uniform(0.05, 0.3))
    process.kill()
    process.communicate()
    return is_loaded(path)


def is_loaded(path: Path) -> bool:
    """Whether torch.load reads a file."""
    try:
        torch.load(path, weights_only=True)
    except Exception:  # whatever a broken file makes of it
        return False
    return True


def state_of(number: int) -> dict[str, Any]:
    """A state that has its number in a tensor and in a value."""
    return {"number": number, "tensor": torch.full((NUMBERS,), float(number))}


def killed_saves(lab: Lab) -> Outcome:
    """A save that is killed before each of its system calls: the old state or the new one loads."""
    tally, found = Tally(), []
    start_folder, folder = lab.sub("start"), lab.folder / "run"
    (start_folder / "model.safetensors").write_bytes(b"the best model")
    Checkpoints(start_folder, lab.log).write(state_of(1), step=1)
    every, call, killed = lab.count(1, 10), 0, True
    while killed:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start_folder, folder)
        checkpoints = Checkpoints(folder, lab.log)
        killed = killed_before(call, lambda checkpoints=checkpoints: checkpoints.write(state_of(2), step=2))
        if killed:
            problem, number = after_killed_save(folder)
            found.append(number)
            if number < max(found):
                problem = "the new state was there, and is gone"
            size = size_of(start_folder / "checkpoints")
            tally.add(None if problem is None else f"before call {call}: {problem}", size if number == 0 else 0)
        call += every
    file = lab.folder / "state.pt"
    tries = broken = 0
    killed, call = True, 0
    while killed:
        torch.save(state_of(1), file)
        killed = killed_before(call, lambda: torch.save(state_of(2), file))
        tries += killed
        broken += killed and not is_loaded(file)
        call += 1
    note = f"{found.count(1)} times the old state, {found.count(2)} times the new one"
    return tally.outcome(f"`torch.save` in place: {broken} of {tries} do not load", broken > 0, note)


def after_killed_save(folder: Path) -> tuple[str | None, int]:
    """What is wrong after a killed save, and the number of the state that loads; 0 for none."""
    lines: list[str] = []
    found = newest(folder, lines)
    if found is None or lines:
        return f"no state loads: {lines}", 0 if found is None else found.state["number"]
    number = found.state["number"]
    if not torch.equal(found.state["tensor"], state_of(number)["tensor"]):
        return "a mixture loads", number
    checkpoints = Checkpoints(folder, lines.append)
    checkpoints.write(state_of(3), step=3)
    after = checkpoints.newest()
    if after is None or after.state["number"] != 3:
        return "the next save is not found", number
    return ("unfinished files stay" if [*checkpoints.path.glob(".saving-*")] else None), number
