"""The plan of a run: everything that is decided before it starts."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, Self

import torch

from vitreous.checkpoints.load import locate
from vitreous.checkpoints.sources.hub import is_remote
from vitreous.data.augmentation import Augmentation
from vitreous.data.check.quick import check_lines
from vitreous.data.loading.batches import Batches, batches
from vitreous.data.loading.shares import ALONE, Share
from vitreous.data.loading.workers import AHEAD, Workers, obstacle
from vitreous.data.mixing import Mixing
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sources.digits import DIGITS
from vitreous.data.sources.open import NAMES, named_set, open_data
from vitreous.data.sources.splits import ImageData, Split
from vitreous.data.summary import data_lines
from vitreous.model.config import ViTConfig
from vitreous.model.variants import is_variant, variant
from vitreous.support.errors import InputError
from vitreous.support.host import best_device, free_memory
from vitreous.support.text import counted, first_line
from vitreous.training.objectives.goals import objective_class
from vitreous.training.objectives.objective import Setup
from vitreous.training.optimization.precision import Precision, choose_precision
from vitreous.training.parallel.group import ALONE_GROUP, Group
from vitreous.training.parallel.place import ALONE_PLACE, Place
from vitreous.training.planning.budget import Budget, Cost, fit
from vitreous.training.planning.defaults import resolve_recipe
from vitreous.training.planning.weights import Start, choose_weights, load_start
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.recipe.sections import Parallel

AUTO = "auto"
FROM_SCRATCH, FROM_WEIGHTS = "small-data", "finetune"  # the default recipes
MOST_WORKERS = 16
BATCHES_SHARE = 0.25  # of the free memory, for loaded batches
UNAVAILABLE = (RuntimeError, AssertionError, ImportError)  # what torch raises for a device that is not there


@dataclass(frozen=True)
class Plan:
    """What was decided for a run.

    Args:
        data: the images, opened and split.
        recipe: resolved; once the learner exists, also with what was chosen for this machine.
        config: of the model.
        preprocessing: what the model expects.
        augmentation: the random views of training.
        mixing: of the images of a batch with each other.
        device: of the model.
        precision: of the activations.
        workers: processes that load images.
        processes: those, in a `with` statement around the run; otherwise each epoch starts its own.
        obstacle_of: says why other processes cannot load the images; None if they can.
        start: the weights to start from, adapted; None for fresh ones.
        budget: how the run was fitted into its minutes; None if nothing was measured.
        share: of this process, if several train the model.
        parallel: how they share it; None if there is one.
    """

    data: ImageData
    recipe: Recipe
    config: ViTConfig
    preprocessing: Preprocessing
    augmentation: Augmentation
    mixing: Mixing
    device: torch.device
    precision: Precision
    workers: int
    processes: Workers
    obstacle_of: Callable[[], str | None]
    start: Start | None
    budget: Budget | None = None
    share: Share = ALONE
    parallel: Parallel | None = None

    @property
    def batch_size(self) -> int:
        """Images of an update, over all ranks."""
        assert isinstance(self.recipe.data.batch_size, int), "the recipe is not resolved"
        return self.recipe.data.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Updates of an epoch; the last batch may be smaller than the others."""
        return math.ceil(len(self.data.train) / self.batch_size)

    @property
    def total_steps(self) -> int:
        """Updates of the run; its last epoch may end early."""
        return self.recipe.schedule.total_steps(self.steps_per_epoch)

    @property
    def epochs(self) -> int:
        """Passes over the images, the last of which may end early."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes of the model; None if it has no classifier."""
        return self.data.class_names if self.config.num_classes else None

    @cached_property
    def setup(self) -> Setup:
        """What the objective needs to know."""
        data, recipe = self.data, self.recipe
        return Setup(
            recipe.objective, self.config, self.preprocessing, self.mixing, data.class_names, data.train.labels,
            recipe.run.seed, self.device,
        )  # fmt: skip

    def training_batches(self, epoch: int, done: int = 0) -> Batches:
        """The random views of one epoch, in its order, but for so many batches that are done; this rank's share."""
        mixes = objective_class(self.recipe.objective).mixes
        return batches(
            self.data.train, self.preprocessing, batch_size=self.batch_size, workers=self.processes,
            augmentation=self.augmentation, shuffle=True, seed=self.recipe.run.seed, epoch=epoch,
            balanced=self.recipe.data.balanced_sampling, done=done, share=self.share,
            mixing=self.mixing if mixes else None,
        )  # fmt: skip

    def plain_batches(self, split: Split) -> Batches:
        """The images of a split without augmentation, each once over all ranks, whose shares differ by at most one."""
        return batches(
            split, self.preprocessing, batch_size=self.batch_size, workers=self.processes, shuffle=False,
            share=self.share,
        )  # fmt: skip

    def with_machine(self, micro_batch: int, threads: int, parallel: Parallel | None = None) -> Self:
        """A copy whose recipe records what was chosen for this machine, so that the run can be repeated bit for bit."""
        chosen = {
            "device": self.device.type if self.share.size > 1 else str(self.device),
            "precision": self.precision,
            "threads": threads,
            "workers": self.workers,
            "micro_batch": micro_batch,
            **({} if parallel is None else {"parallel": parallel}),
        }
        return replace(self, recipe=self.recipe.with_settings(chosen), parallel=parallel)


