"""The state of training: model, objective, optimizer and average of the weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vitreous.data.loading.batches import Batch
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.objectives.goals import objective_class
from vitreous.training.objectives.objective import VALIDATION, Objective, Targets
from vitreous.training.optimization.averaging import WeightAverage
from vitreous.training.optimization.memory import MicroBatch, free_bytes, largest_fit, parameter_bytes, saved_bytes
from vitreous.training.optimization.optimizer import freeze, make_optimizer
from vitreous.training.optimization.precision import LossScale
from vitreous.training.optimization.schedule import lr_factor
from vitreous.training.optimization.step import Accumulated, StepResult, Streak, train_step
from vitreous.training.planning.plan import Plan

COMPILERS = ("torch._dynamo", "torch._inductor")  # importing them for their errors would take seconds
COMPILATIONS = 4  # of one block: training and evaluation, each for a whole batch and for other sizes
PROBE = 2  # images that measure the memory of one


class Learner:
    """A model in training. Everything that changes in training is here and in `state_dict`.

    Args:
        plan: of the run; `run_training` replaces it by the same with what was chosen for the machine.
        notify: called with a line when the micro-batch shrinks.

    Raises:
        InputError: parts to freeze do not exist, or a teacher cannot teach these classes.

    Attributes:
        model: on the plan's device.
        objective: what it learns.
        optimizer: of the parameters of both.
        average: of the weights, or None.
        loss_scale: of float16, or None.
        micro_batch: how many images go through the model at once.
        streak: of skipped steps.
        step: updates made so far.
        begun: what of the next update's batch is done, while its images go through the model in parts; otherwise None.
        pause: called between these parts; may raise.
    """

    def __init__(self, plan: Plan, notify: Callable[[str], None]) -> None:
        recipe, section = plan.recipe, plan.recipe.optimizer
        self.plan, self.step = plan, 0
        self.begun: Accumulated | None = None
        self.pause: Callable[[], None] = lambda: None
        model = VisionTransformer(plan.config) if plan.start is None else plan.start.stored.model
        self.model = model.to(plan.device)
        freeze(self.model, section.frozen)
        self.objective = objective_class(recipe.objective).make(plan.setup).to(plan.device)
        decay = recipe.averaging.ema_decay
        self.average = WeightAverage(self.model, decay, self.objective) if decay else None
        self.model.encoder.checkpoint_activations = recipe.run.checkpoint_activations
        if recipe.run.compile:
            compile_blocks(self.model)
        self.optimizer = make_optimizer(
            self.model, self.objective, algorithm=section.algorithm, lr=section.lr, weight_decay=section.weight_decay,
            layer_decay=section.layer_decay, betas=section.betas, eps=section.eps, momentum=section.momentum,
        )  # fmt: skip
        self.loss_scale = LossScale(plan.device) if plan.precision == "float16" else None
        self.streak = Streak(section.max_skipped, plan.device)
        self.micro_batch = MicroBatch(recipe.data.micro_batch or self._largest_micro_batch(), notify)

    @property
    def eval_model(self) -> VisionTransformer:
        """The model that is validated and saved: the average if there is one."""
        return self.model if self.average is None else self.average.model

    @property
    def eval_objective(self) -> Objective:
        """The objective of that model, with its decoder if it has one."""
        return self.objective if self.average is None else self.average.objective

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        plan, schedule = self.plan, self.plan.recipe.schedule
        warmup, cooldown = schedule.warmup_and_cooldown(plan.steps_per_epoch)
        factor = lr_factor(self.step, plan.total_steps, warmup, schedule.decay, cooldown)
        return plan.recipe.optimizer.lr * factor

    def train(self) -> None:
        """Sets the model and the objective to training mode."""
        self.model.train()
        self.objective.train()

    def prepare(self, batch: Batch) -> tuple[Images, Targets]:
        """The images of the next update as the model sees them, and their targets."""
        epoch, number = divmod(self.step, self.plan.steps_per_epoch)
        return self.objective.prepare(batch, self.plan.setup, epoch + 1, number)

    def update(self, batch: Batch) -> StepResult | None:
        """Moves the weights once, along the batch's gradient; None if it has no image that can be read.

        Raises:
            InputError: not even one image fits into memory, or torch.compile failed.
        """
        result = None
        if len(batch):
            images, targets = self.prepare(batch)
            result = self._move(images, targets)
            self.streak.add(self.step, result.skipped)
            if self.average is not None:
                self.average.update(self.model, self.objective)
        self.step += 1
        self.begun = None
        return result

    def _move(self, images: Images, targets: Targets) -> StepResult:
        def step(micro_batch: int) -> StepResult:
            return train_step(
                self.model, self.optimizer, self.objective, images, targets, lr=self.lr, micro_batch=micro_batch,
                clip_norm=self.plan.recipe.optimizer.clip_norm, precision=self.plan.precision,
                loss_scale=self.loss_scale, begun=self.begun, between=self._between,
            )  # fmt: skip

        try:
            return self.micro_batch.run(step, self._begin_again)
        except RuntimeError as error:
            if not type(error).__module__.startswith(COMPILERS):
                raise
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"torch.compile failed: {reason}", "set compile=false") from error

    def _between(self, begun: Accumulated) -> None:
        self.begun = begun
        self.pause()

    def _begin_again(self) -> None:
        """Drops what of a batch is done."""
        self.begun = None
        self.optimizer.zero_grad()

    def _largest_micro_batch(self) -> int:
        """How many images of a batch fit into the device's memory, from a measurement of a few."""
        plan = self.plan
        height, width = plan.preprocessing.image_size
        pixels = torch.zeros(PROBE, plan.preprocessing.channels, height, width, dtype=torch.uint8)
        labels = torch.zeros(PROBE, dtype=torch.int64)
        images, targets = self.objective.prepare(Batch.whole(pixels, labels, labels), plan.setup, VALIDATION, 0)
        self.train()
        per_image = saved_bytes(self.model, self.objective, images, targets, plan.precision)
        weights = parameter_bytes(self.model, self.objective)
        return largest_fit(plan.batch_size, per_image, weights, free_bytes(plan.device))

    def state_dict(self) -> dict[str, Any]:
        """Everything that an update changes, torch's random state included; its tensors are the learner's own."""
        device = self.plan.device
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "loss_scale": None if self.loss_scale is None else self.loss_scale.state_dict(),
            "streak": self.streak.state_dict(),
            "micro_batch": self.micro_batch.size,
            "begun": None if self.begun is None else self._begun_state(self.begun),
            "random": torch.get_rng_state(),
            "device_random": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a `state_dict` of a learner with the same plan, to the same bits."""
        self.step, self.micro_batch.size = state["step"], state["micro_batch"]
        for name in ("model", "objective", "optimizer", "average", "loss_scale", "streak"):
            if state[name] is not None:
                getattr(self, name).load_state_dict(state[name])
        self._load_begun(state["begun"])
        torch.set_rng_state(state["random"])
        if state["device_random"] is not None:
            torch.cuda.set_rng_state(state["device_random"], self.plan.device)

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _begun_state(self, begun: Accumulated) -> dict[str, Any]:
        gradients = {number: p.grad for number, p in enumerate(self._trained()) if p.grad is not None}
        return begun._asdict() | {"gradients": gradients}

    def _load_begun(self, state: dict[str, Any] | None) -> None:
        self._begin_again()
        if state is None:
            return
        device = self.plan.device
        self.begun = Accumulated(state["done"], state["loss"].to(device), state["correct"].to(device))
        for number, parameter in enumerate(self._trained()):
            if number in state["gradients"]:
                parameter.grad = state["gradients"][number].to(device)


def compile_blocks(model: VisionTransformer) -> None:
    """Has each block compiled when it first runs; they are alike, so this is faster than compiling the whole model.

    torch recompiles a function for every rate of stochastic depth, and by default gives up after eight.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILATIONS * model.config.depth)
    for block in model.encoder.blocks:
        block.compile()
