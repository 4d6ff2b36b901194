"""Evaluating a model on a split: batches in parts that fit into memory, scored by the objective."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from vitreous.data.sources.splits import Split
from vitreous.evaluation.metrics import Outcome
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.learner import Learner
from vitreous.training.objectives.objective import VALIDATION, Prepared, Score, Targets
from vitreous.training.optimization.precision import autocast
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
    """The score of a model on every readable image of a split.

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
    plan, objective = learner.plan, learner.eval_objective

    def prepared() -> Iterator[Prepared]:
        done = 0
        for number, batch in enumerate(plan.plain_batches(split)):
            bad_files.add(split, batch.bad)
            if len(batch):
                done += len(batch)
                yield Prepared(batch, *objective.prepare(batch, plan.setup, VALIDATION, number))
            progress(done, len(split))
        if not done:
            raise NoneReadable(f"none of the {split.name} images can be read", "check the files")

    return score(learner, model, prepared())


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
