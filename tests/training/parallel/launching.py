"""Starting several processes, as users do: with torchrun."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")


def command(arguments: Sequence[object], ranks: int = 2, options: Sequence[str] = ()) -> list[str]:
    """A command that runs a script, or a module after "-m", in several processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *options]
    return [*launcher, *map(str, arguments)]


def environment() -> dict[str, str]:
    """What the processes find: this package, and nothing of another group."""
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}


def torchrun(
    *arguments: object, ranks: int = 2, options: Sequence[str] = (), timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Runs a script, or a module after "-m", and waits for it."""
    return subprocess.run(
        command(arguments, ranks, options),
        capture_output=True, text=True, timeout=timeout, env=environment(), check=False,
    )  # fmt: skip


def train(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs `vitreous train` on several ranks."""
    return torchrun("-m", "vitreous", "train", *arguments, **options)  # type: ignore[arg-type]
