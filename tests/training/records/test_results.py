import csv
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.data.sources.open import open_data
from vitreous.evaluation.metrics import Outcome
from vitreous.training.recipe.recipe import Recipe
from vitreous.training.records import results
from vitreous.training.records.folder import RunFolder
from vitreous.training.records.results import Run, write_epochs, write_results


def finished(folder: Path, names: tuple[str, ...], samples: int = 40) -> Run:
    classes = len(names)
    labels = np.arange(samples) % classes
    predictions = np.where(np.arange(samples) % 5 == 0, 0, labels)
    rows = [
        {"epoch": e, "train_loss": 1 / e, "val_loss": 2 / e, "train_accuracy": 0.4, "val_accuracy": 0.1 * e}
        for e in (1, 2, 3)
    ]
    sure = np.ones((samples, 1), np.float32)
    outcome = Outcome(np.arange(samples), labels, predictions[:, None], sure, 0.5)
    data = replace(open_data("digits"), class_names=names)
    return Run(folder, data, Recipe(), rows, rows[2], outcome, "test")


def write(run: Run) -> None:
    """Writes all tables and pictures; none of them fails."""
    write_epochs(RunFolder(run.folder), run.rows, run.best, pytest.fail)
    write_results(run, pytest.fail)


@pytest.mark.parametrize(
    "names",
    [
        ("cat", "dog"),
        ("=cmd|'/c calc'!A0", "$\\frac{1", "<script>", "new\nline", "猫", "\x1b[31mred", "x" * 200),
        tuple(f"class{i}" for i in range(30)),
        tuple(f"class{i}" for i in range(100)),
    ],
)
def test_tables_and_pictures_for_any_class_names(tmp_path, names: tuple[str, ...]):
    write(finished(tmp_path, names))
    for picture in ("results.png", "confusion_matrix.png"):
        with Image.open(tmp_path / picture) as image:
            image.load()
            assert min(image.size) >= 300
            assert len(set(np.asarray(image.convert("L")).flat)) > 10, "something is drawn"
    for table in ("per_class.csv", "confusion_matrix.csv"):
        with (tmp_path / table).open(newline="") as file:
            rows = list(csv.reader(file))
        assert len(rows) == len(names) + 1
        assert not any(cell.startswith(("=", "+", "@")) for row in rows for cell in row)


def test_tables_hold_the_counts(tmp_path):
    write(finished(tmp_path, ("cat", "dog")))
    assert (tmp_path / "confusion_matrix.csv").read_text().splitlines() == [
        "true \\ predicted,cat,dog",
        "cat,20,0",
        "dog,4,16",
    ]
    assert (tmp_path / "per_class.csv").read_text().splitlines()[1:] == [
        f"cat,{20 / 24},1.0,{40 / 44},20",
        f"dog,1.0,0.8,{32 / 36},20",
    ]
    assert (tmp_path / "results.csv").read_text().splitlines()[:2] == [
        "epoch,train_loss,val_loss,train_accuracy,val_accuracy",
        "1,1.0,2.0,0.4,0.1",
    ]


def test_a_picture_that_fails_costs_a_line_and_no_table(tmp_path, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("no font\nat all")

    monkeypatch.setattr(results, "curves", fails)
    monkeypatch.setattr(results, "matrix_picture", fails)
    run, lines = finished(tmp_path, ("cat", "dog")), []
    write_epochs(RunFolder(tmp_path), run.rows, run.best, lines.append)
    write_results(run, lines.append)
    assert lines == [
        "warning: results.png could not be drawn: no font",
        "warning: confusion_matrix.png could not be drawn: no font",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"results.csv", "confusion_matrix.csv", "per_class.csv"}


def test_tables_of_many_classes_grow_with_the_samples(tmp_path):
    names = tuple(f"class{i}" for i in range(10_000))
    tracemalloc.start()
    write(finished(tmp_path, names, samples=20_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2 * 2**20
    with (tmp_path / "confusions.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["true", "predicted", "count"]
    assert sum(int(count) for _, _, count in rows) == 20_000
    assert [row for row in rows if row[0] == "class5"] == [["class5", "class0", "2"]]  # every fifth sample is missed
    assert not (tmp_path / "confusion_matrix.csv").exists()
    with Image.open(tmp_path / "confusion_matrix.png") as image:
        assert len(set(np.asarray(image.convert("L")).flat)) > 10
