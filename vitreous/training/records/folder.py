"""A run's folder: what lies where, and how it is written."""

import csv
import io
import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from vitreous.checkpoints.files.layout import MODEL_FILE
from vitreous.data.sources.open import Split
from vitreous.support.errors import InputError
from vitreous.support.files import write_text
from vitreous.support.text import csv_cell

RECIPE, ENVIRONMENT, METRICS, BAD_FILES = "recipe.toml", "environment.json", "metrics.jsonl", "bad_files.csv"
FIRST_BATCH = "train_batch.png"
TENSORBOARD = "tensorboard"  # a folder
BAD_FILES_HEADER = ("split", "file", "reason")
FEW = 3  # broken images of a split that never stop a run are fewer, unless none may be broken


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Args:
        path: of the folder.
        is_new: it was not there before the run.
    """

    path: Path
    is_new: bool = False

    @classmethod
    def create(cls, path: Path) -> Self:
        """Makes the folder and those above it.

        The list of broken images that a stopped run left may be in it; this run writes it anew.

        Raises:
            InputError: it holds something else already, or cannot be made.
        """
        try:
            is_new = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            used = any(not is_bad_files(inside) for inside in path.iterdir())
        except OSError as error:
            raise InputError(
                f"cannot make the folder {str(path)!r}: {error.strerror}", "give another with --out"
            ) from error
        if used:
            raise InputError(f"the folder {str(path)!r} is used", "give a new one with --out, or remove it")
        return cls(path, is_new)

    @property
    def model(self) -> Path:
        """The one complete model, best on validation."""
        return self.path / MODEL_FILE

    @property
    def metrics(self) -> Path:
        """A JSON object for each epoch, and a last one for the test."""
        return self.path / METRICS

    def clear(self) -> None:
        """Takes back what a run wrote that was stopped before there was a model, but the list of broken images."""
        for name in (RECIPE, ENVIRONMENT, METRICS, FIRST_BATCH):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / TENSORBOARD, ignore_errors=True)
        if self.is_new:
            with suppress(OSError):  # there is something in it: the list, or what another put there
                self.path.rmdir()

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Adds a line; what is not finite becomes null, since JSON has no nan."""
        values = {key: None if is_not_finite(value) else value for key, value in row.items()}
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def write_csv(self, name: str, rows: Iterable[Sequence[object]]) -> None:
        """Writes a table, atomically; its cells are inert in spreadsheets."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([csv_cell(cell) for cell in row] for row in rows)
        write_text(self.path / name, text.getvalue())


@dataclass
class BadFiles:
    """The broken images that a run met: skipped, listed in bad_files.csv, and tolerated up to a share.

    One or two of a split are tolerated in any case, unless the share is 0: of few images they are many.

    Args:
        folder: of the run.
        max_fraction: the share of a split that may be broken.
    """

    folder: RunFolder
    max_fraction: float
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)  # split -> name -> reason

    @property
    def count(self) -> int:
        """Images that are broken, in all splits."""
        return sum(map(len, self.reasons.values()))

    def add(self, split: Split, bad: list[tuple[str, str]]) -> None:
        """Notes the broken images of a batch.

        Raises:
            InputError: there are more than may be.
        """
        found = self.reasons.setdefault(split.name, {})
        found.update(bad)
        least = FEW if self.max_fraction else 1
        if len(found) >= least and len(found) > self.max_fraction * len(split):
            raise InputError(
                f"{len(found)} of the {len(split)} {split.name} images are broken so far, "
                f"more than max_bad_fraction = {self.max_fraction:g} allows",
                f"see {self.folder.path / BAD_FILES}; remove them, or set max_bad_fraction higher",
            )

    def write(self) -> None:
        """Writes bad_files.csv."""
        rows = [(split, name, why) for split, found in self.reasons.items() for name, why in found.items()]
        self.folder.write_csv(BAD_FILES, [BAD_FILES_HEADER, *sorted(rows)])


def is_bad_files(path: Path) -> bool:
    """Whether this is the list that a run writes of broken images."""
    if path.name != BAD_FILES or path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline(100) == ",".join(BAD_FILES_HEADER).encode() + b"\n"


def is_not_finite(value: object) -> bool:
    """Whether a value is nan or infinite."""
    return isinstance(value, float) and not math.isfinite(value)
