"""Why two models differ, by experiment: the mistake that makes one model give the values of the other."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitreous.inspection.comparison.alignment import Alignment
from vitreous.inspection.comparison.matching import Value, error_of, same
from vitreous.inspection.comparison.mistakes import mistakes_in
from vitreous.inspection.comparison.mistakes.mistake import Mistake, copy_sharing_weights
from vitreous.inspection.comparison.passes import Pass, arguments, comparable, first_tensor, run_pass
from vitreous.inspection.recording import Shape, tensors_in

EXPLAINED = 100  # a mistake explains a difference if it reduces it by this factor
EXACT = 1e-6  # below this error no further mistakes are tried
CLEARLY = 5  # the least reduction, even where the error is within the tolerance
SIMILAR = 10  # of two mistakes whose errors differ by less than this factor, the more common one is taken


class Finding(NamedTuple):
    """A mistake that explains the difference, or the first of several."""

    mistake: Mistake
    site: str  # path of the only block with the mistake; empty for everywhere
    complete: bool  # whether nothing else differs


class MistakeSearch:
    """Makes mistakes in copies of a model, and checks whether they explain another one.

    Args:
        known: pass of the model to make mistakes in.
        other: pass of the model to explain.
        inputs: of both.
        alignment: with `known` as the reference.
        tolerance: relative error that counts as equal.
        near: path of the stage whose mistakes are tried first; by default the first that differs.
    """

    def __init__(
        self,
        known: Pass,
        other: Pass,
        inputs: Sequence[Any],
        alignment: Alignment,
        tolerance: float,
        near: str = "",
    ) -> None:
        self.near = near
        self.known, self.other, self.inputs, self.tolerance = known, other, inputs, tolerance
        match = alignment.matches[min(alignment.start, len(alignment.matches) - 1)]
        self.first = match.stage
        self.block = block_of(self.first.path)
        before = [Value(m.stage.value) for m in alignment.matches[: alignment.start] if m.stage.value is not None]
        self.fresh = [
            value
            for value in other.values[alignment.passed :]
            if not any(same(old, value, tolerance) for old in before)
        ]
        if alignment.by_path and match.value is None:
            self.fresh = []  # the other has no such stage, so there are no values to explain

    def find(self) -> Finding | None:
        """Tries the mistakes, kind by kind, everywhere at once; then each only in the block of the first difference."""
        kinds = list(mistakes_in(self.known.model, self.near or self.first.path))
        for kind in kinds:
            finding = self.best(kind)
            if finding is not None:
                return finding
        for kind in kinds if self.block else ():
            mistake = self.by_output(kind, self.block)
            if mistake is not None:
                return Finding(mistake, self.block, complete=True)
        return None

    def best(self, kind: Sequence[Mistake]) -> Finding | None:
        """The mistake of a kind that explains the output, or one that explains the first differing stage."""
        mistake = self.by_output(kind)
        if mistake is not None:
            return Finding(mistake, "", complete=True)
        partial = [mistake for mistake in kind if self.explains_stage(mistake)]
        mistake = self.by_output(partial, self.block) if self.block else None
        if mistake is not None:
            return Finding(mistake, self.block, complete=True)
        return Finding(partial[0], "", complete=False) if partial else None

    def by_output(self, mistakes: Sequence[Mistake], site: str = "") -> Mistake | None:
        """The mistake with which the known model returns what the other returns."""
        if self.known.output.shape != self.other.output.shape:
            return None
        before = error_of(self.other.output, self.known.output).relative
        tried: list[tuple[float, Mistake]] = []
        for mistake in mistakes:
            model = made(mistake, self.known.model, site)
            output = None if model is None else value_at(model, self.known.end, self.inputs)
            if output is None or output.shape != self.other.output.shape:
                continue
            after = error_of(self.other.output, output).relative
            if after <= max(self.tolerance, before / EXPLAINED) < math.inf and after <= before / CLEARLY:
                tried.append((after, mistake))
                if after <= min(EXACT, before / EXPLAINED):
                    break
        least = min((error for error, _ in tried), default=0.0)
        return next((mistake for error, mistake in tried if error <= SIMILAR * least), None)

    def explains_stage(self, mistake: Mistake) -> bool:
        """Whether the mistake turns the first differing stage into one of the other model's tensors."""
        model = made(mistake, self.known.model) if self.fresh else None
        value = None if model is None else value_at(model, self.first.path, self.inputs)
        before = self.first.value
        if value is None or before is None or value.shape != before.shape:
            return False
        changed = error_of(before, value).relative > self.tolerance
        expected = Value(value)
        return changed and any(same(expected, candidate, self.tolerance) for candidate in self.fresh)


