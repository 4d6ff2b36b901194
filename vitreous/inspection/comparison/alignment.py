"""Matches the stages of two passes."""

from dataclasses import dataclass

from vitreous.inspection.comparison.matching import Error, Value, equal_output, same
from vitreous.inspection.comparison.ordering import packed
from vitreous.inspection.comparison.passes import Pass
from vitreous.inspection.stages import Stage

SHARED_PATHS = 0.8  # with this share of the reference's paths in both, stages are matched by path


@dataclass(frozen=True)
class Match:
    """A stage of the reference, and the other model's tensor with its values, if there is one."""

    stage: Stage
    value: Value | None
    error: Error | None


@dataclass(frozen=True)
class Alignment:
    """The stages of a reference in order, each with its match.

    Attributes:
        matches: one per stage.
        start: index of the first stage after the last that is equal in both.
        passed: index of the other's first value after that stage's.
        by_path: whether both models use the same paths.
    """

    matches: list[Match]
    start: int
    passed: int
    by_path: bool

    def is_equal(self, path: str) -> bool:
        """Whether the stage at a path of the reference has its values in the other model."""
        return any(match.stage.path == path and match.error is not None for match in self.matches)


def align(reference: Pass, other: Pass, tolerance: float) -> Alignment:
    """Finds each stage of the reference in the other model: by path, or by value in order of execution."""
    by_path: dict[str, list[Stage]] = {}
    for stage in other.stages:
        by_path.setdefault(stage.path, []).append(stage)
    shared = sum(stage.path in by_path for stage in reference.stages) / len(reference.stages)
    if shared >= SHARED_PATHS:
        return align_by_path(reference, by_path, other, tolerance)
    return align_by_value(reference, other, tolerance)


def align_by_path(reference: Pass, by_path: dict[str, list[Stage]], other: Pass, tolerance: float) -> Alignment:
    """Matches stages of the same path."""
    matches, start, last_path = [], 0, None
    for i, stage in enumerate(reference.stages):
        value = error = None
        if by_path.get(stage.path) and stage.value is not None:
            counterpart = by_path[stage.path].pop(0).value
            assert counterpart is not None
            expected, value = Value(stage.value), Value(counterpart, stage.path or "output")
            error = equal_output(expected, value, tolerance)
            if error is not None and not expected.constant:
                start, last_path = i + 1, stage.path
        matches.append(Match(stage, value, error))
    passed = max((j + 1 for j, value in enumerate(other.values) if value.path == last_path), default=0)
    return Alignment(matches, start, passed, by_path=True)


def align_by_value(reference: Pass, other: Pass, tolerance: float) -> Alignment:
    """Matches each stage with the next tensor that has its values, after those of the stages before it."""
    matches, start, place = [], 0, 0
    for i, stage in enumerate(reference.stages):
        assert stage.value is not None
        expected, match = Value(stage.value), Match(stage, None, None)
        last = i == len(reference.stages) - 1  # the output matches only the other's output
        places = range(len(other.values) - 1 if last else place, len(other.values))
        for j in () if expected.constant else places:
            error = (equal_output if last else same)(expected, other.values[j], tolerance)
            if error is None and stage.path.endswith("qkv"):
                error = packed(expected, other.values[j], tolerance)
            if error is not None:
                match, place, start = Match(stage, other.values[j], error), j, i + 1
                break
        matches.append(match)
    return Alignment(matches, start, place + 1 if start else 0, by_path=False)
