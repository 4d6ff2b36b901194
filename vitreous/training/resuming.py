"""Going on with a run, from its folder alone."""

import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vitreous.checkpoints.store import StoredModel
from vitreous.data.loading.workers import obstacle
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sources.chosen import without
from vitreous.data.sources.open import open_data
from vitreous.data.sources.splits import ImageData, Split
from vitreous.data.summary import data_lines
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.checkpointing.files import Checkpoint, Checkpoints
from vitreous.training.parallel.group import Group
from vitreous.training.parallel.place import ALONE_PLACE, Place
from vitreous.training.planning.plan import Plan, plan_of
from vitreous.training.planning.weights import Start
from vitreous.training.recipe.recipe import Recipe, find_leaf
from vitreous.training.records.folder import RECIPE, RunFolder

FORMAT = 2  # of a checkpoint's state
# Settings that change no result beyond rounding and the draws of dropout.
MOVING = ("device", "parallel", "threads", "workers", "worker_timeout", "micro_batch", "checkpoint_minutes")
PROLONGING = "epochs"
SHOWN = 5  # settings in a message


class Finished(InputError):
    """The run has nothing left to do."""


@dataclass(frozen=True)
class Resumption:
    """What is known of a run to go on with.

    Args:
        folder: of the run, claimed by this process.
        source: of the data, as `open_data` takes it.
        recipe: of the run, with settings that may differ.
        checkpoint: the newest; None if there is none.
        may_have_moved: whether the source is where the data was when the run began.
    """

    folder: RunFolder
    source: Any
    recipe: Recipe
    checkpoint: Checkpoint | None
    may_have_moved: bool = False


