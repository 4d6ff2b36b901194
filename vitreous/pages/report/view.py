"""What the report shows, section by section, as plain values for `report/report.html`."""

import shlex
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from vitreous.classifier import Classifier
from vitreous.data.decoding.images import BadImage
from vitreous.data.sources.splits import ImageData, Split
from vitreous.evaluation.metrics import ClassScore, Outcome, confusion_matrix, confusions, per_class
from vitreous.explain.attention_maps import attention_maps, readout_name
from vitreous.explain.inline import CRISP
from vitreous.model.config import ViTConfig
from vitreous.model.cost import nominal_multiply_adds, parameter_count
from vitreous.pages.pictures import as_image, attention_picture, photo
from vitreous.pages.report.charts import Chart, Curve, line_chart
from vitreous.support.counts import spread
from vitreous.support.figures import shown_as
from vitreous.support.text import printable
from vitreous.training.records.display import duration
from vitreous.training.records.majority import majority_warning
from vitreous.training.records.results import CONFUSIONS, MATRIX, MOST_ROWS
from vitreous.training.records.summary import KEPT_BY

EXAMPLES = 12
MOST_WRONG = 6  # of the examples, if there are enough correct ones
MOST_COLUMNS = 25  # classes up to which the confusion matrix is shown
MOST_CLASSES = 100  # classes up to which all have scores; of more, those with the lowest F1
MOST_CONFUSED = 8  # pairs
PHOTO_SIDE = 224  # pixels of an example
ALGORITHMS = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}


def run_view(
    folder: Path,
    data: ImageData,
    rows: list[dict[str, Any]],
    recipe_text: str,
    environment: dict[str, Any],
    classifier: Classifier,
) -> dict[str, Any]:
    """The template's variables about the run: how the model was trained on the data.

    `rows` are those of metrics.jsonl, one per epoch; `recipe_text` and `environment` are its recipe.toml and
    environment.json.
    """
    recipe, config, metadata = tomllib.loads(recipe_text), classifier.model.config, classifier.metadata
    kept = next((row for row in rows if row["epoch"] == metadata.get("epoch")), None)
    return {
        "title": f"{Path(data.name).name or data.name}: {origin(recipe, metadata)}",
        "has_test": data.test is not None,
        "facts": {
            "Classes": f"{len(data.class_names):,}",
            "Training images": f"{len(data.train):,}",
            "Validation images": f"{len(data.validation):,}",
            "Parameters": f"{parameter_count(config):,}",
            "Epochs": f"{len(rows):,}",
            "Training time": duration(rows[-1]["seconds"]),
        },
        "charts": charts(rows, kept),
        "kept_epoch": None if kept is None else kept["epoch"],
        "kept_by": KEPT_BY.get(recipe["schedule"].get("keep_by", ""), "accuracy"),
        "from_class_token": config.pooling == "class_token",
        "model": model_numbers(config),
        "training": training_numbers(recipe),
        "again": same_again(folder, data.name),
        "recipe_lines": recipe_text.splitlines(),
        "environment": environment,
        "host": environment.get("host", {}),
    }


def result_view(classifier: Classifier, split: Split, outcome: Outcome, weighed: bool) -> dict[str, Any]:
    """The template's variables about the result: predictions on a split.

    `weighed` is whether training made small classes count as much as large ones.
    """
    names = classifier.class_names or ()
    return {
        "split": split.name,
        "outcome": outcome,
        "warning": majority_warning(outcome, names, split.name, weighed),
        "mistakes": len(outcome.labels) - outcome.correct,
        "cards": cards(classifier, split, outcome),
        "shown_as": shown_as(classifier.preprocessing.channels),
        "confused": confused(outcome, names),
        "matrix": matrix(outcome, names) if len(names) <= MOST_COLUMNS else None,
        "counts_file": MATRIX if len(names) <= MOST_ROWS else CONFUSIONS,
        "class_names": names,
        "scores": scores(outcome, names),
    }


