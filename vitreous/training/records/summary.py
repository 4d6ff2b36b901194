"""What a run prints before and after: the choices that were made, and how good the model is."""

from collections.abc import Iterator

import torch

from vitreous.model.vit import VisionTransformer
from vitreous.support.text import counted
from vitreous.training.planning.budget import budget_line
from vitreous.training.planning.expectations import expectation_line
from vitreous.training.planning.plan import Plan
from vitreous.training.records.broken import lost_classes
from vitreous.training.records.display import duration
from vitreous.training.records.folder import BAD_FILES, BadFiles
from vitreous.training.records.majority import majority_warning
from vitreous.training.records.results import Run

FEW_TO_VALIDATE = 10  # images
KEPT_BY = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1", "loss": "loss"}


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
    at_once = "" if micro_batch >= part_of_batch(plan) else f", {micro_batch} at once"
    flip = "flipped, " if plan.augmentation.flip else ""
    steps = plan.recipe.schedule.steps
    length = counted(plan.epochs, "epoch") if steps is None else f"{plan.total_steps:,} steps"
    yield (
        f"{counted(config.depth, 'block')} of width {config.width}, {parameters / 1e6:.2f} M parameters{trained}; "
        f"{height}×{width} pixels in {'×'.join(map(str, config.token_stride))}-pixel patches "
        f"(a grid of {rows}×{columns}), {flip}batches of {plan.batch_size}{at_once}, "
        f"{length} {machine(plan)}"
    )
    yield from idle_devices(plan)
    if plan.budget is not None:
        yield budget_line(plan.budget)
    if is_chosen_for_photos(plan):
        expected = expectation_line(len(plan.data.train), len(plan.data.class_names))
        yield from [] if expected is None else [expected]
    count = len(plan.data.validation)
    if count < FEW_TO_VALIDATE and plan.class_names is not None:
        yield (
            f"warning: only {counted(count, 'validation image')}, so which epoch is kept is partly chance; "
            f"add more, or set validation_fraction=0.3 if there is no validation split"
        )
    if rows * columns == 1:
        yield "warning: one patch covers the whole image; use smaller patches or a larger image_size"


def part_of_batch(plan: Plan) -> int:
    """The most images of an update that one process has."""
    return -(-min(plan.batch_size, len(plan.data.train)) // plan.share.size)


def machine(plan: Plan) -> str:
    """Where and how a run computes: on cpu in float32, 2 threads, 0 loading processes."""
    device = str(plan.device)
    if plan.parallel is not None:
        images = counted(part_of_batch(plan), "image")
        device = f"{plan.share.size} × {plan.device.type} with up to {images} each (parallel={plan.parallel})"
    threads, workers = counted(torch.get_num_threads(), "thread"), counted(plan.workers, "loading process")
    return f"on {device} in {plan.precision}, {threads}, {workers}"


def idle_devices(plan: Plan) -> Iterator[str]:
    """A line if this machine has GPUs that the run does not use."""
    count = torch.cuda.device_count() if plan.device.type == "cuda" and plan.parallel is None else 1
    if count > 1:
        launch = f"torchrun --standalone --nproc-per-node={count} -m vitreous train …"
        yield f"one of {count} GPUs is used; to use all of them: {launch}"


def is_chosen_for_photos(plan: Plan) -> bool:
    """Whether what was measured on photos says something about a run: its size and length are not the user's."""
    return (
        plan.start is None
        and plan.budget is not None
        and plan.budget.chose_all
        and plan.class_names is not None
        and plan.data.channels == 3
        and plan.data.flip_ok
        and len(plan.data.class_names) > 1
    )


def conclusion(run: Run, bad_files: BadFiles) -> Iterator[str]:
    """The lines after training: the accuracy, and where the files are."""
    if bad_files.count:
        left_out = f"{counted(bad_files.count, 'broken image')} {'was' if bad_files.count == 1 else 'were'} left out"
        yield f"{left_out}; see {run.folder / BAD_FILES}"
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
        if bad_files.reasons.get(run.split):
            split = next(split for split in run.data.splits if split.name == run.split)
            yield from lost_classes(run.data.class_names, split, run.outcome.labels)
        warning = majority_warning(run.outcome, run.data.class_names, run.split, run.recipe.weighs_classes)
        if warning is not None:
            yield f"warning: {warning}"
    tables = ", with curves and tables in the same folder" if (run.folder / "results.csv").exists() else ""
    yield f"model: {run.folder / 'model.safetensors'}{tables}"


def kept_for(run: Run) -> str:
    """What the kept model is the best by, if it is not the accuracy."""
    keep_by = run.recipe.schedule.keep_by
    return "" if keep_by == "accuracy" else f", the best by validation {KEPT_BY[keep_by]}"