def value_at(model: nn.Module, path: str, inputs: Sequence[Any]) -> Tensor | None:
    """The output of the stage at a path, or of the model; None if there is no such stage, or the pass fails."""
    module = dict(model.named_modules()).get(path)
    if module is not None:
        seen: list[Any] = []
        with module.register_forward_hook(lambda module, args, result: seen.append(result)):
            attempt(model, inputs)
        return next(tensors_in(seen), None)
    if attempt(model, inputs) is None:
        return None
    return next((stage.value for stage in run_pass(model, inputs).stages if stage.path == path), None)


def made(mistake: Mistake, model: nn.Module, site: str = "") -> nn.Module | None:
    """A copy of the model with a mistake at or below a path; None if the mistake does not apply."""
    copied = copy_sharing_weights(model).eval()
    modules = [(p, m) for p, m in copied.named_modules() if not site or f"{p}.".startswith(f"{site}.")]
    return copied if mistake.change(modules) else None


def attempt(model: nn.Module, inputs: Sequence[Any]) -> Tensor | None:
    """Runs a copy; None if its mistake does not work with these shapes."""
    try:
        with comparable(model), torch.no_grad():
            return first_tensor(model(*arguments(model, inputs)), model)
    except (RuntimeError, ValueError):
        return None


def block_of(path: str) -> str:
    """The path of the block around a stage, such as encoder.blocks.3; empty outside of blocks."""
    parts = path.partition(":")[0].split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[-1] + 1]) if numbers else ""


def shape_cause(reference: Shape, mine: Shape, hidden: bool, ours: bool) -> str | None:
    """The usual cause of a difference in shape; None if there is no usual one.

    Args:
        reference: the shape in the reference.
        mine: the shape in your model.
        hidden: whether the stage is the first dense layer of an MLP.
        ours: whether either model is ours; otherwise the meaning of its axes is unknown.
    """
    if len(reference) != len(mine):
        return None
    differ = [i for i, (a, b) in enumerate(zip(reference, mine, strict=True)) if a != b]
    numbers = f"yours has {mine[-1]} numbers, the reference {reference[-1]}" if mine else ""
    if (len(reference) == 2 and differ == [1]) or (len(reference) == 3 and 2 in differ):
        sizes = "mlp_dim" if hidden else "the number of classes, or the width" if len(reference) == 2 else "the width"
        return f"The last axis differs: {numbers}{f'; check {sizes}' if ours else ''}."
    if len(reference) == 3 and differ == [1]:
        if abs(mine[1] - reference[1]) == 1:
            change = "more" if mine[1] > reference[1] else "fewer"
            return f"You have one token {change} than the reference: check where the class token is added."
        return f"You have {mine[1]} tokens, the reference {reference[1]}: check patch size, image size and stride."
    return None


def stack_of(model: nn.Module) -> tuple[str, int]:
    """The path and length of the longest sequence of equal blocks; ("", 0) if there is none."""
    stacks = [
        (path, len(module))
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        and len(module)
        and len({type(child) for child in module}) == 1
        and any(True for _ in module[0].children())
    ]
    return max(stacks, key=lambda stack: stack[1], default=("", 0))
