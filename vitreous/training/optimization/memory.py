"""Micro-batches that fit into memory; the batch of an update stays the same."""

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
from vitreous.training.parallel.group import LocalError

Result = TypeVar("Result")
FREE_SHARE = 0.8  # of the free memory, that a step may fill
PEAK = 1.5  # bytes that a step takes at its peak for each byte that it saves for the backward pass
WEIGHT_COPIES = 4  # gradients, two moments, an average


class MicroBatch:
    """How many images go through the model at once; halved whenever the device runs out of memory.

    Args:
        size: images to begin with.
        notify: called with a line each time the size changes.
        can_shrink: whether the size may change; with other ranks it may not, since all make as many passes.
    """

    def __init__(self, size: int, notify: Callable[[str], None], can_shrink: bool = True) -> None:
        self.size, self.notify, self.can_shrink = size, notify, can_shrink

    def run(self, step: Callable[..., Result], clear: Callable[[], None] = lambda: None) -> Result:
        """Makes one step, halving the micro-batch until it fits.

        Args:
            step: called with `micro_batch`, the number of images that may go through the model at once.
            clear: drops what an unfinished step leaves, such as gradients.

        Raises:
            InputError: not even one image fits.
            LocalError: the images do not fit, and the size may not change.
        """
        while True:
            try:
                return step(micro_batch=self.size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # The error is gone here, and with it the tensors that it holds.
            kind = InputError if self.can_shrink else LocalError
            if self.size == 1:
                cause = "one image of this size does not fit into the device's memory"
                raise kind(cause, "use a smaller model, a smaller image_size, or another device")
            if not self.can_shrink:
                smaller = f"--set micro_batch={-(-self.size // 2)}"
                raise kind(f"out of memory with {self.size} images at once", f"go on with {smaller}")
            clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.size = -(-self.size // 2)
            self.notify(f"out of memory: {self.size} images at once from now on; the batch stays the same")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device ran out of memory; on a CPU only the message shows it."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def largest_fit(size: int, bytes_per_image: int, weights: int, free: int | None) -> int:
    """The largest of size, size / 2, size / 4, … images whose step fits into memory; 1 if none does.

    Args:
        size: of a batch.
        bytes_per_image: that an image saves for the backward pass.
        weights: bytes of what is trained.
        free: bytes of the device; if None, unknown, the whole batch is assumed to fit.
    """
    if free is None:
        return size
    room = FREE_SHARE * free - WEIGHT_COPIES * weights
    while size > 1 and size * bytes_per_image * PEAK > room:
        size = -(-size // 2)
    return size


def saved_bytes(
    model: VisionTransformer, objective: Objective, images: Images, targets: Targets, precision: Precision
) -> int:
    """Measures the bytes that each image saves for the backward pass, in training mode; draws no random numbers.

    With activation checkpointing, one block's activations are held twice during its backward pass.
    """
    saved = _saved(model, objective, images, targets, precision)
    if model.encoder.checkpoint_activations:
        model.encoder.checkpoint_activations = False
        saved += _saved(model, objective, images, targets, precision) // model.config.depth
        model.encoder.checkpoint_activations = True
    return saved


def _saved(
    model: VisionTransformer, objective: Objective, images: Images, targets: Targets, precision: Precision
) -> int:
    weights = {parameter.untyped_storage().data_ptr() for m in (model, objective) for parameter in m.parameters()}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = images.device
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        autocast(precision, device),
    ):
        verdict = objective(model, images, targets)
    del verdict
    return sum(saved.values()) // len(images)


def free_bytes(device: torch.device) -> int | None:
    """A device's free memory in bytes; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return free_memory()


def parameter_bytes(*modules: nn.Module) -> int:
    """Bytes of the parameters of modules."""
    return sum(parameter.nbytes for module in modules for parameter in module.parameters())
