"""The log of a run: what it records, in its folder, on the terminal and for TensorBoard."""

import math
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from vitreous.evaluation.metrics import Outcome
from vitreous.support.errors import InputError
from vitreous.training.objectives.objective import Score, View
from vitreous.training.optimization.step import StepResult, Totals
from vitreous.training.parallel.group import ALONE_GROUP, Group
from vitreous.training.planning.plan import Plan
from vitreous.training.recipe.sections import KeepBy
from vitreous.training.records.display import Display
from vitreous.training.records.folder import FIRST_BATCH, BadFiles, RunFolder
from vitreous.training.records.meter import Meter
from vitreous.training.records.pictures import draw, picture
from vitreous.training.records.tensorboard import Board

CLASS_SCORES = ("balanced_accuracy", "macro_f1")  # that only an Outcome has


class NotFinite(InputError):
    """The loss is not finite: no state of the run is worth going on from."""


class Log:
    """What a run records. Use it as a context, around the epochs.

    When the context ends, the broken images are listed; if it ends with an error before a model or a checkpoint was
    saved, or before any loss was finite, everything else that the run wrote is removed.

    Args:
        folder: of the run, claimed by this process; or the path of a new or empty one.
        plan: of the run.
        display: shows the progress.
        group: the processes of the run. Each has a log of the same numbers; only the first one writes.

    Raises:
        InputError: the folder is not empty, or TensorBoard is requested and not installed; nothing is written then.

    Attributes:
        rows: of metrics.jsonl, one for each epoch.
        row: of an epoch whose updates are made, but not its validation; otherwise None.
        best: the row of the epoch whose model is kept so far.
        worse: validations since then.
        totals: sums over the updates of the current epoch.
        meter: the clock of the current epoch.
        pictured: whether the picture of the first batch was made.
        failure: what ended the training after a model was kept; it is raised when the results are written.
    """

    def __init__(self, folder: RunFolder | Path, plan: Plan, display: Display, group: Group = ALONE_GROUP) -> None:
        self.plan, self.display, self.group = plan, display, group
        path = folder if isinstance(folder, Path) else folder.path
        self.board = group.agree(lambda: Board(path, plan.recipe.run.tensorboard))
        self.folder = RunFolder.claimed(path, group) if isinstance(folder, Path) else folder
        self.bad_files = BadFiles(self.folder, plan.recipe.data.max_bad_fraction)
        self.rows: list[dict[str, Any]] = []
        self.row: dict[str, Any] | None = None
        self.best: dict[str, Any] | None = None
        self.worse = 0
        self.totals, self.meter = Totals(), Meter(plan)
        self.pictured = False
        self.failure: InputError | None = None
        self.before = 0.0  # seconds of the run before this process went on with it
        self.started: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.board.close()
        if not self.group.leads:
            return
        going_on = self.folder.has_checkpoint and not isinstance(error, NotFinite)
        failed = error is not None and not self.folder.model.exists() and not going_on
        with self.writing():
            if self.bad_files.count or not failed:
                self.bad_files.write()
        if failed:
            self.folder.clear()
        else:
            self.folder.release()
        if error is not None:
            for line in self.kept(isinstance(error, KeyboardInterrupt)):
                self.display.print(line)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The block writes results: if it fails, the run goes on to those that can be written, and fails in the end."""
        try:
            yield
        except InputError as error:
            self.fail(error)

    def fail(self, error: InputError) -> None:
        """Notes what the run fails with in the end; of several errors, the first."""
        self.failure = self.failure or error

    def kept(self, interrupted: bool) -> Iterator[str]:
        """What is left of a run that ends early; of an error before there is a model, the error says it all."""
        if self.folder.model.exists():
            epoch = "the model"
            if self.best is not None:
                epoch += f" of epoch {self.best['epoch']} (val accuracy {self.best['val_accuracy']:.1%})"
            yield f"{epoch} is kept: {self.folder.model}"
        elif interrupted:
            yield "no model is kept: no epoch was validated"
        if self.folder.has_checkpoint:
            resume = shlex.join(["vitreous", "train", "--resume", str(self.folder.path)])
            yield f"go on with: {self.group.place.launch}{resume}"

    @property
    def is_stalled(self) -> bool:
        """Whether the recipe's patience is over; never if it is 0."""
        return 0 < self.plan.recipe.schedule.patience <= self.worse

    @property
    def seconds(self) -> float:
        """The time of the run so far."""
        return self.before + (0.0 if self.started is None else time.perf_counter() - self.started)

    def begin_epoch(self, step: int) -> int:
        """Starts the clock of an epoch, or goes on with it after `step` updates in all; returns its number, from 1."""
        if self.started is None:
            self.started = time.perf_counter()
        epoch = len(self.rows) + 1
        self.display.begin_epoch(epoch, step)
        self.meter.start()
        return epoch

    def write_picture(self, views: Sequence[View]) -> None:
        """Writes train_batch.png, the first batch as the model sees it."""
        self.pictured = True
        if self.group.leads:
            draw(lambda: picture(views), self.folder.path / FIRST_BATCH, self.display.print)

    def add_step(self, step: int, lr: float, result: StepResult | None) -> None:
        """Adds an update, from 0, to the epoch's sums and the progress bar; None is one without a readable image."""
        if result is not None:
            self.totals.add(step, lr, result)
        self.display.step(step + 1, self.totals, self.meter)

    def end_updates(self, step: int) -> None:
        """Makes the row of an epoch without its validation, after `step` updates in all.

        Raises:
            InputError: none of its images could be read.
        """
        if self.totals.sums is None:
            raise InputError("none of the train images can be read", "check the files")
        loss, accuracy, count = self.totals.read()
        scores = ("loss", "accuracy") if self.plan.class_names is None else ("loss", "accuracy", *CLASS_SCORES)
        self.row = {
            "epoch": len(self.rows) + 1, "step": step, "lr": self.totals.lr, "train_loss": loss,
            "train_accuracy": accuracy, **{f"val_{name}": None for name in scores}, **self.meter.row(count),
        }  # fmt: skip

    def add_validation(self, score: Outcome | Score) -> bool:
        """Adds the validation to the epoch's row; returns whether it is the best so far, to be kept."""
        assert self.row is not None, "the updates have ended"
        row = self.row
        row |= scores_of(score, "val")
        self.worse += 1
        keep_by = self.plan.recipe.schedule.keep_by
        assert keep_by != "auto", "the recipe is resolved"
        return is_better(row, self.best, keep_by)

    def end_epoch(self) -> None:
        """Records the finished row of the epoch everywhere."""
        assert self.row is not None, "the updates have ended"
        row, self.row = self.row, None
        self.totals, self.meter = Totals(), Meter(self.plan)
        row["seconds"] = self.seconds
        self.rows.append(row)
        self._write(row)
        self.display.end_epoch(row)

    def add_test(self, outcome: Outcome) -> None:
        """Records the test of the kept model."""
        assert self.best is not None
        row = {key: self.best[key] for key in ("epoch", "step", "val_accuracy")}
        with self.writing():
            self._write(row | scores_of(outcome, "test"))

    def _write(self, row: dict[str, Any]) -> None:
        def write() -> None:
            self.folder.append_metrics(row)
            self.board.add(row)

        self.group.lead(write)

    def state_dict(self) -> dict[str, Any]:
        """What the log has collected."""
        return {
            "rows": [*self.rows],
            "row": self.row,
            "best": None if self.best is None else self.best["epoch"] - 1,
            "worse": self.worse,
            "totals": self.totals.state_dict(),
            "meter": self.meter.state_dict(),
            "pictured": self.pictured,
            "seconds": self.seconds,
            "bad_files": self.bad_files.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a `state_dict`, in the folder too."""
        self.rows, self.row = [*state["rows"]], state["row"]
        self.best = None if state["best"] is None else self.rows[state["best"]]
        self.worse, self.pictured, self.before = state["worse"], state["pictured"], state["seconds"]
        self.totals.load_state_dict(state["totals"], self.plan.device)
        self.meter.load_state_dict(state["meter"])
        self.bad_files.load_state_dict(state["bad_files"])

        def write() -> None:
            self.folder.write_metrics(self.rows)
            self.board.restart(self.rows)

        self.group.lead(write)


def scores_of(score: Outcome | Score, split: str) -> dict[str, float]:
    """The scores of a split by their keys in metrics.jsonl."""
    names = ("loss", "accuracy", *CLASS_SCORES) if isinstance(score, Outcome) else ("loss", "accuracy")
    return {f"{split}_{name}": getattr(score, name) for name in names}


def is_better(row: dict[str, Any], best: dict[str, Any] | None, keep_by: KeepBy) -> bool:
    """Whether an epoch has a better validation score, or the same and a lower loss; the loss must be finite."""
    if not math.isfinite(row["val_loss"]):
        return False
    if best is None or not math.isfinite(best["val_loss"]):
        return True
    if keep_by == "loss":
        return row["val_loss"] < best["val_loss"]
    score = f"val_{keep_by}"
    return (row[score], -row["val_loss"]) > (best[score], -best["val_loss"])
