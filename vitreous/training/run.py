"""A run: from the name of a data set to a folder with a trained model and everything known about it."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vitreous import __version__
from vitreous.data.loading.shares import ALONE
from vitreous.data.sources.names import split_of
from vitreous.data.sources.tabular.objects import source_name
from vitreous.data.summary import class_counts
from vitreous.support.counts import is_lopsided
from vitreous.support.errors import InputError
from vitreous.support.files import write_json, write_text
from vitreous.support.host import describe_host, tune_host
from vitreous.training.checkpointing.files import Checkpoint, Checkpoints
from vitreous.training.interruption import StopRequest
from vitreous.training.learner import Learner
from vitreous.training.loop import finish, fit
from vitreous.training.optimization.precision import HALVES
from vitreous.training.parallel.group import Group
from vitreous.training.parallel.place import ALONE_PLACE, Place, job
from vitreous.training.planning.budget import Cost
from vitreous.training.planning.caching import with_cache
from vitreous.training.planning.plan import Plan, is_digits, make_plan
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.records.broken import leave_out_broken
from vitreous.training.records.display import Display
from vitreous.training.records.folder import ENVIRONMENT, RECIPE, RunFolder, check_unused
from vitreous.training.records.log import Log
from vitreous.training.records.meter import best_flops, measures_mfu
from vitreous.training.records.results import Run, write_epochs, write_results
from vitreous.training.records.summary import conclusion, introduction, machine
from vitreous.training.resuming import facts_of, resumed_plan, take_up
from vitreous.training.safeguard import Safeguard
from vitreous.training.timing import measure

RUNS = Path("runs")
PACKED = re.compile(r"\.(zip|tar|tar\.\w+|tgz|csv|tsv|txt|json|jsonl|ndjson|parquet)$", re.IGNORECASE)


def run_training(
    data: Any = None,
    model: str = "auto",
    recipe: str | Path | Recipe | None = None,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
    init: str | None = None,
    resume: str | Path | None = None,
) -> Run:
    """Trains a Vision Transformer, from weights or from scratch, and leaves a run's folder.

    Fresh weights and dropout are drawn from torch's generator, which is seeded with the recipe's seed and restored
    afterwards; orders and augmentation from counters keyed by the seed. On a CPU the same seed gives the same bits,
    whatever the number of workers; another number of threads may round differently, and a smaller micro-batch, which
    depends on the free memory, draws dropout in another order. recipe.toml records all of them.

    Args:
        data: as for `vitreous.train`, and so are `model`, `recipe`, `out`, `settings` and `init`.
        model: "auto" uses known weights if available, and otherwise leaves the model to the recipe and the data.
        recipe: by default "digits" for these, "finetune" with weights and "small-data" without.
        out: by default runs/ and the name of the data.
        settings: override the recipe's values.
        quiet: print nothing.
        init: overrides the recipe's.
        resume: the folder of a run to go on with; of the other arguments only `data`, `settings` and `quiet` count.

    Raises:
        InputError: any of these is not usable, and no folder is made; or there are too many broken images, or no finite
            loss. If a model was kept before, its results are written first; otherwise only bad_files.csv may stay,
            which the next run can replace. An interrupted run keeps its folder if it has a model or a checkpoint.
    """
    with Group(Place.here()) as group, Display(quiet or not group.leads) as display:
        if resume is not None:
            return resume_training(Path(resume), data, settings or {}, group, display)
        settings = {**({} if init is None else {"init": init}), **(settings or {})}
        by_name = isinstance(data, str | Path)
        folder = folder_of(str(data) if by_name else source_name(data), out)
        if by_name and not is_digits(data):
            check_is_outside(folder, Path(data))
        if was_restarted(folder, group):
            return resume_training(folder, None if by_name else data, {}, group, display)
        group.lead(lambda: check_unused(folder))  # before weights are downloaded
        cost = partial(measured, group)
        plan = make_plan(data, model, recipe, settings, display.print, cost, group)
        log = Log(folder_of(plan.data.name, out), plan, display, group)
        return carry_out(plan, log, place_of(data))


def resume_training(path: Path, data: Any, settings: Mapping[str, Any], group: Group, display: Display) -> Run:
    """Goes on with a run from its newest checkpoint, to the same bits; without one it starts afresh.

    Args:
        path: of the run's folder.
        data: of the run, if it came from Python or is not where it was; otherwise None.
        settings: as `changed_recipe` allows.
        group: the processes to go on with, of any number.
        display: to print to.

    Raises:
        Finished: there is nothing left to do.
        InputError: this is not a run's folder, another process writes to it, settings or data have changed, or as
            `run_training`.
    """
    folder = RunFolder.claimed(path, group, again=True)
    try:
        run = take_up(folder, data, settings, display.print, group)
        if run.checkpoint is None:
            cost = partial(measured, group)
            plan = make_plan(run.source, "auto", run.recipe, {}, display.print, cost, group)
            group.lead(folder.restart)
        else:
            plan = resumed_plan(run, display.print, group.place)
        log = Log(folder, plan, display, group)
    except BaseException:
        folder.release()
        raise
    return carry_out(plan, log, place_of(run.source), run.checkpoint)


def carry_out(plan: Plan, log: Log, source: str | None, checkpoint: Checkpoint | None = None) -> Run:
    """Trains, tests and writes the results.

    Args:
        plan: of the run.
        log: of the plan.
        source: of the data, for those who go on with the run; None if it came from Python.
        checkpoint: to go on from.
    """
    display, group = log.display, log.group
    with tuned_and_seeded(plan, group.place), plan.processes, log:  # the folder is this run's until the log ends
        plan = replace(plan, data=with_cache(plan, display.working, display.print))
        if checkpoint is None:
            whole = plan.data
            plan, dropped = leave_out_broken(plan, log)  # what is cached is not decoded again
            facts = facts_of(plan, whole, dropped)
        else:
            facts = {key: value for key, value in checkpoint.state.items() if key not in ("learner", "log")}
        log.plan = plan
        learner = Learner(plan, display.print, group)
        learner.plan = plan.with_machine(learner.micro_batch.size, torch.get_num_threads(), learner.parallel)
        facts |= {"recipe": learner.plan.recipe.model_dump(exclude_none=True)}
        if checkpoint is None:
            begin(learner, log, source)
        else:
            go_on(learner, log, checkpoint)
        with Safeguard(learner, log, facts) as safeguard:
            fit(learner, log, safeguard)
        return conclude(learner, log)


def conclude(learner: Learner, log: Log) -> Run:
    """Tests the kept model and writes the results of a run whose training has ended."""
    group, show = learner.group, log.display.print
    assert log.best is not None, "fit keeps a model, or raises"
    with StopRequest(group) as request:  # a handler that raises could be lost, in a callback of Python's own
        if group.leads:
            with log.writing():  # before the test, which may be interrupted
                write_epochs(log.folder, log.rows, log.best, show)
        run = finish(learner, log, request.raise_if_any)
    if group.leads:
        with log.writing():
            write_results(run, show)
        for line in conclusion(run, log.bad_files):
            show(line)
    if log.failure is not None:
        raise log.failure
    if group.leads:
        log.folder.update_environment(finished=now())
    return run


def was_restarted(folder: Path, group: Group) -> bool:
    """Whether torchrun started the processes again, after a run of theirs in this folder had failed."""
    begun = group.leads and group.place.restarts > 0 and RunFolder(folder).environment().get("job") == job()
    if begun and not (folder / RECIPE).is_file():  # killed between the two
        (folder / ENVIRONMENT).unlink()
    return group.from_first(begun and (folder / RECIPE).is_file())


def place_of(source: Any) -> str | None:
    """Where the data is, for a later process in another folder; None if it came from Python."""
    if not isinstance(source, str | Path):
        return None
    path = Path(source).expanduser()
    return str(path.absolute()) if not is_digits(source) and path.exists() else str(source)


def folder_of(data: str, out: str | Path | None) -> Path:
    """The run's folder, by default named after the data."""
    return Path(out) if out else RUNS / run_name(data)


