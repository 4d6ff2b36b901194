"""The checkpoints in a run's folder: each is complete and verified, or does not count."""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from vitreous.checkpoints.files.layout import MODEL_FILE
from vitreous.checkpoints.files.tensors import read_tensors, write_tensors
from vitreous.support.errors import InputError
from vitreous.support.files import atomic_path, flush_folder
from vitreous.training.checkpointing.packing import pack, unpack
from vitreous.training.parallel.group import ALONE_GROUP, Group
from vitreous.training.parallel.passes import is_shard
from vitreous.training.parallel.state import Stored, save_shards, writers
from vitreous.training.records.folder import CHECKPOINTS

TENSORS, VALUES, SUMS = "state.safetensors", "state.json", "SHA256SUMS"
SHARDS = "shards"  # a folder with what each process has of the other tensors
NAME = re.compile(r"(\d{6,})-step-(\d+)")
LINK = "model"  # in an unfinished checkpoint, a second name of the best model
UNFINISHED = ".saving-"  # how the name of a folder begins while it is written
KEPT = 2  # undamaged ones, besides the one that is being written


class Checkpoint(NamedTuple):
    """A verified checkpoint.

    Args:
        path: of its folder.
        state: as it was saved; tensors are on the CPU.
    """

    path: Path
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run.

    A checkpoint is a folder with the tensors of a state, its other values as JSON, a copy of the best model so far,
    and the SHA-256 of each in a file for `sha256sum --check`. It is written under another name; files and folder are
    flushed, the sums come last, and then it is renamed: after a crash at any moment it is complete, or not there.

    Of several processes the first one writes. Where the state is in shards, all of them write those, at the same time;
    they are read by any number of processes.

    Args:
        folder: of the run.
        notify: called with a line about each damaged checkpoint.
        group: the processes of the run.
        in_shards: whether all of them write.
    """

    def __init__(
        self, folder: Path, notify: Callable[[str], None], group: Group = ALONE_GROUP, in_shards: bool = False
    ) -> None:
        self.folder, self.notify, self.group = folder, notify, group
        self.path = folder / CHECKPOINTS
        self.others = writers() if in_shards else None
        self.writes = group.leads or in_shards

    def begin(self) -> Path:
        """Makes an unfinished checkpoint with the best model so far, even if another one replaces it meanwhile.

        Raises:
            InputError: the folder cannot be written.
        """
        if self.others is None:
            return self._begin()
        return Path(self.group.lead(lambda: str(self._begin())))

    def _begin(self) -> Path:
        unfinished = self.path / f"{UNFINISHED}{secrets.token_hex(8)}"
        with self._writing(unfinished):
            self.path.mkdir(exist_ok=True)  # not its parents: a run's folder that is gone does not come back in part
            unfinished.mkdir()
            with suppress(FileNotFoundError):  # no epoch was validated yet
                _link(self.folder / MODEL_FILE, unfinished / LINK)
        return unfinished

    def write(self, state: dict[str, Any], step: int, unfinished: Path | None = None) -> Path:
        """Writes a state, and removes all but the newest undamaged checkpoints; if it fails, the others stay.

        Args:
            state: as `pack` takes it.
            step: of training, for the name.
            unfinished: of `begin`, if that was called before.

        Raises:
            InputError: the folder cannot be written, or the disk is full.
        """
        tensors, values = pack(state)
        number = max((number for number, _ in self._numbered()), default=0) + 1
        unfinished = unfinished or self.begin()
        path = self.path / f"{number:06}-step-{step}"
        with self._writing(unfinished):
            if self.others is not None:
                save_shards(unfinished / SHARDS, {name: x for name, x in tensors.items() if is_shard(x)}, self.others)
            if not self.group.leads:
                return path
            if self.others is not None:
                flush_folder(unfinished / SHARDS)
            write_tensors(unfinished / TENSORS, {name: x for name, x in tensors.items() if not is_shard(x)})
            _write(unfinished / VALUES, json.dumps(values, allow_nan=False).encode())
            if (unfinished / LINK).exists():  # a copy of its own: damage to one checkpoint is none to the others
                _copy(unfinished / LINK, unfinished / MODEL_FILE)
                (unfinished / LINK).unlink()
            _write(unfinished / SUMS, sums(unfinished, sorted(filter(Path.is_file, unfinished.rglob("*")))))
            flush_folder(unfinished)
            unfinished.rename(path)
            flush_folder(self.path)
            flush_folder(self.folder)
        self._remove_old()
        return path

    @contextmanager
    def _writing(self, unfinished: Path) -> Iterator[None]:
        """Removes an unfinished checkpoint if the block fails. Raises InputError for an error of the disk."""
        try:
            yield
        except BaseException as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            reason = failed_write(error)
            if reason is not None:
                cause = f"cannot write a checkpoint to {str(self.path)!r}: {reason}"
                raise InputError(cause, "free some space, or write elsewhere with --out") from error
            raise

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is complete and undamaged, as the first process finds; None if none was finished.

        Raises:
            InputError: there are some, and all are damaged.
        """
        name = self.group.lead(self._newest)
        return None if name is None else Checkpoint(self.path / name, read(self.path / name))

    def _newest(self) -> str | None:
        reason = None
        for _, path in sorted(self._numbered(), reverse=True):
            reason = damage(path)
            if reason is None:
                return path.name
            self.notify(f"the checkpoint {path.name} is damaged ({reason}); an older one is taken if there is one")
        if reason is not None:
            cause = f"all checkpoints in {str(self.path)!r} are damaged"
            raise InputError(cause, f"restore one, or remove them all to start afresh; the best model is {MODEL_FILE}")
        return None

    def restore_model(self, checkpoint: Checkpoint) -> None:
        """Makes the run's model the best one at the time of a checkpoint, if there was one; otherwise it stays."""
        model = self.folder / MODEL_FILE
        if (checkpoint.path / MODEL_FILE).is_file():
            with atomic_path(model) as temporary:
                shutil.copyfile(checkpoint.path / MODEL_FILE, temporary)

    def _numbered(self) -> Iterator[tuple[int, Path]]:
        """All finished checkpoints with their numbers, in any order."""
        if self.path.is_dir():
            for path in self.path.iterdir():
                if found := NAME.fullmatch(path.name):
                    yield int(found[1]), path

    def _remove_old(self) -> None:
        """Keeps the newest checkpoint, just written, and the newest undamaged ones before it, and removes all else.

        That includes unfinished ones that a crash left; this process owns the folder.
        """
        kept = 0
        for _, path in sorted(self._numbered(), reverse=True):
            if kept == 0 or (kept < KEPT and damage(path) is None):
                kept += 1
            else:
                shutil.rmtree(path, ignore_errors=True)
        for path in self.path.glob(f"{UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)


def failed_write(error: BaseException) -> str | None:
    """Why a file could not be written, by this process or another one; None for any other error."""
    for inner in (error, *(failure for failure, _ in getattr(error, "failures", {}).values())):
        if isinstance(inner, OSError):
            return inner.strerror
    return None


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint; None if it is as it was written."""
    try:
        written = (path / SUMS).read_bytes()
        lines = written.decode(errors="replace").splitlines()
        now = sums(path, [path / line.partition("  ")[2] for line in lines])  # and no other files, such as .DS_Store
    except (OSError, ValueError) as error:
        return f"{Path(getattr(error, 'filename', None) or SUMS).name}: {getattr(error, 'strerror', None) or error}"
    if written == now and {TENSORS, VALUES} <= {line.partition("  ")[2] for line in lines}:
        return None
    changed = (
        line.partition("  ")[2] for line, other in zip(lines, now.decode().splitlines(), strict=False) if line != other
    )
    return f"{next(changed, SUMS)} has changed"


def sums(path: Path, files: Iterable[Path]) -> bytes:
    """The SHA-256 of files of a checkpoint, as `sha256sum` writes them."""
    lines = []
    for file in files:
        with file.open("rb") as opened:
            name = file.relative_to(path).as_posix()
            lines.append(f"{hashlib.file_digest(opened, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines).encode()


def read(path: Path) -> dict[str, Any]:
    """The state of a checkpoint, without verifying it; what several processes wrote is `Stored`, and not read yet."""
    with read_tensors(path / TENSORS) as file:
        tensors: dict[str, Tensor] = {name: file[name] for name in file}
    return unpack(lambda name: tensors.get(name, Stored(path / SHARDS, name)), json.loads((path / VALUES).read_bytes()))


def _write(path: Path, content: bytes) -> None:
    """Writes and flushes a file of an unfinished folder."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _link(source: Path, target: Path) -> None:
    """A second name of a file that others only ever replace; a copy where there are no links."""
    try:
        target.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _copy(source: Path, target: Path) -> None:
    """Copies a file into an unfinished folder, and flushes it."""
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())
