"""A result: the facts of a finished run, in a JSON file that is kept with the code."""

import csv
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from vitreous import __version__
from vitreous.support.files import write_json, write_text
from vitreous.support.host import describe_host

FACTS = "facts.json"  # in the folder of a run other than `vitreous train`; written last
METRICS = "metrics.jsonl"  # in both kinds: a row for each epoch
MODEL, RECIPE = "model.safetensors", "recipe.toml"
HOST = ("cpu", "cores", "memory_bytes", "device", "python", "torch")


class Point(NamedTuple):
    """One epoch of a curve; None if not measured or not finite."""

    epoch: int
    seconds: float | None  # since training began
    cpu_seconds: float | None  # of the process since it began
    train_loss: float | None
    val_accuracy: float | None


@dataclass(frozen=True)
class Result:
    """A finished run.

    Args:
        command: its words, as the document shows them.
        seed: of the run.
        split: what the accuracy was measured on, "test" or "validation".
        accuracy: of the model that was best on validation; of hidden patches if there are no classes.
        correct: correctly classified images; None if there are no classes.
        count: images of the split; None if there are no classes.
        best_epoch: of that model; None if there are no epochs.
        wall_seconds: of the whole command; of the training alone if the folder was adopted.
        cpu_seconds: of the process and its children; None if the folder was adopted.
        images_seen: in training, with repetitions.
        curve: a point for each epoch.
        levels: the measurement at each of several levels, as its experiment names them: the accuracy of a few-shot
            probe by the images of a class, a class's probability by the share of patches deleted.
        host: the machine.
        date: when it began.
        version: of vitreous.
        recipe: a hash of the resolved recipe without its seed; None if there is none.
    """

    command: list[str]
    seed: int
    split: str
    accuracy: float
    correct: int | None
    count: int | None
    best_epoch: int | None
    wall_seconds: float
    cpu_seconds: float | None
    images_seen: int
    curve: list[Point]
    levels: dict[str, float] | None
    host: dict[str, Any]
    date: str
    version: str
    recipe: str | None

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Reads a file that `write` wrote."""
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values["curve"] = [Point(*point) for point in values["curve"]]
        return cls(**values)

    def write(self, path: Path) -> None:
        """Writes a JSON file of one line for each field, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in asdict(self).items())
        write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def write_facts(
    folder: Path,
    split: str,
    correct: int,
    count: int,
    *,
    best_epoch: int | None = None,
    images_seen: int = 0,
    levels: Mapping[str, float] | None = None,
) -> None:
    """Writes the facts of a run other than `vitreous train`; the arguments are fields of Result."""
    facts = {"split": split, "accuracy": correct / count, "correct": correct, "count": count}
    facts |= {"best_epoch": best_epoch, "images_seen": images_seen, "levels": levels and dict(levels), "recipe": None}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / FACTS, facts | {"host": machine_facts(describe_host()), "date": date, "version": __version__})


def is_finished(folder: Path) -> bool:
    """Whether a folder has everything that a finished run leaves."""
    if (folder / FACTS).is_file():
        return True
    if not ((folder / MODEL).is_file() and (folder / RECIPE).is_file()):
        return False
    recipe = tomllib.loads((folder / RECIPE).read_text(encoding="utf-8"))
    last = "results.png" if recipe["objective"]["goal"] == "masked_patch" else "per_class.csv"
    return (folder / last).is_file()


def read_facts(folder: Path) -> dict[str, Any]:
    """The fields of Result in a finished run's folder."""
    if (folder / FACTS).is_file():
        return json.loads((folder / FACTS).read_text(encoding="utf-8"))
    recipe = tomllib.loads((folder / RECIPE).read_text(encoding="utf-8"))
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    epochs = read_epochs(folder)
    best = best_row(epochs, recipe["schedule"].get("keep_by", "accuracy"))
    accuracy, correct, count = best["val_accuracy"], None, None
    if (folder / "confusion_matrix.csv").is_file():
        correct, count = read_matrix(folder / "confusion_matrix.csv")
        accuracy = correct / count
    images, batch = environment["images"]["train"], recipe["data"]["batch_size"]
    whole, rest = divmod(epochs[-1]["step"], math.ceil(images / batch))
    del recipe["run"]["seed"]
    return {
        "split": "test" if "test" in environment["images"] else "validation",
        "accuracy": accuracy,
        "correct": correct,
        "count": count,
        "best_epoch": best["epoch"],
        "images_seen": whole * images + rest * batch,
        "levels": None,
        "recipe": hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16],
        "host": machine_facts(environment["host"]),
        "date": environment["begun"],
        "version": environment["vitreous"],
    }


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl of epochs; none without such a file."""
    if not (folder / METRICS).is_file():
        return []
    lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if "train_loss" in row]


def best_row(rows: list[dict[str, Any]], keep_by: str = "accuracy") -> dict[str, Any]:
    """The row of the kept model: the best score on validation and, among equals, the lowest loss."""
    finite = [row for row in rows if row["val_loss"] is not None]
    if keep_by == "loss":
        return min(finite, key=lambda row: row["val_loss"])
    return max(finite, key=lambda row: (row[f"val_{keep_by}"], -row["val_loss"]))


def read_matrix(path: Path) -> tuple[int, int]:
    """The correct images, and all, from a confusion matrix with class names."""
    with path.open(encoding="utf-8", newline="") as file:
        counts = [[int(cell) for cell in row[1:]] for row in list(csv.reader(file))[1:]]
    return sum(row[place] for place, row in enumerate(counts)), sum(map(sum, counts))


def read_curve(folder: Path, cpu_seconds: list[float]) -> list[Point]:
    """A point for each epoch, with the processor time at its end if known."""
    rows = read_epochs(folder)
    times = [*cpu_seconds, *[None] * len(rows)][: len(rows)]
    return [
        Point(row["epoch"], rounded(row["seconds"], 1), rounded(cpu, 1), rounded(row["train_loss"], 4),
              rounded(row["val_accuracy"], 4))
        for row, cpu in zip(rows, times, strict=True)
    ]  # fmt: skip


def rounded(value: float | None, digits: int) -> float | None:
    """A number rounded to some digits, or None."""
    return None if value is None else round(value, digits)


def machine_facts(host: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a machine that matter for results."""
    return {name: host[name] for name in HOST}
