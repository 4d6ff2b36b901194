"""Loading processes: shared, replaced when they die, and gone when they are not needed."""

import errno
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import torch

from tests.data.difficult_loaders import (
    Buggy,
    Crashed,
    Elsewhere,
    Killed,
    Plain,
    Refusing,
    Slow,
    Stuck,
    split_of,
)
from vitreous.data.augmentation import Augmentation
from vitreous.data.loading import connection as worker_connection
from vitreous.data.loading.batches import batches
from vitreous.data.loading.workers import Workers, obstacle
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.sources.open import open_data
from vitreous.support.errors import InputError

ROOT = Path(__file__).parents[3]
GRAY = Preprocessing((8, 8), channels=1, mean=(0.5,), std=(0.5,))


def epoch(loader, workers, number=0, batch_size=4):
    return batches(
        split_of(loader), GRAY, batch_size=batch_size, shuffle=True, augmentation=Augmentation(), epoch=number,
        workers=workers,
    )  # fmt: skip


def bits(loaded):
    return [(b.images.tolist(), b.labels.tolist(), b.indices.tolist(), b.bad) for b in loaded]


def pids(workers):
    return {worker.pid for worker in workers.launcher.workers}


def is_running(pid):
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition, seconds=60.0):
    """Waits until a condition holds, and returns whether it does."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def descendants(pid):
    """The processes that a process has started, and those that they have."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {pid}


@pytest.fixture(scope="module")
def shared():
    """Two processes for several tests, and their notes."""
    notes = []
    with Workers(2, notify=notes.append) as workers:
        yield workers, notes


@pytest.fixture
def alone():
    """What the main process loads."""
    return bits(epoch(Plain(), 0))


# ---- sharing


def test_processes_stay_from_epoch_to_epoch_and_serve_all_splits(shared):
    workers, notes = shared
    first, second = Plain(), Slow(0)
    expected = [bits(epoch(first, 0, number)) for number in range(3)]
    seen = set()
    for number in range(3):
        training, validation = iter(epoch(first, workers, number)), iter(epoch(second, workers, number))
        both = [(bits([a]), bits([b])) for a, b in zip(training, validation, strict=True)]
        assert [a for pair, _ in both for a in pair] == expected[number]
        assert [b for _, pair in both for b in pair] == expected[number]
        seen |= pids(workers)
    assert len(seen) == 2
    assert len(workers.sources) == 2
    assert notes == []


def test_a_source_is_sent_once(shared):
    workers, _ = shared
    before, loader = len(workers.sources), Plain()
    for number in range(3):
        assert len(list(epoch(loader, workers, number))) == 10
    assert len(workers.sources) == before + 1


def test_an_iteration_may_be_left_and_a_larger_batch_may_follow(shared, alone):
    workers, _ = shared
    assert bits(islice(epoch(Plain(), workers), 2)) == alone[:2]
    assert bits(epoch(Plain(), workers, batch_size=40)) == bits(epoch(Plain(), 0, batch_size=40))
    assert bits(epoch(Plain(), workers)) == alone


def test_an_empty_split_needs_no_process():
    split = split_of(Plain())
    empty = type(split)("test", (), split.labels[:0], split.load)
    assert list(batches(empty, GRAY, batch_size=4, shuffle=False, workers=2)) == []


def test_nothing_stays_after_the_block(alone):
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        with Workers(2) as workers:
            assert bits(epoch(Plain(), workers)) == alone
            left = iter(epoch(Plain(), workers))
            next(left)
            family = descendants(os.getpid()) & {workers.launcher.process.pid, *pids(workers)}
            assert len(family) == 3
        assert not any(map(is_running, family))
        assert bits(left) == alone[1:]  # an iterator of then goes on in this process
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert not [thread for thread in workers.threads if thread.is_alive()]


def test_no_shared_memory_is_used(shared):
    workers, _ = shared
    list(epoch(Plain(), workers))
    for pid in pids(workers):
        assert "/dev/shm" not in Path(f"/proc/{pid}/maps").read_text()
        opened = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [path for path in opened if path.startswith("/dev/shm")]


