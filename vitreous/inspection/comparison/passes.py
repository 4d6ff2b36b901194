"""One pass of a model with all its tensors."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vitreous.inspection.comparison.matching import Value
from vitreous.inspection.mode import evaluation_mode
from vitreous.inspection.recording import INPUT, Event, Recorder, tensors_in
from vitreous.inspection.stages import Stage, build_stages
from vitreous.model.encoder import Encoder

ENTERS = "the input of "
FLAT = 1e-6  # values that vary by less, relative to the largest, carry no information


@dataclass(frozen=True)
class Pass:
    """What a model computed from some inputs.

    Attributes:
        model: the model.
        output: the first tensor that it returned, or `pooled`.
        stages: those with a value, in the order in which they end; the last is the output.
        values: every tensor that entered or left a module or operation.
        end: path of the stage that gives `output`, if that is not the model's own output; see `before_flat`.
        pooled: the vector of each image that a model without logits returned beside its tokens; see `pooled_pass`.
    """

    model: nn.Module
    output: Tensor
    stages: list[Stage]
    values: list[Value]
    end: str = ""
    pooled: Tensor | None = None


@contextmanager
def comparable(model: nn.Module) -> Iterator[None]:
    """Evaluation mode in which our encoders compute every token of every block, as other implementations do."""
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, Encoder):
                stack.callback(module.register_forward_pre_hook(read_all_tokens, with_kwargs=True).remove)
        with evaluation_mode(model):
            yield


def read_all_tokens(
    encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Drops the argument `read` of the encoder's forward (x, positions, read)."""
    return args[:2], {name: value for name, value in kwargs.items() if name != "read"}


def arguments(model: nn.Module, inputs: Sequence[Any]) -> Sequence[Any]:
    """The inputs as a model's arguments: one input of torch's attention is its query, key and value."""
    return [*inputs] * 3 if isinstance(model, nn.MultiheadAttention) and len(inputs) == 1 else inputs


def first_tensor(result: Any, model: nn.Module) -> Tensor:
    """The first tensor of what a model returned.

    Raises:
        ValueError: it returned none, or an empty one.
    """
    tensor = next(tensors_in(result), None)
    if tensor is None:
        raise ValueError(f"{type(model).__name__} returned no tensor but {type(result).__name__}")
    if not tensor.numel():
        raise ValueError(f"{type(model).__name__} returned an empty tensor, of shape {tuple(tensor.shape)}")
    return tensor


def run_pass(model: nn.Module, inputs: Sequence[Any], entering: bool = False) -> Pass:
    """Runs a model in evaluation mode and keeps all its tensors.

    Args:
        model: the model.
        inputs: its arguments.
        entering: also keep, in `values`, what enters the outermost modules without having left one, such as the class
            token that a model picks for its classifier.
    """
    recorder = Recorder(model, observe=lambda tensor: tensor.detach().clone(), all_inputs=True)
    with comparable(model):
        result = recorder.run(*arguments(model, inputs))
    output = first_tensor(result, model)
    last = Stage("", "output", "output", "what the model returns", value=recorder.root.seen)
    stages = [*ended(build_stages(recorder, keep=True)), last]
    values: list[Value] = []
    for part in (p for p in recorder.root.parts if p.operation != INPUT or (entering and p.path)):
        for event in part.walk(children_first=True):
            if isinstance(event.seen, Tensor) and event.seen.numel():
                if values and values[-1].shape == event.seen.shape and torch.equal(values[-1].tensor, event.seen):
                    values.pop()  # an operation of a layer: the layer's name is better
                values.append(Value(event.seen, label(event)))
    values.append(Value(recorder.root.seen, "output"))
    return Pass(model, output.detach(), stages, values, pooled=pooler_output(result))


def pooler_output(result: Any) -> Tensor | None:
    """The `pooler_output` of a bare transformers model; None if there is none, or there are logits."""
    if not isinstance(result, Mapping) or "logits" in result:
        return None
    tensor = result.get("pooler_output")
    return tensor.detach() if isinstance(tensor, Tensor) and tensor.numel() else None


def pooled_pass(run: Pass, other: Pass) -> Pass:
    """The pass with `pooled` as its output, if only that has as many axes as the other model's output."""
    if run.pooled is None or not run.pooled.ndim == other.output.ndim != run.output.ndim:
        return run
    last = replace(run.stages[-1], name="pooler_output", value=run.pooled)
    values = [*run.values[:-1], Value(run.output, "last_hidden_state"), Value(run.pooled, "output")]
    return replace(run, output=run.pooled, stages=[*run.stages[:-1], last], values=values)


def before_flat(run: Pass, varied: bool) -> Pass | None:
    """Cuts a pass after the last stage that is not flat; None if all before the output are."""
    stages = [i for i, s in enumerate(run.stages[:-1]) if s.value is not None and not is_flat(s.value, varied)]
    values = [i for i, value in enumerate(run.values[:-1]) if not is_flat(value.tensor, varied)]
    if not stages or not values:
        return None
    last, end = run.values[values[-1]], run.stages[stages[-1]]
    return Pass(run.model, last.tensor, run.stages[: stages[-1] + 1], run.values[: values[-1] + 1], end.path)


def is_flat(tensor: Tensor, varied: bool) -> bool:
    """Whether values hide their input: one number throughout, or the same for every one of varied images."""
    x = tensor.detach().float()
    size = x.abs().max().item()
    if not size or x.numel() == 1:
        return not size
    spread = min((x.max() - x.min()).item(), (x - x[:1]).abs().max().item() if varied and len(x) > 1 else size)
    return spread <= FLAT * size


def tensors_vary(tensor: Tensor | None) -> bool:
    """Whether the images (or rows) of a batch differ."""
    return tensor is not None and tensor.ndim > 1 and not bool((tensor == tensor[:1]).all())


def ended(stages: Sequence[Stage]) -> Iterator[Stage]:
    """Every stage with a value, parts before the whole."""
    for stage in stages:
        yield from ended(stage.parts)
        if stage.kind != INPUT and stage.value is not None and stage.value.numel():
            yield stage


def label(event: Event) -> str:
    """Where a tensor is, in words."""
    if event.module is not None:
        return event.path
    if event.operation == INPUT:
        return f"{ENTERS}{event.path}"
    return f"{event.path}:{event.operation}".lstrip(":")
