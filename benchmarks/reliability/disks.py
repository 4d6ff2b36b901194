"""Line 10: disks that are full, read-only or gone."""

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks.reliability.kills import NUMBERS, is_loaded, state_of
from benchmarks.reliability.outcome import Lab, LeftOut, Outcome, Tally
from benchmarks.reliability.runs import SETTINGS, Process, make_photos, newest, size_of, start, words
from vitreous.support.errors import InputError
from vitreous.training.checkpointing.files import Checkpoints

Result = TypeVar("Result")
PAGE = 4096
LONG = {**SETTINGS, "epochs": 4000}


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A folder with another file system on it. Raises LeftOut if this user cannot mount."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        raise LeftOut("mounting needs root and the command mount")
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise LeftOut(done.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def disks(lab: Lab) -> Outcome:
    """A small tmpfs and a limit on files at every page of a save; folders that become read-only or vanish."""
    tally, note = Tally(), "a full disk at each page of a save, and folders"
    control = 0, 0
    try:
        with mounted(lab.folder / "small", "-t", "tmpfs", "-o", "size=2m", "tmpfs") as folder:
            full(lab, folder, tally)
            control = full_control(lab, folder)
        with mounted(lab.folder / "readonly", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs") as folder:
            tally.add(refused(lab, folder / "run"))
    except LeftOut as reason:
        note = f"a limit on files, and folders; full and read-only disks are left out: {reason}"
        control = limited_control(lab)
    limited(lab, tally)
    for fault in (vanished, made_read_only)[: lab.count(2, 1)]:
        if fault is made_read_only and os.geteuid() == 0:
            continue  # root writes anywhere
        tally.add(fault(lab))
    broken, tries = control
    text = f"`torch.save` in place: {broken} of {tries} do not load"
    return tally.outcome(text, broken == tries > 0, note)


def write_fails(checkpoints: Checkpoints, old: bytes) -> tuple[bool, str | None]:
    """Writes state 2; whether that failed, and what is wrong then: the old state must be there, bit for bit."""
    try:
        checkpoints.write(state_of(2), step=2)
    except InputError as error:
        problem = None if "\n" not in error.cause and error.hint else "not one clear line"
    else:
        return False, None
    found = newest(checkpoints.folder)
    if found is None or content_of(checkpoints.path) != old:
        return True, "the old state is not as it was, or files are left over"
    return True, problem


def content_of(folder: Path) -> bytes:
    """The names and contents of all files of a folder, hidden ones included."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    folders = sorted(str(path) for path in folder.rglob("*") if path.is_dir())
    return b"".join(str(file).encode() + file.read_bytes() for file in files) + "".join(folders).encode()


def full(lab: Lab, folder: Path, tally: Tally) -> None:
    """Fills a disk so that a save fails at each of its pages."""
    (folder / "model.safetensors").write_bytes(bytes(10_000))
    checkpoints = Checkpoints(folder, lab.log)
    checkpoints.write(state_of(1), step=1)
    old, filler, pages = content_of(checkpoints.path), folder / "filler", lab.count(1, 16)
    room = 0
    while True:
        fill(filler, room)
        failed, problem = write_fails(checkpoints, old)
        filler.unlink()
        if not failed:
            break
        lost = size_of(checkpoints.path) if newest(folder) is None else 0
        tally.add(None if problem is None else f"{room} bytes free: {problem}", lost)
        room += pages * PAGE
    found = newest(folder)
    if found is None or found.state["number"] != 2:
        tally.add("with enough space, the save is not found")


def fill(filler: Path, room: int) -> None:
    """Writes a file that leaves so many bytes of its disk."""
    free = shutil.disk_usage(filler.parent).free
    filler.write_bytes(bytes(free - room))


def full_control(lab: Lab, folder: Path) -> tuple[int, int]:
    """How many states are lost that torch.save writes over a smaller one on a full disk, of how many."""
    shutil.rmtree(folder / "checkpoints")
    file, broken, rooms = folder / "state.pt", 0, range(0, 2 * NUMBERS, lab.count(1, 8) * PAGE)
    for room in rooms:
        torch.save({"tensor": torch.zeros(NUMBERS // 2)}, file)
        fill(folder / "filler", room)
        save(file)
        broken += not is_loaded(file)
        (folder / "filler").unlink()
    return broken, len(rooms)


def save(file: Path) -> None:
    """Writes state 2 with torch.save, as far as that goes."""
    try:
        torch.save(state_of(2), file)
    except (OSError, RuntimeError):
        return


def limited(lab: Lab, tally: Tally) -> None:
    """Limits the size of files, so that a save fails at many places."""
    folder = lab.sub("limited")
    (folder / "model.safetensors").write_bytes(bytes(10_000))
    checkpoints = Checkpoints(folder, lab.log)
    path = checkpoints.write(state_of(1), step=1)
    old = content_of(checkpoints.path)
    largest = max(file.stat().st_size for file in path.iterdir())
    for limit in sorted({0, 1, largest - 1, *(lab.draw.randrange(largest) for _ in range(lab.count(40, 3)))}):
        failed, problem = with_limit(limit, lambda: write_fails(checkpoints, old))
        tally.add(problem if failed else f"files of {limit} bytes at most, and no error")


def limited_control(lab: Lab) -> tuple[int, int]:
    """As `full_control`, with a limit on the size of files."""
    file, broken, tries = lab.folder / "state.pt", 0, lab.count(40, 4)
    for _ in range(tries):
        torch.save(state_of(1), file)
        with_limit(lab.draw.randrange(file.stat().st_size), lambda: save(file))
        broken += not is_loaded(file)
    return broken, tries


def with_limit(limit: int, function: Callable[[], Result]) -> Result:
    """Calls a function while files of this process can have so many bytes at most."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        return function()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


# ---- folders


def one_clear_line(process: Process) -> str | None:
    """What is wrong with how a run ends that cannot write: a line of cause and one of hint, and exit status 2."""
    try:
        _, error = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "it does not end"
    lines = error.strip().splitlines()
    if process.returncode != 2 or len(lines) != 2 or not lines[0].startswith("error: cannot"):
        return f"exit status {process.returncode}: {error.strip()[-300:]}"
    return None


def refused(lab: Lab, out: Path) -> str | None:
    """A run whose folder cannot be made."""
    photos = make_photos(lab.folder / "photos")
    problem = one_clear_line(start(lab.folder, [photos.name, "--out", str(out), *words(SETTINGS)]))
    return None if problem is None else f"a read-only disk: {problem}"


def vanished(lab: Lab) -> str | None:
    """A run whose folder is moved away while it trains."""
    problem = during_run(lab, "vanished", lambda out: out.rename(out.with_name("elsewhere")))
    return None if problem is None else f"a folder that vanishes: {problem}"


def made_read_only(lab: Lab) -> str | None:
    """A run whose folder becomes read-only while it trains."""
    problem = during_run(lab, "protected", lambda out: out.chmod(0o500))
    return None if problem is None else f"a folder that becomes read-only: {problem}"


def during_run(lab: Lab, name: str, fault: Callable[[Path], object]) -> str | None:
    """How a run ends after a fault that comes after its first epoch."""
    photos, out = lab.folder / "photos", lab.folder / name
    if not photos.exists():
        make_photos(photos)
    process = start(lab.folder, [photos.name, "--out", out.name, *words(LONG)])
    assert process.stdout is not None
    next((line for line in process.stdout if line.startswith("epoch")), None)
    fault(out)
    return one_clear_line(process)
