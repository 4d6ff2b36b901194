"""Shared by all tests: runtime checks, one thread, fixed seeds, and helpers for subprocesses."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Test processes run on all cores, one thread each; set before torch and numpy are imported.
os.environ["OMP_NUM_THREADS"] = "1"

from jaxtyping import install_import_hook

from tests.checking import checked

# From here on, every vitreous function that is imported checks its arguments and tensor shapes.
install_import_hook("vitreous", f"{checked.__module__}.{checked.__name__}")

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Seeds the random generators before every test."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real image sets; tests that use it are skipped without one."""
    folder = os.environ.get("VITREOUS_DATA", "")
    if not folder:
        pytest.skip("VITREOUS_DATA is not set to a folder of real image sets")
    if not Path(folder).is_dir():
        pytest.fail(f"VITREOUS_DATA is {folder!r}, which is not a folder")
    return Path(folder)


@pytest.fixture
def fresh_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs code in a new Python process, without runtime checks: `fresh_process("print(1)").stdout`."""
    return lambda code, **options: _run("-c", code, **options)


@pytest.fixture
def vitreous_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line in a new process: `vitreous_process("list", "models").stdout`."""
    return lambda *arguments, **options: _run("-m", "vitreous", *arguments, **options)


def _run(
    *arguments: str, folder: Path = ROOT, environment: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs Python in `folder`, and captures its output and exit code."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
