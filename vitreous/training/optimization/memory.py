"""Micro-batches that fit into memory: the effective batch stays as it is."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.support.host import free_memory
from vitreous.training.objectives.objective import Objective, Targets
from vitreous.training.optimization.precision import Precision, autocast

Result = TypeVar("Result")
OF_FREE = 0.8  # the share of what is free that a step may fill
PER_KEPT = 1.5  # bytes that a step takes at its peak for each byte that it keeps for the backward pass
STATES = 4  # copies of the weights: gradients, two moments, an average


class MicroBatch:
    """How many images go through the model at once; halved whenever the device runs out of memory.

    Args:
        size: images to begin with.
        say: tells a person, a line at a time.
    """

    def __init__(self, size: int, say: Callable[[str], None]) -> None:
        self.size, self.say = size, say

    def run(self, step: Callable[..., Result], clear: Callable[[], None] = lambda: None) -> Result:
        """Makes one step, again with half as many images at once until it fits.

        Args:
            step: is given `micro_batch`, how many images may go through the model at once.
            clear: drops what a step leaves that was broken off, such as gradients.

        Raises:
            InputError: not even one image fits.
        """
        while True:
            try:
                return step(micro_batch=self.size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # Here the error is gone, and the tensors that it holds.
            if self.size == 1:
                cause = "one image of this size does not fit into the device's memory"
                raise InputError(cause, "take a smaller model, image_size, or another device")
            clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.size = -(-self.size // 2)
            self.say(f"out of memory: {self.size} images at once from here on; the batch stays as it is")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device had no room; a CPU tells it by the text alone."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def fitting(size: int, kept_by_image: int, weights: int, free: int | None) -> int:
    """The largest of size, size / 2, size / 4, … images whose step fits into the memory; 1 if none does.

    Args:
        size: of a batch.
        kept_by_image: bytes that an image keeps for the backward pass.
        weights: bytes of what is trained.
        free: bytes of the device; None if nobody knows, and all are let through.
    """
    if free is None:
        return size
    room = OF_FREE * free - STATES * weights
    while size > 1 and size * kept_by_image * PER_KEPT > room:
        size = -(-size // 2)
    return size


def kept_by_image(
    model: VisionTransformer, objective: Objective, images: Images, targets: Targets, precision: Precision
) -> int:
    """Counts the bytes that each image keeps for the backward pass, in forward passes that use up no random number.

    Where activations are checkpointed, a block's own are there once more, while it goes backward.

    Args:
        model: in training mode.
        objective: what it learns.
        images: a few.
        targets: of these.
        precision: of the activations.
    """
    if model.encoder.checkpoint_activations:
        kept = _kept(model, objective, images, targets, precision)
        model.encoder.checkpoint_activations = False
        whole = _kept(model, objective, images, targets, precision)
        model.encoder.checkpoint_activations = True
        return kept + whole // model.config.depth
    return _kept(model, objective, images, targets, precision)


def _kept(
    model: VisionTransformer, objective: Objective, images: Images, targets: Targets, precision: Precision
) -> int:
    of_layers = {parameter.untyped_storage().data_ptr() for m in (model, objective) for parameter in m.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in of_layers:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = images.device
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        autocast(precision, device),
    ):
        verdict = objective(model, images, targets)
    del verdict
    return sum(kept.values()) // len(images)


def free_on(device: torch.device) -> int | None:
    """Bytes that tensors could still take on a device; None where it does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return free_memory()


def bytes_of(*modules: nn.Module) -> int:
    """Bytes of the parameters of modules."""
    return sum(parameter.nbytes for module in modules for parameter in module.parameters())
