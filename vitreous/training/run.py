"""A run: from the name of a data set to a folder with a trained model and all that is known about it."""

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vitreous import __version__
from vitreous.data.loader import Batch
from vitreous.data.sources.open import DIGITS, ImageData, open_data
from vitreous.evaluation.metrics import Outcome
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.support.files import write_json, write_text
from vitreous.support.host import describe_host, tune_host
from vitreous.training.learner import Learner, make_learner
from vitreous.training.loop import Trained, fit
from vitreous.training.optimization.memory import MicroBatch, bytes_of, fitting, free_on, kept_by_image
from vitreous.training.optimization.precision import HALVES
from vitreous.training.planning.defaults import resolve
from vitreous.training.planning.request import Request
from vitreous.training.planning.task import Task, make_task
from vitreous.training.planning.weights import Start, begin_from
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.recipe.sections import RunSection
from vitreous.training.records.display import Display, duration
from vitreous.training.records.folder import BAD_FILES, ENVIRONMENT, RECIPE, BadFiles, RunFolder
from vitreous.training.records.meter import best_flops, is_told
from vitreous.training.records.results import write_results
from vitreous.training.records.tensorboard import Board

SOME = 2  # images on which the memory of one is measured
RUNS = Path("runs")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: where everything lies; `model.safetensors` in it is the model, best on validation.
        data: what was learned from, opened and split.
        recipe: resolved, as in recipe.toml.
        rows: of metrics.jsonl, one for each epoch.
        best: the row of the epoch whose model was kept.
        outcome: what that model made of the split; None where it did not learn classes.
        split: "test", or "validation" where there is no test.
    """

    folder: Path
    data: ImageData
    recipe: Recipe
    rows: list[dict[str, Any]]
    best: dict[str, Any]
    outcome: Outcome | None
    split: str


def train(
    data: str | Path,
    model: str = "auto",
    recipe: str | Path | Recipe | None = None,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
    init: str | None = None,
) -> Run:
    """Trains a Vision Transformer, from weights or from scratch, and leaves a run's folder.

    Fresh weights and dropout are drawn from torch's generator, seeded with the recipe's seed and put
    back afterwards; orders and augmentation from counters keyed by the seed. On a CPU the same seed gives
    the same bits, whatever the number of workers; another number of threads may round differently, and with
    fewer images at once (micro_batch, found by the free memory) dropout is drawn in another order. recipe.toml
    has all of them.

    Args:
        data: "digits", or a folder of images in one folder per class, or such a zip archive.
        model: a variant such as "Ti/8" with fresh weights; or weights, as `vitreous.load` takes them; "auto" takes
            known weights where they are at hand, and else leaves it to the recipe, and that to the data.
        recipe: a TOML file, the name of a built-in one, perhaps with options, or a Recipe; by default "digits",
            "finetune" with weights and "small-data" without.
        out: the run's folder, new or empty, and outside the data; by default runs/ and the name of the data.
        settings: values that differ from the recipe's, by leaf or dotted path, such as {"lr": 1e-3}.
        quiet: print nothing.
        init: "random" for fresh weights, "pretrained" for known ones of a variant; as the recipe says if None.

    Raises:
        InputError: anything of these is not usable, and no folder is made; or training met too many broken
            images, or no finite loss: then, as when it is interrupted, the folder stays if a model was saved in
            it, and else at most its bad_files.csv, which does not keep the next run from using the folder.
    """
    settings = {**({} if init is None else {"init": init}), **(settings or {})}
    with Display(quiet) as display:
        is_digits = str(data) == DIGITS and not (isinstance(data, Path) and data.is_dir())  # as `open_data` sees it
        request = Request(recipe, model, settings, is_digits)
        images = open_data(data, request.draft().data.validation_fraction)  # before any weights are fetched
        plan, weights = request.decide(display.say)
        start = None
        if weights is not None:
            masked = plan.objective.goal == "masked_patch"
            start = begin_from(weights, plan.model, () if masked else images.class_names, images.channels, masked)
        resolved = resolve(plan, images, start)
        metadata = {} if start is None else start.stored.metadata
        task = make_task(resolved.recipe, images, resolved.config, resolved.preprocessing, metadata)
        path = Path(out) if out else RUNS / (Path(images.name).resolve().name.removesuffix(".zip") or "images")
        if not is_digits:
            check_is_outside(path, Path(data))
        board = Board(path, task.recipe.run.tensorboard)
        folder = RunFolder.create(path)
        bad_files = BadFiles(folder, task.recipe.data.max_bad_fraction)
        with prepared(task.recipe.run, task.device):
            with tidied(folder, bad_files), board:
                learner = make_ready(task, start, display)
                done = recorded(task, learner)
                write_text(folder.path / RECIPE, done.to_toml())
                write_json(folder.path / ENVIRONMENT, environment(task, learner))
                trained = fit(learner, task, folder, bad_files, display, board)
            write_results(folder, trained, images.class_names)
            conclude(display, trained, folder, bad_files)
    return Run(folder.path, images, done, trained.rows, trained.best, trained.outcome, trained.split)


def make_ready(task: Task, start: Start | None, display: Display) -> Learner:
    """The model on its device with all that moves it; says what will happen."""
    model = (VisionTransformer(task.config) if start is None else start.stored.model).to(task.device)
    micro_batch = MicroBatch(task.recipe.data.micro_batch or task.batch_size, display.say)
    learner = make_learner(model, task, micro_batch)
    if task.recipe.data.micro_batch is None:
        micro_batch.size = measured(learner, task)
    if is_told(task):
        best_flops(task.device, HALVES.get(task.precision, torch.float32))  # before its memory is filled
    introduce(display, task, learner, start)
    display.plan(task.epochs, task.total_steps)
    return learner


def recorded(task: Task, learner: Learner) -> Recipe:
    """The recipe with what was chosen for this machine, too: the same bits come of it, as far as they can elsewhere."""
    chosen = {
        "device": str(task.device),
        "precision": task.precision,
        "threads": torch.get_num_threads(),
        "workers": task.workers,
        "micro_batch": learner.micro_batch.size,
    }
    return task.recipe.with_settings(chosen)


def measured(learner: Learner, task: Task) -> int:
    """How many images of a batch fit into the device's memory at once, by what one of them takes."""
    height, width = task.preprocessing.image_size
    pixels = torch.zeros(SOME, task.preprocessing.channels, height, width, dtype=torch.uint8)
    labels = torch.zeros(SOME, dtype=torch.int64)
    batch = Batch(pixels, labels, labels)
    images, targets = learner.inputs(task, batch, epoch=0, number=0, mixed=False)
    kept = kept_by_image(learner.model.train(), learner.objective, images, targets, task.precision)
    return fitting(task.batch_size, kept, bytes_of(learner.model, learner.objective), free_on(task.device))