def test_batches_arrive_in_pinned_memory_if_there_is_a_gpu(shared, monkeypatch):
    workers, _ = shared
    pinned, empty = [], torch.empty

    def recorded(*shape, pin_memory, **options):
        pinned.append(pin_memory)
        return empty(*shape, **options)

    monkeypatch.setattr(worker_connection.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(worker_connection.torch, "empty", recorded)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(True) or tensor)
    list(epoch(Plain(), workers))
    assert len(pinned) == 10 * 4  # images where they arrive, and then all three tensors
    assert all(pinned)


# ---- processes that die


@pytest.mark.parametrize(("kind", "how"), [(Killed, "was killed by SIGKILL"), (Crashed, "ended with exit code 3")])
def test_the_batch_of_a_dead_process_is_loaded_again(shared, tmp_path, kind, how, alone):
    workers, notes = shared
    before = len(notes)
    assert bits(epoch(kind(tmp_path, 1), workers)) == alone
    assert notes[before:] == [f"a loading process {how}; another one loads its batch"]
    assert bits(epoch(Plain(), workers)) == alone


@pytest.mark.parametrize(
    ("kind", "how", "hint"),
    [
        (Killed, "was killed by SIGKILL", "the memory may be full: set fewer workers, or workers=0"),
        (Crashed, "ended with exit code 3", "remove the image, or set workers=0 to load in the main process"),
    ],
)
def test_a_batch_on_which_two_processes_die_is_named(shared, tmp_path, kind, how, hint, alone):
    workers, _ = shared
    split, loader = split_of(kind(tmp_path, 100)), epoch(kind(tmp_path, 100), workers)
    (names,) = [loader.names(n) for n in range(len(loader)) if split.names[17] in loader.names(n)]
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        list(loader)
    assert time.monotonic() - start < 30
    assert caught.value.cause == (
        f"a loading process {how}, at 'b/17.png', and so did its replacement; their batch of 4 images has "
        f"{', '.join(names[:3])} … and 1 more"
    )
    assert caught.value.hint == hint
    assert bits(epoch(Plain(), workers)) == alone  # the others go on, and the dead are replaced


def test_a_process_killed_from_outside_is_replaced(shared, alone):
    workers, _ = shared
    loader = epoch(Slow(0.02), workers)
    loaded = []
    for number, batch in enumerate(loader):
        loaded.append(batch)
        if number == 1:
            os.kill(next(iter(pids(workers))), signal.SIGKILL)
    assert bits(loaded) == alone
    assert len(pids(workers)) == 2


def test_a_process_without_progress_is_replaced(tmp_path, alone):
    notes = []
    with Workers(2, patience=2.0, notify=notes.append) as workers:
        assert bits(epoch(Stuck(tmp_path, 1), workers)) == alone
        assert notes == ["a loading process made no progress for 2 s; another one loads its batch"]
        assert bits(epoch(Slow(0.3), workers)) == alone  # 1.2 s each batch, but there is progress
        with pytest.raises(InputError, match=r"made no progress for 2 s, at 'b/17.png'.* a longer worker_timeout"):
            list(epoch(Stuck(tmp_path, 100), workers))
        family = pids(workers)
    assert not any(map(is_running, family))


def test_a_dead_launcher_is_started_again(tmp_path, alone):
    notes = []
    with Workers(2, notify=notes.append) as workers:
        assert bits(epoch(Plain(), workers)) == alone
        workers.launcher.process.kill()
        assert bits(epoch(Killed(tmp_path, 1), workers)) == alone
        assert notes == ["a loading process died; another one loads its batch"]
        family = {workers.launcher.process.pid, *pids(workers)}
        assert len(family) == 3
    assert wait_until(lambda: not any(map(is_running, family)))


def test_exceptions_of_a_process_are_raised_here(shared, tmp_path):
    workers, _ = shared
    before = pids(workers)
    with pytest.raises(KeyError, match="a bug") as caught:
        list(epoch(Buggy(tmp_path, 1), workers))
    assert "difficult_loaders.py" in str(caught.value.__cause__)
    with pytest.raises(InputError, match="the data has moved; open it again"):
        list(epoch(Refusing(tmp_path, 2), workers))
    list(epoch(Plain(), workers))
    assert pids(workers) >= before  # a bug costs no process


# ---- without processes


