"""Writing for TensorBoard: the metrics of each epoch, and the picture of the first batch."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vitreous.support.errors import InputError
from vitreous.support.extras import install_command
from vitreous.training.records.folder import FIRST_BATCH, TENSORBOARD

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SPLITS = ("train", "val", "test")  # train_loss is shown as train/loss, in a group with train/accuracy
PLACE = ("epoch", "step", "seconds")  # not metrics


def check_installed() -> type["SummaryWriter"]:
    """The class that writes for TensorBoard. Raises InputError if TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("tensorboard is not installed", install_command("logging")) from error
    return SummaryWriter


class Board:
    """Writes for TensorBoard, into RUN/tensorboard/. A row is on disk when `add` returns.

    Args:
        folder: of the run.
        enabled: whether to write; otherwise nothing happens, and TensorBoard need not be installed.

    Raises:
        InputError: TensorBoard is not installed; nothing is written before the first row.
    """

    def __init__(self, folder: Path, enabled: bool = True) -> None:
        self.folder = folder
        self.make = check_installed() if enabled else None
        self.writer: SummaryWriter | None = None

    def close(self) -> None:
        """Closes the file."""
        if self.writer is not None:
            self.writer.close()

    def restart(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes these rows in place of all that were written before."""
        self.close()
        self.writer = None
        shutil.rmtree(self.folder / TENSORBOARD, ignore_errors=True)
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row of metrics.jsonl at its epoch, and with the first one train_batch.png, if it exists.

        Args:
            row: with "epoch"; values that are None are left out. Of the test's row only the test's values are added:
                the others were, when their epoch ended.
        """
        if self.make is None:
            return
        if self.writer is None:
            self.writer = self.make(str(self.folder / TENSORBOARD))
        is_test = "test_accuracy" in row
        for name, value in row.items():
            if name not in PLACE and value is not None and name.startswith("test_" if is_test else ""):
                self.writer.add_scalar(tag(name), value, row["epoch"])
        picture = self.folder / FIRST_BATCH
        if row["epoch"] == 1 and not is_test and picture.exists():
            with Image.open(picture) as image:
                self.writer.add_image(FIRST_BATCH, np.asarray(image.convert("RGB")), 1, dataformats="HWC")
        self.writer.flush()


def tag(name: str) -> str:
    """The name in TensorBoard: train/loss for train_loss, and lr for lr."""
    split, _, metric = name.partition("_")
    return f"{split}/{metric}" if split in SPLITS else name
