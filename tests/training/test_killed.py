"""A run that is killed at any moment, or interrupted twice, goes on as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.training.same_run import assert_same_run
from vitreous.training.interruption import AGAIN, STOPPING_SOON
from vitreous.training.run import run_training

SETTINGS = {"epochs": 40, "dropout": 0.2, "ema_decay": 0.9, "micro_batch": 4}
KILLS = 4


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "vitreous", "train", *arguments]


def started(arguments: Sequence[str], folder: Path, **pipes) -> subprocess.Popen:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(arguments, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, **pipes)


def wait_for(process: subprocess.Popen, start: str) -> None:
    """Reads lines until one begins so."""
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith(start))


@pytest.fixture
def arguments(photos, quick) -> list[str]:
    """Of a run that takes a few seconds."""
    settings = [word for key, value in (quick | SETTINGS).items() for word in ("--set", f"{key}={value}")]
    return ["photos", "--out", "run", *settings]


def test_a_run_killed_at_random_moments(arguments, photos, tmp_path, quick):
    run_training(photos, "auto", None, tmp_path / "whole", quick | SETTINGS, quiet=True)
    draw = random.Random(time.time_ns())
    seed = draw.randrange(10**6)
    print("seed", seed)
    draw.seed(seed)
    for kill in range(KILLS):
        process = started(command(*(("--resume", "run") if kill else arguments)), tmp_path)
        wait_for(process, "epoch")
        time.sleep(draw.uniform(0, 0.2))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    rest = started(command("--resume", "run"), tmp_path, stderr=subprocess.PIPE)
    _, error = rest.communicate()
    assert (rest.returncode, error) == (0, "")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_second_interrupt_ends_the_run_at_once(arguments, tmp_path):
    """The first one would wait here for minutes: the copy of the state is slow."""
    slow = (
        "import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from vitreous.training.safeguard import Safeguard; "
        "Safeguard.state = lambda self: (print('saving', flush=True), time.sleep(600)); "
        "sys.argv[0] = 'vitreous'; from vitreous.cli.app import main; main()"
    )
    longer = ("--set", "epochs=100000", "--set", "checkpoint_minutes=1000")
    process = started([sys.executable, "-c", slow, "train", *arguments, *longer], tmp_path, stderr=subprocess.PIPE)
    wait_for(process, "saving")  # after the first epoch
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert process.returncode == -signal.SIGINT
    assert error == f"{STOPPING_SOON}{AGAIN}\n"
