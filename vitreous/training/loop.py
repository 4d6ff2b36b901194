"""The training loop: epochs of updates, looks at validation in between, the test once at the end."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from vitreous.checkpoints.store import load_model, save_model
from vitreous.data.loader import Batch, Batches
from vitreous.evaluation.metrics import Outcome
from vitreous.model.shapes import Images
from vitreous.support.errors import InputError
from vitreous.support.text import printable
from vitreous.training.learner import Learner
from vitreous.training.objectives.masked_patch import MaskedPatches
from vitreous.training.objectives.objective import Targets
from vitreous.training.optimization.step import Streak, Totals
from vitreous.training.planning.task import Task
from vitreous.training.records.display import Display
from vitreous.training.records.folder import FIRST_BATCH, BadFiles, RunFolder
from vitreous.training.records.meter import Meter
from vitreous.training.records.pictures import write_batch_picture, write_masked_picture
from vitreous.training.records.tensorboard import Board
from vitreous.training.validation import evaluate, validate

LOWER_LR = "set a lower lr, or a longer warmup"
FEW = 3  # names of a batch that are told
LOOK_EVERY = 100  # steps between two looks at how many were skipped, each of which waits for the device


@dataclass(frozen=True)
class Trained:
    """What came of a run.

    Args:
        rows: of metrics.jsonl, one for each epoch.
        best: the row of the epoch whose model was kept.
        outcome: of the kept model on the test split, or on validation where there is no test; None where the run did
            not learn classes.
        split: which of the two, "test" or "validation".
    """

    rows: list[dict[str, Any]]
    best: dict[str, Any]
    outcome: Outcome | None
    split: str


@dataclass
class Progress:
    """How far a run is.

    Args:
        step: updates made.
        rows: of metrics.jsonl.
        best: the row of the epoch whose model is kept so far.
        worse: looks at validation since then.
        pictured: whether train_batch.png is written.
    """

    step: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    worse: int = 0
    pictured: bool = False


def fit(
    learner: Learner, task: Task, folder: RunFolder, bad_files: BadFiles, display: Display, board: Board
) -> Trained:
    """Trains a model, keeping the weights that do best on validation in the folder's model.safetensors.

    The best has the highest accuracy and, among equals, the lowest loss; an epoch whose loss on validation is
    not finite is never kept. Metrics are written after each epoch. The test split is read once, by the model
    that the file holds.

    Args:
        learner: a model on the task's device, and what moves it.
        task: what to learn.
        folder: where to write.
        bad_files: takes note of broken images.
        display: shows the progress.
        board: for TensorBoard; gets every row too.

    Raises:
        InputError: too many broken images, or no finite loss in too many steps in a row, or on validation.
    """
    schedule, progress, streak = task.recipe.schedule, Progress(), Streak(task.recipe.optimizer.max_skipped)
    begun = time.perf_counter()
    for epoch in range(1, task.epochs + 1):
        row = train_epoch(learner, task, epoch, progress, streak, folder, bad_files, display)
        is_last = progress.step == task.total_steps
        if is_last or epoch % schedule.evaluate_every == 0:
            look(learner, task, row, progress, folder, bad_files)
        row["seconds"] = time.perf_counter() - begun
        progress.rows.append(row)
        folder.append_metrics(row)
        board.add(row)
        display.end_epoch(row)
        if is_last or (schedule.patience and progress.worse >= schedule.patience):
            break
    if not any(math.isfinite(row["train_loss"]) for row in progress.rows):
        raise InputError("no update had a finite loss and gradient", LOWER_LR)
    if progress.best is None:
        raise InputError("no epoch had a finite loss on validation", LOWER_LR)
    if not is_last:
        display.say(f"no better epoch in {progress.worse} looks at validation: the run ends early")
    outcome, split = final_outcome(learner, task, folder, bad_files)
    if split == "test" and outcome is not None:
        test = {"test_loss": outcome.loss, "test_accuracy": outcome.accuracy}
        row = {key: progress.best[key] for key in ("epoch", "step", "val_accuracy")} | test
        folder.append_metrics(row)
        board.add(row)
    return Trained(progress.rows, progress.best, outcome, split)


def train_epoch(
    learner: Learner,
    task: Task,
    epoch: int,
    progress: Progress,
    streak: Streak,
    folder: RunFolder,
    bad_files: BadFiles,
    display: Display,
) -> dict[str, Any]:
    """Makes the updates of one epoch, the last of which may end early; returns its row of the metrics.

    Raises:
        InputError: as `fit`.
    """
    learner.model.train()
    display.begin_epoch(epoch)
    totals, meter, first_step = Totals(), Meter(task), progress.step
    loader = task.training_batches(epoch)
    for number, batch in enumerate(meter.waited_for(loader)):
        if progress.step == task.total_steps:
            break
        bad_files.add(task.data.train, batch.bad)
        if len(batch):
            images, targets = learner.inputs(task, batch, epoch, number)
            if not progress.pictured:
                write_first_batch(folder, task, images, targets)
                progress.pictured = True
            result = learner.update(images, targets, progress.step, task.recipe.optimizer.clip_norm)
            totals.add(progress.step, learner.course(progress.step), result)
            streak.add(progress.step, result.skipped)
        progress.step += 1
        if number % LOOK_EVERY == LOOK_EVERY - 1:
            check_streak(streak, task, loader, first_step)
        display.step(progress.step, totals, meter)
    if totals.sums is None:
        raise InputError("none of the train images can be read", "check the files")
    check_streak(streak, task, loader, first_step)
    loss, accuracy, count = totals.read()
    report_skipped(totals.skipped_steps(), epoch, loader, first_step, task, display)
    row = {"epoch": epoch, "step": progress.step, "lr": totals.lr, "train_loss": loss, "train_accuracy": accuracy}
    return row | {"val_loss": None, "val_accuracy": None} | meter.row(count)


def write_first_batch(folder: RunFolder, task: Task, images: Images, targets: Targets) -> None:
    """Writes train_batch.png: what the model sees first, and what it is told of it."""
    path = folder.path / FIRST_BATCH
    if isinstance(targets, MaskedPatches):
        write_masked_picture(path, images, targets.hidden, task.config.grid, task.preprocessing)
    else:
        assert isinstance(targets, torch.Tensor), "classes are told by a tensor"
        write_batch_picture(path, images, targets, task.data.class_names, task.preprocessing)


def look(
    learner: Learner, task: Task, row: dict[str, Any], progress: Progress, folder: RunFolder, bad_files: BadFiles
) -> None:
    """Adds the validation to an epoch's row, and keeps the model if none was better."""
    validation = validate(learner, task, bad_files)
    row |= {"val_loss": validation.loss, "val_accuracy": validation.accuracy}
    progress.worse += 1
    if is_better(row, progress.best):
        progress.best, progress.worse = row, 0
        metadata = {"data": Path(task.data.name).name, "epoch": row["epoch"], "val_accuracy": validation.accuracy}
        names = task.data.class_names if learner.kept_model.config.num_classes else None
        save_model(folder.model, learner.kept_model, task.preprocessing, names, {**task.metadata, **metadata})


