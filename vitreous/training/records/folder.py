"""A run's folder: its files, and how they are written."""

import csv
import errno
import io
import json
import math
import os
import shlex
import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Self

from filelock import BaseFileLock, FileLock, Timeout

from vitreous.checkpoints.files.layout import MODEL_FILE
from vitreous.data.sources.splits import Split
from vitreous.support.counts import too_many_broken
from vitreous.support.errors import InputError
from vitreous.support.files import write_json, write_text
from vitreous.support.text import csv_cell
from vitreous.training.parallel.group import Group

RECIPE, ENVIRONMENT, METRICS, BAD_FILES = "recipe.toml", "environment.json", "metrics.jsonl", "bad_files.csv"
FIRST_BATCH = "train_batch.png"
TENSORBOARD, CHECKPOINTS = "tensorboard", "checkpoints"  # folders
LOCK = ".lock"  # held by the process whose folder it is; the system releases it when that process ends
BAD_FILES_HEADER = ("split", "file", "reason")


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Args:
        path: of the folder.
        is_new: whether the run created it.
        lock: held until `release`, so that no other run writes to the folder.
    """

    path: Path
    is_new: bool = False
    lock: BaseFileLock | None = None

    @classmethod
    def claimed(cls, path: Path, group: Group, again: bool = False) -> Self:
        """Claims a new folder for a group of processes, or with `again` that of a run; the first one holds the lock.

        Raises:
            InputError: as `create` or `reopen`, on all ranks; or some rank does not see the folder.
        """
        folder = group.agree(lambda: (cls.reopen(path) if again else cls.create(path)) if group.leads else cls(path))

        def look() -> None:
            if not path.is_dir():
                cause = f"the run's folder {str(path)!r} is not visible from {socket.gethostname()}"
                raise InputError(cause, "choose one with --out on a disk that all machines of the run see")

        try:
            group.agree(look)
        except InputError:
            folder.release()
            raise
        return folder

    @classmethod
    def create(cls, path: Path) -> Self:
        """Creates the folder and its parents, and claims it for this process.

        It may contain the list of broken images of a stopped run, which this run replaces.

        Raises:
            InputError: another run writes to it, it contains anything else, or it cannot be created.
        """
        lock = FileLock(path / LOCK, timeout=0, is_singleton=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = _make(path)
            lock.acquire()
            used = is_used(path)
        except Timeout as error:
            cause = f"another run is writing to the folder {str(path)!r}"
            raise InputError(cause, "choose another with --out; several processes of one run need torchrun") from error
        except OSError as error:
            cause = f"cannot create the folder {str(path)!r}: {error.strerror}"
            raise InputError(cause, "choose another with --out") from error
        folder = cls(path, is_new, lock)
        if used:
            folder.release()
            raise used_folder(path)
        return folder

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """Claims the folder of a run for this process, to go on with it.

        Raises:
            InputError: it is not a run's folder, or another process writes to it.
        """
        if not (path / RECIPE).is_file():
            cause = f"there is no run in {str(path)!r}" if path.is_dir() else f"there is no folder {str(path)!r}"
            raise InputError(cause, "give the folder that training wrote to, such as runs/photos")
        lock = FileLock(path / LOCK, timeout=0, is_singleton=False)
        try:
            lock.acquire()
        except Timeout as error:
            cause = f"another process is writing to the folder {str(path)!r}"
            raise InputError(cause, "wait until it ends, or stop it") from error
        except OSError as error:
            cause = f"cannot write to the folder {str(path)!r}: {error.strerror}"
            raise InputError(cause, "make it writable, or copy it to another disk") from error
        return cls(path, is_new=False, lock=lock)

    def release(self) -> None:
        """Gives up the claim; the folder stays as it is."""
        if self.lock is not None:
            with suppress(OSError):  # the folder may be gone
                (self.path / LOCK).unlink(missing_ok=True)  # first: whoever waits for it sees that it is gone
            self.lock.release()

    @property
    def model(self) -> Path:
        """The one complete model, best on validation."""
        return self.path / MODEL_FILE

    @property
    def has_checkpoint(self) -> bool:
        """Whether a checkpoint was finished."""
        return any((self.path / CHECKPOINTS).glob("[0-9]*/SHA256SUMS"))

    def clear(self) -> None:
        """Removes what a run wrote before it had a model, except the list of broken images, and gives up the claim."""
        for name in (RECIPE, ENVIRONMENT, METRICS, FIRST_BATCH):
            (self.path / name).unlink(missing_ok=True)
        for name in (TENSORBOARD, CHECKPOINTS):
            shutil.rmtree(self.path / name, ignore_errors=True)
        self.release()
        if self.is_new:
            with suppress(OSError):  # not empty: it has the list, or files that are not the run's
                self.path.rmdir()

    def restart(self) -> None:
        """Removes what an earlier process wrote of a run that starts afresh."""
        for name in (METRICS, FIRST_BATCH, MODEL_FILE):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / TENSORBOARD, ignore_errors=True)

    def environment(self) -> dict[str, Any]:
        """What environment.json says; if it is missing or damaged, only that the run has not finished."""
        with suppress(OSError, ValueError):
            content = json.loads((self.path / ENVIRONMENT).read_bytes())
            if isinstance(content, dict):
                return content
        return {"finished": None}

    def update_environment(
        self, resumed: Mapping[str, Any] | None = None, finished: str | None = None, job: str | None = None
    ) -> None:
        """Records in environment.json that the run goes on, in which job, or has finished."""
        content = self.environment()
        content["finished"] = finished
        if job is not None:
            content["job"] = job
        if resumed is not None:
            content["resumed"] = [*content.get("resumed", []), resumed]
        write_json(self.path / ENVIRONMENT, content)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Adds a line, a JSON object; numbers that are not finite become null, since JSON has no nan.

        Raises:
            InputError: the disk is full; the line is not there then.
        """
        path = self.path / METRICS
        with path.open("ab", buffering=0) as file:
            end, line = file.tell(), json_line(row).encode()
            try:
                if file.write(line) < len(line):  # only a full disk takes a part
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                file.truncate(end)
                cause = f"cannot write {str(path)!r}: {error.strerror}"
                raise InputError(cause, "choose a writable folder with free space") from error

    def write_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes these lines in place of all that are there."""
        write_text(self.path / METRICS, "".join(map(json_line, rows)))

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
    totals: dict[str, int] = field(default_factory=dict)  # split -> its images, broken ones included

    @property
    def count(self) -> int:
        """Broken images in all splits."""
        return sum(map(len, self.reasons.values()))

    def add(self, split: Split, bad: list[tuple[str, str]]) -> None:
        """Adds the broken images of a batch.

        Raises:
            InputError: there are too many.
        """
        self.record(split, bad)
        self.check(split.name)

    def record(self, split: Split, bad: list[tuple[str, str]]) -> None:
        """Adds broken images, however many there are."""
        self.totals.setdefault(split.name, len(split))  # later, the broken ones may be left out
        self.reasons.setdefault(split.name, {}).update(bad)

    def check(self, split: str) -> None:
        """Raises InputError if too many images of a split are broken."""
        if self.has_too_many(split):
            name, reason = next(iter(self.reasons[split].items()))
            raise InputError(
                f"{len(self.reasons[split])} of the {self.totals[split]} {split} images are broken, "
                f"more than max_bad_fraction = {self.max_fraction:g} allows; the first: {name!r} {reason}",
                f"see {self.folder.path / BAD_FILES}; remove them, or set a higher max_bad_fraction",
            )

    def has_too_many(self, split: str) -> bool:
        """Whether more images of a split are broken than are tolerated."""
        return too_many_broken(len(self.reasons.get(split, ())), self.totals.get(split, 0), self.max_fraction)

    def tolerant(self) -> Self:
        """The same list, to which any number can be added."""
        return replace(self, max_fraction=1.0)

    def state_dict(self) -> dict[str, Any]:
        """The broken images so far."""
        return {"reasons": {split: dict(names) for split, names in self.reasons.items()}, "totals": dict(self.totals)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a `state_dict`."""
        self.reasons = {split: dict(names) for split, names in state["reasons"].items()}
        self.totals = dict(state["totals"])

    def write(self) -> None:
        """Writes bad_files.csv."""
        rows = [(split, name, why) for split, reasons in self.reasons.items() for name, why in reasons.items()]
        self.folder.write_csv(BAD_FILES, [BAD_FILES_HEADER, *sorted(rows)])


