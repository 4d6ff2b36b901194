"""The state of training: model, objective, optimizer and average of the weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vitreous.data.loading.batches import Batch
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.objectives.goals import objective_class
from vitreous.training.objectives.objective import VALIDATION, Objective, Targets
from vitreous.training.optimization.averaging import WeightAverage
from vitreous.training.optimization.memory import MicroBatch, free_bytes, largest_fit, parameter_bytes, saved_bytes
from vitreous.training.optimization.optimizer import freeze, make_optimizer, trained
from vitreous.training.optimization.precision import HALVES, LossScale, attention_kernel, autocast
from vitreous.training.optimization.schedule import lr_factor
from vitreous.training.optimization.step import Accumulated, StepResult, Streak, Whole, train_step
from vitreous.training.parallel.group import ALONE_GROUP, Group, LocalError, Turn
from vitreous.training.parallel.memory import GATHERED_BLOCKS, fits_replicated, state_bytes
from vitreous.training.parallel.passes import ONE_PROCESS, Passes
from vitreous.training.parallel.place import rank_seed
from vitreous.training.parallel.state import placed
from vitreous.training.planning.plan import Plan
from vitreous.training.recipe.sections import Parallel

COMPILERS = ("torch._dynamo", "torch._inductor")  # importing them for their errors would take seconds
COMPILATIONS = 4  # of one block: training and evaluation, each for a whole batch and for other sizes
PROBE = 2  # images that measure the memory of one


class Learner:
    """A model in training. Everything that changes in training is here and in `state_dict`.

    Args:
        plan: of the run; `run_training` replaces it by the same with what was chosen for the machine.
        notify: called with a line when the micro-batch shrinks.
        group: the processes that train the model together; each has a learner.

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
        parallel: how the processes share the model; None if there is one.
        passes: how batches go through model and objective.
    """

    def __init__(self, plan: Plan, notify: Callable[[str], None], group: Group = ALONE_GROUP) -> None:
        recipe, section = plan.recipe, plan.recipe.optimizer
        self.plan, self.group, self.step = plan, group, 0
        self.begun: Accumulated | None = None
        self.pause: Callable[[], None] = lambda: None
        model = VisionTransformer(plan.config) if plan.start is None else plan.start.stored.model
        self.model = model.to(plan.device)
        freeze(self.model, section.frozen)
        self.objective = objective_class(recipe.objective).make(plan.setup).to(plan.device)
        decay = recipe.averaging.ema_decay
        self.average = WeightAverage(self.model, decay, self.objective) if decay else None
        self.model.encoder.checkpoint_activations = recipe.run.checkpoint_activations
        probe = self._blank(PROBE)
        self.parallel = self._choose_parallel(notify)
        has_unused = self.parallel == "ddp" and self._has_unused(*probe)  # before compiling, which may fail
        if recipe.run.compile:
            compile_blocks(self.model)
        size = recipe.data.micro_batch or self._largest_micro_batch(*probe)
        self.micro_batch = MicroBatch(size, notify, can_shrink=group.size == 1)
        self.passes = self._spread(has_unused)
        self.blank = probe if self.passes.size == 1 else self._blank(1)
        self.whole: tuple[VisionTransformer, Objective] | None = None
        self.optimizer = make_optimizer(
            self.model, self.objective, algorithm=section.algorithm, lr=section.lr, weight_decay=section.weight_decay,
            layer_decay=section.layer_decay, betas=section.betas, eps=section.eps, momentum=section.momentum,
        )  # fmt: skip
        self.loss_scale = LossScale(plan.device) if plan.precision == "float16" else None
        self.streak = Streak(section.max_skipped, plan.device)

    @property
    def eval_model(self) -> VisionTransformer:
        """The model that is validated and saved: the average if there is one; whole inside of `evaluating`."""
        if self.whole is not None:
            return self.whole[0]
        return self.model if self.average is None else self.average.model

    @property
    def eval_objective(self) -> Objective:
        """The objective of that model, with its decoder if it has one."""
        if self.whole is not None:
            return self.whole[1]
        return self.objective if self.average is None else self.average.objective

    @property
    def can_pause(self) -> bool:
        """Whether a state of a batch that is done in part is whole: of one process, and not in shards."""
        return self.group.size == 1 and not self.passes.in_shards

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Around evaluation and saving: where the model is in shards, every rank has a whole copy meanwhile."""
        if self.passes.in_shards:
            model, objective = self.passes.gathered(self.eval_model, self.eval_objective)
            assert isinstance(model, VisionTransformer)
            assert isinstance(objective, Objective)
            self.whole = model, objective
        try:
            yield
        finally:
            self.whole = None

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

    def update(self, batch: Batch | Turn) -> StepResult | None:
        """Moves the weights once, along the batch's gradient; None if it has no image that can be read.

        Args:
            batch: this rank's; with other ranks, a turn that says what they have.

        Raises:
            InputError: not even one image fits into memory, or torch.compile failed.
        """
        turn = batch if isinstance(batch, Turn) else Turn.alone(batch)
        result = None
        if turn.count:
            result = self._move(turn)
            self.streak.add(self.step, result.skipped)
            if self.average is not None:
                self.average.update(self.model, self.objective)
        self.step += 1
        self.begun = None
        return result

    def _move(self, turn: Turn) -> StepResult:
        images, targets = self.prepare(turn.batch) if len(turn.batch) else (self.blank[0][:0], self.blank[1])
        whole = Whole(turn.count, turn.most, self.blank)

        def step(micro_batch: int) -> StepResult:
            return train_step(
                self.model, self.optimizer, self.objective, images, targets, lr=self.lr, micro_batch=micro_batch,
                clip_norm=self.plan.recipe.optimizer.clip_norm, precision=self.plan.precision,
                loss_scale=self.loss_scale, begun=self.begun, between=self._between, passes=self.passes, whole=whole,
            )  # fmt: skip

        try:
            return self.micro_batch.run(step, self._begin_again)
        except RuntimeError as error:
            if not type(error).__module__.startswith(COMPILERS):
                raise
            reason = str(error).strip().partition("\n")[0]
            kind = InputError if self.group.size == 1 else LocalError
            raise kind(f"torch.compile failed: {reason}", "set compile=false") from error

    def _between(self, begun: Accumulated) -> None:
        self.begun = begun
        self.pause()

    def _begin_again(self) -> None:
        """Drops what of a batch is done."""
        self.begun = None
        self.optimizer.zero_grad()

    def _blank(self, count: int) -> tuple[Images, Targets]:
        """Black images with targets."""
        expected = self.plan.preprocessing
        pixels = torch.zeros(count, expected.channels, *expected.image_size, dtype=torch.uint8)
        labels = torch.zeros(count, dtype=torch.int64)
        return self.objective.prepare(Batch.whole(pixels, labels, labels), self.plan.setup, VALIDATION, 0)

    def _largest_micro_batch(self, images: Images, targets: Targets) -> int:
        """How many images of a rank's part fit into the device's memory, from a measurement of a few."""
        self.train()
        per_image = saved_bytes(self.model, self.objective, images, targets, self.plan.precision)
        weights = parameter_bytes(self.model, self.objective)
        if self.parallel == "fsdp":  # a share, and the blocks that are gathered meanwhile
            block = max(parameter_bytes(block) for block in self.model.encoder.blocks)
            weights = weights // self.group.size + GATHERED_BLOCKS * block
        part = -(-self.plan.batch_size // self.group.size)
        (most,) = self.group.highest(-largest_fit(part, per_image, weights, self._free()))
        return -most

    def _free(self) -> int | None:
        """This process's part of the device's free memory, in bytes."""
        free = free_bytes(self.plan.device)
        return free if free is None or self.plan.device.type == "cuda" else free // self.group.place.local_size

    def _choose_parallel(self, notify: Callable[[str], None]) -> Parallel | None:
        """How the processes share the model; None if there is one."""
        asked = self.plan.recipe.run.parallel
        if not self.group.is_joined or (self.group.size == 1 and asked == "auto"):
            if asked != "auto":
                notify(f"parallel={asked} has no effect on one process; torchrun starts several")
            return None
        if asked != "auto":
            return asked
        parameters = sum(p.numel() for module in (self.model, self.objective) for p in module.parameters())
        moments = 1 if self.plan.recipe.optimizer.algorithm == "sgd" else 2
        state, free = state_bytes(parameters, moments, self.average is not None), self._free()
        (crowded,) = self.group.highest(free is not None and not fits_replicated(state, free))
        return "fsdp" if crowded else "ddp"

    def _spread(self, has_unused: bool) -> Passes:
        """Makes replicas or shards of what is trained, if several processes train it."""
        if self.parallel is None:
            return ONE_PROCESS
        if self.parallel == "ddp":
            from vitreous.training.parallel.replicas import Replicas

            return Replicas(self.model, self.objective, has_unused=has_unused)
        from vitreous.training.parallel.shards import Shards

        precision = HALVES.get(self.plan.precision)
        shards = Shards(self.model, self.objective, device=self.plan.device, precision=precision)
        if self.average is not None:
            shards.shard(self.average.model, self.average.objective)
        return shards

    def _has_unused(self, images: Images, targets: Targets) -> bool:
        """Whether the gradient of some trained parameter is missing after a pass."""
        parameters = [p for module in (self.model, self.objective) for p in module.parameters() if p.requires_grad]
        device = self.plan.device
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            attention_kernel(self.plan.precision, device),
        ):
            with autocast(self.plan.precision, device):
                loss = self.objective(self.model, images, targets).loss
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return any(gradient is None for gradient in gradients)

    def state_dict(self) -> dict[str, Any]:
        """Everything that an update changes, torch's random states included; its tensors are the learner's own.

        All ranks call it together. Where the model is in shards, so are the tensors.
        """
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
            "random": self.group.pieces(torch.get_rng_state()),  # of each rank
            "device_random": self.group.pieces(torch.cuda.get_rng_state(device)) if device.type == "cuda" else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a `state_dict` of a learner with the same plan.

        For the same number of processes it goes on to the same bits. For another one, a batch that was begun begins
        again, and new ranks draw other random numbers for dropout than any rank before.
        """
        state = placed(state, self._like())
        self.step, self.micro_batch.size = state["step"], state["micro_batch"]
        for name in ("model", "objective", "optimizer", "average", "loss_scale", "streak"):
            if state[name] is not None:
                getattr(self, name).load_state_dict(state[name])
        self._load_begun(state["begun"] if self.can_pause else None)
        self._load_random(state["random"], state["device_random"])

    def seed_rank(self) -> None:
        """Has this rank draw other numbers for dropout than the others; the first one draws as if it were alone."""
        if self.group.rank:
            torch.manual_seed(rank_seed(self.plan.recipe.run.seed, self.group.rank, self.step))

    def _load_random(self, states: Sequence[Tensor], device_states: Sequence[Tensor] | None) -> None:
        rank = self.group.rank
        self.seed_rank()  # where there are no states for it
        if rank < len(states):
            torch.set_rng_state(states[rank])
        if device_states is not None and rank < len(device_states) and self.plan.device.type == "cuda":
            torch.cuda.set_rng_state(device_states[rank], self.plan.device)

    def _like(self) -> dict[str, Any]:
        """A tensor for each place of a state, spread over the processes as those are."""
        names = ("model", "objective", "average")
        modules = {name: module.state_dict() for name in names if (module := getattr(self, name)) is not None}
        return modules | {"optimizer": {"state": dict(enumerate(trained(self.optimizer)))}}

    def _begun_state(self, begun: Accumulated) -> dict[str, Any]:
        gradients = {number: p.grad for number, p in enumerate(trained(self.optimizer)) if p.grad is not None}
        return begun._asdict() | {"gradients": gradients}

    def _load_begun(self, state: dict[str, Any] | None) -> None:
        self._begin_again()
        if state is None:
            return
        device = self.plan.device
        self.begun = Accumulated(state["done"], state["loss"].to(device), state["correct"].to(device))
        for number, parameter in enumerate(trained(self.optimizer)):
            if number in state["gradients"]:
                parameter.grad = state["gradients"][number].to(device)


def compile_blocks(model: VisionTransformer) -> None:
    """Has each block compiled when it first runs; they are alike, so this is faster than compiling the whole model.

    torch recompiles a function for every rate of stochastic depth, and by default gives up after eight.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILATIONS * model.config.depth)
    for block in model.encoder.blocks:
        block.compile()