def final_outcome(learner: Learner, task: Task, folder: RunFolder, bad_files: BadFiles) -> tuple[Outcome | None, str]:
    """What the kept model makes of the test split, or of validation where there is no test; None without classes."""
    split = task.data.validation if task.data.test is None else task.data.test
    model = load_model(folder.model).model.to(task.device)
    if not model.config.num_classes:
        return None, split.name
    return evaluate(model, task, split, bad_files, learner.micro_batch), split.name


def is_better(row: dict[str, Any], best: dict[str, Any] | None) -> bool:
    """Whether an epoch did better on validation: more accurate, or as accurate with a lower loss.

    One whose loss is not finite is never better, and any other is better than it, or than none.
    """
    if not math.isfinite(row["val_loss"]):
        return False
    if best is None or not math.isfinite(best["val_loss"]):
        return True
    return (row["val_accuracy"], -row["val_loss"]) > (best["val_accuracy"], -best["val_loss"])


# ---- steps that were skipped


def check_streak(streak: Streak, task: Task, loader: "DataLoader[Batch]", first_step: int) -> None:
    """Raises InputError if too many steps in a row had no finite loss and gradient."""
    step = streak.read()
    if step is not None:
        raise InputError(
            f"no finite loss or gradient in {streak.most} steps in a row; the last, step {step + 1}, had "
            f"{names_of(loader, step - first_step, task)}",
            f"{LOWER_LR}; or set max_skipped higher",
        )


def report_skipped(
    steps: list[int], epoch: int, loader: "DataLoader[Batch]", first_step: int, task: Task, display: Display
) -> None:
    """Tells which updates were skipped, and what was in the first."""
    if steps:
        some = ", ".join(str(step + 1) for step in steps[:5]) + (", …" if len(steps) > 5 else "")
        display.say(
            f"epoch {epoch}: loss or gradient not finite, weights left as they were, at steps {some}; "
            f"the first of them had {names_of(loader, steps[0] - first_step, task)}"
        )


def names_of(loader: "DataLoader[Batch]", number: int, task: Task) -> str:
    """Some images of a batch by name."""
    assert isinstance(loader.dataset, Batches)
    places = loader.dataset.order[number].tolist()
    names = ", ".join(printable(task.data.train.names[place]) for place in places[:FEW])
    return names + (f" and {len(places) - FEW} more" if len(places) > FEW else "")
