"""A learner: a model with all that moves it, from the targets of a batch to the update."""

from dataclasses import dataclass
from functools import partial

import torch

from vitreous.checkpoints.load import load_checkpoint
from vitreous.data.loader import Batch
from vitreous.data.sampling import masking_generator
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.objectives.distillation import Distilled, match_teacher
from vitreous.training.objectives.masked_patch import MaskedPatchPrediction
from vitreous.training.objectives.objective import Classification, CrossEntropy, Objective, Targets, balanced_weights
from vitreous.training.optimization.averaging import WeightAverage
from vitreous.training.optimization.memory import MicroBatch
from vitreous.training.optimization.optimizer import adam, adamw, freeze, sgd
from vitreous.training.optimization.precision import LossScale, Precision
from vitreous.training.optimization.schedule import Course
from vitreous.training.optimization.step import StepResult, train_step
from vitreous.training.planning.task import Task
from vitreous.training.recipe.sections import OptimizerSection

COMPILERS = ("torch._dynamo", "torch._inductor")  # not imported for the names of their errors: they take seconds
COMPILES = 4  # of one block: training and evaluation, each for a whole batch and for other sizes


@dataclass(eq=False)
class Learner:
    """What is trained, and how.

    Args:
        model: on the task's device; changed by every update.
        objective: what it learns.
        optimizer: of the parameters of both.
        course: the learning rate of each step.
        micro_batch: how many images go through the model at once.
        average: of the weights, if there is one.
        precision: of the activations.
        loss_scale: of float16.
    """

    model: VisionTransformer
    objective: Objective
    optimizer: torch.optim.Optimizer
    course: Course
    micro_batch: MicroBatch
    average: WeightAverage | None
    precision: Precision
    loss_scale: LossScale | None

    @property
    def kept_model(self) -> VisionTransformer:
        """The one that is validated and kept: the average where there is one."""
        return self.model if self.average is None else self.average.model

    @property
    def kept_objective(self) -> Objective:
        """What belongs to the kept model: for masked patches, the decoder."""
        return self.objective if self.average is None else self.average.objective

    def inputs(self, task: Task, batch: Batch, epoch: int, number: int, mixed: bool = True) -> tuple[Images, Targets]:
        """The images of a batch as the model gets them, and their targets.

        Args:
            task: of the batch.
            batch: with at least one image.
            epoch: from 1 in training; masks of validation are those of epoch 0.
            number: of the batch in its epoch.
            mixed: whether images may be mixed with each other, as in training.
        """
        if isinstance(self.objective, MaskedPatchPrediction):
            pixels = batch.images.to(task.device, non_blocking=True)
            images = task.preprocessing.normalize(pixels)
            generator = masking_generator(task.recipe.run.seed, epoch, number)
            return images, self.objective.targets(pixels, images, generator)
        return task.mixed_tensors(batch, epoch, number) if mixed else task.tensors(batch)

    def update(self, images: Images, targets: Targets, step: int, clip_norm: float) -> StepResult:
        """Moves the weights once.

        Args:
            images: of the batch.
            targets: of the batch.
            step: from 0.
            clip_norm: the largest norm of all gradients together.
        """
        move = partial(
            train_step, self.model, self.optimizer, self.objective, images, targets, lr=self.course(step),
            clip_norm=clip_norm, precision=self.precision, loss_scale=self.loss_scale,
        )  # fmt: skip
        try:
            result = self.micro_batch.run(move, self.optimizer.zero_grad)
        except RuntimeError as error:
            if not type(error).__module__.startswith(COMPILERS):
                raise
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"torch.compile failed: {reason}", "set compile=false") from error
        if self.average is not None:
            self.average.update(self.model, self.objective)
        return result


def make_learner(model: VisionTransformer, task: Task, micro_batch: MicroBatch) -> Learner:
    """Puts together what a resolved recipe says of how a model is to be trained.

    Args:
        model: on the task's device; frozen, compiled and so on as the recipe has it.
        task: what to learn.
        micro_batch: how many images go through the model at once.

    Raises:
        InputError: parts to freeze that are not there, or a teacher that cannot teach these classes.
    """
    recipe = task.recipe
    freeze(model, recipe.optimizer.frozen)
    objective = make_objective(task, model).to(task.device)
    decay = recipe.averaging.ema_decay
    average = WeightAverage(model, decay, objective) if decay else None
    model.encoder.checkpoint_activations = recipe.run.checkpoint_activations
    if recipe.run.compile:
        compile_blocks(model)
    optimizer = make_optimizer(model, objective, recipe.optimizer)
    loss_scale = LossScale(task.device) if task.precision == "float16" else None
    return Learner(model, objective, optimizer, make_course(task), micro_batch, average, task.precision, loss_scale)


def compile_blocks(model: VisionTransformer) -> None:
    """Has each block compiled when it first runs; they are alike, so that is quicker than the whole.

    torch compiles a function anew for every rate of stochastic depth, and gives up after eight, unless it is told.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILES * model.config.depth)
    for block in model.encoder.blocks:
        block.compile()


def make_objective(task: Task, model: VisionTransformer) -> Objective:
    """What a recipe asks to learn. Raises InputError for a teacher that cannot be had or knows other classes."""
    section, weights = task.recipe.objective, None
    if section.goal == "masked_patch":
        return MaskedPatchPrediction(model.config, section.masked_target, section.masked_fraction)
    if section.class_weights == "balanced":
        weights = balanced_weights(task.data.train.labels, len(task.data.class_names)).to(task.device)
    loss = CrossEntropy(section.label_smoothing, section.loss, weights)
    if section.teacher is None:
        return Classification(loss)
    teacher = match_teacher(load_checkpoint(section.teacher), task.data.class_names, task.preprocessing, task.device)
    return Distilled(loss, teacher, section.distillation, section.teacher_share, section.temperature)


def make_optimizer(model: VisionTransformer, objective: Objective, section: OptimizerSection) -> torch.optim.Optimizer:
    """The optimizer that a recipe asks for, of all that is trained."""
    shared = {"lr": section.lr, "weight_decay": section.weight_decay, "layer_decay": section.layer_decay}
    if section.algorithm == "sgd":
        return sgd(model, objective, **shared, momentum=section.momentum)
    make = adamw if section.algorithm == "adamw" else adam
    return make(model, objective, **shared, betas=section.betas, eps=section.eps)


def make_course(task: Task) -> Course:
    """The learning rate's course that a recipe asks for."""
    schedule, per_epoch = task.recipe.schedule, task.steps_per_epoch
    warmup, cooldown = schedule.line_steps(per_epoch)
    return Course(task.recipe.optimizer.lr, task.total_steps, warmup, cooldown, schedule.decay)
