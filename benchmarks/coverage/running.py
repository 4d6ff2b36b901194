"""All comparisons, on all cores."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from benchmarks.coverage.outcome import Outcome
from benchmarks.coverage.timm_names import by_kind, outcomes
from benchmarks.coverage.transformers_classes import outcome_of


def run(names: Sequence[str], classes: Sequence[str], progress: Callable[[str], None]) -> tuple[list[Outcome], ...]:
    """The outcomes of timm's names and of transformers' classes, in their order, computed on all cores."""
    found: dict[str, Outcome] = {}
    spawn = multiprocessing.get_context("spawn")  # a fork would share torch's threads
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        futures = [pool.submit(outcomes, group) for group in by_kind(names)]
        futures += [pool.submit(class_outcomes, name) for name in classes]
        for done in as_completed(futures):
            found |= {outcome.name: outcome for outcome in done.result()}
            progress(f"\r{len(found)} of {len(names) + len(classes)}")
    return [found[name] for name in names], [found[name] for name in classes]


def class_outcomes(name: str) -> list[Outcome]:
    """The outcome of one of transformers' classes, as a list."""
    return [outcome_of(name)]
