"""The first stage at which two models differ, by how much, and the probable cause."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from vitreous.inspection.comparison.alignment import Alignment, Match, align
from vitreous.inspection.comparison.diagnosis import Finding, MistakeSearch, shape_cause, stack_of
from vitreous.inspection.comparison.matching import (
    Error,
    Value,
    error_of,
    layouts,
    nearest_by_shape,
    nearest_by_value,
    same,
)
from vitreous.inspection.comparison.mistakes.mistake import last_name
from vitreous.inspection.comparison.ordering import ORDERS, Order, find_reordered
from vitreous.inspection.comparison.passes import (
    ENTERS,
    Pass,
    before_flat,
    is_flat,
    pooled_pass,
    run_pass,
    tensors_vary,
)
from vitreous.inspection.comparison.structure import randomness, skip_cause, token_per_image
from vitreous.inspection.recording import PATCHES, Shape, tensors_in
from vitreous.inspection.stages import Stage
from vitreous.inspection.table import shape_text
from vitreous.support.text import html_text, printable


@dataclass(frozen=True)
class Difference:
    """The first difference between two models.

    Attributes:
        stage: path of the stage in the reference.
        name: of the stage, in the paper's words if the reference is ours.
        mine: path of its nearest counterpart in your model; None if there is none.
        kind: what differs: the shape, the values, the order of the same values, or that there is no such stage.
        shape: in the reference.
        my_shape: in your model.
        absolute: largest difference of two elements, if the shapes can be compared.
        relative: the same, divided by the largest element of the reference.
    """

    stage: str
    name: str
    mine: str | None
    kind: Literal["shape", "value", "order", "missing"]
    shape: Shape
    my_shape: Shape | None = None
    absolute: float | None = None
    relative: float | None = None

    def __str__(self) -> str:
        where = f"{self.stage or 'the output'} ({self.name})" if self.name != self.stage else self.stage
        yours = f"{self.mine} in yours" if self.mine not in (None, self.stage or "output") else "yours"
        if self.kind == "missing":
            return f"{where}: yours has no such stage"
        if self.kind == "shape":
            return f"{where}: {shape_text(self.shape)} in the reference, {shape_text(self.my_shape)} in {yours}"
        if self.kind == "order":
            return f"{where}: {yours} has the same numbers in another order"
        counterpart = f", {yours}" if yours != "yours" else ""
        return f"{where}{counterpart}: max error {self.absolute:.2g}, relative {self.relative:.2g}"


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`; print it.

    Attributes:
        equal: whether the outputs are equal within the tolerance.
        first_difference: where the models diverge; None if they do not.
        cause: the probable cause and its fix; None if no mistake explains the difference.
        stages: the stages of the reference up to the first difference, each with its match in your model.
        tolerance: relative error that counts as equal.
        error: of the outputs, or of what `note` names; None if the shapes differ.
        note: what was compared instead of outputs that are zero or constant and so hide differences.
        warning: a fault of your model that these inputs do not show.
    """

    equal: bool
    first_difference: Difference | None
    cause: str | None
    stages: tuple[Match, ...]
    tolerance: float
    error: Error | None
    note: str = ""
    warning: str = ""

    def __str__(self) -> str:
        return "\n".join(map(printable, self._lines()))

    def _lines(self) -> list[str]:
        matched = [match for match in self.stages if match.error is not None]
        if self.equal and self.error is not None:
            what = "the values compared" if self.note else "the outputs"
            first = f"Equal: {what} differ by at most {self.error.relative:.1e} of their largest value"
            return [f"{first} (tolerance {self.tolerance:g}).", *filter(None, [self.note, self.warning])]
        equal = f"{len(matched)} equal {'stage' if len(matched) == 1 else 'stages'}"
        lines = [f"Different after {equal}." if matched else "Different from the first stage."]
        lines += filter(None, [self.note])
        if matched:
            last = matched[-1]
            lines.append(f"Last equal stage: {last.stage.path} ({last.stage.name}).")
        lines.append(f"First different stage: {self.first_difference}.")
        no_cause = "No usual mistake explains it: check this stage's code, its weights and their order."
        lines.append(f"Cause: {self.cause}" if self.cause else no_cause)
        return lines

    def _repr_html_(self) -> str:
        return "".join(f"<p>{html_text(line)}</p>" for line in self._lines())


