"""The results of a run: `Run`, and its tables and pictures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vitreous.data.sources.splits import ImageData
from vitreous.evaluation.metrics import Outcome, confusion_matrix, confusions, per_class
from vitreous.support.fonts import drawable
from vitreous.support.text import shortened
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.records.folder import RunFolder
from vitreous.training.records.pictures import draw

TRAIN_COLOR, VALIDATION_COLOR, GRAY = "#9aa5b1", "#1f5fa8", "#555555"
MOST_COUNTS = 20  # classes up to which the matrix shows its numbers
MOST_NAMES = 60  # classes up to which it shows their names
MOST_ROWS = 500  # classes up to which there is a table of the whole matrix, and a row for each in the picture
MATRIX, CONFUSIONS = "confusion_matrix.csv", "confusions.csv"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: with everything the run wrote; `model.safetensors` in it is the model, best on validation.
        data: opened and split.
        recipe: resolved, as in recipe.toml.
        rows: of metrics.jsonl, one for each epoch.
        best: the row of the epoch whose model was kept.
        outcome: the kept model's predictions for the split; None if the run did not learn classes.
        split: "test", or "validation" if there is no test split.
    """

    folder: Path
    data: ImageData
    recipe: Recipe
    rows: list[dict[str, Any]]
    best: dict[str, Any]
    outcome: Outcome | None
    split: str


def write_epochs(
    folder: RunFolder, rows: Sequence[dict[str, Any]], best: dict[str, Any], notify: Callable[[str], None]
) -> None:
    """Writes results.csv and results.png, the epochs as a table and as curves.

    Args:
        folder: of the run.
        rows: of metrics.jsonl, one for each epoch.
        best: the row of the epoch whose model was kept.
        notify: called with a line if the picture fails.
    """
    columns = list(rows[0])
    folder.write_csv("results.csv", [columns, *([row[name] for name in columns] for row in rows)])
    draw(lambda: curves(rows, best), folder.path / "results.png", notify)


def write_results(run: Run, notify: Callable[[str], None]) -> None:
    """Writes the confusion matrix as table and picture, and per_class.csv, if the run learned classes.

    Of many classes the table lists the pairs that occur, in confusions.csv: its size grows with the samples, not with
    the square of the classes. The tables come first; `notify` is called with a line if a picture fails.
    """
    folder, outcome, class_names = RunFolder(run.folder), run.outcome, run.data.class_names
    if outcome is None:
        return
    scores = zip(class_names, per_class(outcome.labels, outcome.predictions, len(class_names)), strict=True)
    rows = [(name, s.precision, s.recall, s.f1, s.support) for name, s in scores]
    folder.write_csv("per_class.csv", [("class", "precision", "recall", "f1", "support"), *rows])

    each = math.ceil(len(class_names) / MOST_ROWS)  # classes in a row of the picture
    matrix = confusion_matrix(outcome.labels // each, outcome.predictions // each, math.ceil(len(class_names) / each))
    if each > 1:
        pairs = confusions(outcome.labels, outcome.predictions).tolist()
        listed = ((class_names[true], class_names[predicted], count) for true, predicted, count in pairs)
        folder.write_csv(CONFUSIONS, chain([("true", "predicted", "count")], listed))
    else:
        body = ([name, *row] for name, row in zip(class_names, matrix.tolist(), strict=True))
        folder.write_csv(MATRIX, chain([("true \\ predicted", *class_names)], body))
    title = f"{run.split}: {outcome.accuracy:.1%} of {len(outcome.labels):,} images right"
    title += f"; {each} classes in each row and column" if each > 1 else ""
    draw(lambda: matrix_picture(matrix, class_names, title), folder.path / "confusion_matrix.png", notify)


def curves(rows: Sequence[dict[str, Any]], best: dict[str, Any]) -> Figure:
    """Loss and accuracy by epoch, of training and validation; a ring marks the kept model."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        for split, label, color in (("train", "training", TRAIN_COLOR), ("val", "validation", VALIDATION_COLOR)):
            points = [(row["epoch"], value) for row in rows if (value := row[f"{split}_{name}"]) is not None]
            axes.plot(*zip(*points, strict=True), color=color, label=label, linewidth=1.6)
        kept = best["epoch"], best[f"val_{name}"]
        axes.plot(*kept, "o", color=VALIDATION_COLOR, markerfacecolor="white", markersize=6)
        axes.set_title(name, loc="left", fontsize=11)
        axes.set_xlabel("epoch", color=GRAY)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        plain(axes)
    accuracy.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    accuracy.legend(frameon=False, loc="lower right")
    return figure


def matrix_picture(matrix: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """The confusion matrix; a cell's color is its share of the row, so that rare classes show too."""
    classes = len(class_names)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(12.0, max(4.0, 2.2 + 0.42 * classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("predicted", color=GRAY)
    axes.set_ylabel("true", color=GRAY)
    if classes <= MOST_NAMES:
        names = [drawable(shortened(name), f"class {number}") for number, name in enumerate(class_names)]
        size = 9 if classes <= MOST_COUNTS else 6
        # A class may be called $a$; that is a name, not a formula.
        long = max(map(len, names)) > 2
        axes.set_xticks(range(classes), names, rotation=90 if long else 0, fontsize=size, parse_math=False)
        axes.set_yticks(range(classes), names, fontsize=size, parse_math=False)
    if classes <= MOST_COUNTS:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                color = "white" if shares[row, column] > 0.5 else GRAY
                axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=9)
    plain(axes)
    return figure


def plain(axes: Axes) -> None:
    """Removes frame and ticks."""
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.tick_params(length=0, colors=GRAY)