def weighs_classes(recipe: dict[str, Any]) -> bool:
    """Whether a recipe, perhaps of an older version, makes small classes count as much as large ones."""
    weights = recipe["objective"].get("class_weights")
    return bool(recipe["data"].get("balanced_sampling")) or weights == "balanced"


def origin(recipe: dict[str, Any], metadata: Mapping[str, Any]) -> str:
    """What was trained, and what the training started from."""
    weights = recipe["model"].get("weights")
    if weights is None:
        return "a Vision Transformer trained from scratch"
    source = metadata.get("source", weights)
    if "backbone" in recipe["optimizer"]["frozen"]:
        return f"a linear probe on {source}"
    return f"a Vision Transformer fine-tuned from {source}"


def charts(rows: list[dict[str, Any]], kept: dict[str, Any] | None) -> list[Chart]:
    """Loss and accuracy by epoch; the epoch whose model was kept is marked."""
    epochs = [float(row["epoch"]) for row in rows]
    made = []
    for name, ceiling, text in (("loss", None, "{:.3g}".format), ("accuracy", 1.0, "{:.0%}".format)):
        lines = [
            Curve("training", [row[f"train_{name}"] for row in rows], "train"),
            Curve("validation", [row[f"val_{name}"] for row in rows], "validation"),
        ]
        value = None if kept is None else kept[f"val_{name}"]  # None too if it was not finite
        marked = None if kept is None or value is None else (float(kept["epoch"]), float(value))
        made.append(line_chart(name.capitalize(), epochs, lines, text, ceiling, marked))
    return made


def cards(classifier: Classifier, split: Split, outcome: Outcome) -> list[dict[str, Any]]:
    """A dozen images with their predictions, and the attention of the last block."""
    names, preprocessing = classifier.class_names or (), classifier.preprocessing
    chosen, shown = [], []
    for example in choose_examples(outcome):
        with suppress(BadImage):  # it may have been removed since the test
            shown.append(split.load.view(int(outcome.places[example]), preprocessing))
            chosen.append(example)
    if not chosen:
        return []
    pixels = torch.stack(shown)
    images = preprocessing.normalize(pixels.to(classifier.device))
    attention = attention_maps(classifier.model, images, blocks=[-1])[:, 0].cpu().numpy()
    height, width = pixels.shape[2:]
    return [
        {
            "name": split.names[outcome.places[i]],
            "photo": photo(as_image(image), PHOTO_SIDE),
            "crisp": max(height, width) <= CRISP,
            "ratio": f"{width}/{height}",
            "true": names[outcome.labels[i]],
            "predicted": names[outcome.predictions[i]],
            "correct": outcome.predictions[i] == outcome.labels[i],
            "top": list(zip([names[j] for j in outcome.classes[i]], outcome.probabilities[i].tolist(), strict=True)),
            "mean": map_view(maps.mean(axis=0)),
            "heads": [map_view(head) for head in maps],
        }
        for i, image, maps in zip(chosen, pixels.numpy(), attention, strict=True)
    ]


def choose_examples(outcome: Outcome) -> list[int]:
    """The samples to show: mistakes first, the most confident on top, then correct ones from all classes."""
    is_wrong = outcome.predictions != outcome.labels
    wrong, right = np.flatnonzero(is_wrong), np.flatnonzero(~is_wrong)
    wrong = wrong[np.argsort(-outcome.probabilities[wrong, 0], kind="stable")]
    wrong = wrong[: max(MOST_WRONG, EXAMPLES - len(right))]
    count = min(len(right), EXAMPLES - len(wrong))
    return [*wrong.tolist(), *right[spread(len(right), count)].tolist()]  # samples are sorted by class


def map_view(weights: Float[ndarray, "rows columns"]) -> dict[str, Any]:
    """A map with the place of its maximum, which counts from 1."""
    row, column = np.unravel_index(weights.argmax(), weights.shape)
    return {
        "picture": attention_picture(weights / max(weights.max(), 1e-12)),
        "peak": float(weights.max()),
        "row": int(row) + 1,
        "column": int(column) + 1,
        "grid": weights.shape,
    }


