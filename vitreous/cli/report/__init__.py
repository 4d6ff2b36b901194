"""The page that a run leaves: how it learned, what it confuses, and where it looks."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray

from vitreous.classifier import Classifier
from vitreous.cli.report.page import Example, Report, page
from vitreous.data.loader import batches
from vitreous.data.sources import ImageData, Split
from vitreous.evaluation.metrics import Outcome
from vitreous.model.config import ViTConfig
from vitreous.model.shapes import AttentionMap
from vitreous.support.errors import InputError
from vitreous.support.files import write_text
from vitreous.support.host import usable_cores
from vitreous.support.text import printable

REPORT = "report.html"
EXAMPLES = 12
MOST_WRONG = 6  # of the examples
LIKELIEST = 3  # classes that an example lists
BATCH_SIZE = 64


def write_report(folder: str | Path, classifier: Classifier, data: ImageData) -> Path:
    """Writes report.html into a run's folder: one file that needs nothing else, not even a network.

    Args:
        folder: of the run; its metrics.jsonl, recipe.toml and environment.json are read.
        classifier: the run's model.
        data: what it was trained on; the test split is classified, or validation where there is no test.

    Returns:
        The file.

    Raises:
        InputError: the folder is not a run's, the data has other classes, or none of its images can be read.
    """
    folder = Path(folder)
    if classifier.class_names != data.class_names:
        raise InputError(f"the model has other classes than {data.name!r}", "give the data it was trained on")
    split = data.validation if data.test is None else data.test
    rows = [json.loads(line) for line in read(folder / "metrics.jsonl").splitlines()]
    environment, recipe = json.loads(read(folder / "environment.json")), read(folder / "recipe.toml")
    answers = classify(classifier, split)
    report = Report(
        data=data,
        split=split.name,
        outcome=Outcome(split.labels[answers.places], answers.classes[:, 0], float("nan")),
        config=classifier.model.config,
        kept_epoch=classifier.metadata.get("epoch"),
        rows=[row for row in rows if "train_loss" in row],  # the last one is the test's
        recipe=recipe,
        environment=environment,
        examples=examples(classifier, split, answers),
    )
    write_text(folder / REPORT, page(report))
    return folder / REPORT


@dataclass(frozen=True)
class Answers:
    """The likeliest classes of every image of a split that can be read, best first."""

    places: Int64[ndarray, " samples"]
    classes: Int64[ndarray, "samples likeliest"]
    probabilities: Float[ndarray, "samples likeliest"]


@torch.inference_mode()
def classify(classifier: Classifier, split: Split) -> Answers:
    """Classifies the images of a split. Raises InputError if none can be read."""
    device = classifier.device
    workers = 0 if device.type == "cpu" else usable_cores()
    places, classes, probabilities = [], [], []
    for batch in batches(split, classifier.preprocessing, batch_size=BATCH_SIZE, shuffle=False, workers=workers):
        if len(batch):
            logits = classifier.model(classifier.preprocessing.normalize(batch.images.to(device))).float()
            top = logits.softmax(1).topk(min(LIKELIEST, logits.shape[1]))
            places.append(batch.indices)
            classes.append(top.indices.cpu())
            probabilities.append(top.values.cpu())
    if not places:
        raise InputError(f"none of the {split.name} images can be read", "check the files")
    return Answers(*(torch.cat(parts).numpy() for parts in (places, classes, probabilities)))


def examples(classifier: Classifier, split: Split, answers: Answers) -> list[Example]:
    """A dozen images of a split with what the model says, and where it looks in its last block."""
    chosen = choose(split.labels[answers.places], answers)
    preprocessing, model = classifier.preprocessing, classifier.model
    pixels = torch.stack([preprocessing.pixels(split.load(place)) for place in answers.places[chosen].tolist()])
    images = preprocessing.normalize(pixels.to(classifier.device))
    with torch.inference_mode():
        [weights] = model.attention_weights(images, blocks=[-1]).values()
    looks = patch_attention(weights, model.config).unflatten(-1, model.grid(images)).float().cpu().numpy()
    return [
        Example(
            name=printable(split.names[answers.places[i]]),
            label=int(split.labels[answers.places[i]]),
            likeliest=list(zip(answers.classes[i].tolist(), answers.probabilities[i].tolist(), strict=True)),
            pixels=seen.numpy(),
            attention=look,
        )
        for i, seen, look in zip(chosen, pixels, looks, strict=True)
    ]


def choose(labels: Int64[ndarray, " samples"], answers: Answers) -> list[int]:
    """Rows of answers: first wrong ones, the surest first; then right ones from all over the classes."""
    is_wrong = answers.classes[:, 0] != labels
    wrong, right = np.flatnonzero(is_wrong), np.flatnonzero(~is_wrong)
    wrong = wrong[np.argsort(-answers.probabilities[wrong, 0], kind="stable")]
    wrong = wrong[: max(MOST_WRONG, EXAMPLES - len(right))]
    count = min(len(right), EXAMPLES - len(wrong))
    spread = np.linspace(0, len(right) - 1, count).round().astype(int)  # a split has its classes one by one
    return [*wrong.tolist(), *right[spread].tolist()]


def patch_attention(weights: AttentionMap, config: ViTConfig) -> Float[torch.Tensor, "batch heads patches"]:
    """How much each patch is attended to: by the class token where the head reads it, else by all patches."""
    patches = weights[..., config.prefix_tokens :]
    if config.pooling == "class_token":
        return patches[:, :, 0]
    return patches[:, :, config.prefix_tokens :].mean(dim=2)


def read(path: Path) -> str:
    """The text of a run's file. Raises InputError if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", "give the folder of a finished run") from error
