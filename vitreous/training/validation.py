"""Evaluating a model on a split: the batches, in parts that fit into memory; the objective scores them."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from vitreous.data.sources.open import Split
from vitreous.evaluation.metrics import Outcome
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.learner import Learner
from vitreous.training.objectives.objective import VALIDATION, Objective, Prepared, Score, Targets
from vitreous.training.optimization.memory import MicroBatch
from vitreous.training.optimization.precision import autocast
from vitreous.training.planning.plan import Plan
from vitreous.training.records.folder import BadFiles

Result = TypeVar("Result")


def validate(learner: Learner, bad_files: BadFiles) -> Outcome | Score:
    """The score of the kept model on the validation split.

    Raises:
        InputError: too many of its images are broken.
    """
    plan = learner.plan
    return evaluate(
        learner.kept_objective, learner.kept_model, plan, plan.data.validation, bad_files, learner.micro_batch
    )


@torch.inference_mode()
def evaluate(
    objective: Objective,
    model: VisionTransformer,
    plan: Plan,
    split: Split,
    bad_files: BadFiles,
    micro_batch: MicroBatch,
) -> Outcome | Score:
    """The objective's score of a model on every readable image of a split.

    Args:
        objective: with its own parameters, if any, of this model.
        model: on the plan's device.
        plan: of the run.
        split: of the plan's data.
        bad_files: collects broken images.
        micro_batch: how many images go through the model at once.

    Raises:
        InputError: too many of the images are broken, or all.
    """
    model.eval()
    objective.eval()

    def in_parts(function: Callable[[Images, Targets], Result], images: Images, targets: Targets) -> list[Result]:
        def results(micro_batch: int) -> list[Result]:
            parts = zip(images.split(micro_batch), targets.split(micro_batch), strict=True)
            with autocast(plan.precision, plan.device):
                return [function(image_part, target_part) for image_part, target_part in parts]

        return micro_batch.run(results)

    def prepared() -> Iterator[Prepared]:
        readable = 0
        for number, batch in enumerate(plan.plain_batches(split)):
            bad_files.add(split, batch.bad)
            if len(batch):
                readable += len(batch)
                yield Prepared(batch, *objective.prepare(batch, plan.setup, VALIDATION, number))
        if not readable:
            raise InputError(f"none of the {split.name} images can be read", "check the files")

    return objective.evaluate(model, prepared(), in_parts)
