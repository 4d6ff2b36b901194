"""The report of a run: its result, how it learned, what it confuses, and where it looks."""

import json
import tomllib
from pathlib import Path

from vitreous.classifier import Classifier
from vitreous.data.sources.splits import ImageData
from vitreous.evaluation.metrics import Outcome
from vitreous.pages.report.view import result_view, run_view, weighs_classes
from vitreous.pages.templates import render
from vitreous.support.errors import InputError
from vitreous.support.files import write_text

REPORT = "report.html"


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
    metrics = [json.loads(line) for line in read(folder / "metrics.jsonl").splitlines()]
    rows = [row for row in metrics if "train_loss" in row]  # the last row is of the test split
    recipe, environment = read(folder / "recipe.toml"), json.loads(read(folder / "environment.json"))
    about_run = run_view(folder, data, rows, recipe, environment, classifier)
    about_result = result_view(classifier, split, outcome, weighs_classes(tomllib.loads(recipe)))
    write_text(folder / REPORT, render("report", {**about_run, **about_result}))
    return folder / REPORT


def read(path: Path) -> str:
    """The text of a file in a run's folder.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", "give the folder of a finished run") from error
