"""The training loop: epochs of updates, validation in between, the test once at the end."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from vitreous.checkpoints.store import load_model, save_model
from vitreous.data.loading.batches import Batches
from vitreous.evaluation.metrics import Outcome
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.support.text import listed, printable
from vitreous.training.learner import Learner
from vitreous.training.parallel.group import LocalError
from vitreous.training.records.log import Log, NotFinite
from vitreous.training.records.results import Run
from vitreous.training.validation import NoneReadable, evaluate

LOWER_LR = "set a lower lr, or a longer warmup"
SHOWN = 3  # names of a batch in a message
CHECK_EVERY = 100  # steps between two reads of the skipped steps, each of which waits for the device


class Watch:
    """What else happens while a model is trained: nothing. Subclasses save the state, or stop the run by raising."""

    def pause(self) -> None:
        """Called often, where a run can stop and go on: after updates and micro-batches, and while validating."""

    def after_epoch(self) -> None:
        """Called after each epoch."""


def fit(learner: Learner, log: Log, watch: Watch | None = None) -> None:
    """Trains a model, keeping the weights that do best on validation in the folder's model.safetensors.

    The best epoch has the best score by the recipe's `keep_by` and, among equals, the lowest loss; an epoch without a
    finite validation loss is never kept. Metrics are written after each epoch. What goes wrong once there is a model
    ends the training but not the run: it is `log.failure`.

    Args:
        learner: with the updates so far.
        log: of the same plan, with the epochs so far and what of the current one is done.
        watch: called in between, if given; between micro-batches only where one process trains.

    Raises:
        InputError: before a model was kept, too many images are broken, or too many steps in a row have no finite loss;
            or no validation had one.
    """
    watch = watch or Watch()
    if learner.can_pause:
        learner.pause = watch.pause
    try:
        while (learner.step < learner.plan.total_steps and not log.is_stalled) or log.row is not None:
            train_epoch(learner, log, watch)
    except LocalError:
        raise
    except InputError as error:
        if log.best is None or not learner.group.from_first(log.folder.model.is_file()):  # the folder may be gone
            raise
        log.fail(error)
    if not any(math.isfinite(row["train_loss"]) for row in log.rows):
        raise NotFinite("no update had a finite loss and gradient", LOWER_LR)
    if log.best is None:
        raise NotFinite("no epoch had a finite loss on validation", LOWER_LR)
    if learner.step < learner.plan.total_steps and log.failure is None:
        log.display.print(f"stopping early: no better epoch in the last {log.worse} validations")


def train_epoch(learner: Learner, log: Log, watch: Watch) -> None:
    """What is left of an epoch: updates and, if it is due, validation, after which the best model so far is kept."""
    plan = learner.plan
    epoch = log.begin_epoch(learner.step)
    if log.row is None:
        make_updates(learner, log, epoch, watch)
    if learner.step == plan.total_steps or epoch % plan.recipe.schedule.evaluate_every == 0:

        def progress(done: int, images: int) -> None:
            log.display.validating(done, images)
            watch.pause()

        with learner.evaluating():
            score = evaluate(learner, learner.eval_model, plan.data.validation, log.bad_files, progress)
            if learner.group.from_first(log.add_validation(score)):  # other ranks may round differently
                assert log.row is not None, "the updates are made"
                keep(learner, log, log.row)
    log.end_epoch()
    watch.after_epoch()


def make_updates(learner: Learner, log: Log, epoch: int, watch: Watch) -> None:
    """The updates of an epoch that are not made yet."""
    plan = learner.plan
    learner.train()
    batches = plan.training_batches(epoch, learner.step - (epoch - 1) * plan.steps_per_epoch)
    for turn in log.meter.timed(learner.group.turns(batches)):
        log.bad_files.add(plan.data.train, turn.bad)
        if len(turn.batch) and not log.pictured:
            log.write_picture(learner.objective.views(*learner.prepare(turn.batch), plan.setup))
        step, lr = learner.step, learner.lr
        result = learner.update(turn)
        log.add_step(step, lr, result)
        if learner.step % CHECK_EVERY == 0:
            check_streak(learner, batches)
        if learner.step == plan.total_steps:
            break
        watch.pause()
    check_streak(learner, batches)
    log.end_updates(learner.step)
    report_skipped(learner, batches, log)


def keep(learner: Learner, log: Log, row: dict[str, Any]) -> None:
    """Writes the model of the epoch with this row, the best so far."""
    plan = learner.plan
    metadata = {} if plan.start is None else dict(plan.start.stored.metadata)
    metadata |= {"data": Path(plan.data.name).name, **{key: row[key] for key in ("epoch", "val_accuracy")}}
    model = learner.eval_model
    learner.group.lead(lambda: save_model(log.folder.model, model, plan.preprocessing, plan.class_names, metadata))
    log.best, log.worse = row, 0


def finish(learner: Learner, log: Log, pause: Callable[[], None] = lambda: None) -> Run:
    """Tests the kept model, on validation if there is no test split, and returns the finished run.

    Broken images are left out, however many there are; if none can be read, the run has no outcome. `pause` is called
    after each batch, and may raise.
    """
    assert log.best is not None, "fit keeps a model, or raises"
    plan, outcome = learner.plan, None
    split = plan.data.validation if plan.data.test is None else plan.data.test
    if plan.class_names is not None:  # otherwise the objective's own parameters are needed, which no file has
        model = kept_model(learner, log).to(plan.device)
        try:
            show = partial(log.display.working, "testing" if split.name == "test" else "validating")

            def progress(done: int, images: int) -> None:
                show(done, images)
                pause()

            result = evaluate(learner, model, split, log.bad_files.tolerant(), progress)
        except NoneReadable as error:
            log.display.print(f"warning: {error.cause}, so the model of epoch {log.best['epoch']} is not tested")
        else:
            assert isinstance(result, Outcome), "an objective with classes gives an outcome"
            outcome = result
            if split.name == "test":
                log.add_test(outcome)
    return Run(log.folder.path, plan.data, plan.recipe, log.rows, log.best, outcome, split.name)


def kept_model(learner: Learner, log: Log) -> VisionTransformer:
    """The model of the best epoch; the first rank reads it, since other machines may still see an older file."""
    group = learner.group
    model = group.agree(
        lambda: load_model(log.folder.model).model if group.leads else VisionTransformer(learner.plan.config)
    )
    group.spread(model)
    return model


# ---- skipped steps


def check_streak(learner: Learner, batches: Batches) -> None:
    """Raises InputError if too many steps in a row had no finite loss and gradient."""
    step = learner.streak.read()
    if step is not None:
        raise NotFinite(
            f"no finite loss or gradient in {learner.streak.most} steps in a row; the last, step {step + 1}, had "
            f"{names_of(learner, batches, step % learner.plan.steps_per_epoch)}",
            f"{LOWER_LR}, or a higher max_skipped",
        )


def report_skipped(learner: Learner, batches: Batches, log: Log) -> None:
    """Prints the steps that an epoch skipped, and what was in the first."""
    steps = log.totals.skipped_steps()
    if steps:
        numbers = listed([str(step + 1) for step in steps])
        log.display.print(
            f"epoch {len(log.rows) + 1}: skipped updates without a finite loss and gradient at steps {numbers}; "
            f"the first had {names_of(learner, batches, steps[0] % learner.plan.steps_per_epoch)}"
        )


def names_of(learner: Learner, batches: Batches, number: int) -> str:
    """The names of some images of a batch of all ranks."""
    parts = learner.group.gather(batches.names(number))
    return listed([printable(name) for part in parts for name in part], SHOWN)
