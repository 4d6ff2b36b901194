"""A run's folder: its files, and how they are written."""

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
from vitreous.data.sources.splits import Split
from vitreous.support.errors import InputError
from vitreous.support.files import write_text
from vitreous.support.text import csv_cell

RECIPE, ENVIRONMENT, METRICS, BAD_FILES = "recipe.toml", "environment.json", "metrics.jsonl", "bad_files.csv"
FIRST_BATCH = "train_batch.png"
TENSORBOARD = "tensorboard"  # a folder
BAD_FILES_HEADER = ("split", "file", "reason")
FEW = 3  # fewer broken images of a split never stop a run, unless none are allowed


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Args:
        path: of the folder.
        is_new: whether the run created it.
    """

    path: Path
    is_new: bool = False

    @classmethod
    def create(cls, path: Path) -> Self:
        """Creates the folder and its parents.

        It may contain the list of broken images of a stopped run, which this run replaces.

        Raises:
            InputError: it contains anything else, or cannot be created.
        """
        try:
            is_new = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            used = any(not is_bad_files(inside) for inside in path.iterdir())
        except OSError as error:
            cause = f"cannot create the folder {str(path)!r}: {error.strerror}"
            raise InputError(cause, "choose another with --out") from error
        if used:
            raise InputError(f"the folder {str(path)!r} is not empty", "choose a new one with --out, or remove it")
        return cls(path, is_new)

    @property
    def model(self) -> Path:
        """The one complete model, best on validation."""
        return self.path / MODEL_FILE

    def clear(self) -> None:
        """Removes what a run wrote before it had a model, except the list of broken images."""
        for name in (RECIPE, ENVIRONMENT, METRICS, FIRST_BATCH):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / TENSORBOARD, ignore_errors=True)
        if self.is_new:
            with suppress(OSError):  # not empty: it has the list, or files that are not the run's
                self.path.rmdir()

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Adds a line, a JSON object; numbers that are not finite become null, since JSON has no nan."""
        values = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
        }
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def write_csv(self, name: str, rows: Iterable[Sequence[object]]) -> None:
        """Writes a table, atomically; its cells are inert in spreadsheets."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([csv_cell(cell) for cell in row] for row in rows)
        write_text(self.path / name, text.getvalue())


@dataclass
class BadFiles:
    """The broken images of a run: skipped, listed in bad_files.csv, and tolerated up to a fraction.

    One or two per split are always tolerated, unless the fraction is 0: in a small split they are a large fraction.

    Args:
        folder: of the run.
        max_fraction: of a split that may be broken.
    """

    folder: RunFolder
    max_fraction: float
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)  # split -> name -> reason

    @property
    def count(self) -> int:
        """Broken images in all splits."""
        return sum(map(len, self.reasons.values()))

    def add(self, split: Split, bad: list[tuple[str, str]]) -> None:
        """Adds the broken images of a batch.

        Raises:
            InputError: there are too many.
        """
        reasons = self.reasons.setdefault(split.name, {})
        reasons.update(bad)
        least = FEW if self.max_fraction else 1
        if len(reasons) >= least and len(reasons) > self.max_fraction * len(split):
            raise InputError(
                f"{len(reasons)} of the {len(split)} {split.name} images are broken so far, "
                f"more than max_bad_fraction = {self.max_fraction:g} allows",
                f"see {self.folder.path / BAD_FILES}; remove them, or set a higher max_bad_fraction",
            )

    def write(self) -> None:
        """Writes bad_files.csv."""
        rows = [(split, name, why) for split, reasons in self.reasons.items() for name, why in reasons.items()]
        self.folder.write_csv(BAD_FILES, [BAD_FILES_HEADER, *sorted(rows)])


def is_bad_files(path: Path) -> bool:
    """Whether this is a run's list of broken images."""
    if path.name != BAD_FILES or path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline(100) == ",".join(BAD_FILES_HEADER).encode() + b"\n"
