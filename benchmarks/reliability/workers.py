"""Line 13: loading processes that are killed, hang or crash."""

import hashlib
import os
import signal
import time
from pathlib import Path

from benchmarks.reliability.outcome import Lab, LeftOut, Outcome, Tally
from benchmarks.reliability.runs import SETTINGS, make_photos, start
from vitreous.training.planning.plan import Plan, make_plan
from vitreous.training.run import tuned_and_seeded

PATIENCE, SHORT_PATIENCE = 5.0, 2.0  # the setting worker_timeout
NOTICED = 10.0  # seconds
FAULTS = {"killed": signal.SIGKILL, "hung": signal.SIGSTOP, "crashed": signal.SIGSEGV}

LOADER = """
import multiprocessing, sys, torch
from torch.utils.data import DataLoader, TensorDataset
for number, _ in enumerate(DataLoader(TensorDataset(torch.zeros(400, 3)), 4, num_workers=2)):
    if number == 2:
        multiprocessing.active_children()[0].kill()
sys.exit()
"""


def children(process: int) -> list[int]:
    """The processes that a process started."""
    path = Path(f"/proc/{process}/task/{process}/children")
    if not path.exists():
        raise LeftOut("Linux is needed to find loading processes")
    return [int(word) for word in path.read_text().split()]


def lost_workers(lab: Lab) -> Outcome:
    """Signals to random loading processes at random batches, and the batches of that epoch."""
    photos, notes = make_photos(lab.folder / "photos", size=(200, 150)), []
    patience = SHORT_PATIENCE if lab.short else PATIENCE
    settings = {**SETTINGS, "workers": 2, "worker_timeout": patience, "batch_size": 4}
    plan = make_plan(photos, "auto", None, settings, notes.append)
    tally, slowest, epoch = Tally(), 0.0, 0
    with tuned_and_seeded(plan), plan.processes:
        for name, number in FAULTS.items():
            for _ in range(lab.count(7, 1)):
                epoch += 1
                expected, _ = epoch_of(plan, epoch)
                victim = lab.draw.randrange(len(expected) - 4), number, lab.draw
                found, longest = epoch_of(plan, epoch, victim)
                slowest = max(slowest, longest)
                problem = None
                if found != expected:
                    problem = "other batches"
                elif longest > NOTICED:
                    problem = f"noticed after {longest:.1f} s"
                tally.add(None if problem is None else f"{name} in epoch {epoch}: {problem}")
    replaced = sum("another one loads its batch" in note for note in notes)
    tries = lab.count(3, 1)
    failed = sum(loader_fails(lab) for _ in range(tries))
    note = f"at most {slowest:.1f} s of waiting with worker_timeout={patience:g}; {replaced} batches loaded again"
    return tally.outcome(f"`DataLoader`, a worker killed: the epoch fails {failed} of {tries} times", failed > 0, note)


def epoch_of(plan: Plan, epoch: int, victim: tuple | None = None) -> tuple[list[str], float]:
    """Digests of an epoch's batches, and the longest wait for one.

    Args:
        plan: with started processes.
        epoch: its number.
        victim: the batch at which a signal is sent to a process, its number, and what draws the process.
    """
    digests, longest = [], 0.0
    began = time.monotonic()
    for number, batch in enumerate(plan.training_batches(epoch)):
        longest = max(longest, time.monotonic() - began)
        content = b"".join(part.numpy().tobytes() for part in (batch.images, batch.labels, batch.indices))
        digests.append(hashlib.sha256(content).hexdigest())
        if victim is not None and number == victim[0]:
            assert plan.processes.launcher is not None, "the processes are started"
            os.kill(victim[2].choice(children(plan.processes.launcher.process.pid)), victim[1])
        began = time.monotonic()
    return digests, longest


def loader_fails(lab: Lab) -> bool:
    """Whether an epoch of torch's DataLoader fails when a worker of it is killed."""
    process = start(lab.folder, [], LOADER)
    process.communicate()
    return process.returncode != 0