def compare(mine: nn.Module, reference: nn.Module, *inputs: Any, tolerance: float = 1e-5) -> Comparison:
    """Runs two models on the same inputs and finds the first stage at which they differ.

    Modules with the same names are compared; if the names differ, the reference's values are searched for in your
    model, in order of execution and in any layout. A stage that your model lacks is no difference if a later one is
    equal. To find the cause, the usual mistakes are made in a copy of our model (the reference, if both are ours)
    until one gives the other model's values. Both models run in evaluation mode, without gradients, and are left
    unchanged. If both outputs are zero, as from a fresh classifier, or constant, the last stages that vary are
    compared instead. All tensors are kept meanwhile: use a few images, but at least two, since some mistakes do not
    show on one.

    Args:
        mine: your model or layer, with the same weights as the reference.
        reference: the model or layer to compare with.
        inputs: arguments of both; nn.MultiheadAttention gets a single one as query, key and value.
        tolerance: error that counts as equal, relative to the reference's largest value.

    Raises:
        ValueError: there is no input, or a model returns no tensor.
    """
    if not inputs:
        raise ValueError("there is no input; compare(mine, reference, x)")
    ours, theirs, note = comparable_passes(mine, reference, inputs, tolerance)
    alignment = align(theirs, ours, tolerance)
    error = None
    if ours.output.shape == theirs.output.shape:
        error = error_of(theirs.output, ours.output)
    if theirs.end:  # inside the models, where layouts may differ
        error = same(Value(theirs.output), Value(ours.output), tolerance) or error
    if error is not None and error.relative <= tolerance:
        warning = token_per_image(mine, reference, inputs, varied=False) or ""
        return Comparison(True, None, None, tuple(alignment.matches), tolerance, error, note, warning)
    if error is None and same(Value(theirs.output), Value(ours.output), tolerance):
        shapes = tuple(theirs.output.shape), tuple(ours.output.shape)
        cause = layout_cause(theirs.output, ours.output, tolerance)
        difference = Difference("", "output", "output", "shape", *shapes)
        return Comparison(False, difference, cause, tuple(alignment.matches[:-1]), tolerance, error, note)
    difference = first_difference(alignment, ours, whole=not stack_of(reference)[1])
    difference, order, equal = order_difference(difference, alignment, ours, tolerance)
    if (cause := randomness(ours, theirs, inputs, tolerance)) is None:
        difference, cause, equal = diagnose(difference, alignment, equal, ours, theirs, inputs, tolerance)
    cause = cause or (ORDERS[order] if order else None)
    return Comparison(False, difference, cause, tuple(alignment.matches[:equal]), tolerance, error, note)


def layout_cause(reference: Tensor, mine: Tensor, tolerance: float) -> str:
    """The cause where the same values have another shape: axes that are not joined, or in another order."""
    shape, mine_shape = shape_text(tuple(reference.shape)), tuple(mine.shape)
    if error_of(reference, mine.reshape(reference.shape)).relative > tolerance:
        return f"The values are the same in another layout: reorder the axes to {shape}."
    joined = [
        i for i in range(len(mine_shape) - 1) if mine.ndim > 2 and mine.flatten(i, i + 1).shape == reference.shape
    ]
    write = f"flatten({joined[0]}, {joined[0] + 1})" if joined else f"reshape to {shape}"
    return f"The values are the same, in the same order; only their shape differs: {write}."


