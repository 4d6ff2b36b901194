"""The first stage at which two models differ, by how much, and what probably causes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from vitreous.inspection.comparison.diagnosis import Finding, find_mistake, module_around, shape_cause, stack_of
from vitreous.inspection.comparison.matching import Error, Value, error_of, nearest_by_shape, nearest_by_value, same
from vitreous.inspection.comparison.passes import (
    Alignment,
    Match,
    Pass,
    align,
    before_flat,
    is_flat,
    is_optional,
    record,
    tensors_vary,
)
from vitreous.inspection.recording import Shape, tensors_in
from vitreous.inspection.stages import Stage
from vitreous.support.text import html_text, printable


@dataclass(frozen=True)
class Difference:
    """Where two models differ first.

    Attributes:
        stage: path of the stage in the reference.
        name: what it is, in the paper's words where it is one of ours.
        mine: the path in your model of what comes nearest, None if nothing does.
        kind: whether it is the shape or the values that differ, or whether there is no such stage.
        shape: in the reference.
        my_shape: in your model.
        absolute: the largest difference of two elements, if the shapes allow to say.
        relative: that, of the largest element of the reference.
    """

    stage: str
    name: str
    mine: str | None
    kind: Literal["shape", "value", "missing"]
    shape: Shape
    my_shape: Shape | None = None
    absolute: float | None = None
    relative: float | None = None

    def __str__(self) -> str:
        where = f"{self.stage or 'the output'} ({self.name})" if self.name != self.stage else self.stage
        yours = f"{self.mine} in yours" if self.mine and self.mine != self.stage else "yours"
        if self.kind == "missing":
            return f"{where}: yours has no such stage"
        if self.kind == "shape":
            return f"{where}: {size(self.shape)} in the reference, {size(self.my_shape or ())} in {yours}"
        return f"{where}: {yours} is off by up to {self.absolute:.2g}, {self.relative:.2g} of its largest value"


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; print it.

    Attributes:
        equal: whether both models return the same, within the tolerance.
        first_difference: where they part, None if they do not.
        cause: what probably causes it and how to fix it, None if no experiment tells.
        stages: each stage of the reference with where its values are in your model, up to the first difference.
        tolerance: relative error that counts as none.
        error: of the outputs (of what `note` says, where there is one), None if their shapes differ.
        note: what was compared instead where both outputs are all zero, or constant, and so hide differences.
    """

    equal: bool
    first_difference: Difference | None
    cause: str | None
    stages: tuple[Match, ...]
    tolerance: float
    error: Error | None
    note: str = ""

    def __str__(self) -> str:
        return "\n".join(map(printable, self._lines()))

    def _lines(self) -> list[str]:
        matched = [match for match in self.stages if match.error is not None]
        if self.equal and self.error is not None:
            what = "the values compared" if self.note else "the outputs"
            first = f"Equal: {what} differ by at most {self.error.relative:.1e} of their largest value"
            return [f"{first} (tolerance {self.tolerance:g}).", *filter(None, [self.note])]
        lines = [f"Different. {len(matched)} stages of the reference are the same in both models."]
        lines += filter(None, [self.note])
        if matched:
            last = matched[-1]
            lines.append(f"Last that is the same: {last.stage.path} ({last.stage.name}).")
        lines.append(f"First that differs: {self.first_difference}.")
        unknown = "No usual mistake explains it: look at this stage's code, its weights and their order."
        lines.append(f"Cause: {self.cause}" if self.cause else unknown)
        return lines

    def _repr_html_(self) -> str:
        return "".join(f"<p>{html_text(line)}</p>" for line in self._lines())


