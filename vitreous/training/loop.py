"""The training loop: epochs of updates, a look at validation after each, the test once at the end."""

import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from vitreous.checkpoints.store import load_model, save_model
from vitreous.data.sources import Split
from vitreous.evaluation.metrics import Outcome
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.averaging import WeightAverage
from vitreous.training.display import Display
from vitreous.training.folder import BadFiles, RunFolder
from vitreous.training.memory import MicroBatch
from vitreous.training.objective import CrossEntropy, balanced_weights
from vitreous.training.optimizer import adam, adamw, sgd
from vitreous.training.recipe import OptimizerSection
from vitreous.training.schedule import lr_factor
from vitreous.training.step import Totals, train_step
from vitreous.training.task import Task

LOWER_LR = "set a lower lr, or a longer warmup"
LIKELIEST = 3  # classes that an outcome keeps for each sample


@dataclass(frozen=True)
class Trained:
    """What came of a run.

    Args:
        rows: of metrics.jsonl, one for each epoch.
        best: the row of the epoch whose model was kept.
        outcome: of the kept model on the test split, or on validation where there is no test.
        split: which of the two, "test" or "validation".
    """

    rows: list[dict[str, Any]]
    best: dict[str, Any]
    outcome: Outcome
    split: str


def fit(model: VisionTransformer, task: Task, folder: RunFolder, bad_files: BadFiles, display: Display) -> Trained:
    """Trains a model, keeping the weights that do best on validation in the folder's model.safetensors.

    The best has the highest accuracy and, among equals, the lowest loss; an epoch whose loss on validation is
    not finite is never kept. Metrics are written after each epoch. The test split is read once, by the model
    that the file holds.

    Args:
        model: on the task's device; changed in place.
        task: what to learn.
        folder: where to write.
        bad_files: takes note of broken images.
        display: shows the progress.

    Raises:
        InputError: too many broken images, or no update of an epoch or no validation had a finite loss.
    """
    optimization, schedule = task.recipe.optimizer, task.recipe.schedule
    objective = make_objective(task)
    optimizer = make_optimizer(model, optimization)
    total_steps = schedule.epochs * task.steps_per_epoch
    warmup_steps, cooldown_steps = (
        round(epochs * task.steps_per_epoch) for epochs in (schedule.warmup_epochs, schedule.cooldown_epochs)
    )
    micro_batch = MicroBatch(task.recipe.data.micro_batch or task.batch_size, display.say)
    ema_decay = task.recipe.averaging.ema_decay
    average = WeightAverage(model, ema_decay) if ema_decay else None
    kept_model = model if average is None else average.model

    rows: list[dict[str, Any]] = []
    best: dict[str, Any] | None = None
    begun, step = time.perf_counter(), 0
    for epoch in range(1, schedule.epochs + 1):
        display.begin_epoch(epoch)
        epoch_begun, totals = time.perf_counter(), Totals()
        model.train()
        for number, batch in enumerate(task.training_batches(epoch)):
            bad_files.add(task.data.train, batch.bad)
            lr = optimization.lr * lr_factor(step, total_steps, warmup_steps, schedule.decay, cooldown_steps)
            step += 1
            if len(batch):
                images, targets = task.mixed_tensors(batch, epoch, number)
                update = partial(
                    train_step, model, optimizer, objective, images, targets, lr=lr, clip_norm=optimization.clip_norm
                )
                result = micro_batch.run(update, optimizer.zero_grad)
                totals.add(step, result)
                if average is not None:
                    average.update(model)
            display.step(step, totals)
        if totals.sums is None:
            raise InputError("none of the train images can be read", "check the files")
        loss, accuracy, count = totals.read()
        report_skipped(totals.skipped_steps(), count, epoch, display)
        images_per_second = count / (time.perf_counter() - epoch_begun)

        validation = evaluate(kept_model, task, task.data.validation, bad_files)
        row = {
            "epoch": epoch, "step": step, "lr": lr,
            "train_loss": loss, "train_accuracy": accuracy,
            "val_loss": validation.loss, "val_accuracy": validation.accuracy,
            "images_per_second": images_per_second, "seconds": time.perf_counter() - begun,
        }  # fmt: skip
        if is_better(row, best):
            best = row
            kept = {"data": Path(task.data.name).name, "epoch": epoch, "val_accuracy": validation.accuracy}
            save_model(folder.model, kept_model, task.preprocessing, task.data.class_names, kept)
        rows.append(row)
        folder.append_metrics(row)
        display.end_epoch(row)

    if best is None:
        raise InputError("no epoch had a finite loss on validation", LOWER_LR)
    outcome, split = final_outcome(task, folder, bad_files)
    if split == "test":
        test = {"test_loss": outcome.loss, "test_accuracy": outcome.accuracy}
        folder.append_metrics({key: best[key] for key in ("epoch", "step", "val_accuracy")} | test)
    return Trained(rows, best, outcome, split)


