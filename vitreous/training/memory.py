"""Micro-batches that fit into memory: the effective batch stays as it is."""

from collections.abc import Callable

import torch

from vitreous.support.errors import InputError
from vitreous.training.step import StepResult


class MicroBatch:
    """How many images go through the model at once; halved whenever the device runs out of memory.

    Args:
        size: images to begin with.
        say: tells a person, a line at a time.
    """

    def __init__(self, size: int, say: Callable[[str], None]) -> None:
        self.size, self.say = size, say

    def run(self, step: Callable[..., StepResult], clear: Callable[[], None]) -> StepResult:
        """Makes one update, again with half as many images at once until it fits.

        Args:
            step: makes the update, given `micro_batch`, how many images may go through the model at once.
            clear: drops the gradients of an update that was broken off.

        Raises:
            InputError: not even one image fits.
        """
        while True:
            try:
                return step(micro_batch=self.size)
            except torch.OutOfMemoryError:
                pass  # handled below, where the error and the tensors that it holds are gone
            if self.size == 1:
                cause = "one image of this size does not fit into the device's memory"
                raise InputError(cause, "take a smaller model, image_size, or another device")
            clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.size = -(-self.size // 2)
            self.say(f"out of memory: {self.size} images at once from here on; the batch stays as it is")
