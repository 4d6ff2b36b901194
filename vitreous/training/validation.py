"""Evaluating a model on a split: batches in parts that fit into memory, scored by the objective."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TypeVar

import numpy as np
import torch

from vitreous.data.sources.splits import Split
from vitreous.evaluation.metrics import Outcome
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.learner import Learner
from vitreous.training.objectives.objective import VALIDATION, Prepared, Score, Targets
from vitreous.training.optimization.precision import autocast
from vitreous.training.parallel.group import Group
from vitreous.training.records.folder import BadFiles

Result = TypeVar("Result")


class NoneReadable(InputError):
    """No image of a split can be read."""


@torch.inference_mode()
def evaluate(
    learner: Learner,
    model: VisionTransformer,
    split: Split,
    bad_files: BadFiles,
    progress: Callable[[int, int], None] = lambda done, images: None,
) -> Outcome | Score:
    """The score of a model on every readable image of a split, each counted once whatever the number of ranks.

    Args:
        learner: its objective scores.
        model: the learner's `eval_model`, or an earlier one from its file, on the plan's device.
        split: of the plan's data.
        bad_files: collects broken images.
        progress: called after each batch with the images that are scored, and how many the split has.

    Raises:
        InputError: too many of the images are broken.
        NoneReadable: all of them are.
    """
    plan, objective, group = learner.plan, learner.eval_objective, learner.group
    done = 0

    def prepared() -> Iterator[Prepared]:
        nonlocal done
        for number, turn in enumerate(group.turns(plan.plain_batches(split))):
            bad_files.add(split, turn.bad)
            done += turn.count
            if len(turn.batch):
                yield Prepared(turn.batch, *objective.prepare(turn.batch, plan.setup, VALIDATION, number))
            progress(done, len(split))

    batches = prepared()
    first = next(batches, None)  # of several ranks, some may have no image
    local = None if first is None else score(learner, model, chain([first], batches))
    if not done:
        raise NoneReadable(f"none of the {split.name} images can be read", "check the files")
    return merged(group, local)


def merged(group: Group, local: Outcome | Score | None) -> Outcome | Score:
    """The score of all ranks, from each rank's own; None if it has no image, which not all have."""
    if group.size == 1:
        assert local is not None, "there is an image"
        return local
    numbers: list[float] = [0.0] * 4  # loss, accuracy, images, classes for each
    if local is not None:
        numbers = [local.loss, local.accuracy, local.count, local.top if isinstance(local, Outcome) else 0]
    scores = np.array([row for row in group.gather(numbers) if row[2]])
    loss, accuracy = np.average(scores[:, :2], axis=0, weights=scores[:, 2]).tolist()
    top = int(scores[0, 3])
    if not top:
        return Score(loss, accuracy, int(scores[:, 2].sum()))
    own = local if isinstance(local, Outcome) else Outcome.empty(top)
    arrays = (own.places, own.labels, own.classes, own.probabilities)
    places, labels, classes, probabilities = (
        torch.cat(group.pieces(torch.from_numpy(array))).numpy() for array in arrays
    )
    order = np.argsort(places)
    return Outcome(places[order], labels[order], classes[order], probabilities[order], loss)


@torch.inference_mode()
def score(learner: Learner, model: VisionTransformer, batches: Iterable[Prepared]) -> Outcome | Score:
    """The score of a model on batches, in parts that fit into memory.

    Args:
        learner: its objective scores.
        model: as for `evaluate`.
        batches: prepared by the learner's `eval_objective`; there is at least one.
    """
    plan = learner.plan

    def in_parts(function: Callable[[Images, Targets], Result], images: Images, targets: Targets) -> list[Result]:
        def results(micro_batch: int) -> list[Result]:
            parts = zip(images.split(micro_batch), targets.split(micro_batch), strict=True)
            with autocast(plan.precision, plan.device):
                return [function(image_part, target_part) for image_part, target_part in parts]

        return learner.micro_batch.run(results)

    return learner.eval_objective.eval().evaluate(model.eval(), batches, in_parts)
