"""What a model makes of a split: an outcome for every image, or for masked patches a score."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.data.sources.open import Split
from vitreous.evaluation.metrics import Outcome
from vitreous.model.shapes import Images, Logits
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.learner import Learner
from vitreous.training.objectives.masked_patch import MaskedPatchPrediction
from vitreous.training.objectives.objective import CrossEntropy, Targets
from vitreous.training.optimization.memory import MicroBatch
from vitreous.training.optimization.precision import autocast
from vitreous.training.planning.task import Task
from vitreous.training.records.folder import BadFiles

LIKELIEST = 3  # classes that an outcome keeps for each sample
FIXED_EPOCH = 0  # whose masks validation always has; training counts from 1


@dataclass(frozen=True)
class Score:
    """How well the hidden patches of a split were predicted.

    Args:
        loss: the mean over its images.
        accuracy: the share of corrupted patches that were right, the mean over its images.
    """

    loss: float
    accuracy: float


def validate(learner: Learner, task: Task, bad_files: BadFiles) -> Outcome | Score:
    """What the kept model makes of the validation split.

    Raises:
        InputError: too many of its images are broken.
    """
    if isinstance(learner.objective, MaskedPatchPrediction):
        return score(learner, task, task.data.validation, bad_files)
    return evaluate(learner.kept_model, task, task.data.validation, bad_files, learner.micro_batch)


@torch.inference_mode()
def evaluate(
    model: VisionTransformer, task: Task, split: Split, bad_files: BadFiles, micro_batch: MicroBatch
) -> Outcome:
    """Classifies every readable image of a split; its loss is the objective's, without smoothing and weights.

    Args:
        model: on the task's device.
        task: the images and what is done to them.
        split: of the task's.
        bad_files: takes note of broken images.
        micro_batch: how many images go through the model at once.

    Raises:
        InputError: too many of them are broken.
    """
    model.eval()
    cross_entropy = CrossEntropy(loss=task.recipe.objective.loss)
    places, labels, tops, losses = [], [], [], []
    for batch in task.plain_batches(split):
        bad_files.add(split, batch.bad)
        if len(batch):
            images, truth = task.tensors(batch)
            logits = micro_batch.run(partial(logits_of, model, images, task)).float()
            places.append(batch.indices)
            labels.append(batch.labels)
            tops.append(logits.softmax(1).topk(min(LIKELIEST, logits.shape[1])))
            losses.append(cross_entropy(logits, truth).where(logits.isfinite().all(), math.nan))
    check_read(len(labels), split)
    return Outcome(
        torch.cat(places).numpy(),
        torch.cat(labels).numpy(),
        torch.cat([top.indices for top in tops]).cpu().numpy(),
        torch.cat([top.values for top in tops]).cpu().numpy(),
        torch.stack(losses).cpu().double().sum().item() / sum(map(len, labels)),
    )


def logits_of(model: VisionTransformer, images: Images, task: Task, micro_batch: int) -> Logits:
    """The logits of a batch, of which so many images go through the model at once."""
    with autocast(task.precision, task.device):
        return torch.cat([model(part) for part in images.split(micro_batch)])


@torch.inference_mode()
def score(learner: Learner, task: Task, split: Split, bad_files: BadFiles) -> Score:
    """Predicts hidden patches of every readable image of a split, the same ones each time.

    Raises:
        InputError: too many of the images are broken.
    """
    model = learner.kept_model.eval()
    sums, count = torch.zeros(2, dtype=torch.float64), 0
    for number, batch in enumerate(task.plain_batches(split)):
        bad_files.add(split, batch.bad)
        if len(batch):
            images, targets = learner.inputs(task, batch, FIXED_EPOCH, number, mixed=False)
            judge = partial(judged, learner, model, images, targets, task)
            sums += learner.micro_batch.run(judge)
            count += len(batch)
    check_read(count, split)
    loss, accuracy = (sums / count).tolist()
    return Score(loss, accuracy)


def judged(
    learner: Learner, model: VisionTransformer, images: Images, targets: Targets, task: Task, micro_batch: int
) -> Float[Tensor, "2"]:
    """The summed loss and what is right of a batch, of which so many images go through the model at once."""
    sums = torch.zeros(2, dtype=torch.float64)
    for some, of in zip(images.split(micro_batch), targets.split(micro_batch), strict=True):
        with autocast(task.precision, task.device):
            verdict = learner.kept_objective(model, some, of)
        sums += torch.stack([verdict.loss, verdict.correct]).double().cpu()
    return sums


def check_read(count: int, split: Split) -> None:
    """Raises InputError if none of a split's images could be read."""
    if not count:
        raise InputError(f"none of the {split.name} images can be read", "check the files")
