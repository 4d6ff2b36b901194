"""What an epoch costs: images per second, the share of time spent waiting for data, memory and GPU utilization."""

import sys
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

import torch

from vitreous.model.cost import nominal_multiply_adds
from vitreous.support.host import peak_memory
from vitreous.training.objectives.goals import objective_class
from vitreous.training.optimization.precision import HALVES
from vitreous.training.planning.plan import Plan

Item = TypeVar("Item")
PASSES = 3  # forward, and a backward pass of twice its cost
SIDE, REPEATS = 8192, 10  # of the matrix product that measures a GPU


class Meter:
    """The clock of one epoch of a plan; `start` starts it, again after a pause."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.before = self.waited = 0.0  # seconds before the last start, and of waiting
        self.started = time.perf_counter()

    def start(self) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """The time of the epoch so far."""
        return self.before + time.perf_counter() - self.started

    def state_dict(self) -> dict[str, float]:
        """The times so far."""
        return {"seconds": self.seconds, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continues from a `state_dict`."""
        self.before, self.waited = state["seconds"], state["waited"]
        self.start()

    def timed(self, batches: Iterable[Item]) -> Iterator[Item]:
        """The batches, or turns, timing how long the program waits for each."""
        iterator = iter(batches)
        while True:
            requested = time.perf_counter()
            batch = next(iterator, None)
            self.waited += time.perf_counter() - requested
            if batch is None:
                return
            yield batch

    def row(self, images: int) -> dict[str, Any]:
        """The metrics of the epoch so far, from the number of images trained on."""
        seconds, device = self.seconds, self.plan.device
        row: dict[str, Any] = {
            "images_per_second": images / seconds,
            "data_wait": self.waited / seconds,  # a fraction of the time
            "memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory(),
        }
        if measures_mfu(self.plan):
            each = images / self.plan.share.size / seconds  # images of a rank in a second
            flops = 2 * PASSES * nominal_multiply_adds(self.plan.config) * each
            row["mfu"] = flops / best_flops(device, HALVES.get(self.plan.precision, torch.float32))
        return row


def measures_mfu(plan: Plan) -> bool:
    """Whether MFU is reported: on a GPU, if a step is a full forward and backward pass of all patches and no more."""
    whole = not plan.config.patch_dropout and not plan.recipe.optimizer.frozen
    return plan.device.type == "cuda" and whole and objective_class(plan.recipe.objective).one_pass


@lru_cache
def best_flops(device: torch.device, dtype: torch.dtype, side: int = SIDE) -> float:
    """The floating-point operations per second of a large matrix product, measured once; the denominator of MFU."""
    generator = torch.Generator(device).manual_seed(0)  # the default one belongs to dropout
    a, b = (torch.randn(side, side, generator=generator, device=device).to(dtype) for _ in range(2))
    best = sys.float_info.max
    for _ in range(REPEATS):
        started = time.perf_counter()
        (a @ b).sum().item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best