def compare(mine: nn.Module, reference: nn.Module, *inputs: Any, tolerance: float = 1e-5) -> Comparison:
    """Runs two models on the same inputs, and finds the first stage at which they differ.

    Modules of the same name are compared; if the names differ, the reference's values are looked for in your
    model, in order of execution and in any layout. Stages that yours need not have are no difference as long as a
    later one is the same. Then the usual mistakes are made in a copy of the model that is ours (the reference, if
    both are), to see which one gives the other model's values. Both models run in evaluation mode, without
    gradients, and are as before afterwards. Where both outputs are all zero, as a fresh classifier makes them, or
    constant, what enters the last stages that make them so is compared instead. All tensors are kept meanwhile:
    a few images are enough, and should be two or more, since some mistakes cannot be seen on one.

    Args:
        mine: your model or layer, with the same weights as the reference.
        reference: the model or layer to compare with.
        inputs: of both.
        tolerance: the largest difference, of the reference's largest value, that counts as none.

    Raises:
        ValueError: there is no input, or a model returns no tensor.
    """
    if not inputs:
        raise ValueError("there is no input; compare(mine, reference, x)")
    ours, theirs = record(mine, inputs), record(reference, inputs)
    note = ""
    varied = tensors_vary(next(tensors_in(list(inputs)), None))
    if hides(theirs, ours, varied, tolerance):
        ours, theirs = record(mine, inputs, entering=True), record(reference, inputs, entering=True)
        my_part, their_part = before_flat(ours, varied), before_flat(theirs, varied)
        if my_part is None or their_part is None:
            note = what_is_compared(theirs, None)
        else:
            note = what_is_compared(theirs, their_part)
            ours, theirs = my_part, their_part
    alignment = align(theirs, ours, tolerance)
    error = None
    if ours.output.shape == theirs.output.shape:
        error = error_of(theirs.output, ours.output)
    if theirs.end:  # whose layout is its model's own business
        error = same(Value(theirs.output), Value(ours.output), tolerance) or error
    if error is not None and error.relative <= tolerance:
        return Comparison(True, None, None, tuple(alignment.matches), tolerance, error, note)
    if error is None and same(Value(theirs.output), Value(ours.output), tolerance):
        difference, cause = other_layout(theirs, ours)
        return Comparison(False, difference, cause, tuple(alignment.matches), tolerance, error)
    difference = first_difference(alignment, ours, whole=not stack_of(reference)[1])
    difference, cause = explain(difference, alignment, ours, theirs, inputs, tolerance)
    return Comparison(False, difference, cause, tuple(alignment.matches[: alignment.start]), tolerance, error, note)


def hides(reference: Pass, mine: Pass, varied: bool, tolerance: float) -> bool:
    """Tells whether both outputs are the same only since they are zero or constant."""
    if reference.output.shape != mine.output.shape or not is_flat(reference.output, varied):
        return False
    return error_of(reference.output, mine.output).relative <= tolerance


def what_is_compared(reference: Pass, shorter: Pass | None) -> str:
    """The note on outputs that hide differences."""
    if reference.output.any():
        told = "Both outputs are constant, whatever the images"
    else:
        told = "Both outputs are all zero, as from a fresh classifier"
    if shorter is None:
        return f"{told}, and nothing before them varies: this says little; compare with other weights or inputs."
    last = shorter.stages[-1]
    return f"{told}: the stages before them were compared, up to {last.path} ({last.name})."


def first_difference(alignment: Alignment, mine: Pass, whole: bool) -> Difference:
    """The first stage behind the last that is the same.

    A stage that yours does not have in this shape, such as q, k and v in one tensor, is passed over if the module
    it belongs to goes on to one that yours has.

    Args:
        alignment: of the reference with your model.
        mine: the pass of your model.
        whole: whether the reference is one layer, to which all stages belong, and no model of several.
    """
    behind = alignment.matches[alignment.start :]
    if alignment.by_path:
        first = behind[0]
        if first.value is None:
            return Difference(first.stage.path, first.stage.name, None, "missing", shape_of(first.stage))
        return valued(first.stage, first.value.path, [first.value])
    candidates = mine.values[alignment.passed :] or mine.values[-1:]
    missing: Stage | None = None
    for match in behind:
        if is_optional(match.stage):
            continue
        assert match.stage.value is not None
        if any(value.tensor.numel() == match.stage.value.numel() for value in candidates):
            return valued(match.stage, None, candidates)
        missing = missing or match.stage
        if not whole and not inside(match.stage.path, parent_of(missing.path)):
            break
    stage = missing or behind[-1].stage
    nearest = nearest_by_shape(shape_of(stage), candidates)
    if nearest is None or len(nearest.shape) != len(shape_of(stage)):
        return Difference(stage.path, stage.name, None, "missing", shape_of(stage))
    return Difference(stage.path, stage.name, nearest.path, "shape", shape_of(stage), nearest.shape)