def facts_of(plan: Plan, whole: ImageData, dropped: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """What a checkpoint says of a plan, so that it can be made again.

    Args:
        plan: of the run.
        whole: its data before broken images were left out.
        dropped: those, by split.
    """
    start = plan.start
    return {
        "format": FORMAT,
        "recipe": plan.recipe.model_dump(exclude_none=True),
        "config": plan.config.to_dict(),
        "preprocessing": plan.preprocessing.to_dict(),
        "start": None if start is None else {"source": start.source, "metadata": dict(start.stored.metadata)},
        "classes": list(whole.class_names),
        "data": {split.name: fingerprint(split) for split in whole.splits},
        "dropped": {split: [*indices] for split, indices in dropped.items()},
    }


def fingerprint(split: Split) -> dict[str, Any]:
    """How many images a split has, and a digest of their names and labels in order."""
    digest = hashlib.sha256("\0".join(split.names).encode("utf-8", "surrogateescape"))
    digest.update(split.labels.tobytes())
    return {"images": len(split), "digest": digest.hexdigest()}


def take_up(
    folder: RunFolder, source: Any, settings: Mapping[str, Any], notify: Callable[[str], None], group: Group
) -> Resumption:
    """Finds out how to go on with a run.

    Args:
        folder: of the run, claimed.
        source: of the data, if it is not where it was; otherwise None.
        settings: that may differ from the run's.
        notify: called with a line about damaged or missing checkpoints.
        group: the processes that go on with it.

    Raises:
        Finished: the run has ended, and no more epochs are asked for.
        InputError: settings differ, or the data came from Python and is not given.
    """
    environment = folder.environment()
    checkpoint = Checkpoints(folder.path, notify, group).newest()
    if checkpoint is not None and checkpoint.state["format"] != FORMAT:
        cause = f"the checkpoint has format {checkpoint.state['format']!r}, but this version reads {FORMAT}"
        raise InputError(cause, "go on with the version of vitreous that began the run")
    recorded = folder.path / RECIPE if checkpoint is None else checkpoint.state["recipe"]
    recipe = Recipe.load(recorded) if isinstance(recorded, Path) else Recipe.from_dict(recorded)
    changed = changed_recipe(recipe, settings)
    if environment.get("finished", True) and changed.schedule == recipe.schedule:  # True: older than checkpoints
        longer = "" if recipe.schedule.steps is not None else ", or set more epochs"
        raise Finished(f"the run in {str(folder.path)!r} is finished", f"predict with it{longer}")
    moved = source is None
    if source is None:
        source = environment.get("source")
    if source is None:
        cause = f"{str(folder.path)!r} does not say where the images are, perhaps since they came from Python"
        raise InputError(cause, "give them again: vitreous train DATA --resume …, or vitreous.train(data, resume=…)")
    if checkpoint is None:
        notify("no checkpoint was finished yet: the run starts afresh")
        return Resumption(folder, source, changed, None)
    return Resumption(folder, source, changed, checkpoint, may_have_moved=moved)


def changed_recipe(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with settings that may change when a run goes on.

    Raises:
        InputError: others differ.
    """
    asked = recipe.with_settings(settings)  # which also adapts what was not asked for
    places = [find_leaf(key) for key in settings]
    values = {leaf: getattr(getattr(asked, section), leaf) for section, leaf in places}
    before = {leaf: getattr(getattr(recipe, section), leaf) for section, leaf in places}
    different = [leaf for leaf in values if values[leaf] != before[leaf]]
    refused = [leaf for leaf in different if leaf not in (*MOVING, PROLONGING)]
    if refused:
        listed = ", ".join(f"{leaf} {values[leaf]!r}, not {before[leaf]!r}" for leaf in refused[:SHOWN])
        raise InputError(
            f"a run goes on with its own settings, and these differ: {listed}",
            f"leave them out, or begin another run; only {PROLONGING} and {', '.join(MOVING)} can change",
        )
    if PROLONGING in different:
        check_longer(recipe, values[PROLONGING])
    for section, leaf in places:
        table = getattr(recipe, section).model_copy(update={leaf: values[leaf]})
        recipe = recipe.model_copy(update={section: table})
    return recipe


def check_longer(recipe: Recipe, epochs: int | str) -> None:
    """Raises InputError unless so many epochs prolong a run."""
    if recipe.schedule.steps is not None:
        raise InputError("this run has a number of steps, and epochs differ", "leave epochs out")
    before = recipe.schedule.epochs
    if not (isinstance(epochs, int) and isinstance(before, int) and epochs > before):
        raise InputError(f"a run of {before} epochs cannot be shortened to {epochs}", "set more, or leave epochs out")


def resumed_plan(run: Resumption, notify: Callable[[str], None], place: Place = ALONE_PLACE) -> Plan:
    """The plan of a run that goes on from a checkpoint, in the process at that place.

    Raises:
        InputError: the data cannot be opened, or is not what it was.
    """
    assert run.checkpoint is not None, "a run without a checkpoint starts afresh"
    state, recipe = run.checkpoint.state, run.recipe
    try:
        data = open_data(run.source, recipe.data.options)
    except InputError as error:
        if not run.may_have_moved:
            raise
        resume = shlex.join(["vitreous", "train", "DATA", "--resume", str(run.folder.path)])
        raise InputError(error.cause, f"if the images have moved, say where they are: {resume}") from error
    for line in data_lines(data):
        notify(line)
    check_data(data, state)
    config = ViTConfig.from_dict(state["config"])
    preprocessing = Preprocessing.from_dict(state["preprocessing"])
    start = None
    if state["start"] is not None:
        names = data.class_names if config.num_classes else None
        stored = StoredModel(VisionTransformer(config), preprocessing, names, state["start"]["metadata"])
        start = Start(stored, [], state["start"]["source"])
    data = without(data, state["dropped"])
    obstacle_of = partial(obstacle, *(split.load for split in data.splits))
    return plan_of(data, recipe, config, preprocessing, start, obstacle_of, notify, place)


def check_data(data: ImageData, state: Mapping[str, Any]) -> None:
    """Raises InputError if classes, images or labels are not those of a checkpoint."""
    hint = "restore the images, or begin another run with --out"
    if list(data.class_names) != state["classes"]:
        raise InputError("the data has other classes than when the run began", hint)
    now = {split.name: fingerprint(split) for split in data.splits}
    for name, before in state["data"].items():
        if name not in now:
            raise InputError(f"the data has no {name} split anymore", hint)
        if now[name]["images"] != before["images"]:
            cause = (
                f"the data has {now[name]['images']:,} {name} images, and had {before['images']:,} when the run began"
            )
            raise InputError(cause, hint)
        if now[name] != before:
            raise InputError(f"names or labels of the {name} images have changed since the run began", hint)
