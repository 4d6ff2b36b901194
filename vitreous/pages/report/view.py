"""What the report shows, section by section, as plain values for `report/report.html`."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from vitreous.data.sources.open import ImageData
from vitreous.evaluation.metrics import Outcome, confusion_matrix, per_class
from vitreous.explain.attention_maps import readout_name
from vitreous.explain.inline import CRISP
from vitreous.model.config import ViTConfig
from vitreous.model.cost import nominal_multiply_adds, parameter_count
from vitreous.pages.pictures import as_image, attention_picture, photo
from vitreous.pages.report.charts import Chart, Line, line_chart
from vitreous.support.text import printable
from vitreous.training.records.display import duration

MOST_COLUMNS = 25  # classes up to which the confusion matrix is shown
MOST_CLASSES = 100  # classes up to which all have scores; of more, those with the lowest F1
MOST_CONFUSED = 8  # pairs
PHOTO_SIDE = 224  # pixels of an example
ALGORITHMS = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}


@dataclass(frozen=True, eq=False)
class Example:
    """One image with its prediction.

    Args:
        name: of the image.
        label: its true class.
        top: (class, probability), the top class first.
        pixels: as the model sees them.
        attention: of each head in the last block.
    """

    name: str
    label: int
    top: list[tuple[int, float]]
    pixels: UInt8[ndarray, "channels height width"]
    attention: Float[ndarray, "heads rows columns"]


@dataclass(frozen=True, eq=False)
class Report:
    """What is known about a run.

    Args:
        data: that the model was trained on.
        folder: of the run.
        split: the name of the evaluated split.
        outcome: of that split.
        config: the model's.
        metadata: the model's.
        rows: of metrics.jsonl, one per epoch.
        recipe_text: recipe.toml.
        recipe: its tables.
        environment: environment.json.
        examples: images to show.
    """

    data: ImageData
    folder: Path
    split: str
    outcome: Outcome
    config: ViTConfig
    metadata: dict[str, Any]
    rows: list[dict[str, Any]]
    recipe_text: str
    recipe: dict[str, Any]
    environment: dict[str, Any]
    examples: list[Example]


def view(report: Report) -> dict[str, Any]:
    """The variables of the template."""
    data, outcome, names = report.data, report.outcome, report.data.class_names
    kept_epoch = report.metadata.get("epoch")
    kept = next((row for row in report.rows if row["epoch"] == kept_epoch), None)
    counts = confusion_matrix(outcome.labels, outcome.predictions, len(names))
    return {
        "title": title(report),
        "split": report.split,
        "outcome": outcome,
        "has_test": data.test is not None,
        "facts": {
            "Classes": f"{len(names):,}",
            "Training images": f"{len(data.train):,}",
            "Validation images": f"{len(data.validation):,}",
            "Parameters": f"{parameter_count(report.config):,}",
            "Epochs": f"{len(report.rows):,}",
            "Training time": duration(report.rows[-1]["seconds"]),
        },
        "charts": charts(report.rows, kept),
        "kept_epoch": None if kept is None else kept["epoch"],
        "from_class_token": report.config.pooling == "class_token",
        "mistakes": len(outcome.labels) - outcome.correct,
        "cards": [card(example, names) for example in report.examples],
        "confused": confused(counts, names),
        "matrix": matrix(counts, names) if len(names) <= MOST_COLUMNS else None,
        "class_names": names,
        "scores": scores(counts, names),
        "model": model_numbers(report.config),
        "training": training_numbers(report.recipe),
        "again": same_again(report),
        "recipe_lines": report.recipe_text.splitlines(),
        "environment": environment(report.environment),
    }


def title(report: Report) -> str:
    """The data, and what the training started from."""
    name = Path(report.data.name).name or report.data.name
    weights = report.recipe["model"].get("weights")
    if weights is None:
        return f"{name}: a Vision Transformer trained from scratch"
    source = report.metadata.get("source", weights)
    if "backbone" in report.recipe["optimizer"]["frozen"]:
        return f"{name}: a linear probe on {source}"
    return f"{name}: a Vision Transformer fine-tuned from {source}"


def charts(rows: list[dict[str, Any]], kept: dict[str, Any] | None) -> list[Chart]:
    """Loss and accuracy by epoch; the epoch whose model was kept is marked."""
    epochs = [float(row["epoch"]) for row in rows]
    made = []
    for name, ceiling, text in (("loss", None, "{:.3g}".format), ("accuracy", 1.0, "{:.0%}".format)):
        lines = [
            Line("training", [row[f"train_{name}"] for row in rows], "train"),
            Line("validation", [row[f"val_{name}"] for row in rows], "validation"),
        ]
        value = None if kept is None else kept[f"val_{name}"]  # None too if it was not finite
        marked = None if kept is None or value is None else (float(kept["epoch"]), float(value))
        made.append(line_chart(name.capitalize(), epochs, lines, text, ceiling, marked))
    return made


def card(example: Example, names: tuple[str, ...]) -> dict[str, Any]:
    """One image with its prediction and attention maps."""
    height, width = example.pixels.shape[1:]
    return {
        "name": example.name,
        "photo": photo(as_image(example.pixels), PHOTO_SIDE),
        "crisp": max(height, width) <= CRISP,
        "ratio": f"{width}/{height}",
        "true": names[example.label],
        "predicted": names[example.top[0][0]],
        "correct": example.top[0][0] == example.label,
        "top": [(names[i], share, f"{share:.1%}") for i, share in example.top],
        "mean": attention_map(example.attention.mean(axis=0)),
        "heads": [attention_map(head) for head in example.attention],
    }


def attention_map(weights: Float[ndarray, "rows columns"]) -> dict[str, Any]:
    """A map with the place of its maximum, which counts from 1."""
    row, column = np.unravel_index(weights.argmax(), weights.shape)
    return {
        "picture": attention_picture(weights / max(weights.max(), 1e-12)),
        "peak": float(weights.max()),
        "row": int(row) + 1,
        "column": int(column) + 1,
        "grid": weights.shape,
    }


def confused(counts: ndarray, names: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """The most frequent mistakes: (true class, predicted class, count)."""
    errors = counts - np.diag(counts.diagonal())
    order = np.argsort(-errors, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = zip(*np.unravel_index(order, errors.shape), strict=True)
    return [(names[i], names[j], int(errors[i, j])) for i, j in pairs if errors[i, j]]


def matrix(counts: ndarray, names: tuple[str, ...]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The rows of the confusion matrix: a class and its cells."""
    return [
        (names[i], [cell(count, sum(row), i == j) for j, count in enumerate(row)])
        for i, row in enumerate(counts.tolist())
    ]