def comparable_passes(
    mine: nn.Module, reference: nn.Module, inputs: Sequence[Any], tolerance: float
) -> tuple[Pass, Pass, str]:
    """Runs both models; where the outputs hide differences, cuts both passes before those, with a note."""
    ours, theirs, note = output_passes(mine, reference, inputs)
    varied = tensors_vary(next(tensors_in(list(inputs)), None))
    hidden = theirs.output.shape == ours.output.shape and is_flat(theirs.output, varied)
    if not hidden or error_of(theirs.output, ours.output).relative > tolerance:
        return ours, theirs, note
    ours, theirs, _ = output_passes(mine, reference, inputs, entering=True)
    outputs = "the same for every image" if theirs.output.any() else "all zero, as from a fresh classifier"
    my_part, their_part = before_flat(ours, varied), before_flat(theirs, varied)
    if my_part is None or their_part is None:
        note = "nothing before them varies: this says little; compare with other weights or inputs"
        return ours, theirs, f"Both outputs are {outputs}, and {note}."
    last = their_part.stages[-1]
    note = f"Both outputs are {outputs}: the stages before them were compared, up to {last.path} ({last.name})."
    return my_part, their_part, note


def output_passes(
    mine: nn.Module, reference: nn.Module, inputs: Sequence[Any], entering: bool = False
) -> tuple[Pass, Pass, str]:
    """Runs both models; where one returns tokens and a vector, and the other a vector, takes both vectors."""
    ours, theirs = run_pass(mine, inputs, entering), run_pass(reference, inputs, entering)
    pair = pooled_pass(ours, theirs), pooled_pass(theirs, ours)
    changed = [type(new.model).__name__ for new, old in zip(pair, (ours, theirs), strict=True) if new is not old]
    return *pair, f"The pooler_output of {changed[0]} was compared." if changed else ""


def first_difference(alignment: Alignment, mine: Pass, whole: bool) -> Difference:
    """The first stage after the last that is equal.

    A stage that your model lacks in this shape, such as q, k and v in one tensor, is skipped if a later stage of the
    same module matches; `whole`: all stages belong to one module, since the reference is a single layer.
    """
    remaining = alignment.matches[alignment.start :] or alignment.matches[-1:]
    if alignment.by_path:
        first = remaining[0]
        if first.value is None:
            return Difference(first.stage.path, first.stage.name, None, "missing", stage_shape(first.stage))
        return value_difference(first.stage, first.value.path, [first.value])
    candidates = mine.values[alignment.passed :] or mine.values[-1:]
    missing: Stage | None = None
    for match in remaining:
        if match.stage.kind == PATCHES:  # other implementations need not have them, such as a convolution
            continue
        assert match.stage.value is not None
        if any(value.tensor.numel() == match.stage.value.numel() for value in candidates):
            return value_difference(match.stage, None, candidates)
        missing = missing or match.stage
        if not whole and not inside(match.stage.path, parent_of(missing.path)):
            break
    stage = missing or remaining[-1].stage
    nearest = nearest_by_shape(stage_shape(stage), candidates)
    if nearest is None or len(nearest.shape) != len(stage_shape(stage)):
        return Difference(stage.path, stage.name, None, "missing", stage_shape(stage))
    return Difference(stage.path, stage.name, nearest.path, "shape", stage_shape(stage), nearest.shape)


def value_difference(stage: Stage, path: str | None, candidates: Sequence[Value]) -> Difference:
    """A difference in value from the nearest candidate, or in shape if none has the size."""
    assert stage.value is not None
    shape = stage_shape(stage)
    nearest = nearest_by_value(Value(stage.value), candidates)
    if nearest is None:
        return Difference(stage.path, stage.name, path, "shape", shape, candidates[0].shape)
    value, error = nearest
    if value.shape != shape and next(layouts(stage.value, value.tensor), None) is None:
        return Difference(stage.path, stage.name, value.path, "shape", shape, value.shape)
    return Difference(
        *(stage.path, stage.name, value.path, "value", shape, value.shape),
        absolute=error.absolute,
        relative=error.relative,
    )