def check_is_outside(folder: Path, data: Path) -> None:
    """Raises InputError for a run's folder inside the data's, where the next run would see it as a class."""
    if folder.resolve().is_relative_to(data.resolve()):
        cause = f"the run's folder {str(folder)!r} would lie inside the data, {str(data)!r}"
        elsewhere = os.path.normpath(data / ".." / RUNS / (data.resolve().name or "images"))
        raise InputError(cause, f"give one elsewhere, such as --out {shlex.quote(elsewhere)}")


@contextmanager
def tidied(folder: RunFolder, bad_files: BadFiles) -> Iterator[None]:
    """Lists the broken images when the block ends; if it fails before a model was saved, clears the folder."""
    try:
        yield
    except BaseException:
        if folder.model.exists():
            bad_files.write()
        else:
            if bad_files.count:
                bad_files.write()
            folder.clear()
        raise
    bad_files.write()


@contextmanager
def prepared(run: RunSection, device: torch.device) -> Iterator[None]:
    """Tunes the host and seeds torch's generators; threads and generators are put back as they were."""
    threads = torch.get_num_threads()
    tune_host(None if run.threads == "auto" else run.threads)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(run.seed)
            yield
    finally:
        torch.set_num_threads(threads)


def environment(task: Task, learner: Learner) -> dict[str, Any]:
    """What a result depends on besides the recipe, for environment.json."""
    data = task.data
    splits = [split for split in (data.train, data.validation, data.test) if split is not None]
    return {
        "vitreous": __version__,
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": describe_host(),
        "device": str(task.device),
        "precision": task.precision,
        "images_at_once": learner.micro_batch.size,
        "threads": torch.get_num_threads(),
        "workers": task.workers,
        "data": data.name,
        "classes": list(data.class_names),
        "images": {split.name: len(split) for split in splits},
        "ignored": data.ignored,
    }


