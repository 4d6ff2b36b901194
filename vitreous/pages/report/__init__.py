"""The report of a run: its result, how it learned, what it confuses, and where it looks."""

import json
import tomllib
from pathlib import Path

import numpy as np
import torch

from vitreous.classifier import Classifier
from vitreous.data.sources.open import ImageData, Split
from vitreous.evaluation.metrics import Outcome
from vitreous.explain.attention_maps import attention_of_heads
from vitreous.pages.report.view import Example, Report, view
from vitreous.pages.templates import render
from vitreous.support.errors import InputError
from vitreous.support.files import write_text

REPORT = "report.html"
EXAMPLES = 12
MOST_WRONG = 6  # of the examples


def write_report(folder: str | Path, classifier: Classifier, data: ImageData, outcome: Outcome) -> Path:
    """Writes report.html into a run's folder: one file that loads nothing else.

    Args:
        folder: of the run; its metrics.jsonl, recipe.toml and environment.json are read.
        classifier: the run's model.
        data: that it was trained on; only the images shown are loaded.
        outcome: of the test split, or of validation if there is no test split.

    Returns:
        The file.

    Raises:
        InputError: the folder does not hold a run, or the data has other classes.
    """
    folder = Path(folder)
    if classifier.class_names != data.class_names:
        raise InputError(f"the classes of the model and of {data.name!r} differ", "give the data it was trained on")
    split = data.validation if data.test is None else data.test
    rows = [json.loads(line) for line in read(folder / "metrics.jsonl").splitlines()]
    environment, recipe = json.loads(read(folder / "environment.json")), read(folder / "recipe.toml")
    report = Report(
        data=data,
        split=split.name,
        outcome=outcome,
        folder=folder,
        config=classifier.model.config,
        metadata=classifier.metadata,
        rows=[row for row in rows if "train_loss" in row],  # the last row is of the test split
        recipe_text=recipe,
        recipe=tomllib.loads(recipe),
        environment=environment,
        examples=examples(classifier, split, outcome),
    )
    write_text(folder / REPORT, render("report", view(report)))
    return folder / REPORT


def examples(classifier: Classifier, split: Split, outcome: Outcome) -> list[Example]:
    """A dozen images of a split with their predictions and the attention in the last block."""
    chosen = choose(outcome)
    preprocessing, model = classifier.preprocessing, classifier.model
    pixels = torch.stack([preprocessing.pixels(split.load(index)) for index in outcome.places[chosen].tolist()])
    images = preprocessing.normalize(pixels.to(classifier.device))
    attention = attention_of_heads(model, images, blocks=[-1])[:, 0].cpu().numpy()
    return [
        Example(
            name=split.names[outcome.places[i]],
            label=int(outcome.labels[i]),
            top=list(zip(outcome.classes[i].tolist(), outcome.probabilities[i].tolist(), strict=True)),
            pixels=image.numpy(),
            attention=maps,
        )
        for i, image, maps in zip(chosen, pixels, attention, strict=True)
    ]


def choose(outcome: Outcome) -> list[int]:
    """The samples to show: mistakes first, the most confident on top, then correct ones from all classes."""
    is_wrong = outcome.predictions != outcome.labels
    wrong, right = np.flatnonzero(is_wrong), np.flatnonzero(~is_wrong)
    wrong = wrong[np.argsort(-outcome.probabilities[wrong, 0], kind="stable")]
    wrong = wrong[: max(MOST_WRONG, EXAMPLES - len(right))]
    count = min(len(right), EXAMPLES - len(wrong))
    spread = np.linspace(0, len(right) - 1, count).round().astype(int)  # samples are sorted by class
    return [*wrong.tolist(), *right[spread].tolist()]


def read(path: Path) -> str:
    """The text of a file in a run's folder.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", "give the folder of a finished run") from error