def order_difference(
    difference: Difference, alignment: Alignment, mine: Pass, tolerance: float
) -> tuple[Difference, Order | None, int]:
    """Looks for the numbers of the last equal stage, or of the first different one, in another order.

    Returns:
        The difference, the order if there is such a tensor, and the number of stages before the difference.
    """
    equal = alignment.start
    last = alignment.matches[equal - 1] if equal else None
    following = next((match for match in alignment.matches[equal:] if match.stage.path == difference.stage), None)
    stages = [match.stage for match in (following, last) if match is not None]
    found = find_reordered(stages, mine.values[alignment.passed :], tolerance)
    if found is None:
        return difference, None, equal
    stage, value, order = found
    if last is not None and last.value is not None and not value.path.startswith(ENTERS):
        moved = (
            order == "mixed" and bool(stage.path) and last.value.shape != stage_shape(last.stage)
        )  # before a reshape
        stage = last.stage if moved else stage
        equal -= stage is last.stage
    elif following is not None:
        stage = following.stage
    shapes = stage_shape(stage), value.shape
    return Difference(stage.path, stage.name, value.path, "order", *shapes), order, equal


def diagnose(
    difference: Difference,
    alignment: Alignment,
    equal: int,
    mine: Pass,
    reference: Pass,
    inputs: Sequence[Any],
    tolerance: float,
) -> tuple[Difference, str | None, int]:
    """Searches for the cause; where that shows another difference, such as the number of blocks, it becomes it.

    Returns:
        The difference, its cause, and the number of stages before it; `equal` if it is the one given.
    """
    (path, depth), (my_path, my_depth) = stack_of(reference.model), stack_of(mine.model)
    common = f"{path}.{min(depth, my_depth) - 1}"
    if depth != my_depth and min(depth, my_depth) and alignment.is_equal(common):
        cause = f"The depth differs: yours has {my_depth} blocks, the reference {depth}."
        return Difference(path, "blocks", my_path, "shape", (depth,), (my_depth,)), cause, equal
    at_tokens = not is_ours(reference.model) or difference.stage.startswith(("class_token", "position_embedding"))
    cause = token_per_image(mine.model, reference.model, inputs) if at_tokens else None
    if cause is None and difference.kind == "shape":
        cause = shape_cause(
            difference.shape,
            difference.my_shape or (),
            hidden=any((name or "").endswith("fc1") for name in (difference.stage, difference.mine)),
            ours=is_ours(mine.model) or is_ours(reference.model),
        )
    if cause is not None:
        return difference, cause, equal
    in_mine = is_ours(mine.model) and not is_ours(reference.model)
    known, other = (mine, reference) if in_mine else (reference, mine)
    near = difference.stage if difference.kind == "order" and known is reference else ""
    finding = MistakeSearch(known, other, inputs, align(known, other, tolerance), tolerance, near).find()
    if finding is None:
        return difference, skip_cause(mine, reference, inputs, tolerance), equal
    last = alignment.matches[equal - 1].stage if equal else None
    inside = finding.mistake.inside
    if last is not None and inside and last_name(last.path) == inside:  # its parts are equal, it is not
        moved = value_difference(last, None, mine.values[alignment.passed :] or mine.values[-1:])
        difference, equal = moved, equal - 1
    return difference, finding_text(finding, in_mine), equal


def finding_text(finding: Finding, in_mine: bool) -> str:
    """A finding in words; `in_mine`: the mistake was made in a copy of yours, so the reference has it."""
    mistake, site, complete = finding
    other, known = ("The reference", "yours") if in_mine else ("Yours", "the reference")
    text = f"{other} {mistake.wrong}, where {known} {mistake.right}."
    if site:
        text = f"Only in {site}: {text[0].lower()}{text[1:]}"
    text += "" if in_mine else f" {mistake.hint}."
    return text if complete else f"{text} After it, something else differs as well."


def is_ours(model: nn.Module) -> bool:
    """Whether a model contains vitreous modules, which we can modify."""
    return any(type(module).__module__.startswith("vitreous.") for module in model.modules())


def inside(path: str, parent: str) -> bool:
    """Whether a path is a module or one of its parts."""
    return bool(parent) and (path == parent or path.startswith((f"{parent}.", f"{parent}:")))


def parent_of(path: str) -> str:
    """The path of the module around a stage."""
    return path.rpartition(":")[0] if ":" in path else path.rpartition(".")[0]


def stage_shape(stage: Stage) -> Shape:
    """The shape of a stage's value."""
    assert stage.value is not None
    return tuple(stage.value.shape)
