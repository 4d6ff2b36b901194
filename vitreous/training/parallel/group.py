"""What the processes of a run tell each other, on the host: numbers, lists, errors. Gradients go other ways."""

import ctypes
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import count
from typing import Any, NamedTuple, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from vitreous.data.loading.batches import Batch
from vitreous.support.errors import REPORTED, InputError
from vitreous.support.text import first_line
from vitreous.training.parallel.place import ALONE_PLACE, Place

Result = TypeVar("Result")
TIMEOUT = timedelta(minutes=30)  # that ranks wait for each other
LATER = 0.5  # seconds that other ranks leave the first one to clean up and report: torchrun ends all if one has failed
PR_SET_PDEATHSIG = 1  # from sys/prctl.h
JOINED = count()  # groups of this process
FAILURE = "vitreous/failure"  # a key in the store: the rank that reports what went wrong
LOST = re.compile(r"(closed|reset) by peer|broken pipe|refused|remote process|timed ?out", re.IGNORECASE)


class LocalError(InputError):
    """One rank cannot go on, and the others do not know it: they notice when they wait for it."""


class Turn(NamedTuple):
    """A rank's part of a batch, and what it has to know of the others'.

    Args:
        batch: this rank's.
        count: readable images of all ranks.
        most: of the rank that has the most.
        bad: name and reason of each skipped image of all ranks.
    """

    batch: Batch
    count: int
    most: int
    bad: list[tuple[str, str]]

    @classmethod
    def alone(cls, batch: Batch) -> Self:
        """The turn of a rank without others."""
        return cls(batch, len(batch), len(batch), batch.bad)