def make_plan(
    source: Any,
    model: str,
    recipe: str | Path | Recipe | None,
    settings: Mapping[str, Any],
    notify: Callable[[str], None],
    measure: Callable[[Plan], Cost] | None = None,
    group: Group = ALONE_GROUP,
) -> Plan:
    """Decides everything about a run: the recipe, the data, the weights, the model and the device.

    Args:
        source: of the images, as `open_data` takes it.
        model: a variant, weights, or "auto".
        recipe: a file, the name of a built-in recipe, or a Recipe; None for the default of the data and the weights.
        settings: values that differ from the recipe's.
        notify: called with lines on the data, and with each automatic choice.
        measure: what an image costs in the run of a plan, if the run is to fit its minutes; None to ignore them.
        group: the processes of the run, which decide the same.

    Raises:
        InputError: any of these is not usable.
    """
    check_model_name(model)
    named = named_recipe(recipe, model, settings, is_digits(source))
    options = apply_request(named or Recipe(), model, settings).data.options
    data = open_data(source, options)  # before any weights are downloaded
    for line in chain(data_lines(data), check_lines(data)):
        notify(line)
    draft, weights = choose_recipe(named, model, settings, notify, group)
    start = None
    if weights is not None:
        objective = objective_class(draft.objective)
        names = data.class_names if objective.classifies else ()
        start = load_start(weights, draft.model, names, data.channels, objective.mask_token)
    obstacle_of = cache(partial(obstacle, *(split.load for split in data.splits)))  # the same for all candidates
    budget = None
    if measure is not None:

        def cost_of(resolved: Recipe, config: ViTConfig, preprocessing: Preprocessing) -> Cost:
            return measure(
                plan_of(data, resolved, config, preprocessing, start, obstacle_of, lambda line: None, group.place)
            )

        draft, budget = fit(draft, data, start, cost_of, notify)
    return replace(
        plan_of(data, *resolve_recipe(draft, data, start), start, obstacle_of, notify, group.place), budget=budget
    )


def plan_of(
    data: ImageData,
    resolved: Recipe,
    config: ViTConfig,
    preprocessing: Preprocessing,
    start: Start | None,
    obstacle_of: Callable[[], str | None],
    notify: Callable[[str], None],
    place: Place = ALONE_PLACE,
) -> Plan:
    """The plan of a resolved recipe, with what is chosen for this machine and this process."""
    views, run = resolved.augmentation, resolved.run
    assert isinstance(views.flip, bool)  # the recipe is resolved
    augmentation = Augmentation(
        views.flip, views.crop_scale, views.crop_ratio, views.randaugment_layers, views.randaugment_magnitude,
        views.trivial_augment, views.color_jitter, views.erasing, views.auto_augment,
    )  # fmt: skip
    augmentation.check_channels(data.channels)
    if resolved.data.reduced_decoding:
        side = augmentation.needed_side(preprocessing.image_size)
        data = replace(data, train=replace(data.train, load=data.train.load.at_least(side)))
    mixing = Mixing(views.mixup, views.cutmix, views.mix_per_sample)
    device = choose_device(run.device, place)
    workers = run.workers
    if workers == AUTO:  # on a CPU, the model needs all cores
        workers = 0 if device.type == "cpu" else choose_workers(resolved, data, preprocessing, place)
    if workers and (reason := obstacle_of()):
        notify(f"images are loaded in the main process: {reason}")
        workers = 0
    processes = Workers(workers, run.worker_timeout, notify)
    precision = choose_precision(run.precision, device)
    return Plan(
        data, resolved, config, preprocessing, augmentation, mixing, device, precision, workers, processes, obstacle_of,
        start, share=place.share,
    )  # fmt: skip


