"""Lines 5 and 6: runs that stop at any place, and any number of workers."""

import hashlib
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.reliability.outcome import Lab, Outcome, Tally
from benchmarks.reliability.runs import SETTINGS, make_photos, newest, run_distance
from vitreous.training.interruption import Stopped
from vitreous.training.learner import Learner
from vitreous.training.planning.plan import make_plan
from vitreous.training.records.log import Log
from vitreous.training.run import run_training, tuned_and_seeded

PLACES: dict[str, tuple[type, str, int]] = {  # the call of a method at which the signal comes
    "the end of an epoch": (Log, "end_epoch", 2),
    "mid-epoch": (Learner, "update", 5),
    "mid-accumulation": (Learner, "_between", 14),
}
WORKERS = (0, 1, 2, 4)


def with_signal(function: Callable[..., Any], count: int, number: int) -> Callable[..., Any]:
    """The function, before whose call of that count this process gets a signal."""
    calls = 0

    def stopping(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            signal.raise_signal(number)
        return function(*arguments)

    return stopping


def stopped_at(place: str, photos: Path, out: Path, settings: dict[str, Any]) -> bool:
    """Trains until a signal at a place; returns whether the run stopped."""
    owner, name, count = PLACES[place]
    with patch.object(owner, name, with_signal(getattr(owner, name), count, signal.SIGTERM)):
        try:
            run_training(photos, out=out, settings=settings, quiet=True)
        except Stopped:
            return True
    return False


def resumed(lab: Lab) -> Outcome:
    """Stops at three places with 0 and 2 workers, and the largest difference to a run that never stopped."""
    tally, photos = Tally(), make_photos(lab.folder / "photos")
    places = list(PLACES)[-lab.count(3, 1) :]
    largest = least = 0.0
    for workers in WORKERS[: lab.count(3, 1) : 2]:
        settings: dict[str, Any] = {**SETTINGS, "workers": workers}
        whole = lab.folder / f"whole{workers}"
        run_training(photos, out=whole, settings=settings, quiet=True)
        for place in places:
            out = lab.folder / f"{place}{workers}"
            stopped = stopped_at(place, photos, out, settings)
            run_training(resume=out, quiet=True)
            difference = run_distance(whole, out)
            largest = max(largest, difference)
            problem = "it did not stop" if not stopped else f"a difference of {difference}" if difference else None
            tally.add(None if problem is None else f"{place}, {workers} workers: {problem}")
    least = weights_alone(lab, photos)
    return tally.outcome(
        f"weights alone resumed: a difference of {least:.1e}", least > 0, f"largest difference {largest:g}"
    )


def weights_alone(lab: Lab, photos: Path) -> float:
    """The difference that a resumed run has if only its weights and its step are restored."""

    def load(learner: Learner, state: dict[str, Any]) -> None:
        learner.step = state["step"]
        learner.model.load_state_dict(state["model"])

    whole, out = lab.folder / "whole0", lab.folder / "control"
    stopped_at("mid-epoch", photos, out, dict(SETTINGS))
    with patch.object(Learner, "load_state_dict", load):
        run_training(resume=out, quiet=True)
    states = [torch_weights(folder) for folder in (whole, out)]
    return max((a - b).abs().max().item() for a, b in zip(*states, strict=True))


def torch_weights(folder: Path) -> list[Tensor]:
    """The weights at the end of a run."""
    found = newest(folder)
    assert found is not None, "the run has ended"
    return [*found.state["learner"]["model"].values()]


def batches_by_workers(lab: Lab) -> Outcome:
    """Two epochs of augmented batches, loaded by 0, 1, 2 and 4 processes."""
    tally, photos = Tally(), make_photos(lab.folder / "photos")
    digests = {count: our_batches(photos, count) for count in WORKERS[: lab.count(4, 2)]}
    for count, found in digests.items():
        if count:
            tally.add(None if found == digests[0] else f"{count} workers: other batches")
    theirs = [loader_batches(count) for count in (1, 2)]
    same = sum(a == b for a, b in zip(*theirs, strict=True))
    control = f"`DataLoader`, random crops in the workers: {same} of {len(theirs[0])} batches are the same"
    return tally.outcome(control, same < len(theirs[0]), f"{len(digests[0])} batches each")


def our_batches(photos: Path, workers: int) -> list[str]:
    """Digests of the batches of two epochs."""
    plan = make_plan(photos, "auto", None, {**SETTINGS, "workers": workers}, lambda line: None)
    found = []
    with tuned_and_seeded(plan), plan.processes:
        for epoch in (1, 2):
            for batch in plan.training_batches(epoch):
                found.append(
                    hashlib.sha256(
                        b"".join(part.numpy().tobytes() for part in (batch.images, batch.labels, batch.indices))
                    ).hexdigest()
                )
    return found


class RandomCrops(Dataset[Tensor]):
    """Crops drawn from torch's generator, as in most training scripts."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Tensor:
        row = int(torch.randint(4, ()))
        return torch.arange(64).reshape(8, 8)[row : row + 4] + index


def loader_batches(workers: int) -> list[str]:
    """Digests of the batches of torch's DataLoader with the same seed."""
    torch.manual_seed(0)
    with suppress(StopIteration):
        loader = DataLoader(RandomCrops(), 16, shuffle=True, num_workers=workers)
        return [hashlib.sha256(batch.numpy().tobytes()).hexdigest() for batch in loader]
    return []
