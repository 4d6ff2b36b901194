"""Numbers of 16 bits in the activations, where the device computes faster with them; weights stay in float32."""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitreous.support.errors import InputError

Precision = Literal["float32", "bfloat16", "float16"]
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision of that name; for "auto" bfloat16 on a GPU with the circuits for it, and float32 elsewhere.

    Raises:
        InputError: float16 on a CPU, which has no fast products of them.
    """
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if fast else "float32"
    if name == "float16" and device.type == "cpu":
        raise InputError("precision is float16, and the device a CPU", "set precision=bfloat16 or float32")
    assert name in ("float32", "bfloat16", "float16"), "the recipe says so"
    return name


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products in 16 bits; what needs more, such as softmax, sums and losses, is computed in float32."""
    if precision == "float32":
        return nullcontext()
    stack = ExitStack()
    stack.enter_context(torch.autocast(device.type, HALVES[precision]))
    if device.type == "cpu":  # whose fused attention goes backward in 16 bits several times slower than in plain steps
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
    return stack


class LossScale:
    """A factor of the loss that keeps small gradients from vanishing in float16 (arXiv 1710.03740).

    It is halved at every step whose gradients overflow, which is then skipped, and doubled after so many that did not.
    All of it stays on the device.

    Args:
        device: of the loss.
        first: the factor to begin with.
        patience: healthy steps in a row after which it is doubled.
    """

    def __init__(self, device: torch.device, first: float = 2.0**16, patience: int = 2000) -> None:
        self.factor = torch.full((), first, device=device)
        self.healthy = torch.zeros((), device=device)
        self.patience = patience

    def update(self, healthy: torch.Tensor) -> None:
        """Takes note of a step whose gradients were finite, or were not."""
        self.healthy = torch.where(healthy, self.healthy + 1, 0)
        grow = self.healthy >= self.patience
        self.factor = torch.where(healthy, torch.where(grow, self.factor * 2, self.factor), self.factor / 2)
        self.healthy = torch.where(grow, 0, self.healthy)
