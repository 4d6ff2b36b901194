"""The experiments, by the line of the fault."""

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.reliability import damage, disks, folders, kills, places, ranks, signals, updates, workers
from benchmarks.reliability.outcome import Lab, Outcome


class Experiment(NamedTuple):
    """One fault.

    Args:
        line: its number.
        fault: what is injected, in a few words.
        passes: what must hold after each.
        run: injects it.
    """

    line: int
    fault: str
    passes: str
    run: Callable[[Lab], Outcome]


EXPERIMENTS = (
    Experiment(1, "SIGKILL at random moments of a run", "the resumed run ends with the same bits", kills.killed_runs),
    Experiment(2, "SIGKILL before each system call of a save", "the old or the new state loads", kills.killed_saves),
    Experiment(3, "newest checkpoint cut at many lengths", "noticed; the previous one loads", damage.truncated),
    Experiment(4, "newest checkpoint with one bit flipped", "noticed; the previous one loads", damage.flipped),
    Experiment(5, "stop at an epoch's end, mid-epoch, mid-accumulation", "the same bits at the end", places.resumed),
    Experiment(6, "0, 1, 2, 4 workers", "identical batches", places.batches_by_workers),
    Experiment(
        7, "1, 2, 1 ranks, stopped in between", "each sample once an epoch, the loss to 1e-5", ranks.changing_ranks
    ),
    Experiment(8, "SIGTERM and SIGINT, once and twice", "a checkpoint of that step, ended in 5 s", signals.stopped),
    Experiment(9, "one of two ranks killed, under torchrun", "the weights of a run without a kill", ranks.killed_ranks),
    Experiment(10, "full, read-only and vanished disks", "the old state stays; one clear line", disks.disks),
    Experiment(
        11, "NaN or infinity in an image, a loss, a gradient", "weights unchanged, batch named", updates.not_finite
    ),
    Experiment(12, "out of memory from a random batch on", "smaller micro-batches, same batch", updates.out_of_memory),
    Experiment(13, "a loading process killed, hung, crashed", "noticed in 10 s, same batches", workers.lost_workers),
    Experiment(14, "two runs in one folder", "one owner; the other exits 2 and says so", folders.two_runs),
    Experiment(15, "best, damaged and many checkpoints", "the best and the last valid one stay", folders.retention),
)
