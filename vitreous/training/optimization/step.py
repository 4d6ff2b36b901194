"""One update of the weights."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.training.objectives.objective import Objective, Targets
from vitreous.training.optimization.optimizer import trained
from vitreous.training.optimization.precision import LossScale, Precision, attention_kernel, autocast
from vitreous.training.parallel.passes import ONE_PROCESS, Passes


class StepResult(NamedTuple):
    """Sums over the samples of one update, as scalars on the device, so that the host does not wait for them.

    A skipped step counts no samples.
    """

    loss: Tensor
    correct: Tensor
    count: Tensor
    grad_norm: Tensor  # before clipping
    skipped: Tensor  # whether the loss or a gradient was not finite


class Accumulated(NamedTuple):
    """What of a batch went through the model so far; its gradients are the parameters'."""

    done: int  # images
    loss: Tensor  # sums over them, as in StepResult
    correct: Tensor


class Whole(NamedTuple):
    """What a rank has to know of the batch of all ranks, so that all make as many passes.

    Args:
        count: images of all ranks.
        most: of the rank that has the most.
        blank: an image with its target for passes of a rank that has fewer; nothing is learned from it.
    """

    count: int
    most: int
    blank: tuple[Images, Targets]


class Totals:
    """Sums over the updates of an epoch, kept on the device."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None
        self.skipped: list[tuple[int, Tensor]] = []
        self.lr = math.nan  # of the last update

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        steps, flags = [step for step, _ in self.skipped], [flag for _, flag in self.skipped]
        return {
            "sums": self.sums,
            "steps": steps,
            "skipped": torch.stack(flags) if flags else None,
            "lr": self.lr,
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Continues from a `state_dict`, on the device of the updates."""
        self.sums = None if state["sums"] is None else state["sums"].to(device)
        flags = () if state["skipped"] is None else state["skipped"].to(device).unbind()
        self.skipped = [*zip(state["steps"], flags, strict=True)]
        self.lr = state["lr"]

    def add(self, step: int, lr: float, result: StepResult) -> None:
        """Adds one update."""
        self.lr = lr
        sums = torch.stack([result.loss.double(), result.correct.double(), result.count.double()])
        self.sums = sums if self.sums is None else self.sums + sums
        self.skipped.append((step, result.skipped))

    def read(self) -> tuple[float, float, int]:
        """The mean loss, the accuracy and the count of the samples so far; waits for the device."""
        if self.sums is None:
            return math.nan, math.nan, 0
        loss, correct, count = self.sums.tolist()
        return (loss / count, correct / count, int(count)) if count else (math.nan, math.nan, 0)

    def skipped_steps(self) -> list[int]:
        """The skipped steps; waits for the device."""
        if not self.skipped:
            return []
        steps, flags = zip(*self.skipped, strict=True)
        return [step for step, skipped in zip(steps, torch.stack(flags).tolist(), strict=True) if skipped]


class Streak(nn.Module):
    """The current streak of skipped steps, counted on the device, and the first step that made it too long.

    Args:
        most: skipped steps in a row that are too many.
        device: of the steps.
    """

    def __init__(self, most: int, device: torch.device) -> None:
        super().__init__()
        self.most = most
        self.register_buffer("length", torch.tensor(0, device=device))
        self.register_buffer("last", torch.tensor(-1, device=device))  # the step that made it too long, or -1

    def add(self, step: int, skipped: Tensor) -> None:
        """Adds a step."""
        self.length = torch.where(skipped, self.length + 1, 0)
        self.last = torch.where((self.length >= self.most) & (self.last < 0), step, self.last)

    def read(self) -> int | None:
        """The step that made the streak too long, or None; waits for the device."""
        last = int(self.last)
        return None if last < 0 else last


