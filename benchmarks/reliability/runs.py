"""Small runs: their images, starting them as users do, and comparing them."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.reliability.warm import Fork, fork
from vitreous.checkpoints.files.tensors import read_tensors
from vitreous.training.checkpointing.files import Checkpoint, Checkpoints
from vitreous.training.checkpointing.packing import pack

Process = Fork | subprocess.Popen[str]
ROOT = Path(__file__).parents[2]
COLORS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
# Random crops, mixing, dropout, stochastic depth, averaging, and four micro-batches to an update.
OFTEN = {"checkpoint_minutes": 1e-6}  # a checkpoint whenever none is being written
SETTINGS: Mapping[str, Any] = {
    "variant": "mu/4", "image_size": 8, "epochs": 3, "warmup_epochs": 1, "batch_size": 16, "micro_batch": 4,
    "device": "cpu", "threads": 1, "workers": 0, "crop_scale": [0.5, 1.0], "mixup": 0.2, "cutmix": 0.0,
    "patch_dropout": 0.0, "dropout": 0.2, "stochastic_depth": 0.2, "depth": 2, "ema_decay": 0.9,
}  # fmt: skip
TIMES = ("images_per_second", "data_wait", "memory_bytes", "seconds")  # columns that differ from run to run


def make_photos(folder: Path, train: int = 12, test: int = 4, size: tuple[int, int] = (12, 10)) -> Path:
    """Noisy pictures of three colors, so many of each."""
    noise = np.random.default_rng(0)
    for split, count in (("train", train), ("val", test), ("test", test)):
        for name, color in COLORS.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = noise.normal(color, 30, (*size, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of the command line."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def start(folder: Path, arguments: Sequence[str], program: str | None = None) -> Process:
    """Starts `vitreous train` in a folder, as a fork of a process that has imported everything; see `warm`.

    Args:
        folder: to work in.
        arguments: of the command.
        program: Python that runs before the command, in its process.
    """
    if not sys.platform.startswith("linux"):
        return start_anew(folder, arguments, program)
    return fork(folder, ["train", *arguments], environment(), program)


def start_anew(folder: Path, arguments: Sequence[str], program: str | None = None) -> subprocess.Popen[str]:
    """Starts `vitreous train` as users do."""
    head = ["-m", "vitreous"]
    if program is not None:
        head = ["-c", f"import sys; sys.argv[0] = 'vitreous'\n{program}\nfrom vitreous.cli.app import main; main()"]
    return subprocess.Popen(
        [sys.executable, *head, "train", *arguments],
        cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def environment() -> dict[str, str]:
    """The variables of a run: of one thread, which is alone."""
    found = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    found.pop("WORLD_SIZE", None)
    return found


def newest(folder: Path, lines: list[str] | None = None) -> Checkpoint | None:
    """The checkpoint that a resumed run would go on from; lines about damaged ones are added."""
    return Checkpoints(folder, (lines if lines is not None else []).append).newest()


def size_of(path: Path) -> int:
    """The bytes of all files of a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run, without times."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """The largest difference between tensors of the same names; infinite if names or shapes differ."""
    if a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in a):
        return math.inf
    return max((differs(a[name], b[name]) for name in a), default=0.0)


def differs(a: Tensor, b: Tensor) -> float:
    """The largest difference between two tensors; 0 only for the same values."""
    if torch.equal(a, b):
        return 0.0
    largest = (a.double() - b.double()).abs().max().item()
    return largest if largest > 0 else math.inf  # NaN, which equals nothing


def state_distance(a: Any, b: Any) -> float:
    """The largest difference between two states; infinite if something other than a tensor differs."""
    (tensors, plain), (others, other_plain) = pack(a), pack(b)
    return distance(tensors, others) if plain == other_plain else math.inf


def run_distance(one: Path, other: Path) -> float:
    """The largest difference between two finished runs: in metrics, model, optimizer, averages and random states."""
    if rows(one) != rows(other):
        return math.inf
    models = []
    for folder in (one, other):
        with read_tensors(folder / "model.safetensors") as file:
            models.append({name: file[name] for name in file})
    states = [newest(folder) for folder in (one, other)]
    if None in states:
        return math.inf
    learners = [state.state["learner"] for state in states if state is not None]
    return max(distance(*models), state_distance(*learners))
