"""Causes that show without an experiment: randomness, a parameter per image, a skip connection too many or too few."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vitreous.inspection.comparison.matching import error_of
from vitreous.inspection.comparison.passes import Pass, run_pass
from vitreous.inspection.recording import tensors_in


def randomness(mine: Pass, reference: Pass, inputs: Sequence[Any], tolerance: float) -> str | None:
    """The cause, if a model is random in evaluation mode: a second pass gives other values."""
    for run, owner in ((mine, "Yours"), (reference, "The reference")):
        before = run_pass(run.model, inputs) if run.end else run  # one that was cut lacks the last values
        pairs = zip(before.values, run_pass(run.model, inputs).values, strict=False)
        first = next((one.path for one, two in pairs if vary(one.tensor, two.tensor, tolerance)), None)
        if first is not None:
            where = "" if first == "output" else f", first in {first}"
            hint = "If it drops values, use nn.Dropout, or F.dropout(x, rate, training=self.training)"
            return f"{owner} is random in evaluation mode: a second pass gave other values{where}. {hint}."
    return None


def vary(one: Tensor, two: Tensor, tolerance: float) -> bool:
    """Whether the same tensor of two passes differs by more than rounding; NaN in both is no difference."""
    return one.shape != two.shape or error_of(one.nan_to_num(), two.nan_to_num()).relative > tolerance


def token_per_image(mine: nn.Module, reference: nn.Module, inputs: Sequence[Any], varied: bool = True) -> str | None:
    """The cause, if your model has a row of a parameter for each image of the batch, such as a class token each.

    Args:
        mine: your model.
        reference: the other; what it has as well is right.
        inputs: of both.
        varied: whether only parameters whose rows differ count, since the others change nothing in this batch.
    """
    images = next(tensors_in(list(inputs)), None)
    batch = len(images) if images is not None and images.ndim else 1
    known = {tuple(parameter.shape) for parameter in reference.parameters()}
    for name, parameter in mine.named_parameters():
        shape = tuple(parameter.shape)
        per_image = batch > 1 and len(shape) == 3 and shape[0] == batch and shape not in known
        if per_image and (1, *shape[1:]) in known and not (varied and bool((parameter == parameter[:1]).all())):
            size = f"1, {shape[1]}, {shape[2]}"
            return (
                f"Your parameter {name} has a row for each of these {batch} images, and fits no other batch. "
                f"Give it the shape ({size}) and expand it: {name}.expand(len(x), -1, -1)."
            )
    return None


def skip_cause(mine: Pass, reference: Pass, inputs: Sequence[Any], tolerance: float) -> str | None:
    """The cause, if the outputs differ by exactly an input: one model has its skip connection inside."""
    x, y = mine.output, reference.output
    for tensor in tensors_in(list(inputs)):
        if not (x.shape == y.shape == tensor.shape and x.is_floating_point() and tensor.is_floating_point()):
            continue
        if error_of(x, y + tensor).relative <= tolerance:
            return (
                "Yours adds its input (a skip connection inside), where the reference does not. Return the rest alone."
            )
        if error_of(y, x + tensor).relative <= tolerance:
            return "The reference adds its input (a skip connection inside), where yours does not."
    return None
