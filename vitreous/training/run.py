"""A run: from the name of a data set to a folder with a trained model and all that is known about it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vitreous import __version__
from vitreous.data.sources import DIGITS, open_data
from vitreous.evaluation.metrics import Outcome
from vitreous.model.vit import VisionTransformer
from vitreous.support.files import write_json, write_text
from vitreous.support.host import describe_host, tune_host
from vitreous.training.choices import resolve
from vitreous.training.display import Display, duration
from vitreous.training.folder import BadFiles, RunFolder
from vitreous.training.loop import Trained, fit
from vitreous.training.recipe import Recipe, RunSection
from vitreous.training.results import write_results
from vitreous.training.task import Task, make_task

RUNS = Path("runs")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: where everything lies; `model.safetensors` in it is the model, best on validation.
        recipe: resolved, as in recipe.toml.
        rows: of metrics.jsonl, one for each epoch.
        best: the row of the epoch whose model was kept.
        outcome: what that model made of the split.
        split: "test", or "validation" where there is no test.
    """

    folder: Path
    recipe: Recipe
    rows: list[dict[str, Any]]
    best: dict[str, Any]
    outcome: Outcome
    split: str


def train(
    data: str | Path,
    model: str = "auto",
    recipe: str | Path | Recipe | None = None,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Run:
    """Trains a Vision Transformer from scratch and leaves a run's folder.

    The first weights and dropout are drawn from torch's generator, seeded with the recipe's seed and put
    back afterwards; orders and augmentation from counters keyed by the seed. On a CPU the same seed gives
    the same bits, whatever the number of workers; another number of threads may round differently.

    Args:
        data: "digits", or a folder of images in one folder per class.
        model: a variant such as "Ti/8"; "auto" leaves it to the recipe, and that to the data.
        recipe: a TOML file, the name of a built-in one, or a Recipe; by default "digits" or "plain".
        out: the run's folder, new or empty; by default runs/ and the name of the data.
        settings: values that differ from the recipe's, by leaf or dotted path, such as {"lr": 1e-3}.
        quiet: print nothing.

    Raises:
        InputError: anything of these is not usable; the folder is not made then.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe or ("digits" if data == DIGITS else "plain"))
    if model != "auto":
        recipe = recipe.with_model(model)
    recipe = recipe.with_settings(settings or {})
    images = open_data(data, recipe.data.validation_fraction)
    recipe = resolve(recipe, images)
    config = recipe.config(len(images.class_names), images.channels)
    task = make_task(recipe, images, config)
    folder = RunFolder.create(Path(out) if out else RUNS / (Path(images.name).resolve().name or "images"))

    bad_files = BadFiles(folder, recipe.data.max_bad_fraction)
    epochs = recipe.schedule.epochs
    with (
        prepared(recipe.run, task.device),
        Display(epochs, epochs * task.steps_per_epoch, quiet) as display,
    ):
        write_text(folder.path / "recipe.toml", recipe.to_toml())
        write_json(folder.path / "environment.json", environment(task))
        network = VisionTransformer(config).to(task.device)
        introduce(display, task, network)
        try:
            trained = fit(network, task, folder, bad_files, display)
        finally:
            bad_files.write()
        write_results(folder, trained, images.class_names)
        conclude(display, trained, folder, bad_files)
    return Run(folder.path, recipe, trained.rows, trained.best, trained.outcome, trained.split)


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


def environment(task: Task) -> dict[str, Any]:
    """What a result depends on besides the recipe, for environment.json."""
    data = task.data
    splits = [split for split in (data.train, data.validation, data.test) if split is not None]
    return {
        "vitreous": __version__,
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": describe_host(),
        "device": str(task.device),
        "threads": torch.get_num_threads(),
        "workers": task.workers,
        "data": data.name,
        "classes": list(data.class_names),
        "images": {split.name: len(split) for split in splits},
        "ignored": data.ignored,
    }


def introduce(display: Display, task: Task, model: VisionTransformer) -> None:
    """Says in two lines what will happen, with what was chosen from the data."""
    data, recipe = task.data, task.recipe
    test = f", {len(data.test):,} to test" if data.test else ""
    display.say(
        f"{data.name}: {len(data.class_names)} classes, {len(data.train):,} images to learn from, "
        f"{len(data.validation):,} to validate{test}"
    )
    height, width = task.preprocessing.image_size
    rows, columns = model.config.grid
    parameters = sum(parameter.numel() for parameter in model.parameters())
    flip = "flipped, " if task.augmentation.flip else ""
    display.say(
        f"{model.config.depth} blocks of width {model.config.width}, {parameters / 1e6:.2f} M parameters; "
        f"{height}×{width} pixels in {rows}×{columns} patches, {flip}batches of {task.batch_size}, "
        f"{recipe.schedule.epochs} epochs on {task.device}"
    )


def conclude(display: Display, trained: Trained, folder: RunFolder, bad_files: BadFiles) -> None:
    """Says how good it got and where everything is."""
    outcome = trained.outcome
    low, high = outcome.interval
    if bad_files.count:
        display.say(f"{bad_files.count} broken images were skipped; {folder.path / 'bad_files.csv'} lists them")
    display.say(
        f"{trained.split} accuracy {outcome.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}, "
        f"{len(outcome.labels):,} images), by the model of epoch {trained.best['epoch']}, "
        f"after {duration(trained.rows[-1]['seconds'])}"
    )
    display.say(f"model: {folder.model}; curves and tables beside it")
