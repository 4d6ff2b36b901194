"""What all tests share: checked shapes, one thread, fixed seeds, and other processes."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Tests run on all cores at once, so each process keeps to one; set before torch and numpy are imported.
os.environ["OMP_NUM_THREADS"] = "1"

from jaxtyping import install_import_hook

from tests.checking import checked

# From here on every function of vitreous checks its arguments and its tensors' shapes.
install_import_hook("vitreous", f"{checked.__module__}.{checked.__name__}")

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Starts every test from the same random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real image sets; tests that use it are skipped, and say so, where there is none."""
    folder = os.environ.get("VITREOUS_DATA", "")
    if not folder:
        pytest.skip("VITREOUS_DATA does not name a folder of real image sets")
    if not Path(folder).is_dir():
        pytest.fail(f"VITREOUS_DATA is {folder!r}, which is no folder")
    return Path(folder)


@pytest.fixture
def fresh_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs code in a Python of its own, without the checks of shapes: `fresh_process("print(1)").stdout`."""
    return lambda code, **options: _run("-c", code, **options)


@pytest.fixture
def vitreous_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line in a process of its own: `vitreous_process("list", "models").stdout`."""
    return lambda *arguments, **options: _run("-m", "vitreous", *arguments, **options)


def _run(
    *arguments: str, folder: Path = ROOT, environment: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs Python in `folder`; the result has what it printed and its exit code."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
