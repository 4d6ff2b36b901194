"""Mixed precision: 16-bit activations on devices that are faster with them; weights stay in float32."""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Literal

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitreous.support.errors import InputError

Precision = Literal["float32", "bfloat16", "float16"]
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision of that name; for "auto", bfloat16 on a GPU with native support, and float32 elsewhere.

    Raises:
        InputError: float16 on a CPU, which has no fast float16 arithmetic.
    """
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if fast else "float32"
    if name == "float16" and device.type == "cpu":
        raise InputError("precision is float16 and the device a CPU", "set precision=bfloat16 or float32")
    assert name in ("float32", "bfloat16", "float16"), "the recipe allows no other"
    return name


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products in 16 bits; softmax, sums and losses stay in float32."""
    if precision == "float32":
        return nullcontext()
    stack = ExitStack()
    stack.enter_context(torch.autocast(device.type, HALVES[precision]))
    stack.enter_context(attention_kernel(precision, device))
    return stack


def attention_kernel(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The kernel of attention: on a CPU in 16 bits the plain one, since the fused one is several times slower backward.

    Checkpointed activations are computed again in the backward pass, which therefore needs it too.
    """
    if precision != "float32" and device.type == "cpu":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


class LossScale(nn.Module):
    """A factor of the loss that keeps small gradients from vanishing in float16 (arXiv 1710.03740).

    A step whose gradients overflow is skipped and halves the factor; `patience` healthy steps in a row double it.
    Everything stays on the device.

    Args:
        device: of the loss.
        first: the initial factor.
        patience: healthy steps in a row that double it.
    """

    def __init__(self, device: torch.device, first: float = 2.0**16, patience: int = 2000) -> None:
        super().__init__()
        self.register_buffer("factor", torch.full((), first, device=device))
        self.register_buffer("healthy", torch.zeros((), device=device))
        self.patience = patience

    def update(self, healthy: torch.Tensor) -> None:
        """Counts a step, whose gradients were finite if it was healthy."""
        steps = torch.where(healthy, self.healthy + 1, 0)
        grow = steps >= self.patience
        self.factor = torch.where(healthy, torch.where(grow, self.factor * 2, self.factor), self.factor / 2)
        self.healthy = torch.where(grow, 0, steps)
