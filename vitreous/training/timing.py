"""What an image costs in a run: a few real updates and a validation, timed before the run is decided."""

import copy
import gc
import math
import os
import time
from dataclasses import replace

import torch

from vitreous.data.loading.batches import Batch
from vitreous.support.host import usable_cores
from vitreous.training.learner import Learner
from vitreous.training.objectives.objective import VALIDATION, Prepared
from vitreous.training.planning.budget import Cost
from vitreous.training.planning.plan import Plan, choose_workers
from vitreous.training.validation import score

LOADING, UPDATING = 0.7, 1.0  # seconds of each that are timed, and the one batch that crosses them
MOST_BATCHES = 20
FASTER = 1.15  # more threads have to be: cores that are free now may be busy later, and threads wait for each other
WORTH = 0.1  # of an update's time is what loading has to take for processes of its own
HOPELESS, FEW = 2.0, 16  # more threads that are so many times slower with a few images are not timed any further


def measure(plan: Plan) -> Cost:
    """Times a few updates and a validation as the run would make them; the plan's weights stay as they are.

    Images are loaded and augmented as in the first epoch. Loading processes work beside the model, so that the slower
    of both counts; without them, their times add up. If memory runs out, the micro-batch shrinks as it would in the
    run. On a CPU, if the number of threads is open, one thread is compared with all: where other programs use the cores
    too, threads that wait for each other can make a small model many times slower. Cores that the model then leaves
    free load images, if that number is open too.

    Args:
        plan: of a candidate.

    Raises:
        InputError: as an update.
    """
    section = plan.recipe.run.model_copy(update={"compile": False})  # compiling takes longer than it would save here
    start, plan = plan.start, replace(plan, recipe=plan.recipe.model_copy(update={"run": section}))
    if start is not None:
        model = copy.deepcopy(start.stored.model)
        plan = replace(plan, start=replace(start, stored=replace(start.stored, model=model)))
    devices = [plan.device] if plan.device.type == "cuda" else []
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices):
            return fastest(plan)
    finally:
        torch.set_num_threads(threads)
        gc.collect()
        if devices:
            torch.cuda.empty_cache()


def fastest(plan: Plan) -> Cost:
    """The cost with the number of threads that is the fastest."""
    batches, load = load_batches(plan)
    if not batches:
        return Cost(0.0, 0.0, torch.get_num_threads(), plan.workers)  # none can be read, and the run says so
    learner = Learner(plan, lambda line: None)
    best: Cost | None = None
    for threads in thread_choices(plan):
        torch.set_num_threads(threads)
        few = first_images(batches[0])
        if timed_update(learner, few) / len(few) > HOPELESS * (best.training if best else math.inf):
            continue
        update, scoring = timed_updates(learner, batches), timed_scoring(learner, batches[0])
        workers = choose_loading(plan, threads, load, update)
        cost = Cost(combined(load, update, workers), combined(load, scoring, workers), threads, workers)
        if best is None or cost.training * FASTER < best.training:
            best = cost
    assert best is not None, "there is at least one number of threads"
    return best


def choose_loading(plan: Plan, threads: int, load: float, update: float) -> int:
    """Loading processes, if their number is open: on a CPU, for the cores that the model leaves free.

    Args:
        plan: of the run.
        threads: of a CPU operation.
        load: the seconds that an image takes to be loaded.
        update: the seconds that it takes in an update.
    """
    if plan.recipe.run.workers != "auto" or plan.device.type != "cpu":
        return plan.workers
    free = usable_cores() - threads
    if not free or load < WORTH * update or plan.obstacle_of():
        return 0
    return min(free, choose_workers(plan.recipe, plan.data, plan.preprocessing))


def first_images(batch: Batch, count: int = FEW) -> Batch:
    """A few images of a batch, as a whole batch."""
    return Batch.whole(batch.images[:count], batch.labels[:count], batch.indices[:count])


def combined(load: float, compute: float, workers: int) -> float:
    """The seconds of an image that is loaded, by other processes or by this one, and computed with."""
    return max(load / workers, compute) if workers else load + compute


def thread_choices(plan: Plan) -> list[int]:
    """The numbers of threads to compare, the safest first."""
    if plan.recipe.run.threads != "auto" or "OMP_NUM_THREADS" in os.environ or plan.device.type != "cpu":
        return [torch.get_num_threads()]
    return sorted({1, usable_cores()})


def load_batches(plan: Plan) -> tuple[list[Batch], float]:
    """Readable batches of the first epoch, loaded by this process, and the seconds that an image took."""
    epoch = plan.training_batches(1)
    batches: list[Batch] = []
    started, images = time.perf_counter(), 0
    for number in range(min(len(epoch), MOST_BATCHES)):
        batch = epoch[number]
        images += len(batch) + len(batch.bad)
        if len(batch):
            batches.append(first_images(batch, len(batch)))  # mixed with each other, by the draws of any batch
        if batches and time.perf_counter() - started > LOADING:
            break
    return batches, (time.perf_counter() - started) / max(1, images)


def timed_updates(learner: Learner, batches: list[Batch]) -> float:
    """The seconds that an image takes in an update."""
    seconds, images = 0.0, 0
    for batch in batches:
        seconds += timed_update(learner, batch)
        images += len(batch)
        if seconds > UPDATING:
            break
    return seconds / images


def timed_update(learner: Learner, batch: Batch) -> float:
    """The seconds of one update."""
    learner.train()
    started = time.perf_counter()
    result = learner.update(batch)
    if result is not None:
        result.loss.item()  # waits for the device
    learner.step = 0  # the views and the rate stay those of the first update
    return time.perf_counter() - started


def timed_scoring(learner: Learner, batch: Batch) -> float:
    """The seconds that an image takes to be scored."""
    seconds = 0.0
    for _ in range(2):  # the first one allocates
        started = time.perf_counter()
        images, targets = learner.eval_objective.prepare(batch, learner.plan.setup, VALIDATION, 0)
        score(learner, learner.eval_model, [Prepared(batch, images, targets)])
        seconds = (time.perf_counter() - started) / len(batch)
    return seconds
