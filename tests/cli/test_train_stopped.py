"""A run that is interrupted, terminated, or whose loading processes are killed: no traceback, nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from tests.cli.photos import photo
from vitreous.training.interruption import AGAIN, STOPPING_SOON

# Runs the command line, and sends this process a signal before the n-th call of a function.
CODE = """
import importlib, os, signal, sys

module, name, number, sent = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it
owner, _, attribute = name.rpartition(".")
place = importlib.import_module(module)
place = getattr(place, owner) if owner else place
function, calls = getattr(place, attribute), []

def counted(*arguments, **named):
    calls.append(0)
    if len(calls) == number:
        os.kill(os.getpid(), sent)
    return function(*arguments, **named)

setattr(place, attribute, counted)
sys.argv = ["vitreous", *sys.argv[5:]]
from vitreous.cli.app import main
main()
"""

SETTINGS = [
    *("variant=mu/4", "depth=1", "image_size=16", "epochs=2", "minutes=0", "warmup_epochs=0", "batch_size=16"),
    *("threads=1", "device=cpu"),
]
TRAIN = ["train", "photos", "--out", "run", *(word for pair in SETTINGS for word in ("--set", pair))]
BEGUN = {"recipe.toml", "environment.json", "bad_files.csv", "train_batch.png", "checkpoints"}
MODEL = {"model.safetensors", *BEGUN}
EPOCHS = {"metrics.jsonl", "results.csv", "results.png"}
RESULTS = {"per_class.csv", "confusion_matrix.csv", "confusion_matrix.png"}


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """Photos of two classes in tmp_path, and the environment of processes that use them."""
    seeds = count()
    for split, images in (("train", 12), ("val", 4), ("test", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(images):
                photo(next(seeds), (16, 16)).save(folder / f"{number}.png")
    cache = str(tmp_path / "cache")
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": cache, "PYTHONUNBUFFERED": "1"}


def run_of(module: str, name: str, number: int, sent: int, settings: tuple[str, ...], folder: Path, env: dict):
    """A run that gets a signal before the n-th call of a function."""
    extra = [word for pair in settings for word in ("--set", pair)]
    command = [sys.executable, "-c", CODE, module, name, str(number), str(int(sent)), *TRAIN, *extra]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("moment", "settings", "sent", "kept", "files"),
    [
        ("vitreous.data.precheck looked_at 2", ("workers=2",), signal.SIGTERM, "no model is kept", None),
        ("vitreous.data.cache.store np.savez 1", ("cache=true",), signal.SIGINT, "no model is kept", None),
        ("vitreous.training.learner Learner.update 1", ("workers=2",), signal.SIGINT, "no model is kept", BEGUN),
        (
            "vitreous.training.validation score 2", ("workers=2",), signal.SIGTERM,
            "the model of epoch 1 (val accuracy ", MODEL | {"metrics.jsonl"},
        ),
        ("vitreous.training.validation score 3", (), signal.SIGINT, "the model of epoch ", MODEL | EPOCHS),
        ("vitreous.pages.report write_report 1", (), signal.SIGTERM, "model: run/model.", MODEL | EPOCHS | RESULTS),
    ],
)  # fmt: skip
def test_a_stopped_run_keeps_what_it_can(moment, settings, sent, kept, files, tmp_path, environment):
    module, name, number = moment.split()
    ended = run_of(module, name, int(number), sent, settings, tmp_path, environment)
    assert ended.returncode == 128 + sent
    assert ended.stderr.splitlines()[-1] == "stopped"
    assert ended.stderr.removesuffix("stopped\n") in (
        "",
        f"{STOPPING_SOON}{AGAIN}\n",
    )  # the latter from the first epoch on
    lines = ended.stdout.splitlines()
    assert any(line.startswith(kept) for line in lines[-2:])
    if files is None:
        assert not (tmp_path / "run").exists()
    else:
        assert {path.name for path in (tmp_path / "run").iterdir()} == files
        assert lines[-1] == "go on with: vitreous train --resume run" or files >= RESULTS
        command = [sys.executable, "-m", "vitreous", "train", "--resume", "run"]
        rest = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert rest.stderr == ""
        assert ("is finished" in rest.stdout) == (files >= RESULTS)
        assert (tmp_path / "run/results.csv").is_file()
    if "cache=true" in settings:  # no segment without its index
        assert not [*(tmp_path / "cache/vitreous").rglob("*.pixels")]


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    try:
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except OSError:
        return []


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux, where /proc lists child processes")
@pytest.mark.parametrize(("most", "code"), [(2, 0), (10**6, 2)])
def test_loading_processes_that_are_killed(most, code, tmp_path, environment):
    """Two cost a line each; if every one is killed, an error names the batch. None of them stays."""
    command = [sys.executable, "-m", "vitreous", *TRAIN, "--set", "workers=2", "--set", "epochs=20"]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        env = environment | {"TMPDIR": str(temporary)}
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=out, stderr=err)
    started, killed = set(), set()
    try:
        while process.poll() is None:
            for launcher in children(process.pid):
                workers = set(children(launcher))
                started |= {launcher, *workers}
                # One is killed when the last one was replaced; all of them as soon as they are there.
                for pid in workers - killed if len(workers) == 2 or most > 2 else ():
                    if len(killed) < most:
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                        killed.add(pid)
            time.sleep(0.002)
    finally:
        process.kill()
    lines, error = (tmp_path / "out").read_text().splitlines(), (tmp_path / "err").read_text()
    assert process.returncode == code, error
    if code:
        assert re.match(
            r"error: a loading process was killed by SIGKILL.*, and so did its replacement; .*\nhint: ", error
        )
        assert len(error.splitlines()) == 2
        assert not (tmp_path / "run").exists()
    else:
        assert error == ""
        assert lines.count("a loading process was killed by SIGKILL; another one loads its batch") == most
        assert (tmp_path / "run/report.html").is_file()
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    assert all(path.name.startswith("torchinductor") for path in temporary.iterdir())  # torch's own cache


def test_two_runs_into_one_folder(tmp_path, environment):
    """The second one ends with a line, and the first goes on."""
    command = [sys.executable, "-m", "vitreous", *TRAIN]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path, "env": environment}
    first = subprocess.Popen([*command, "--set", "epochs=100000"], **pipes)
    assert first.stdout is not None
    next(line for line in first.stdout if line.startswith("epoch"))
    second = subprocess.run([*command], **pipes, timeout=120, check=False)
    assert second.returncode == 2
    assert second.stderr.startswith(
        "error: another run is writing to the folder 'run'\nhint: choose another with --out"
    )
    first.terminate()
    _, error = first.communicate(timeout=60)
    assert (first.returncode, error) == (143, f"{STOPPING_SOON}{AGAIN}\nstopped\n")
    assert (tmp_path / "run/model.safetensors").is_file()
