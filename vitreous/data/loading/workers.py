"""Loading processes: started once for a run, shared by its splits, replaced when one dies.

Each has a thread here that sends it requests and receives its batches, into pinned memory if there is a GPU.

Ctrl-C raises KeyboardInterrupt between any two instructions of the main thread. It must find no lock taken that nobody
releases, for which the threads would wait forever. `with` is safe for the locks and queues of the interpreter, but not
for what is written in Python, as `Condition` and `Future`: between taking the lock and entering the block, their code
can be interrupted. So the main thread takes `Workers.lock` itself, waits for results in a `SimpleQueue`, and never
waits for a condition.
"""

import atexit
import os
import pickle
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from queue import SimpleQueue
from types import FunctionType
from typing import Any, Self

from vitreous.data.loading.connection import Launcher, Loaded, Lost, Stuck, Unavailable, Worker
from vitreous.data.loading.views import Request, Views
from vitreous.data.sources.splits import Loader
from vitreous.support.text import printable

AHEAD = 2  # batches per process that are loaded before they are asked for
TRIES = 2  # of a batch whose process dies
PATIENCE = 300.0  # seconds in which a process must begin another image


class BatchFailed(Exception):
    """A batch on which two processes died.

    Args:
        reason: continues "a loading process".
        position: in the batch, of the image that the second one was loading; IDLE if none.
    """

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason, position)
        self.reason = reason
        self.position = position


@dataclass(frozen=True, eq=False)
class Source:
    """Views, as they are sent to a process."""

    number: int
    views: Views
    content: bytes


@dataclass(eq=False)
class Job:
    """A batch to load, what came of it, whether it is still wanted, and how often a process died on it."""

    source: Source
    request: Request
    outcome: "SimpleQueue[Loaded | BaseException]" = field(default_factory=SimpleQueue)
    canceled: bool = False
    deaths: int = 0