def valued(stage: Stage, path: str | None, candidates: Sequence[Value]) -> Difference:
    """A difference in value from the nearest of some tensors, or in shape if none has the size."""
    assert stage.value is not None
    shape = shape_of(stage)
    wanted = Value(stage.value)
    found = nearest_by_value(wanted, candidates)
    if found is None:
        return Difference(stage.path, stage.name, path, "shape", shape, candidates[0].shape)
    value, error = found
    return Difference(
        *(stage.path, stage.name, value.path, "value", shape, value.shape),
        absolute=error.absolute,
        relative=error.relative,
    )


def other_layout(reference: Pass, mine: Pass) -> tuple[Difference, str]:
    """The difference between outputs that hold the same values."""
    shapes = tuple(reference.output.shape), tuple(mine.output.shape)
    cause = f"The values are the same in another layout: reorder the axes to {size(shapes[0])}."
    return Difference("", "output", "output", "shape", *shapes), cause


def explain(
    difference: Difference, alignment: Alignment, mine: Pass, reference: Pass, inputs: Sequence[Any], tolerance: float
) -> tuple[Difference, str | None]:
    """Looks for the cause; where it is the number of blocks, that is the difference."""
    stacks = stack_of(reference.model), stack_of(mine.model)
    (path, depth), (my_path, my_depth) = stacks
    common = f"{path}.{min(depth, my_depth) - 1}"
    if depth != my_depth and min(depth, my_depth) and is_same(alignment, common):
        cause = f"The depth differs: yours has {my_depth} blocks, the reference {depth}."
        return Difference(path, "blocks", my_path, "shape", (depth,), (my_depth,)), cause
    if difference.kind == "shape":
        around = module_around(reference.model, difference.stage) or module_around(mine.model, difference.mine or "")
        ours = is_ours(reference.model) or is_ours(mine.model)
        cause = shape_cause(difference.shape, difference.my_shape or (), around, ours)
        if cause is not None:
            return difference, cause
    if is_ours(reference.model) or not is_ours(mine.model):
        finding = find_mistake(reference, mine, inputs, alignment, tolerance)
        return difference, None if finding is None else sentence(finding, "Yours", "the reference")
    finding = find_mistake(mine, reference, inputs, align(mine, reference, tolerance), tolerance)
    return difference, None if finding is None else sentence(finding, "The reference", "yours")


def sentence(finding: Finding, other: str, known: str) -> str:
    """The finding in words, about the other model against the known one."""
    mistake, site, complete = finding
    text = f"{other} {mistake.says}, where {known} {mistake.does}."
    if site:
        text = f"Only in {site}: {text[0].lower()}{text[1:]}"
    text += f" {mistake.hint}." if known == "the reference" else ""
    return text if complete else f"{text} Behind it, something else differs as well."


def is_ours(model: nn.Module) -> bool:
    """Tells whether mistakes of ours can be made in a model."""
    return any(type(module).__module__.startswith("vitreous.") for module in model.modules())


def is_same(alignment: Alignment, path: str) -> bool:
    """Tells whether the stage at a path of the reference was found in the other model."""
    return any(match.stage.path == path and match.error is not None for match in alignment.matches)


def inside(path: str, parent: str) -> bool:
    """Tells whether a path is a module or one of its parts."""
    return bool(parent) and (path == parent or path.startswith((f"{parent}.", f"{parent}:")))


def parent_of(path: str) -> str:
    """The path of the module around a stage."""
    return path.rpartition(":")[0] if ":" in path else path.rpartition(".")[0]


def shape_of(stage: Stage) -> Shape:
    """The shape of a stage's value."""
    assert stage.value is not None
    return tuple(stage.value.shape)


def size(shape: Shape) -> str:
    """A shape in words."""
    return "×".join(map(str, shape)) or "one number"
