"""What a comparison found, and what "equal" means."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError

TOLERANCE = 1e-5  # of the largest difference, relative to the largest output
VARIED = 0.05  # outputs of different images differ by at least this much, relative to the largest output
BATCH = 2
FOLDER = "the file"  # in which a model is saved, and its name in messages

Result = Literal["equal", "refused", "different"]


class Outcome(NamedTuple):
    """The result for one published name or class.

    Args:
        name: in its library.
        result: "equal": loaded, with the peer's outputs; "refused": with a line that says why; "different": loaded, but
            something differs from the peer, or an exception that is not a refusal.
        why: the line of a refusal, or what differs.
        difference: the largest of the outputs, relative to the largest output.
        back: of the export to the library it came from: "equal" if that builds the model again and computes the same.
        note: what was not tested as published.
    """

    name: str
    result: Result
    why: str = ""
    difference: float = 0.0
    back: Result | None = None
    note: str = ""


@torch.no_grad()
def fill(model: nn.Module, seed: int = 0) -> nn.Module:
    """Fills all parameters of a peer's model at random, so that each affects the outputs: scales around 1."""
    generator = torch.Generator().manual_seed(seed)
    norms = {id(m.weight) for m in model.modules() if "Norm" in type(m).__name__ and hasattr(m, "weight")}
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if id(parameter) in norms or "gamma" in name or "lambda" in name or "layer_scale" in name:
            parameter.copy_(1 + 0.2 * noise)
        elif parameter.ndim > 1 and name.endswith("weight"):
            parameter.copy_(noise / math.sqrt(parameter[0].numel()))
        else:
            parameter.copy_(0.3 * noise)
    return model.eval()


def random_images(size: tuple[int, ...], channels: int = 3) -> Tensor:
    """Random images, the same for every model of a size."""
    return torch.randn(BATCH, channels, *size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference relative to the largest expected output; infinite if shapes differ.

    Raises:
        AssertionError: the expected outputs hardly depend on the image, so that equality would show nothing.
    """
    scale = expected.abs().max().item()
    assert math.isfinite(scale), "the peer's outputs are not finite"
    assert (expected[0] - expected[1]).abs().max().item() > VARIED * scale, "the peer's outputs do not depend on images"
    if found.shape != expected.shape:
        return math.inf
    largest = (found - expected).abs().max().item()
    return largest / scale if math.isfinite(largest) else math.inf


@torch.no_grad()
def ours(model: VisionTransformer, images: Tensor, *, tokens: bool) -> Tensor:
    """All tokens after the final norm, or else logits, or features if the model has no classifier."""
    if tokens:
        return model.encoder(model.embed(images), model.positions(model.grid(images)))
    return model(images)


def one_line(error: Exception) -> str:
    """The first line of an exception, with its type unless it is one for users."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def judged(name: str, call: Callable[[], Outcome]) -> Outcome:
    """The outcome of a comparison; an exception is one too."""
    try:
        return call()
    except InputError as error:
        return Outcome(name, "refused", error.cause)
    except Exception as error:  # an unexpected one is a finding, listed like a difference
        return Outcome(name, "different", one_line(error))