def measured(group: Group, plan: Plan) -> Cost:
    """What an image costs in the run of a plan, with its threads: the slowest rank's time, over their number.

    All ranks measure at the same time, each as if it were alone: what they tell each other is not counted.
    """
    with tuned_and_seeded(plan, group.place):
        cost = group.agree(lambda: measure(replace(plan, share=ALONE)))
    times = group.gather([cost.training, cost.validation])
    training, validation = (max(column) / group.size for column in zip(*times, strict=True))
    threads, workers = group.from_first([cost.threads, cost.workers])
    return Cost(training, validation, threads, workers)


def run_name(source: str) -> str:
    """The name of a run: that of its data without suffixes; of photos/train.csv it is "photos"."""
    if source.startswith("hf:"):
        source = re.split("[@:]", source.removeprefix("hf:"))[0]
    path = Path(source).resolve()
    name = PACKED.sub("", path.name)
    return (path.parent.name if name != path.name and split_of(name) else name) or "images"


def begin(learner: Learner, log: Log, source: str | None) -> None:
    """Prints what will happen, and writes the recipe and the environment."""
    for line in introduction(learner.plan, learner.model, learner.micro_batch.size):
        log.display.print(line)
    show(learner, log)

    def write() -> None:
        write_json(log.folder.path / ENVIRONMENT, environment(learner.plan, learner.micro_batch.size, source))
        write_text(log.folder.path / RECIPE, learner.plan.recipe.to_toml())  # last: with it, the run can go on

    learner.group.lead(write)
    learner.seed_rank()


