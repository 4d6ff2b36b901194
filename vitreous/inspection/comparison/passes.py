"""One pass of each of two models, with all its tensors, and which stage of one is which of the other."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitreous.inspection.comparison.matching import Error, Value, same
from vitreous.inspection.recording import INPUT, PATCHES, Event, Recorder, tensors_in
from vitreous.inspection.stages import Stage, build_stages
from vitreous.model.encoder import Encoder

FLAT = 1e-6  # values that vary by no more, of the largest, say nothing about what they were made of
SHARED_PATHS = 0.8  # with so many paths of the reference in both, stages are matched by path


@dataclass(frozen=True)
class Pass:
    """What a model did with some inputs.

    Attributes:
        model: that ran.
        output: the first tensor of what it returned.
        stages: that have a value, in the order in which they end; the last is the output.
        values: every tensor that entered or left a module or operation.
        end: path of the stage that gives `output` where that is not the model's own; see `before_flat`.
    """

    model: nn.Module
    output: Tensor
    stages: list[Stage]
    values: list[Value]
    end: str = ""


@dataclass(frozen=True)
class Match:
    """A stage of the reference, and where its values are in the other model, if they are."""

    stage: Stage
    value: Value | None
    error: Error | None


@dataclass(frozen=True)
class Alignment:
    """The stages of a reference in order, each with its match.

    Attributes:
        matches: one for each stage.
        start: index of the first stage behind the last that is the same in both.
        passed: index of the other's first value behind that stage's.
        by_path: whether both models call their stages the same.
    """

    matches: list[Match]
    start: int
    passed: int
    by_path: bool


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into evaluation mode for a while, and has our encoders compute every token of every block.

    (By themselves they compute of the last block only the tokens that the head reads; others compute all.)
    """
    training = {module: module.training for module in model.modules()}
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, Encoder):
                stack.callback(module.register_forward_pre_hook(all_tokens, with_kwargs=True).remove)
        try:
            model.eval()
            yield
        finally:
            for module, mode in training.items():
                module.training = mode