def introduce(display: Display, task: Task, learner: Learner, start: Start | None) -> None:
    """Says in a few lines what will happen, with what was chosen from the data, and what of it is left out."""
    data, recipe, config = task.data, task.recipe, task.config
    test = f", {len(data.test):,} to test" if data.test else ""
    display.say(
        f"{data.name}: {len(data.class_names)} classes, {counted(len(data.train), 'image')} to learn from, "
        f"{len(data.validation):,} to validate{test}"
    )
    if data.ignored:
        left_out = ", ".join(f"{count:,} × {what}" for what, count in data.ignored.items())
        display.say(f"left out: {left_out}")
    if start is not None:
        display.say(f"from the weights of {start.source}" + "".join(f"; {note}" for note in start.notes))
    height, width = task.preprocessing.image_size
    rows, columns = config.grid
    parameters = bytes_of(learner.model) / 4
    trained = sum(p.numel() for p in learner.model.parameters() if p.requires_grad)
    some = "" if trained == parameters else f", {trained / 1e6:.2f} M of them trained"
    at_once = "" if learner.micro_batch.size >= task.batch_size else f", {learner.micro_batch.size} at once"
    flip = "flipped, " if task.augmentation.flip else ""
    length = counted(task.epochs, "epoch") if recipe.schedule.steps is None else f"{task.total_steps:,} steps"
    display.say(
        f"{counted(config.depth, 'block')} of width {config.width}, {parameters / 1e6:.2f} M parameters{some}; "
        f"{height}×{width} pixels in {'×'.join(map(str, config.token_stride))}-pixel patches "
        f"(a grid of {rows}×{columns}), {flip}batches of {task.batch_size}{at_once}, "
        f"{length} on {task.device} in {task.precision}, {counted(torch.get_num_threads(), 'thread')}, "
        f"{counted(task.workers, 'loading process', 'es')}"
    )
    if rows * columns == 1:
        display.say(
            "warning: one patch is the whole image; smaller patches, or a larger image_size, let it look at parts"
        )


def counted(number: int, noun: str, ending: str = "s") -> str:
    """1 block, 2 blocks."""
    return f"{number:,} {noun}{'' if number == 1 else ending}"


def conclude(display: Display, trained: Trained, folder: RunFolder, bad_files: BadFiles) -> None:
    """Says how good it got and where everything is."""
    outcome, best = trained.outcome, trained.best
    if bad_files.count:
        skipped = f"{counted(bad_files.count, 'broken image')} {'was' if bad_files.count == 1 else 'were'} skipped"
        display.say(f"{skipped}; see {folder.path / BAD_FILES}")
    which = f"by the model of epoch {best['epoch']}, after {duration(trained.rows[-1]['seconds'])}"
    if outcome is None:
        right = f", {best['val_accuracy']:.1%} of the corrupted patches right" if best["val_accuracy"] else ""
        display.say(f"validation loss {best['val_loss']:.4f}{right}, {which}")
    else:
        low, high = outcome.interval
        display.say(
            f"{trained.split} accuracy {outcome.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}, "
            f"{counted(len(outcome.labels), 'image')}), {which}"
        )
    display.say(f"model: {folder.model}; curves and tables beside it")
