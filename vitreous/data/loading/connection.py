"""The main process's side of a loading process, and of the launcher that starts them; see `process.py`."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from vitreous.data.loading import process as remote
from vitreous.data.loading.views import Request, Views

TICK = 1.0  # seconds between two looks at a process's progress
START = 300.0  # seconds that the launcher has to answer; on a busy machine, importing torch is slow
GOODBYE = 5.0  # seconds that the launcher has to end
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
try:
    from vitreous.data.loading.process import launch
except Exception as error:
    sys.exit(f"loading processes cannot start: {error!r}")
launch(int(sys.argv[2]))
"""


class Unavailable(Exception):
    """Loading processes cannot be used, for the reason in the message; this process can load the images."""


class Lost(Exception):
    """A process has died."""


class Stuck(Lost):
    """A process made no progress. The message continues "a loading process"."""


@dataclass
class Loaded:
    """A batch from a process.

    Args:
        images: the readable ones.
        good: the position of each in the batch.
        bad: position and reason of each broken image.
    """

    images: UInt8[Tensor, "batch channels height width"]
    good: list[int]
    bad: list[tuple[int, str]]


class Worker:
    """One loading process.

    Args:
        pid: its id.
        connection: our end of its socket.
        progress: the file in which it counts its images.
        patience: seconds in which it must begin another image.
    """

    def __init__(self, pid: int, connection: socket.socket, progress: int, patience: float) -> None:
        self.pid = pid
        self.connection = connection
        self.progress = remote.shared_progress(progress)
        self.patience = patience
        self.known: set[int] = set()  # the views it has
        self.seen = self.silent = 0
        connection.settimeout(TICK)

    def request(self, number: int, views: bytes, request: Request) -> None:
        """Asks for a batch of the views of this number, and sends them the first time. Raises Lost."""
        if number not in self.known:
            self._send(remote.VIEWS, number, views)
            self.known.add(number)
        self._send(remote.LOAD, number, pickle.dumps(tuple(request)))

    def receive(self, views: Views) -> Loaded | BaseException:
        """The earliest batch that was requested and not yet received.

        If loading raised an exception, it is returned, with the process's traceback as its cause; Unavailable if the
        process cannot unpickle the views.

        Raises:
            Lost: the process died or makes no progress.
        """
        header = bytearray(remote.HEADER.size)
        self._fill(header)
        kind, size, count = remote.HEADER.unpack(header)
        content = bytearray(count)
        self._fill(content)
        if kind == remote.REFUSED:
            return Unavailable(f"another process cannot read the data: {pickle.loads(content)}")
        if kind == remote.FAILED:
            error, text = pickle.loads(content)
            error = error or RuntimeError("loading failed in another process")
            error.__cause__ = RuntimeError(text)
            return error
        good, bad = pickle.loads(content)
        images = torch.empty(views.shape(len(good)), dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        assert images.numel() == size, "two processes disagree on the size of an image"
        self._fill(images.numpy().reshape(-1).data)
        return Loaded(images, good, bad)

    def _send(self, kind: int, number: int, content: bytes) -> None:
        for part in (remote.HEADER.pack(kind, number, len(content)), content):
            rest = memoryview(part)
            while rest:
                try:
                    rest = rest[self.connection.send(rest) :]
                except TimeoutError:
                    self._check()
                except OSError as error:
                    raise Lost from error

    def _fill(self, buffer: bytearray | memoryview) -> None:
        try:
            remote.receive_exactly(self._receive_into, memoryview(buffer))
        except (remote.Hangup, OSError) as error:
            raise Lost from error

    def _receive_into(self, buffer: memoryview) -> int:
        while True:
            try:
                count = self.connection.recv_into(buffer)
            except TimeoutError:
                self._check()
            else:
                self.silent = 0
                return count

    def _check(self) -> None:
        """Counts ticks without progress; not the time, which goes on while a machine sleeps. Raises Lost."""
        begun = self.progress.begun
        self.silent = self.silent + 1 if begun == self.seen else 0
        self.seen = begun
        if self.silent * TICK >= self.patience:
            raise Stuck(f"made no progress for {self.patience:g} s")


class Launcher:
    """Starts and ends loading processes, from a process of its own.

    Args:
        patience: of its workers, in seconds.

    Raises:
        Unavailable: the system has no fork, or cannot start another process.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.lock = threading.Lock()  # of the conversation with the process
        self.workers: set[Worker] = set()
        self.closed = False
        self._boot()

    def start(self) -> Worker:
        """Starts a worker, and the launcher again if it has died. Raises Unavailable."""
        ours, theirs = socket.socketpair()
        progress = _progress_file()
        try:
            pid = self._ask(remote.START, 0, [theirs.fileno(), progress])
            if pid < 0:
                raise Unavailable(f"no further process can be started: {os.strerror(-pid)}")
            worker = Worker(pid, ours, progress, self.patience)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(progress)
        self.workers.add(worker)
        return worker

    def end(self, worker: Worker) -> str:
        """Ends a worker. Returns how it had ended before, which continues "a loading process"."""
        self.workers.discard(worker)
        worker.connection.close()
        try:
            code = os.waitstatus_to_exitcode(self._ask(remote.END, worker.pid, [], tries=1))
        except Unavailable:  # the launcher has died, and its workers are adopted by init
            return "died"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def close(self) -> None:
        """Ends all workers and the launcher."""
        self.closed = True
        for closing in (self.control, *(worker.connection for worker in self.workers.copy())):
            with suppress(OSError):
                closing.shutdown(socket.SHUT_RDWR)  # wakes the threads that wait for them
        with self.lock:
            self._end_process()

    def _ask(self, command: int, pid: int, descriptors: list[int], tries: int = 2) -> int:
        """The launcher's answer to a command; if it worked and has died, it is started again for the last try."""
        with self.lock:
            for rest in reversed(range(tries)):
                try:
                    socket.send_fds(self.control, [remote.COMMAND.pack(command, pid)], descriptors)
                    answer = bytearray(remote.ANSWER.size)
                    remote.receive_exactly(self.control.recv_into, memoryview(answer))
                except (OSError, remote.Hangup) as error:
                    if self.closed or not self.answered or not rest:
                        raise Unavailable("the process that starts others does not answer") from error
                    self._end_process()
                    self._boot()
                else:
                    self.answered = True
                    return remote.ANSWER.unpack(answer)[0]
        raise AssertionError("there is at least one try")

    def _boot(self) -> None:
        if not hasattr(os, "fork") or not sys.executable:
            raise Unavailable("this system cannot start them")
        self.answered = False  # since its start
        self.control, theirs = socket.socketpair()
        self.control.settimeout(START)
        command = [sys.executable, "-P", "-c", BOOT, json.dumps(sys.path), str(theirs.fileno())]
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                env=os.environ | ONE_THREAD,
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C reaches the main process alone
            )
        except OSError as error:
            self.control.close()
            raise Unavailable(f"no further process can be started: {error.strerror}") from error
        finally:
            theirs.close()

    def _end_process(self) -> None:
        """Ends the launcher, which ends its workers."""
        self.control.close()
        try:
            self.process.wait(GOODBYE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _progress_file() -> int:
    """The descriptor of an unnamed file with room for a `Progress`."""
    if hasattr(os, "memfd_create"):  # Linux; not in /dev/shm
        descriptor = os.memfd_create("progress")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, remote.PROGRESS_BYTES)
    return descriptor
