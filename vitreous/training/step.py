"""One update of the weights."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


class StepResult(NamedTuple):
    """What one update saw: sums over its samples, as scalars on the device, so that nobody waits for them.

    A skipped step counts no samples.
    """

    loss: Tensor  # sum
    correct: Tensor
    count: Tensor
    grad_norm: Tensor  # before clipping
    skipped: Tensor  # True where the loss or a gradient was not finite


class Totals:
    """Sums over the updates of an epoch, kept on the device."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None
        self.skipped: list[tuple[int, Tensor]] = []

    def add(self, step: int, result: StepResult) -> None:
        """Adds one update."""
        sums = torch.stack([result.loss.double(), result.correct.double(), result.count.double()])
        self.sums = sums if self.sums is None else self.sums + sums
        self.skipped.append((step, result.skipped))

    def read(self) -> tuple[float, float, int]:
        """The mean loss and the accuracy over the samples so far, and their count; waits for the device."""
        if self.sums is None:
            return math.nan, math.nan, 0
        loss, correct, count = self.sums.tolist()
        return (loss / count, correct / count, int(count)) if count else (math.nan, math.nan, 0)

    def skipped_steps(self) -> list[int]:
        """The steps that were skipped; waits for the device."""
        if not self.skipped:
            return []
        steps, flags = zip(*self.skipped, strict=True)
        return [step for step, skipped in zip(steps, torch.stack(flags).tolist(), strict=True) if skipped]


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: Callable[[Tensor, Tensor], Tensor],
    images: Float[Tensor, "batch channels height width"],
    targets: Int64[Tensor, " batch"] | Float[Tensor, "batch classes"],
    *,
    lr: float,
    clip_norm: float,
    micro_batch: int | None = None,
) -> StepResult:
    """Moves the weights once along the clipped gradient of the mean loss.

    Where the loss or the gradient is not finite, weights and optimizer stay as they were, to the bit.

    Args:
        model: in training mode.
        optimizer: a fused one.
        objective: (logits, targets) to the summed loss.
        images: normalised, on the model's device.
        targets: class numbers; or shares of every class, of which the largest is what counts as correct.
        lr: the learning rate of this step.
        clip_norm: the largest norm of all gradients together; inf for no clipping.
        micro_batch: images that go through the model at once; their gradients are added up. All if None.

    Raises:
        ValueError: the optimizer is not fused.
    """
    loss, correct = images.new_zeros(()), images.new_zeros((), dtype=torch.int64)
    parts = micro_batch or len(images)
    for some, of in zip(images.split(parts), targets.split(parts), strict=True):
        logits = model(some)
        part = objective(logits, of)
        (part / len(images)).backward()
        label = of if of.ndim == 1 else of.argmax(dim=1)
        loss, correct = loss + part.detach(), correct + (logits.argmax(dim=1) == label).sum()

    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    healthy = norm.isfinite() & loss.isfinite()
    for group in optimizer.param_groups:
        group["lr"] = lr
    update(optimizer, divisor=(norm / clip_norm).clamp(min=1), healthy=healthy)
    optimizer.zero_grad()

    return StepResult(
        loss=torch.where(healthy, loss, 0),
        correct=correct * healthy,
        count=healthy * len(images),
        grad_norm=norm,
        skipped=~healthy,
    )


def update(optimizer: torch.optim.Optimizer, divisor: Tensor, healthy: Tensor) -> None:
    """Steps with the gradients divided, or not at all; the device decides, and the host does not wait for it.

    Fused optimizers take both numbers from these attributes, by which torch.amp.GradScaler talks to them.
    """
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        raise ValueError(f"{type(optimizer).__name__} is not fused; make it with fused=True")
    vars(optimizer).update(grad_scale=divisor.float(), found_inf=(~healthy).float())
    optimizer.step()
