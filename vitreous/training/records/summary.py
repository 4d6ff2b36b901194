"""What a run prints before and after: the choices that were made, and how good the model is."""

from collections.abc import Iterator
from textwrap import wrap

import numpy as np
import torch
from jaxtyping import Int64

from vitreous.data.sources.splits import ImageData, Split
from vitreous.model.vit import VisionTransformer
from vitreous.support.text import shortened
from vitreous.training.planning.plan import Plan
from vitreous.training.records.display import duration
from vitreous.training.records.folder import BAD_FILES, BadFiles
from vitreous.training.records.majority import majority_warning
from vitreous.training.records.results import Run

COLUMNS, LINES = 100, 2  # of the list of classes
MOST_SHOWN = 40  # classes in it; two lines have no room for more
SHORT_NAMES = {"train": "train", "validation": "val", "test": "test"}
KEPT_BY = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1", "loss": "loss"}


def data_lines(data: ImageData) -> Iterator[str]:
    """The lines on the data: its images, classes and splits as they were read, and what was not."""
    test = f", {len(data.test):,} to test" if data.test else ""
    yield (
        f"{data.name}: {len(data.class_names)} classes, {counted(len(data.train), 'image')} to train, "
        f"{len(data.validation):,} to validate{test}"
    )
    yield from class_lines(data)
    if data.ignored:
        ignored = ", ".join(f"{count:,} × {kind}" for kind, count in data.ignored.items())
        yield f"ignored: {ignored}"
    yield from (f"note: {note}" for note in data.notes)


def introduction(plan: Plan, model: VisionTransformer, micro_batch: int) -> Iterator[str]:
    """The lines before training: the starting weights, the model and the schedule."""
    config = plan.config
    if plan.start is not None:
        yield f"from the weights of {plan.start.source}" + "".join(f"; {note}" for note in plan.start.notes)
    height, width = plan.preprocessing.image_size
    rows, columns = config.grid
    parameters = sum(parameter.numel() for parameter in model.parameters())
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    trained = "" if trainable == parameters else f", {trainable / 1e6:.2f} M of them trained"
    at_once = "" if micro_batch >= plan.batch_size else f", {micro_batch} at once"
    flip = "flipped, " if plan.augmentation.flip else ""
    steps = plan.recipe.schedule.steps
    length = counted(plan.epochs, "epoch") if steps is None else f"{plan.total_steps:,} steps"
    yield (
        f"{counted(config.depth, 'block')} of width {config.width}, {parameters / 1e6:.2f} M parameters{trained}; "
        f"{height}×{width} pixels in {'×'.join(map(str, config.token_stride))}-pixel patches "
        f"(a grid of {rows}×{columns}), {flip}batches of {plan.batch_size}{at_once}, "
        f"{length} on {plan.device} in {plan.precision}, {counted(torch.get_num_threads(), 'thread')}, "
        f"{counted(plan.workers, 'loading process', 'es')}"
    )
    if rows * columns == 1:
        yield "warning: one patch covers the whole image; use smaller patches or a larger image_size"


def class_lines(data: ImageData) -> list[str]:
    """The classes with their images in each split, on two lines at most: of many, the first and last few."""
    counts = np.stack([class_counts(split, data) for split in data.splits], axis=1).tolist()
    items = [
        f"{shortened(name)} {'+'.join(f'{count:,}' for count in row)}"
        for name, row in zip(data.class_names, counts, strict=True)
    ]
    head = f"classes ({'+'.join(SHORT_NAMES[split.name] for split in data.splits)}):"

    def lines(shown: int) -> list[str]:
        parts = items
        if shown < len(items):
            middle = f"… {len(items) - shown:,} more …"
            parts = [*items[: shown - shown // 2], middle, *items[len(items) - shown // 2 :]]
        unbroken = [part.replace(" ", "\xa0") for part in parts]
        text = f"{head} {', '.join(unbroken)}"
        wrapped = wrap(text, COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        return [line.replace("\xa0", " ") for line in wrapped]

    most = min(len(items), MOST_SHOWN)
    return lines(next((shown for shown in range(most, 2, -1) if len(lines(shown)) <= LINES), 2))


def class_counts(split: Split, data: ImageData) -> Int64[np.ndarray, " classes"]:
    """How many images of each class a split has."""
    return np.bincount(split.labels, minlength=len(data.class_names))


def conclusion(run: Run, bad_files: BadFiles) -> Iterator[str]:
    """The lines after training: the accuracy, and where the files are."""
    if bad_files.count:
        skipped = f"{counted(bad_files.count, 'broken image')} {'was' if bad_files.count == 1 else 'were'} skipped"
        yield f"{skipped}; see {run.folder / BAD_FILES}"
    which = f"by the model of epoch {run.best['epoch']}{kept_for(run)}, after {duration(run.rows[-1]['seconds'])}"
    if run.outcome is None:
        accuracy = f", accuracy {run.best['val_accuracy']:.1%}" if run.best["val_accuracy"] else ""
        yield f"validation loss {run.best['val_loss']:.4f}{accuracy}, {which}"
    else:
        low, high = run.outcome.interval
        balanced = f", balanced accuracy {run.outcome.balanced_accuracy:.1%}" if run.outcome.is_lopsided else ""
        yield (
            f"{run.split} accuracy {run.outcome.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}, "
            f"{counted(len(run.outcome.labels), 'image')}){balanced}, {which}"
        )
        if bad_files.has_too_many(run.split):
            broken, total = len(bad_files.reasons[run.split]), bad_files.totals[run.split]
            yield f"warning: {broken} of the {total} {run.split} images are broken, and not among these"
        warning = majority_warning(run.outcome, run.data.class_names, run.split, run.recipe.weighs_classes)
        if warning is not None:
            yield f"warning: {warning}"
    yield f"model: {run.folder / 'model.safetensors'}, with curves and tables in the same folder"


def kept_for(run: Run) -> str:
    """What the kept model is the best by, if it is not the accuracy."""
    keep_by = run.recipe.schedule.keep_by
    return "" if keep_by == "accuracy" else f", the best by validation {KEPT_BY[keep_by]}"


def counted(number: int, noun: str, ending: str = "s") -> str:
    """1 block, 2 blocks."""
    return f"{number:,} {noun}{'' if number == 1 else ending}"