def test_data_that_cannot_be_sent_is_loaded_here(alone):
    notes = []
    local = type("Local", (Plain,), {})
    with Workers(2, notify=notes.append) as workers:
        for number in range(2):
            assert bits(epoch(local(), workers, number)) == bits(epoch(Plain(), 0, number))
        assert bits(epoch(Elsewhere(), workers)) == alone
        assert bits(epoch(Plain(), workers)) == alone
        assert workers.launcher.workers  # others use the processes
    assert len(notes) == 2
    assert notes[0].startswith("images are loaded in the main process: the data cannot be sent to another process: ")
    assert notes[1] == (
        "images are loaded in the main process: another process cannot read the data: "
        "ModuleNotFoundError: No module named 'mine'"
    )
    assert obstacle(Plain()) is None
    assert obstacle(open_data("digits").train.load) is None  # with a large array
    assert "Local" in (obstacle(local()) or "")


def test_without_new_processes_images_are_loaded_here(alone, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert bits(epoch(Plain(), 2)) == alone
    line = "images are loaded in the main process: no further process can be started: No such file or directory\n"
    assert capsys.readouterr().err == line


def test_a_failing_fork_is_no_end(alone, monkeypatch):
    notes = []
    with Workers(1, notify=notes.append) as workers:
        monkeypatch.setattr(workers.launcher, "_ask", lambda *arguments, **options: -errno.EAGAIN)
        assert bits(epoch(Plain(), workers)) == alone
    assert "no further process can be started: Resource temporarily unavailable" in notes[0]


def test_a_launcher_that_cannot_import_is_no_end(alone, monkeypatch, capfd):
    monkeypatch.setattr(worker_connection, "BOOT", "import sys; sys.exit('loading processes cannot start: no torch')")
    notes = []
    with Workers(1, notify=notes.append) as workers:
        for _ in range(2):
            assert bits(epoch(Plain(), workers)) == alone
    assert notes == ["images are loaded in the main process: the process that starts others does not answer"]
    assert capfd.readouterr().err == "loading processes cannot start: no torch\n"


# ---- scripts

# A shell starts what runs in its background with SIGINT ignored, and so would be this test's own process.
SCRIPT = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.data.difficult_loaders import Plain, Slow, Killed, split_of
from tests.data.loading.test_workers import GRAY
from vitreous.data.loading.batches import batches
from vitreous.data.loading.workers import Workers
print("imported", flush=True)
def loaded(loader, workers=2):
    return batches(split_of(loader), GRAY, batch_size=4, shuffle=False, workers=workers)
"""


@pytest.fixture
def script(tmp_path):
    """Starts a script without a main guard, in a session of its own."""
    started = []

    def start(code):
        path = tmp_path / "script.py"
        path.write_text(SCRIPT + code)
        process = subprocess.Popen(
            [sys.executable, str(path)], env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_script_needs_no_main_guard(script):
    process = script("print(sum(len(batch) for batch in loaded(Plain())))")
    assert process.communicate(timeout=120) == ("imported\n40\n", "")
    assert process.returncode == 0


def test_a_loader_of_the_script_itself_is_loaded_there(script):
    code = "class Mine(Plain):\n    pass\nprint(sum(len(batch) for batch in loaded(Mine())))"
    out, err = script(code).communicate(timeout=120)
    assert out == "imported\n40\n"
    assert err == (
        "images are loaded in the main process: Mine is defined in the script itself; move it to a module that the "
        "script imports\n"
    )


@pytest.mark.parametrize("end", ["sys.exit(0)", "pass", "del iterator"])
def test_a_script_that_ends_early_ends_well(script, end):
    process = script(f"iterator = iter(loaded(Slow()))\nnext(iterator)\n{end}")
    assert process.communicate(timeout=120) == ("imported\n", "")
    assert process.returncode == 0


ENDLESS = """
with Workers(2) as workers:
    while True:
        for batch in loaded(Slow(), workers):
            print(*(worker.pid for worker in workers.launcher.workers), workers.launcher.process.pid, flush=True)
"""


def running(process):
    """The ids of a script's processes, once there are three."""
    for line in process.stdout:
        words = line.split()
        if len(words) == 3:
            return list(map(int, words))
    raise AssertionError(process.stderr.read())


def test_processes_end_when_the_main_process_is_killed(script):
    process = script(ENDLESS)
    family = running(process)
    process.kill()
    assert wait_until(lambda: not any(map(is_running, family)), 10)
    assert process.stderr.read() == ""


def test_ctrl_c_gives_one_traceback_that_of_the_script(script):
    process = script(ENDLESS)
    family = running(process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert wait_until(lambda: not any(map(is_running, family)), 10)