def confused(outcome: Outcome, names: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """The most frequent mistakes: (true class, predicted class, count)."""
    pairs = confusions(outcome.labels, outcome.predictions)
    errors = pairs[pairs[:, 0] != pairs[:, 1]]
    most = errors[np.argsort(-errors[:, 2], kind="stable")[:MOST_CONFUSED]]
    return [(names[true], names[predicted], count) for true, predicted, count in most.tolist()]


def matrix(outcome: Outcome, names: tuple[str, ...]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The rows of the confusion matrix: a class and its cells."""
    counts = confusion_matrix(outcome.labels, outcome.predictions, len(names)).tolist()
    return [(names[i], [cell(count, sum(row), i == j) for j, count in enumerate(row)]) for i, row in enumerate(counts)]


def cell(count: int, total: int, correct: bool) -> dict[str, Any]:
    """A cell of the confusion matrix, shaded by its share of the row."""
    if not count:
        return {"text": "0" if correct else "·", "style": ""}
    share = count / total
    style = "miss" if not correct else "hit full" if share > 0.5 else "hit"
    return {"text": str(count), "style": style, "share": f"{share:.3f}"}


def scores(outcome: Outcome, names: tuple[str, ...]) -> list[tuple[str, ClassScore]]:
    """Each class with its scores; of very many classes, those with the lowest F1."""
    scored = list(zip(names, per_class(outcome.labels, outcome.predictions, len(names)), strict=True))
    if len(scored) > MOST_CLASSES:
        scored = sorted(scored, key=lambda pair: pair[1].f1 or 0.0)[:MOST_CLASSES]
    return scored


def model_numbers(config: ViTConfig) -> dict[str, str]:
    """The shape of the model and its cost."""
    c = config
    rows, columns = c.grid
    prefix = f" + {c.prefix_tokens}" if c.prefix_tokens else ""
    return {
        "Parameters": f"{parameter_count(c):,}",
        "Multiply-adds per image": f"{nominal_multiply_adds(c):,}",
        "Image": "×".join(map(str, c.image_size)) + " pixels",
        "Patches": f"{rows}×{columns}, each of {'×'.join(map(str, c.token_stride))} pixels",
        "Tokens": f"{rows * columns}{prefix}" + (" (class token)" if c.class_token and c.prefix_tokens == 1 else ""),
        "Width": f"{c.width:,}",
        "Blocks": f"{c.depth}",
        "Heads": f"{c.num_heads}, each {c.head_dim} wide",
        "MLP": f"{c.mlp_dim:,}",
        "Position embedding": c.position_embedding.replace("_", " "),
        "Head reads": readout_name(c),
    }


def training_numbers(recipe: dict[str, Any]) -> dict[str, str]:
    """The main settings of the recipe."""
    optimizer, schedule, augmentation = recipe["optimizer"], recipe["schedule"], recipe["augmentation"]
    smallest, largest = augmentation["crop_scale"]
    warmup = f"{schedule['warmup_epochs']:g} epochs"
    if schedule.get("warmup_steps") is not None:
        warmup = f"{schedule['warmup_steps']:,} steps"
    decay = schedule["decay"] if schedule["decay"] == "constant" else f"{schedule['decay']} decay"
    return {
        "Optimizer": f"{ALGORITHMS[optimizer['algorithm']]}, weight decay {optimizer['weight_decay']:g}",
        "Learning rate": f"{optimizer['lr']:g}, {warmup} of warmup, then {decay}",
        "Batch": f"{recipe['data']['batch_size']:,} images",
        "Random crops": f"{smallest:.0%} to {largest:.0%} of the area{', flips' if augmentation['flip'] else ''}",
        "Label smoothing": f"{recipe['objective']['label_smoothing']:g}",
        "Seed": f"{recipe['run']['seed']}",
    }


def same_again(folder: Path, data: str) -> str:
    """A command that repeats the run, in a folder next to it."""
    is_named = folder.name not in ("", "..")
    again = (folder.parent if is_named else folder / "..") / f"{folder.resolve().name}-again"
    words = ["vitreous", "train", data, "--recipe", str(folder / "recipe.toml"), "--out", str(again)]
    return shlex.join(map(printable, words))