def cell(count: int, total: int, correct: bool) -> dict[str, Any]:
    """A cell of the confusion matrix, shaded by its share of the row."""
    if not count:
        return {"text": "0" if correct else "·", "style": ""}
    share = count / total
    style = "miss" if not correct else "hit full" if share > 0.5 else "hit"
    return {"text": str(count), "style": style, "share": f"{share:.3f}"}


def scores(counts: ndarray, names: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Each class with its scores; of very many classes, those with the lowest F1."""
    scored = list(zip(names, per_class(counts), strict=True))
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


def same_again(report: Report) -> str:
    """A command that repeats the run, in a folder next to it."""
    folder = report.folder
    is_named = folder.name not in ("", "..")
    again = (folder.parent if is_named else folder / "..") / f"{folder.resolve().name}-again"
    words = ["vitreous", "train", report.data.name, "--recipe", str(folder / "recipe.toml"), "--out", str(again)]
    return shlex.join(map(printable, words))


def environment(facts: dict[str, Any]) -> list[str]:
    """Versions, machine and date."""
    host = facts.get("host", {})
    return [
        f"vitreous {facts.get('vitreous', '')}",
        f"torch {host.get('torch', '')}",
        f"{host.get('cpu', '')}, {host.get('cores', '')} cores",
        f"on {facts.get('device', '')}",
        str(facts.get("begun", "")),
    ]