# ---- the recipe


def named_recipe(
    recipe: str | Path | Recipe | None, model: str, settings: Mapping[str, Any], digits: bool
) -> Recipe | None:
    """The requested recipe, or that of the digits if they are trained from scratch; None leaves it to the weights."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        return load_recipe(recipe, model, settings)
    fresh = model == AUTO or is_variant(model)
    pretrained = any(key.rpartition(".")[2] in ("weights", "init") for key in settings)
    return load_recipe(DIGITS, model, settings) if digits and fresh and not pretrained else None


def choose_recipe(
    named: Recipe | None,
    model: str,
    settings: Mapping[str, Any],
    notify: Callable[[str], None],
    group: Group = ALONE_GROUP,
) -> tuple[Recipe, str | None]:
    """The recipe with everything that was requested, and the weights to start from; None for fresh ones."""
    section = apply_request(named or Recipe(), model, settings).model
    # One rank asks the network, which may answer each of them differently.
    weights = group.lead(lambda: choose_weights(section, notify))
    if named is None:
        named = load_recipe(FROM_SCRATCH if weights is None else FROM_WEIGHTS, model, settings)
    if weights is None or named.model.weights is not None:
        return apply_request(named, model, settings), weights
    return named.with_weights(weights).with_settings(settings), weights  # their shape replaces the recipe's


def load_recipe(name: str | Path, model: str, settings: Mapping[str, Any]) -> Recipe:
    """A recipe, with the row for the requested variant if it has one."""
    set_variant = settings.get("variant", settings.get("model.variant"))
    return Recipe.load(name, model if is_variant(model) else set_variant)


def apply_request(recipe: Recipe, model: str, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with the requested model and settings."""
    if model != AUTO:
        recipe = recipe.with_variant(model) if is_variant(model) else recipe.with_weights(model)
    return recipe.with_settings(settings)


def check_model_name(name: str) -> None:
    """Raises InputError for a name that is neither a variant nor weights, with the variants if it looks like one."""
    if name == AUTO or is_variant(name) or is_remote(name) or Path(name).expanduser().exists():
        return
    if re.fullmatch(r"[A-Za-z0-9+]+(/\d+)?", name):
        try:
            variant(name)
        except InputError as error:
            weights = "or give a run's folder, a weights file or a name such as hf:owner/name"
            raise InputError(error.cause, f"{error.hint}; {weights}") from error
    locate(Path(name))  # raises: there is no such file


def is_digits(source: Any) -> bool:
    """Whether a source means the embedded digits. Raises InputError if a folder of that name is here too."""
    return isinstance(source, str | Path) and named_set(source, NAMES) == DIGITS


# ---- the machine


def choose_workers(recipe: Recipe, data: ImageData, preprocessing: Preprocessing, place: Place = ALONE_PLACE) -> int:
    """A process per core, but not more than an epoch has batches or than memory has room for.

    The processes that train on this machine share both.
    """
    assert isinstance(recipe.data.batch_size, int), "the recipe is not resolved"
    images = math.ceil(recipe.data.batch_size / place.share.size)  # of a rank's part of a batch
    prefetched = AHEAD * images * preprocessing.channels * math.prod(preprocessing.image_size)
    free = free_memory()
    room = MOST_WORKERS if free is None else int(BATCHES_SHARE * free / place.local_size / prefetched)
    return max(1, min(place.cores, MOST_WORKERS, math.ceil(len(data.train) / recipe.data.batch_size), room))


def choose_device(name: str, place: Place = ALONE_PLACE) -> torch.device:
    """The device of that name, or the fastest one for "auto"; each of several processes has its own GPU.

    Raises:
        InputError: it does not work, or there are more processes than GPUs.
    """
    try:
        device = torch.device(best_device() if name == AUTO else name)
        if place.is_launched and device.type == "cuda":
            count = torch.cuda.device_count()
            if place.local_size > count:
                cause = f"torchrun started {place.local_size} processes, and this machine has {counted(count, 'GPU')}"
                raise InputError(cause, f"start as many: torchrun --nproc-per-node={count}; or set device=cpu")
            device = torch.device("cuda", place.local_rank)
        torch.zeros(1, device=device).item()
    except UNAVAILABLE as error:
        raise InputError(f"the device {name!r} cannot be used: {first_line(error)}", "set device=auto") from error
    return device
