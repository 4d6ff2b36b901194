"""Where a process stands among those that train one model, as torchrun says it."""

import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vitreous.data.loading.shares import ALONE, Share
from vitreous.support.errors import InputError
from vitreous.support.host import usable_cores
from vitreous.support.text import listed

START = "start the processes with torchrun, or unset WORLD_SIZE"
TORCHRUNS_THREADS = "1"  # what torchrun sets OMP_NUM_THREADS to, unless it is set


@dataclass(frozen=True)
class Place:
    """The place of this process.

    Args:
        share: its rank among all processes; `ALONE` if there is one.
        local_rank: its number among those on this machine.
        local_size: how many there are on this machine.
        is_launched: whether torchrun started it, perhaps alone.
        restarts: how often torchrun has started all processes again.
    """

    share: Share = ALONE
    local_rank: int = 0
    local_size: int = 1
    is_launched: bool = False
    restarts: int = 0

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The place that torchrun has put into the environment; alone without it.

        Raises:
            InputError: the environment says that there are several processes, but not which one this is.
        """
        size = _number(environment, "WORLD_SIZE", 1)
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in environment]
        if size == 1 and (missing or "TORCHELASTIC_RUN_ID" not in environment):
            return cls()
        if missing:
            raise InputError(f"WORLD_SIZE is {size}, but {listed(missing)} not set", START)
        _number(environment, "MASTER_PORT", 0)
        rank = _number(environment, "RANK", 0)
        if rank >= size:
            raise InputError(f"RANK is {rank} and WORLD_SIZE {size}", START)
        return cls(
            Share(rank, size),
            _number(environment, "LOCAL_RANK", 0),
            _number(environment, "LOCAL_WORLD_SIZE", 1),
            is_launched=True,
            restarts=_number(environment, "TORCHELASTIC_RESTART_COUNT", 0),
        )

    @property
    def leads(self) -> bool:
        """Whether this is the first process, which alone prints and writes."""
        return self.share.rank == 0

    @property
    def launch(self) -> str:
        """How a command begins that starts as many processes; the options for several machines are not known here."""
        if self.share.size == 1:
            return ""
        alone = self.share.size == self.local_size
        return f"torchrun {f'--standalone --nproc-per-node={self.local_size}' if alone else '…'} -m "

    @property
    def cores(self) -> int:
        """This process's part of the machine's cores; at least 1."""
        return max(1, usable_cores() // self.local_size)

    def threads(self, asked: int | str, environment: Mapping[str, str] = os.environ) -> int | None:
        """Threads of a CPU operation; None leaves them to the host.

        torchrun allows each process one thread, unless OMP_NUM_THREADS is set; they share the cores instead.

        Args:
            asked: a number, or "auto".
            environment: of this process.
        """
        if isinstance(asked, int):
            return asked
        one = environment.get("OMP_NUM_THREADS") == TORCHRUNS_THREADS
        return self.cores if self.is_launched and self.local_size > 1 and one else None


ALONE_PLACE = Place()


def rank_seed(seed: int, rank: int, step: int) -> int:
    """The seed of a rank's dropout, from the run's; other for each rank, and for each step at which it begins."""
    digest = hashlib.sha256(f"{seed}:{rank}:{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def job() -> str:
    """Names the torchrun that started this process, the same after its restarts; this process without one."""
    parent = os.getppid()
    try:
        started = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):  # not Linux
        started = ""
    return ":".join((socket.gethostname(), str(parent), started, os.environ.get("TORCHELASTIC_RUN_ID", "")))


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    """A number from the environment. Raises InputError if it is none."""
    value = environment.get(name, str(default))
    if not value.isdecimal():
        raise InputError(f"{name} is {value!r} in the environment, and not a number", START)
    return int(value)
