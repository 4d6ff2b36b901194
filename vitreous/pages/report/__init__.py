"""The page that a run leaves: how it learned, what it confuses, and where it looks."""

import json
from pathlib import Path

import numpy as np
import torch

from vitreous.classifier import Classifier
from vitreous.data.sources.open import ImageData, Split
from vitreous.evaluation.metrics import Outcome
from vitreous.explain.attention_maps import attention_maps
from vitreous.pages.report.page import Example, Report, page
from vitreous.support.errors import InputError
from vitreous.support.files import write_text
from vitreous.support.text import printable

REPORT = "report.html"
EXAMPLES = 12
MOST_WRONG = 6  # of the examples


def write_report(folder: str | Path, classifier: Classifier, data: ImageData, outcome: Outcome) -> Path:
    """Writes report.html into a run's folder: one file that needs nothing else, not even a network.

    Args:
        folder: of the run; its metrics.jsonl, recipe.toml and environment.json are read.
        classifier: the run's model.
        data: what it was trained on; of its images, only the shown ones are loaded.
        outcome: what the model made of the test split, or of validation where there is no test.

    Returns:
        The file.

    Raises:
        InputError: the folder is not a run's, or the data has other classes.
    """
    folder = Path(folder)
    if classifier.class_names != data.class_names:
        raise InputError(f"the model has other classes than {data.name!r}", "give the data it was trained on")
    split = data.validation if data.test is None else data.test
    rows = [json.loads(line) for line in read(folder / "metrics.jsonl").splitlines()]
    environment, recipe = json.loads(read(folder / "environment.json")), read(folder / "recipe.toml")
    report = Report(
        data=data,
        split=split.name,
        outcome=outcome,
        folder=folder,
        config=classifier.model.config,
        kept_epoch=classifier.metadata.get("epoch"),
        rows=[row for row in rows if "train_loss" in row],  # the last one is the test's
        recipe=recipe,
        environment=environment,
        examples=examples(classifier, split, outcome),
    )
    write_text(folder / REPORT, page(report))
    return folder / REPORT


def examples(classifier: Classifier, split: Split, outcome: Outcome) -> list[Example]:
    """A dozen images of a split with what the model says, and where it looks in its last block."""
    chosen = choose(outcome)
    preprocessing, model = classifier.preprocessing, classifier.model
    pixels = torch.stack([preprocessing.pixels(split.load(place)) for place in outcome.places[chosen].tolist()])
    images = preprocessing.normalize(pixels.to(classifier.device))
    looks = attention_maps(model, images, blocks=[-1])[:, 0].cpu().numpy()
    return [
        Example(
            name=printable(split.names[outcome.places[i]]),
            label=int(outcome.labels[i]),
            likeliest=list(zip(outcome.classes[i].tolist(), outcome.probabilities[i].tolist(), strict=True)),
            pixels=seen.numpy(),
            attention=look,
        )
        for i, seen, look in zip(chosen, pixels, looks, strict=True)
    ]


def choose(outcome: Outcome) -> list[int]:
    """Samples of an outcome: first wrong ones, the surest first; then right ones from all over the classes."""
    is_wrong = outcome.predictions != outcome.labels
    wrong, right = np.flatnonzero(is_wrong), np.flatnonzero(~is_wrong)
    wrong = wrong[np.argsort(-outcome.probabilities[wrong, 0], kind="stable")]
    wrong = wrong[: max(MOST_WRONG, EXAMPLES - len(right))]
    count = min(len(right), EXAMPLES - len(wrong))
    spread = np.linspace(0, len(right) - 1, count).round().astype(int)  # a split has its classes one by one
    return [*wrong.tolist(), *right[spread].tolist()]


def read(path: Path) -> str:
    """The text of a run's file. Raises InputError if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", "give the folder of a finished run") from error
