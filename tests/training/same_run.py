"""Whether two runs are the same, to the bit."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from vitreous.checkpoints.files.tensors import read_tensors
from vitreous.checkpoints.store import load_model
from vitreous.training.checkpointing.files import Checkpoints
from vitreous.training.checkpointing.packing import pack
from vitreous.training.parallel.state import Stored

TIMES = ("images_per_second", "data_wait", "memory_bytes", "seconds")


def numbers(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def last_state(folder: Path) -> dict[str, Any]:
    checkpoint = Checkpoints(folder, pytest.fail).newest()
    assert checkpoint is not None
    return read_shards(checkpoint.state)


def read_shards(state: Any) -> Any:
    """A state whose tensors in shards are lists of those, in the order of the ranks."""
    if isinstance(state, Stored):
        files = [read_tensors(path) for path in sorted(state.folder.iterdir())]
        with ExitStack() as stack:
            return [stack.enter_context(file)[state.name] for file in files]
    if isinstance(state, dict):
        return {key: read_shards(value) for key, value in state.items()}
    return state


def assert_same_run(one: Path, other: Path) -> None:
    """Both runs have the same numbers, and the same bits in model, optimizer, random state and everything else."""
    assert numbers(one) == numbers(other)
    kept, theirs = (load_model(folder / "model.safetensors") for folder in (one, other))
    assert kept.metadata == theirs.metadata
    pairs = zip(kept.model.state_dict().values(), theirs.model.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    states = [last_state(folder)["learner"] for folder in (one, other)]
    (a, plain_a), (b, plain_b) = (pack(state) for state in states)
    assert plain_a == plain_b
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    for name in ("bad_files.csv", "recipe.toml"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