def json_line(row: Mapping[str, Any]) -> str:
    """A row of metrics.jsonl."""
    values = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    return json.dumps(values) + "\n"


def check_unused(path: Path) -> None:
    """Raises InputError for a folder that a run cannot use, as `create` does, before any work; creates nothing."""
    with suppress(OSError):  # `create` says what is wrong
        if path.is_dir() and not (path / LOCK).exists() and is_used(path):
            raise used_folder(path)


def is_used(path: Path) -> bool:
    """Whether a folder has anything but the list of broken images of a stopped run."""
    return any(inside.name != LOCK and not is_bad_files(inside) for inside in path.iterdir())


def used_folder(path: Path) -> InputError:
    """The error for a folder that has files: what it can be used for, and where to write instead."""
    other = f"--out {shlex.quote(str(free_name(path)))}"
    if is_unfinished(path):
        resume = shlex.join(["vitreous", "train", "--resume", str(path)])
        return InputError(
            f"the folder {str(path)!r} has a run that has not finished", f"go on with it: {resume}; or {other}"
        )
    if (path / MODEL_FILE).is_file():
        predict = shlex.join(["vitreous", "predict", str(path), "IMAGES"])
        cause = f"the folder {str(path)!r} already has a trained model"
        return InputError(cause, f"predict with it: {predict}; or train another model: {other}")
    return InputError(f"the folder {str(path)!r} is not empty", f"choose a new one, such as {other}, or remove it")


def is_unfinished(path: Path) -> bool:
    """Whether a folder has a run that can go on."""
    folder = RunFolder(path)
    return folder.has_checkpoint and folder.environment().get("finished", True) is None  # True: older than checkpoints


def free_name(path: Path) -> Path:
    """The first of photos-2, photos-3, … next to a folder photos that does not exist."""
    named = path if path.name not in ("", "..") else path.resolve()
    return next(other for n in count(2) if not (other := named.with_name(f"{named.name}-{n}")).exists())


def _make(path: Path) -> bool:
    """Creates a folder; returns whether it was not there."""
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
        return False
    return True


def is_bad_files(path: Path) -> bool:
    """Whether this is a run's list of broken images."""
    if path.name != BAD_FILES or path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline(100) == ",".join(BAD_FILES_HEADER).encode() + b"\n"