def go_on(learner: Learner, log: Log, checkpoint: Checkpoint) -> None:
    """Loads the states of a checkpoint, prints where the run is, and records that it goes on."""
    state, size = checkpoint.state["learner"], learner.plan.recipe.data.micro_batch
    if size != checkpoint.state["recipe"]["data"]["micro_batch"]:  # another one is asked for
        state |= {"micro_batch": size, "begun": None}
    learner.load_state_dict(state)
    learner.group.lead(lambda: Checkpoints(log.folder.path, log.display.print).restore_model(checkpoint))
    log.load_state_dict(checkpoint.state["log"])
    best = "" if log.best is None else f", best validation accuracy so far {log.best['val_accuracy']:.1%}"
    where = machine(learner.plan)
    log.display.print(f"going on after step {learner.step:,} of {learner.plan.total_steps:,} {where}{best}")
    show(learner, log)
    resumed = {"at": now(), "step": learner.step, "host": describe_host(), "device": str(learner.plan.device)}
    resumed |= {"processes": learner.group.size, "parallel": learner.parallel}

    def write() -> None:
        write_text(log.folder.path / RECIPE, learner.plan.recipe.to_toml())
        log.folder.update_environment(resumed=resumed, job=job())

    learner.group.lead(write)


def show(learner: Learner, log: Log) -> None:
    """Prepares the display for the run, and measures the device if MFU is shown."""
    plan = learner.plan
    if measures_mfu(plan):
        best_flops(plan.device, HALVES.get(plan.precision, torch.float32))
    lopsided = is_lopsided(class_counts(plan.data.validation, plan.data).tolist())
    log.display.shows_balanced = lopsided and plan.class_names is not None
    share = len(plan.data.validation) / len(plan.data.train)
    evaluate_every = plan.recipe.schedule.evaluate_every
    log.display.begin(plan.epochs, plan.total_steps, plan.steps_per_epoch, evaluate_every, share)


def now() -> str:
    """The time, for environment.json."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment(plan: Plan, micro_batch: int, source: str | None) -> dict[str, Any]:
    """What a result depends on besides the recipe, for environment.json."""
    data = plan.data
    return {
        "vitreous": __version__,
        "begun": now(),
        "job": job(),
        "processes": plan.share.size,
        "parallel": plan.parallel,
        "resumed": [],
        "finished": None,
        "source": source,
        "host": describe_host(),
        "device": str(plan.device),
        "precision": plan.precision,
        "images_at_once": micro_batch,
        "threads": torch.get_num_threads(),
        "workers": plan.workers,
        "data": data.name,
        "classes": list(data.class_names),
        "images": {split.name: len(split) for split in data.splits},
        "images_per_class": {split.name: class_counts(split, data).tolist() for split in data.splits},
        "ignored": data.ignored,
        "notes": list(data.notes),
    }


def check_is_outside(folder: Path, data: Path) -> None:
    """Raises InputError for a run's folder inside the data, where the next run would read it as a class."""
    if folder.resolve().is_relative_to(data.resolve()):
        cause = f"the run's folder {str(folder)!r} would be inside the data, {str(data)!r}"
        outside = os.path.normpath(data / ".." / RUNS / (data.resolve().name or "images"))
        raise InputError(cause, f"choose one outside, such as --out {shlex.quote(outside)}")


@contextmanager
def tuned_and_seeded(plan: Plan, place: Place = ALONE_PLACE) -> Iterator[None]:
    """Tunes the host and seeds torch's generators; threads and generators are restored afterwards."""
    threads, section = torch.get_num_threads(), plan.recipe.run
    tune_host(place.threads(section.threads))
    try:
        with torch.random.fork_rng([plan.device] if plan.device.type == "cuda" else []):
            torch.manual_seed(section.seed)
            yield
    finally:
        torch.set_num_threads(threads)
