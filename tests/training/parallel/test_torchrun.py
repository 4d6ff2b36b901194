"""`torchrun -m vitreous train`: one run, whatever the number of processes."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

from tests.training.parallel.launching import command, environment, train
from tests.training.same_run import TIMES, assert_same_run, numbers
from vitreous.checkpoints.store import load_model
from vitreous.training.checkpointing.files import Checkpoints
from vitreous.training.run import run_training

LONG = ("--set", "epochs=60")


def started(*words: object, ranks: int = 2, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A run in a process group of its own, whose lines can be read."""
    launcher = command(["-m", "vitreous", "train", *words], ranks, options)
    if ranks == 1:
        launcher = [sys.executable, "-m", "vitreous", "train", *map(str, words)]
    return subprocess.Popen(
        launcher, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )


def after_epoch(process: subprocess.Popen[str]) -> None:
    """Waits until an epoch has ended."""
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith("epoch"))


def until(found: Callable[[], Iterable[object]]) -> None:
    """Waits until something is found."""
    while not any(True for _ in found()):
        time.sleep(0.01)


def ranks_of(launcher: subprocess.Popen[str]) -> list[int]:
    """The processes that a launcher started, by rank."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()

    def rank(pid: str) -> int:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return next((int(value[5:]) for value in variables if value.startswith(b"RANK=")), -1)

    return sorted((int(pid) for pid in children if rank(pid) >= 0), key=lambda pid: rank(str(pid)))


def assert_close(one: list[dict], other: list[dict]) -> None:
    """Two runs have the same losses, to 1e-5, and the same accuracies."""
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        for key, value in theirs.items():
            if isinstance(value, float):
                assert math.isclose(mine[key], value, rel_tol=1e-5), key
            else:
                assert mine[key] == value


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_train_as_one_process(parallel, words, photos, tmp_path):
    settings = ["--set", "ema_decay=0.9", "--set", f"parallel={parallel}"]
    done = train(*words, *settings, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("epoch")] == ["1/3", "2/3", "3/3"]
    assert f"on 2 × cpu with up to 8 images each (parallel={parallel})" in done.stdout
    alone = subprocess.run(
        [sys.executable, "-m", "vitreous", "train", *words, "--set", "ema_decay=0.9", "--out", str(tmp_path / "one")],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert_close(numbers(tmp_path / "two"), numbers(tmp_path / "one"))
    lines = [[line for line in out.splitlines() if line.startswith("test")] for out in (done.stdout, alone.stdout)]
    assert [re.sub(r"after .*", "", line) for line in lines[0]] == [re.sub(r"after .*", "", line) for line in lines[1]]
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("two", "one")]
    assert files[0] == files[1]
    facts = json.loads((tmp_path / "two/environment.json").read_text())
    assert (facts["processes"], facts["parallel"]) == (2, parallel)
    assert f'parallel = "{parallel}"' in (tmp_path / "two/recipe.toml").read_text()
    assert load_model(tmp_path / "two/model.safetensors").class_names == ("blue", "green", "red")


@pytest.mark.parametrize(("first", "last"), [("ddp", "fsdp"), ("fsdp", "ddp")])
def test_a_run_goes_on_with_another_number_of_ranks(first, last, words, tmp_path):
    """Two, one, two: stopped each time by a signal, and moved from replicas to shards or back."""
    undisturbed = train(*words, *LONG, "--out", tmp_path / "whole")
    assert undisturbed.returncode == 0, undisturbed.stderr
    run = tmp_path / "run"
    ways = [
        (2, [*words, *LONG, "--out", run, "--set", f"parallel={first}"]),
        (1, ["--resume", run]),
        (2, ["--resume", run, "--set", f"parallel={last}"]),
    ]
    for number, (ranks, arguments) in enumerate(ways):
        process = started(*arguments, ranks=ranks)
        after_epoch(process)
        if number < 2:
            for pid in ranks_of(process) or [process.pid]:
                os.kill(pid, signal.SIGTERM)
        output, errors = process.communicate(timeout=120)
        assert (number < 2) == (process.returncode != 0), errors
        assert "Error" not in output
    assert len(numbers(run)) == 61  # with the test
    assert_close(numbers(run), numbers(tmp_path / "whole"))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_signal_to_one_rank_stops_all_after_a_checkpoint(parallel, words, tmp_path):
    """And they go on to the bits of a run that was not stopped."""
    settings = ("--set", f"parallel={parallel}", "--set", "dropout=0.2", "--set", "epochs=20")
    whole = train(*words, *settings, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    process = started(*words, *settings, "--out", tmp_path / "run")
    after_epoch(process)
    os.kill(ranks_of(process)[1], signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert output.count("go on with: torchrun --standalone --nproc-per-node=2 -m vitreous train --resume") == 1
    assert errors.count("stopped") == 1
    assert "rank0" not in errors + output  # where torchrun shows a traceback of a rank
    rest = train("--resume", tmp_path / "run")
    assert rest.returncode == 0, rest.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_killed_rank_and_restarts(words, tmp_path):
    settings = ("--set", "epochs=20", "--set", "dropout=0.2", "--set", "checkpoint_minutes=0.0001")
    whole = train(*words, *settings, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    process = started(*words, *settings, "--out", tmp_path / "run", options=("--max-restarts=2",))
    for number, rank in (("1", 1), ("2", 0)):
        until(partial((tmp_path / "run").glob, f"checkpoints/00000[{number}-9]*"))
        os.kill(ranks_of(process)[rank], signal.SIGKILL)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert len(json.loads((tmp_path / "run/environment.json").read_text())["resumed"]) == 2
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_restart_does_not_go_on_with_the_run_of_another_job(words, photos, tmp_path, quick):
    run_training(photos, "auto", None, tmp_path / "run", quick, quiet=True)
    facts = json.loads((tmp_path / "run/environment.json").read_text())
    (tmp_path / "run/environment.json").write_text(json.dumps(facts | {"finished": None}))
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    done = train(*words, "--out", tmp_path / "run", options=("--max-restarts=1",))
    assert done.returncode != 0
    assert done.stderr.count("error: the folder") == 2  # each time by one rank
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_all_ranks_fail_together(words, photos, tmp_path):
    """An image breaks that only one rank loads, after the check."""
    broken = photos / "train/red/0.png"
    broken.write_bytes(b"no image")
    settings = ("--set", "check_images=none", "--set", "max_bad_fraction=0")
    done = train(*words, *settings, "--out", tmp_path / "run")
    assert done.returncode != 0
    assert done.stderr.count("error: 1 of the 33 train images are broken") == 1
    assert "rank" not in done.stderr.split("error:")[0]
    assert "red/0.png" in (tmp_path / "run/bad_files.csv").read_text()
    assert not (tmp_path / "run/recipe.toml").exists()


def test_bad_input_is_one_line(tmp_path):
    done = train(tmp_path / "nothing", "--out", tmp_path / "run")
    assert done.returncode != 0
    assert done.stderr.count("error:") == done.stderr.count("does not exist") == 1
    assert "stopped" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_more_ranks_than_images(words, tmp_path):
    """Batches of two images for three ranks: one has none each time, and every image counts once."""
    settings = ("--set", "batch_size=2", "--set", "micro_batch=1", "--set", "warmup_epochs=0", "--set", "epochs=1")
    done = train(*words, *settings, "--out", tmp_path / "run", ranks=3)
    assert done.returncode == 0, done.stderr
    (row, test) = numbers(tmp_path / "run")
    assert row["step"] == 17
    assert not set(TIMES) & set(test)


def test_signals_to_everything_at_once_save_too(words, tmp_path):
    """As schedulers and service managers send them: torchrun then passes its own on, which must not end a rank."""
    process = started(*words, *LONG, "--out", tmp_path / "run")
    after_epoch(process)
    for pid in (*ranks_of(process), process.pid):
        os.kill(pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert "go on with: torchrun" in output, errors
    newest = Checkpoints(tmp_path / "run", pytest.fail).newest()
    assert newest is not None
    assert newest.state["learner"]["step"] >= numbers(tmp_path / "run")[-1]["step"]


def test_one_process_in_shards_stops_after_an_update(words, tmp_path):
    """Gradients of a batch that is done in part are not in its shards yet."""
    settings = ("--set", "parallel=fsdp", "--set", "dropout=0.2", "--set", "micro_batch=1", "--set", "epochs=6")
    whole = train(*words, *settings, "--out", tmp_path / "whole", ranks=1)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        command(["-m", "vitreous", "train", *words, *settings, "--out", tmp_path / "run"], ranks=1),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True,
    )  # fmt: skip
    after_epoch(process)
    os.kill(ranks_of(process)[0], signal.SIGINT)
    process.communicate(timeout=60)
    rest = train("--resume", tmp_path / "run", ranks=1)
    assert rest.returncode == 0, rest.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals that a parent was killed")
def test_when_torchrun_is_killed_the_ranks_save_and_leave(words, tmp_path):
    process = started(*words, *LONG, "--out", tmp_path / "run")
    after_epoch(process)
    process.kill()
    output, errors = process.communicate(timeout=60)  # whose pipes the ranks have, too
    assert "go on with: torchrun" in output
    assert "frame #" not in errors
    assert Checkpoints(tmp_path / "run", pytest.fail).newest() is not None
