"""Line 8: SIGINT and SIGTERM in training, while a checkpoint is written, and in the evaluations."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.reliability.outcome import Lab, Outcome, Tally
from benchmarks.reliability.runs import SETTINGS, Process, make_photos, newest, size_of, start, start_anew, words

LIMIT = 5.0  # seconds until the process has ended, the micro-batch in flight included
MISSED, TRIES = "the signal did not come in the validation", 3
SOON = 180.0  # seconds until a run begins
# Ti/16 at 224 pixels, image by image: a micro-batch takes a fraction of a second on one core.
TINY: Mapping[str, Any] = {
    **SETTINGS, "variant": "Ti/16", "depth": 12, "image_size": 224, "batch_size": 4, "micro_batch": 1, "epochs": 9,
}  # fmt: skip


QUICK: Mapping[str, Any] = {**SETTINGS, "epochs": 10_000}  # of the short version


class Case(NamedTuple):
    """Where signals come.

    Args:
        name: of the place.
        signals: sent one after the other.
        settings: of the run.
        reached: whether the run, in this folder, is there.
        code: of the process, expected; None if it depends on the moment.
        delay: seconds to wait, at random, after the place is reached.
    """

    name: str
    signals: tuple[int, ...]
    settings: Mapping[str, Any]
    reached: Callable[[Path], bool]
    code: int | None
    delay: float = 2.0


def in_training(out: Path) -> bool:
    """The first batch is drawn just before its update."""
    return (out / "train_batch.png").exists()


def saving(out: Path) -> bool:
    """A checkpoint is being written."""
    return any((out / "checkpoints").glob(".saving-*"))


def validated(out: Path) -> bool:
    """An epoch has ended."""
    return (out / "metrics.jsonl").exists()


def testing(out: Path) -> bool:
    """The training has ended: its tables are written before the test."""
    return (out / "results.csv").exists()


def cases(short: bool) -> list[Case]:
    """All places and signals, or one of a small model."""
    if short:
        return [Case("training", (signal.SIGTERM,), QUICK, in_training, 128 + signal.SIGTERM)]
    often = {**TINY, "checkpoint_minutes": 1e-6}
    once = {**TINY, "epochs": 1, "warmup_epochs": 0}
    found = []
    for number in (signal.SIGTERM, signal.SIGINT):
        found += [
            Case("training", (number,), TINY, in_training, 128 + number),
            Case("training, twice", (number, number), TINY, in_training, None),
            Case("while saving", (number,), often, saving, 128 + number, 0.0),
            Case("while saving, twice", (number, number), often, saving, None, 0.0),
            Case("validation", (number,), {**TINY, "limit": True}, in_training, 128 + number, 0.0),
            Case("test at the end", (number,), once, testing, 128 + number, 0.5),
        ]
    return found


def stopped(lab: Lab) -> Outcome:
    """Signals to runs of Ti/16, once and twice; afterwards each run goes on from the step of its checkpoint."""
    tally, slowest = Tally(), 0.0
    make_photos(lab.folder / "photos", train=8, test=4, size=(64, 64))
    make_photos(lab.folder / "more", train=2, test=40, size=(64, 64))  # an epoch is mostly validation
    chosen = cases(lab.short)
    for number, case in enumerate(chosen):
        out = lab.folder / f"run{number}"
        seconds, problem = one_case(lab, case, out)
        while problem == MISSED and out.name.count("-") < TRIES:
            out = out.with_name(f"{out.name}-again")
            seconds, problem = one_case(lab, case, out)
        slowest = max(slowest, seconds)
        name = f"{signal.Signals(case.signals[0]).name} in {case.name}"
        lab.log(f"{name}: {seconds:.1f} s{'' if problem is None else ': ' + problem}")
        checkpoints = out / "checkpoints"
        lost = size_of(checkpoints) if problem is not None and checkpoints.exists() and newest(out) is None else 0
        tally.add(None if problem is None else f"{name}: {problem}", lost)
    kept = control(lab)
    model = "mu/4" if lab.short else "Ti/16, 224 px, 1 thread"
    note = f"{model}; ended within {slowest:.1f} s"
    text = "SIGTERM without a handler: " + ("a checkpoint of that step" if kept else "no checkpoint of that step")
    return tally.outcome(text, not kept, note)


def started(lab: Lab) -> Callable[..., Process]:
    """What starts a run: as users do, Python's own start and end included, but in the short version."""
    return start if lab.short else start_anew


def one_case(lab: Lab, case: Case, out: Path) -> tuple[float, str | None]:
    """The seconds until a run has ended after its signals, and what is wrong then."""
    settings = {key: value for key, value in case.settings.items() if key != "limit"}
    data = "more" if "limit" in case.settings or case.reached is testing else "photos"
    process = started(lab)(lab.folder, [data, "--out", out.name, *words(settings)])
    if not wait(process, lambda: case.reached(out)):
        return 0.0, f"the run ended before: {process.communicate()[1].strip()}"
    time.sleep(lab.draw.uniform(0, case.delay) + (4.0 if case.name == "validation" else 0.0))
    sent = time.time()
    seconds = send(process, case.signals)
    output, error = process.communicate()
    if seconds > LIMIT:
        return seconds, f"it took {seconds:.1f} s to end"
    if case.code is not None and process.returncode != case.code:
        return seconds, f"exit status {process.returncode}, not {case.code}: {error.strip() or output[-200:]}"
    if "Traceback" in error:
        return seconds, "a traceback"
    return seconds, after_signals(lab, case, out, sent)


def wait(process: Process, reached: Callable[[], bool]) -> bool:
    """Waits for a place; False if the process ends before."""
    began = time.monotonic()
    while not reached():
        if process.poll() is not None or time.monotonic() - began > SOON:
            process.kill()
            return False
        time.sleep(0.002)
    return True


def send(process: Process, signals: tuple[int, ...]) -> float:
    """Sends signals, and returns the seconds until the process has ended."""
    began = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.2 if len(signals) > 1 else 0.0)
    try:
        process.wait(10 * LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
    return time.monotonic() - began


def after_signals(lab: Lab, case: Case, out: Path, sent: float) -> str | None:
    """What is wrong with a run that was sent a signal at a time: its checkpoint, or how it goes on."""
    lines: list[str] = []
    found = newest(out, lines)
    if lines:
        return lines[0]
    if found is None:
        return None if len(case.signals) > 1 else "no checkpoint"
    step = found.state["learner"]["step"]
    if len(case.signals) == 1 and case.reached is not testing and found.path.stat().st_mtime < sent:
        return f"the newest checkpoint, of step {step}, is older than the signal"
    if case.name == "validation" and found.state["log"]["row"] is None:
        return MISSED
    process = started(lab)(lab.folder, ["--resume", out.name])
    assert process.stdout is not None
    line = next((line for line in process.stdout if line.startswith("going on after step")), "")
    process.kill()
    process.communicate()
    return None if line.startswith(f"going on after step {step:,} of") else f"it goes on with {line!r}"


def control(lab: Lab) -> bool:
    """Whether a run that SIGTERM ends as it ends any program has saved its first step."""
    out = lab.folder / "control"
    program = "import signal; signal.signal = lambda number, handler: None\n"  # nothing is handled
    process = started(lab)(lab.folder, ["photos", "--out", out.name, *words(QUICK if lab.short else TINY)], program)
    wait(process, lambda: in_training(out))
    send(process, (signal.SIGTERM,))
    process.communicate()
    return newest(out) is not None
