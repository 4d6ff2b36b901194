"""What is written for TensorBoard, read back from its event files."""

import io
import sys
from contextlib import closing

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, EventAccumulator

from vitreous.support.errors import InputError
from vitreous.training.records.tensorboard import Board, tag

ROWS = [
    {
        "epoch": 1, "step": 7, "lr": 1e-3, "train_loss": 2.5, "train_accuracy": 0.25, "val_loss": None,
        "val_accuracy": None, "images_per_second": 100.0, "memory_bytes": 2**33, "seconds": 1.0,
    },
    {
        "epoch": 2, "step": 14, "lr": 5e-4, "train_loss": 1.5, "train_accuracy": 0.5, "val_loss": 1.25,
        "val_accuracy": 0.75, "images_per_second": 110.0, "memory_bytes": 2**34, "seconds": 2.0,
    },
]  # fmt: skip


def read(folder) -> EventAccumulator:
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={SCALARS: 0, IMAGES: 0})
    return events.Reload()


def points(events: EventAccumulator) -> dict[str, list[tuple[int, float]]]:
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_rows_become_scalars_by_epoch_and_the_first_batch_an_image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "train_batch.png")
    with closing(Board(tmp_path)) as board:
        for row in ROWS:
            board.add(row)
        assert points(read(tmp_path))["train/loss"] == [(1, 2.5), (2, 1.5)], "on the disk before the run is over"
        board.add({"epoch": 1, "step": 7, "val_accuracy": 0.625, "test_loss": 0.5, "test_accuracy": 0.875})
    events = read(tmp_path)
    found = points(events)
    assert found.pop("lr") == [(1, pytest.approx(1e-3)), (2, pytest.approx(5e-4))]  # in float32
    assert found == {
        "train/loss": [(1, 2.5), (2, 1.5)],
        "train/accuracy": [(1, 0.25), (2, 0.5)],
        "val/loss": [(2, 1.25)],
        "val/accuracy": [(2, 0.75)],
        "test/loss": [(1, 0.5)],
        "test/accuracy": [(1, 0.875)],
        "images_per_second": [(1, 100.0), (2, 110.0)],
        "memory_bytes": [(1, 2.0**33), (2, 2.0**34)],
    }
    [image] = events.Images("train_batch.png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(image.encoded_image_string))), pixels)


def test_without_a_picture_only_the_rows_are_written(tmp_path):
    with closing(Board(tmp_path)) as board:
        board.add(ROWS[0])
    events = read(tmp_path)
    assert events.Tags()["images"] == []
    assert points(events)["train/loss"] == [(1, 2.5)]


def test_what_was_added_stays_when_a_run_fails(tmp_path):
    def failing() -> None:
        with closing(Board(tmp_path)) as board:
            board.add(ROWS[1])
            raise InputError("no finite loss")

    with pytest.raises(InputError, match="no finite loss"):
        failing()
    assert points(read(tmp_path))["val/accuracy"] == [(2, 0.75)]


def test_a_disabled_board_writes_nothing_and_needs_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with closing(Board(tmp_path, enabled=False)) as board:
        board.add(ROWS[0])
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("missing", ["tensorboard", "torch.utils.tensorboard"])
def test_a_missing_tensorboard_is_reported_before_anything_is_written(tmp_path, monkeypatch, missing):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError) as error:
        Board(tmp_path)
    assert str(error.value) == "tensorboard is not installed; pip install '.[logging]' in a clone of vitreous"
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("name", "shown"), [("train_loss", "train/loss"), ("val_accuracy", "val/accuracy"), ("data_wait", "data_wait")]
)
def test_a_metric_of_a_split_is_shown_in_the_group_of_the_split(name, shown):
    assert tag(name) == shown