def train_step(
    model: VisionTransformer,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    images: Images,
    targets: Targets,
    *,
    lr: float,
    clip_norm: float,
    micro_batch: int | None = None,
    precision: Precision = "float32",
    loss_scale: LossScale | None = None,
    begun: Accumulated | None = None,
    between: Callable[[Accumulated], None] = lambda begun: None,
    passes: Passes = ONE_PROCESS,
    whole: Whole | None = None,
) -> StepResult:
    """Moves the weights once along the clipped gradient of the mean loss over the images of all ranks.

    If the loss or the gradient is not finite, weights and optimizer stay unchanged, to the bit.

    Args:
        model: in training mode.
        optimizer: fused, of the trainable parameters of the model and the objective; a group's "lr_scale", if it has
            one, is a factor of the lr.
        objective: computes the summed loss.
        images: of this rank, normalized, on the model's device; there may be none if there are other ranks.
        targets: of these images.
        lr: the learning rate of this step.
        clip_norm: the largest norm of all gradients together; inf for no clipping.
        micro_batch: images that go through the model at once, their gradients accumulated; all if None.
        precision: of the activations.
        loss_scale: for float16; updated by the step.
        begun: what of this batch is done, with this micro-batch; None for nothing.
        between: called after each micro-batch but the last one.
        passes: how a micro-batch goes through model and objective.
        whole: the batch of all ranks; None if this is the only one.

    Raises:
        ValueError: the optimizer is not fused.
    """
    scale = images.new_ones(()) if loss_scale is None else loss_scale.factor
    whole = whole or Whole(len(images), len(images), (images, targets))
    run = partial(accumulate, passes=passes, model=model, objective=objective, precision=precision)
    factor = scale * (passes.size / whole.count)  # passes average over the ranks
    batch = begun or Accumulated(0, images.new_zeros(()), images.new_zeros(()))
    batch = in_parts(run, batch, images, targets, factor, whole, micro_batch or whole.most, between)
    loss, correct = passes.total(batch.loss, batch.correct)
    norm = passes.norm([p.grad for p in trained(optimizer) if p.grad is not None]) / scale
    healthy = norm.isfinite() & loss.isfinite()
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    step_or_skip(optimizer, divisor=(norm / clip_norm).clamp(min=1) * scale, healthy=healthy)
    optimizer.zero_grad()
    if loss_scale is not None:
        loss_scale.update(healthy)

    return StepResult(
        loss=torch.where(healthy, loss, 0),
        correct=torch.where(healthy, correct, 0),
        count=healthy * whole.count,
        grad_norm=norm,
        skipped=~healthy,
    )


def in_parts(
    run: Callable[..., Accumulated],
    batch: Accumulated,
    images: Images,
    targets: Targets,
    factor: Tensor,
    whole: Whole,
    size: int,
    between: Callable[[Accumulated], None],
) -> Accumulated:
    """Runs what is left of a rank's micro-batches, and blank ones where another rank has more: all make as many passes.

    Args:
        run: `accumulate`, with a model.
        batch: what is done of it.
        images: all of this rank's.
        targets: of these images.
        factor: of the gradients.
        whole: the batch of all ranks.
        size: of a micro-batch.
        between: called after each micro-batch but the last one.
    """
    parts = [*zip(images.split(size), targets.split(size), strict=True)] if len(images) else []
    first, last = batch.done // size, -(-whole.most // size) - 1
    for number in range(first, last + 1):
        if number > first:
            between(batch)
        if number < len(parts):
            batch = run(batch, *parts[number], factor=factor, is_last=number == last)
        else:
            run(batch, *whole.blank, factor=0 * factor, is_last=number == last)
    return batch


def accumulate(
    batch: Accumulated,
    images: Images,
    targets: Targets,
    *,
    factor: Tensor,
    is_last: bool,
    passes: Passes,
    model: VisionTransformer,
    objective: Objective,
    precision: Precision,
) -> Accumulated:
    """Adds some images of a batch to its sums, and `factor` times the gradient of their loss to the parameters'."""
    with passes.accumulating(is_last):
        with autocast(precision, images.device):
            verdict = passes(partial(objective, model), images, targets)
        with attention_kernel(precision, images.device):
            (verdict.loss * factor).backward()
    return Accumulated(batch.done + len(images), batch.loss + verdict.loss.detach(), batch.correct + verdict.correct)


def step_or_skip(optimizer: torch.optim.Optimizer, divisor: Tensor, healthy: Tensor) -> None:
    """Steps with the gradients divided, or not at all; the device decides, and the host does not wait for it.

    Fused optimizers read both numbers from these attributes, which are how torch.amp.GradScaler passes them.
    """
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        raise ValueError(f"{type(optimizer).__name__} is not fused; create it with fused=True")
    vars(optimizer).update(grad_scale=divisor.float(), found_inf=(~healthy).float())
    optimizer.step()