def all_tokens(
    encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Takes the argument `read` away from the encoder's forward (x, positions, read)."""
    return args[:2], {name: value for name, value in kwargs.items() if name != "read"}


def output_of(model: nn.Module, inputs: Sequence[Any]) -> Tensor:
    """Runs a model in evaluation mode.

    Raises:
        ValueError: it returns no tensor.
    """
    with evaluating(model), torch.no_grad():
        return first_tensor(model(*inputs), model)


def first_tensor(result: Any, model: nn.Module) -> Tensor:
    """The tensor, or the first one of several."""
    tensor = next(tensors_in(result), None)
    if tensor is None:
        raise ValueError(f"{type(model).__name__} returned no tensor but {type(result).__name__}")
    return tensor


def record(model: nn.Module, inputs: Sequence[Any], entering: bool = False) -> Pass:
    """Runs a model in evaluation mode and keeps all its tensors.

    Args:
        model: to run.
        inputs: of it.
        entering: whether `values` also holds what enters the outermost modules and no module gave, such as the
            class token that a model picks for its classifier.
    """
    recorder = Recorder(model, observe=lambda tensor: tensor.detach().clone(), all_inputs=True)
    with evaluating(model):
        output = first_tensor(recorder.run(*inputs), model)
    last = Stage("", "output", "output", "what the model returns", value=recorder.root.seen)
    stages = [*ended(build_stages(recorder, keep=True)), last]
    values: list[Value] = []
    for part in (p for p in recorder.root.parts if p.operation != INPUT or (entering and p.path)):
        for event in ending(part):
            if isinstance(event.seen, Tensor) and event.seen.numel():
                if values and values[-1].is_same_tensor(event.seen):
                    values.pop()  # a layer's operation; the layer gives its name
                values.append(Value(event.seen, label(event)))
    values.append(Value(recorder.root.seen, "output"))
    return Pass(model, output.detach(), stages, values)


def before_flat(run: Pass, varied: bool) -> Pass | None:
    """The pass as if it ended with the last stage whose values vary; None if none does before the output.

    Args:
        run: the whole pass.
        varied: whether the images themselves differ.
    """
    stages = [i for i, s in enumerate(run.stages[:-1]) if s.value is not None and not is_flat(s.value, varied)]
    values = [i for i, value in enumerate(run.values[:-1]) if not is_flat(value.tensor, varied)]
    if not stages or not values:
        return None
    last, end = run.values[values[-1]], run.stages[stages[-1]]
    kept = run.values[: values[-1] + 1]
    return Pass(run.model, last.tensor, run.stages[: stages[-1] + 1], kept, end.path)


def is_flat(tensor: Tensor, varied: bool) -> bool:
    """Tells values that would hide what comes before them: one number throughout, or the same for each image.

    Args:
        tensor: the values.
        varied: whether the images themselves differ.
    """
    x = tensor.detach().float()
    size = x.abs().max().item()
    if not size or x.numel() == 1:
        return not size
    spread = min((x.max() - x.min()).item(), (x - x[:1]).abs().max().item() if varied and len(x) > 1 else size)
    return spread <= FLAT * size


def tensors_vary(tensor: Tensor | None) -> bool:
    """Tells whether the images (or rows) of a batch differ."""
    return tensor is not None and tensor.ndim > 1 and not bool((tensor == tensor[:1]).all())


def ended(stages: Sequence[Stage]) -> Iterator[Stage]:
    """Every stage that has a value, parts before the whole."""
    for stage in stages:
        yield from ended(stage.parts)
        if stage.kind != INPUT and stage.value is not None and stage.value.numel():
            yield stage


def ending(event: Event) -> Iterator[Event]:
    """Every event, parts before the whole."""
    for part in event.parts:
        yield from ending(part)
    yield event


def label(event: Event) -> str:
    """Where a tensor is, in words."""
    if event.module is not None:
        return event.path
    if event.operation == INPUT:
        return f"the input of {event.path}"
    return f"{event.path}:{event.operation}".lstrip(":")


def align(reference: Pass, other: Pass, tolerance: float) -> Alignment:
    """Finds each stage of the reference in the other model: by path, or by value in order of execution."""
    places: dict[str, list[Stage]] = {}
    for stage in other.stages:
        places.setdefault(stage.path, []).append(stage)
    shared = sum(stage.path in places for stage in reference.stages) / len(reference.stages)
    if shared >= SHARED_PATHS:
        return align_by_path(reference, places, other, tolerance)
    return align_by_value(reference, other, tolerance)


def align_by_path(reference: Pass, places: dict[str, list[Stage]], other: Pass, tolerance: float) -> Alignment:
    """Takes stages of the same path for each other."""
    matches, start, held = [], 0, None
    for i, stage in enumerate(reference.stages):
        found = places.get(stage.path)
        value = error = None
        if found and stage.value is not None:
            counterpart = found.pop(0).value
            assert counterpart is not None
            wanted, value = Value(stage.value), Value(counterpart, stage.path or "output")
            error = same(wanted, value, tolerance)
            if error is not None and not wanted.constant:
                start, held = i + 1, stage.path
        matches.append(Match(stage, value, error))
    passed = max((j + 1 for j, value in enumerate(other.values) if value.path == held), default=0)
    return Alignment(matches, start, passed, by_path=True)


def align_by_value(reference: Pass, other: Pass, tolerance: float) -> Alignment:
    """Takes for each stage the next tensor that holds its values, behind those of the stages before it."""
    matches, start, place = [], 0, 0
    for i, stage in enumerate(reference.stages):
        assert stage.value is not None
        wanted = Value(stage.value)
        found = None
        last = i == len(reference.stages) - 1  # the output, which only the other's output can be
        places = range(len(other.values) - 1 if last else place, len(other.values))
        for j in () if wanted.constant else places:
            error = same(wanted, other.values[j], tolerance)
            if error is not None:
                found, place, start = Match(stage, other.values[j], error), j, i + 1
                break
        matches.append(found or Match(stage, None, None))
    return Alignment(matches, start, place + 1 if start else 0, by_path=False)


def is_optional(stage: Stage) -> bool:
    """Tells stages that another implementation need not have, such as patches before a convolution."""
    return stage.kind == PATCHES