class Workers:
    """Some loading processes, for the batches of any number of splits.

    As a context manager it starts them, and ends them in the end; in between they stay from epoch to epoch.

    Args:
        count: of processes; 0 for none.
        patience: seconds in which a process must begin another image; otherwise it is replaced.
        notify: called with what the user should know, a line each; on stderr by default.

    Raises:
        ValueError: the count is negative.
    """

    def __init__(self, count: int, patience: float = PATIENCE, notify: Callable[[str], None] | None = None) -> None:
        if count < 0:
            raise ValueError(f"workers is {count} and must be at least 0")
        self.count = count
        self.patience = patience
        self.notify = notify or _to_stderr
        self.notes: deque[str] = deque()  # of the threads
        self.noted: set[str] = set()
        self.sources: list[Source] = []
        self.jobs: deque[Job] = deque()
        self.lock = threading.RLock()  # of the fields from here on
        self.changed = threading.Condition(self.lock)
        self.idle = 0  # threads without a job
        self.is_open = False
        self.threads: list[threading.Thread] = []
        self.launcher: Launcher | None = None
        self.failure = Unavailable("the loading processes have ended")
        self.owner = 0

    def __enter__(self) -> Self:
        """Starts what starts the processes, which imports while the caller goes on."""
        if self.count:
            try:
                self.launcher = Launcher(self.patience)
            except Unavailable as error:
                self.failure = error
                return self
            self.is_open, self.idle, self.owner = True, self.count, os.getpid()
            atexit.register(self.close)  # a thread that outlives the interpreter would abort it
            self.threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(self.count)]
            for thread in self.threads:
                thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def opened(self) -> Iterator["Workers"]:
        """These if they have been started, or new ones for the length of the block."""
        if self.is_open:
            yield self
        else:
            with Workers(self.count, self.patience, self.notify) as workers:
                yield workers

    def close(self) -> None:
        """Ends the processes; may be called again after an interrupt."""
        if self.launcher is None or os.getpid() != self.owner:  # not in a fork of the main process
            return
        with self.lock:
            self.is_open = False
            self.jobs.clear()
            self.changed.notify_all()
        self.launcher.close()
        for thread in self.threads:
            if thread.ident is not None:  # an interrupt may have come before its start
                thread.join()
        self.launcher, self.threads, self.sources = None, [], []
        atexit.unregister(self.close)

    def load(self, views: Views, requests: Sequence[Request]) -> Iterator[Loaded]:
        """The batches of these requests in order, some of them loaded ahead.

        Raises:
            Unavailable: there are no processes, or they cannot load these views.
            BatchFailed: a batch's process died, and so did its replacement.
        """
        if not self.is_open:
            raise self.failure
        source = self._source(views)
        waiting: deque[Job] = deque()
        try:
            for request in requests:
                if len(waiting) == AHEAD * self.count:
                    yield self._next(waiting)
                waiting.append(Job(source, request))
                with self.lock:
                    self.jobs.append(waiting[-1])
                    self.changed.notify()
            while waiting:
                yield self._next(waiting)
        finally:
            for job in waiting:
                job.canceled = True

    def note_once(self, line: str) -> None:
        """Notifies the user of something that need not be repeated."""
        if line not in self.noted:
            self.noted.add(line)
            self.notify(line)

    def _source(self, views: Views) -> Source:
        """The pickled views, made once. Raises Unavailable."""
        for source in self.sources:
            if source.views.is_like(views):
                return source
        self.sources.append(Source(len(self.sources), views, _pickled(views)))
        return self.sources[-1]

    def _next(self, waiting: deque[Job]) -> Loaded:
        """The first of the waiting batches, once it is there."""
        if not self.is_open:
            raise self.failure
        outcome = waiting[0].outcome.get()
        waiting.popleft()
        if isinstance(outcome, BaseException):
            raise outcome
        while self.notes:
            self.notify(self.notes.popleft())
        return outcome

    # ---- the thread of each process

    def _serve(self) -> None:
        """Has jobs done by a process, and by its replacement if it dies, until the workers are closed."""
        launcher = self.launcher
        assert launcher is not None
        worker: Worker | None = None
        taken: deque[Job] = deque()
        requested = 0  # of the taken jobs
        while self._take(taken):
            try:
                worker = worker or launcher.start()
                for job in list(taken)[requested:]:
                    worker.request(job.source.number, job.source.content, job.request)
                    requested += 1
                outcome = worker.receive(taken[0].source.views)
            except BaseException as error:
                outcome = self._died(launcher, worker, taken[0], error)
                worker, requested = None, 0
                if outcome is None:
                    continue
            taken.popleft().outcome.put(outcome)
            requested = max(0, requested - 1)
            with self.lock:
                self.idle += not taken
        if worker is not None:
            worker.connection.close()
        for job in taken:
            job.outcome.put(self.failure)

    def _take(self, taken: deque[Job]) -> bool:
        """Takes a job, and another to send ahead if nobody is idle; waits for one. Returns whether these are open."""
        with self.lock:
            while self.is_open:
                while self.jobs and (not taken or (len(taken) < AHEAD and not self.idle)):
                    job = self.jobs.popleft()
                    if not job.canceled:
                        self.idle -= not taken
                        taken.append(job)
                if taken:
                    return True
                self.changed.wait()
            return False

    def _died(self, launcher: Launcher, worker: Worker | None, job: Job, error: BaseException) -> BaseException | None:
        """Ends a worker after an exception. Returns what its job fails with; None if it is to be done again."""
        how = "" if worker is None else launcher.end(worker)
        if worker is None or not isinstance(error, Lost):
            return error
        if not self.is_open:
            return None
        reason = str(error) if isinstance(error, Stuck) else how
        job.deaths += 1
        if job.deaths == TRIES:
            return BatchFailed(reason, worker.progress.position)
        self.notes.append(f"a loading process {reason}; another one loads its batch")
        return None


def obstacle(*loaders: Loader) -> str | None:
    """Why loaders cannot be sent to another process; None if all of them can."""
    try:
        for loader in loaders:
            _pickle(loader, _Nowhere())
    except Unavailable as error:
        return str(error)
    return None


def _pickled(views: Views) -> bytes:
    """The bytes of views. Raises Unavailable."""
    file = BytesIO()
    _pickle(views, file)
    return file.getvalue()


def _pickle(value: object, file: BytesIO) -> None:
    """Pickles a value. Raises Unavailable if it cannot be pickled, or not unpickled in another process."""
    try:
        _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    except Unavailable:
        raise
    except Exception as error:  # PicklingError, AttributeError, TypeError, and what a user's class raises
        raise Unavailable(f"the data cannot be sent to another process: {error}") from error


class _Pickler(pickle.Pickler):
    """Refuses what is defined in the user's script, which another process does not run."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type | FunctionType) and value.__module__ == "__main__":
            name = value.__qualname__
            raise Unavailable(f"{name} is defined in the script itself; move it to a module that the script imports")
        return NotImplemented


class _Nowhere(BytesIO):
    """A file that forgets what is written."""

    def write(self, content: Any, /) -> int:
        return memoryview(content).nbytes  # a large array is not bytes


def _to_stderr(line: str) -> None:
    print(printable(line), file=sys.stderr)
