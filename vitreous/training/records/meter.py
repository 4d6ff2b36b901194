"""What an epoch costs: images a second, the share of time spent waiting for data, memory, and the GPU's use."""

import sys
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import torch

from vitreous.data.loader import Batch
from vitreous.model.cost import nominal_multiply_adds
from vitreous.support.host import peak_memory
from vitreous.training.optimization.precision import HALVES
from vitreous.training.planning.task import Task

PASSES = 3  # forward, and a backward pass of twice its cost
SIDE, REPEATS = 8192, 10  # of the matrix product that tells what a GPU can do


class Meter:
    """The clock of one epoch.

    Args:
        task: what is trained.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.begun = time.perf_counter()
        self.waited = 0.0

    def waited_for(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, while taking the time that each makes the program wait."""
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(iterator, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    @property
    def seconds(self) -> float:
        """Since the epoch began."""
        return time.perf_counter() - self.begun

    def row(self, images: int) -> dict[str, Any]:
        """The metrics of the epoch so far, in which so many images were learned from."""
        seconds, device = self.seconds, self.task.device
        row: dict[str, Any] = {
            "images_per_second": images / seconds,
            "data_wait": self.waited / seconds,  # a share of the time
            "memory_bytes": memory(device),
        }
        if is_told(self.task):
            flops = 2 * PASSES * nominal_multiply_adds(self.task.config) * images / seconds
            row["mfu"] = flops / best_flops(device, HALVES.get(self.task.precision, torch.float32))
        return row


def is_told(task: Task) -> bool:
    """Whether MFU is: on a GPU, where each step sends all patches forward and backward, and nothing else."""
    whole = not task.config.patch_dropout and not task.recipe.optimizer.frozen and task.recipe.objective.teacher is None
    return task.device.type == "cuda" and whole


def memory(device: torch.device) -> int:
    """The most bytes that tensors had on a GPU, or the process in main memory."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()


@lru_cache
def best_flops(device: torch.device, dtype: torch.dtype, side: int = SIDE) -> float:
    """The floating-point operations a second of a large matrix product, measured once; what MFU is a share of."""
    generator = torch.Generator(device).manual_seed(0)  # the default one is dropout's
    a, b = (torch.randn(side, side, generator=generator, device=device).to(dtype) for _ in range(2))
    best = sys.float_info.max
    for _ in range(REPEATS):
        begun = time.perf_counter()
        (a @ b).sum().item()  # waits for the device
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best