def make_objective(task: Task) -> CrossEntropy:
    """The loss that a recipe asks for."""
    section, weights = task.recipe.objective, None
    if section.class_weights == "balanced":
        weights = balanced_weights(task.data.train.labels, len(task.data.class_names)).to(task.device)
    return CrossEntropy(section.label_smoothing, section.loss, weights)


def make_optimizer(model: VisionTransformer, section: OptimizerSection) -> torch.optim.Optimizer:
    """The optimizer that a recipe asks for."""
    shared = {"lr": section.lr, "weight_decay": section.weight_decay}
    if section.algorithm == "sgd":
        return sgd(model, **shared, momentum=section.momentum)
    make = adamw if section.algorithm == "adamw" else adam
    return make(model, **shared, betas=section.betas, eps=section.eps)


def final_outcome(task: Task, folder: RunFolder, bad_files: BadFiles) -> tuple[Outcome, str]:
    """What the kept model makes of the test split, or of validation where there is no test."""
    split = task.data.validation if task.data.test is None else task.data.test
    model = load_model(folder.model).model.to(task.device)
    return evaluate(model, task, split, bad_files), split.name


@torch.inference_mode()
def evaluate(model: VisionTransformer, task: Task, split: Split, bad_files: BadFiles) -> Outcome:
    """Classifies every readable image of a split.

    Raises:
        InputError: too many of them are broken.
    """
    model.eval()
    places, labels, tops, losses = [], [], [], []
    for batch in task.plain_batches(split):
        bad_files.add(split, batch.bad)
        if len(batch):
            images, truth = task.tensors(batch)
            logits = model(images).float()
            places.append(batch.indices)
            labels.append(batch.labels)
            tops.append(logits.softmax(1).topk(min(LIKELIEST, logits.shape[1])))
            loss = F.cross_entropy(logits, truth, reduction="none")
            losses.append(loss.where(logits.isfinite().all(1), math.nan))
    if not labels:
        raise InputError(f"none of the {split.name} images can be read", "check the files")
    return Outcome(
        torch.cat(places).numpy(),
        torch.cat(labels).numpy(),
        torch.cat([top.indices for top in tops]).cpu().numpy(),
        torch.cat([top.values for top in tops]).cpu().numpy(),
        torch.cat(losses).double().mean().item(),
    )


def is_better(row: dict[str, Any], best: dict[str, Any] | None) -> bool:
    """Whether an epoch did better on validation: more accurate, or as accurate with a lower loss.

    One whose loss is not finite is never better, and any other is better than it, or than none.
    """
    if not math.isfinite(row["val_loss"]):
        return False
    if best is None or not math.isfinite(best["val_loss"]):
        return True
    return (row["val_accuracy"], -row["val_loss"]) > (best["val_accuracy"], -best["val_loss"])


def report_skipped(steps: list[int], count: int, epoch: int, display: Display) -> None:
    """Tells which updates were skipped. Raises InputError if none of the epoch were left."""
    if not count:
        raise InputError(f"no update of epoch {epoch} had a finite loss and gradient", LOWER_LR)
    if steps:
        some = ", ".join(map(str, steps[:5])) + (", …" if len(steps) > 5 else "")
        display.say(f"epoch {epoch}: loss or gradient not finite, weights left as they were, at steps {some}")