class Group:
    """The processes that train one model. Use it as a context, around everything that they do together.

    All of them call the same methods in the same order. When the context ends, the process group of torch is destroyed,
    unless an error on GPUs may have left others waiting in it. One rank reports an error; those of others are marked.

    Args:
        place: of this process; without others, nothing is sent.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.rank, self.size = place.share.rank, place.share.size
        self.store: dist.Store | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the first process, which alone prints and writes."""
        return self.place.leads

    @property
    def is_joined(self) -> bool:
        """Whether torch has a process group, perhaps of one process."""
        return dist.is_available() and dist.is_initialized()

    def __enter__(self) -> Self:
        if self.place.is_launched and not dist.is_initialized():
            end_with_parent()
            backend = "gloo"
            if torch.cuda.is_available():
                torch.cuda.set_device(self.place.local_rank % torch.cuda.device_count())
                backend = "cpu:gloo,cuda:nccl"
            store, _, _ = next(dist.rendezvous("env://"))
            # The store may be that of an earlier attempt, or of an earlier run of this process.
            self.store = dist.PrefixStore(f"attempt/{self.place.restarts}/{next(JOINED)}", store)
            dist.init_process_group(backend, store=self.store, rank=self.rank, world_size=self.size, timeout=TIMEOUT)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.store is None:
            return
        reported = error is not None and self.size > 1 and not self._reports(error)
        if error is None or not torch.cuda.is_available():  # NCCL may wait for kernels that other ranks will never join
            dist.destroy_process_group()
        if error is None:
            return
        failure = lost_connection(error) or error
        if reported:
            setattr(failure, REPORTED, True)
        if failure is not error:
            raise failure from None

    def _reports(self, error: BaseException) -> bool:
        """Whether this rank reports what went wrong: the first that asks; of an interruption, the first rank."""
        if not self.leads:
            with suppress(KeyboardInterrupt):  # by torchrun
                time.sleep(LATER)
        if isinstance(error, KeyboardInterrupt):
            return self.leads
        assert self.store is not None
        try:
            return self.store.compare_set(FAILURE, "", str(self.rank)) == str(self.rank).encode()
        except RuntimeError:  # torchrun is gone, and with it the store
            return self.leads

    def wait(self) -> None:
        """Waits until all ranks are here."""
        self.highest(0)

    def highest(self, *numbers: int) -> list[int]:
        """The highest of each number over the ranks."""
        if self.size == 1:
            return [*numbers]
        tensor = torch.tensor(numbers)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor.tolist()

    def from_first(self, value: Result) -> Result:
        """The first rank's value, which JSON can hold; that of the others does not matter."""
        if self.size == 1:
            return value
        content = _bytes(value) if self.leads else torch.empty(0, dtype=torch.uint8)
        length = torch.tensor(len(content))
        dist.broadcast(length, 0)
        received = content if self.leads else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(received, 0)
        return value if self.leads else _value(received)

    def gather(self, value: Result) -> list[Result]:
        """The values of all ranks, which JSON can hold, in their order."""
        if self.size == 1:
            return [value]
        return [_value(content) for content in self.pieces(_bytes(value))]

    def pieces(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, in their order: on the CPU, of one type, and alike but for their lengths."""
        if self.size == 1:
            return [tensor]
        lengths = torch.empty(self.size, dtype=torch.int64)
        dist.all_gather_into_tensor(lengths, torch.tensor([len(tensor)]))
        padded = tensor.new_zeros(int(lengths.max()), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        everything = tensor.new_empty(self.size * len(padded), *tensor.shape[1:])
        dist.all_gather_into_tensor(everything, padded)
        chunks = everything.unflatten(0, (self.size, len(padded)))
        return [chunk[:length] for chunk, length in zip(chunks, lengths.tolist(), strict=True)]

    def spread(self, module: nn.Module) -> None:
        """Gives a module of every rank the tensors of the first one's, in the host's memory."""
        for tensor in module.state_dict().values() if self.size > 1 else ():
            dist.broadcast(tensor, 0)

    def lead(self, action: Callable[[], Result]) -> Result:
        """What the first rank's action returns, which JSON can hold. If it raises InputError, every rank does."""
        if self.leads:
            return self.from_first(self.agree(action))
        self.agree(lambda: None)
        return self.from_first(cast("Result", None))

    def agree(self, action: Callable[[], Result]) -> Result:
        """What this rank's action returns. Raises InputError on every rank if it does on any."""
        if self.size == 1:
            return action()
        result, error = _attempt(action)
        (failed,) = self.highest(error is not None)
        if failed:
            self._fail(error)
        assert error is None
        return result[0]

    def turns(self, batches: Iterable[Batch]) -> Iterator[Turn]:
        """The batches, of which each rank has as many, with what it needs to know of the others' parts.

        Raises:
            InputError: one rank cannot load a batch.
        """
        if self.size == 1:
            yield from map(Turn.alone, batches)
            return
        iterator = iter(batches)
        while True:
            result, error = _attempt(lambda: next(iterator, None))
            batch = result[0] if result else None
            length, bad = (0, 0) if batch is None else (len(batch), len(batch.bad))
            facts = torch.empty(self.size, 3, dtype=torch.int64)
            dist.all_gather_into_tensor(facts, torch.tensor([[length, bad, error is not None]]))
            if facts[:, 2].any():
                self._fail(error)
            if batch is None:
                return
            skipped = batch.bad
            if facts[:, 1].any():
                skipped = [(name, reason) for part in self.gather(batch.bad) for name, reason in part]
            yield Turn(batch, int(facts[:, 0].sum()), int(facts[:, 0].max()), skipped)

    def _fail(self, error: InputError | None) -> None:
        """Raises the error of a rank on all of them."""
        errors = self.gather(None if error is None else [error.cause, error.hint])
        if error is not None:
            raise error
        cause, hint = next(filter(None, errors))
        raise InputError(cause, hint)


def lost_connection(error: BaseException) -> InputError | None:
    """What to say of an error that only means that another process has ended; None for any other."""
    if not (isinstance(error, RuntimeError) and LOST.search(str(error))):
        return None
    cause = f"the connection to another process of this run is lost: {first_line(error)}"
    return InputError(cause, "see the messages of the others; --resume goes on")


def end_with_parent() -> None:
    """Has the system send SIGTERM to this process when torchrun is gone, even if that was killed; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


ALONE_GROUP = Group(ALONE_PLACE)


def _attempt(action: Callable[[], Result]) -> tuple[list[Result], InputError | None]:
    try:
        return [action()], None
    except InputError as error:
        return [], error


def _bytes(value: object) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _value(content: Tensor) -> Any:
    return json.loads(content.numpy().tobytes())
