"""What runs in the loading processes: a launcher that imports everything once, and the workers it forks.

The launcher is a Python of its own, with one thread and without the user's script: it never imports `__main__`, and
inherits no locks, threads or CUDA state, as a fork of the main process would. It ends its workers when the main process
is gone, however that ended. Batches travel through Unix sockets: no /dev/shm is needed, whose size in a container
(64 MB) may be less than a batch, and 19 MB take 2.8 ms, of a worker's 200 ms or more to load them.

    main process -> launcher   START with two file descriptors (socket, progress); END with a process id
    launcher -> main process   the process id, or -errno; how that process ended, as of os.waitpid
    main process -> worker     VIEWS, a number and a pickle of `Views`; LOAD, the number and a `Request`
    worker -> main process     LOADED, the positions, and the bytes of the images; FAILED, an exception;
                               REFUSED, why the views cannot be unpickled
"""

import gc
import mmap
import os
import pickle
import random
import signal
import socket
import struct
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image

from vitreous.data.loading.views import Progress, Request, Views
from vitreous.support.host import tune_host

START, END = 1, 2  # of the launcher
VIEWS, LOAD, LOADED, FAILED, REFUSED = range(5)  # of a worker
COMMAND = struct.Struct("<qq")  # to the launcher: the command, a process id
ANSWER = struct.Struct("<q")  # of the launcher
HEADER = struct.Struct("<qqq")  # of a message: its kind, a number, the bytes that follow
PROGRESS_BYTES = 16  # two int64
CHUNK = 1 << 24  # bytes to receive at once


class Hangup(Exception):
    """The other process has closed its end."""


def receive_exactly(read_into: Callable[[memoryview], int], buffer: memoryview) -> None:
    """Fills a buffer. Raises Hangup at the end of the stream."""
    done = 0
    while done < len(buffer):
        count = read_into(buffer[done : done + CHUNK])
        if not count:
            raise Hangup
        done += count


def shared_progress(descriptor: int) -> Progress:
    """The progress in a file that two processes map."""
    return Progress(np.frombuffer(mmap.mmap(descriptor, PROGRESS_BYTES), np.int64))


# ---- the launcher


def launch(descriptor: int) -> None:
    """Runs the launcher until the main process closes its end of the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's business
    tune_host(1)
    Image.preinit()  # the common formats
    gc.collect()
    gc.freeze()  # so that collecting in a worker copies no shared pages
    workers: set[int] = set()
    with socket.socket(fileno=descriptor) as control:
        try:
            with suppress(OSError):  # the main process is gone
                obey(control, workers)
        finally:
            for pid in workers:
                end_worker(pid)


def obey(control: socket.socket, workers: set[int]) -> None:
    """Carries out the commands of the main process, until there are no more; keeps the ids of running workers."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, COMMAND.size, 2)
        if len(message) < COMMAND.size:
            return
        command, pid = COMMAND.unpack(message)
        if command == START:
            answer = start_worker(control, *descriptors)
            if answer > 0:
                workers.add(answer)
        else:
            workers.discard(pid)
            answer = end_worker(pid)
        control.sendall(ANSWER.pack(answer))


def start_worker(control: socket.socket, descriptor: int, progress: int) -> int:
    """Forks a worker, and returns its process id; -errno if that fails."""
    try:
        pid = os.fork()
    except OSError as error:
        pid = -(error.errno or 1)
    if pid == 0:
        run_worker(control, descriptor, progress)
    os.close(descriptor)
    os.close(progress)
    return pid


def end_worker(pid: int) -> int:
    """Kills a worker if it still runs, and returns how it ended."""
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1]
    return 0


# ---- a worker


def run_worker(control: socket.socket, descriptor: int, progress: int) -> NoReturn:
    """Answers the requests of the main process until it closes its end; never returns to the launcher's code."""
    code = 1
    try:
        control.close()
        random.seed()  # for datasets that draw from these generators: otherwise all workers would draw the same
        np.random.seed()
        torch.seed()
        with socket.socket(fileno=descriptor) as connection:
            answer_requests(connection, shared_progress(progress))
    except (Hangup, OSError):
        code = 0  # the main process is gone, or has given up this worker
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def answer_requests(connection: socket.socket, progress: Progress) -> NoReturn:
    """Loads batch after batch."""
    views: dict[int, Views | str] = {}
    rows = np.empty(0, np.uint8)  # kept, since fresh memory costs a page fault every 4 KiB
    while True:
        kind, number, content = receive(connection)
        if kind == VIEWS:
            views[number] = unpickled(content)
            continue
        chosen, request = views[number], Request(*pickle.loads(content))
        if isinstance(chosen, str):
            send(connection, REFUSED, pickle.dumps(chosen))
            continue
        try:
            shape = chosen.shape(len(request.samples))
            if rows.shape[1:] != shape[1:] or len(rows) < shape[0]:
                rows = np.empty(shape, np.uint8)
            good, bad = chosen.fill(rows, request, progress)
        except BaseException as error:
            send(connection, FAILED, pickled_error(error))
        else:
            send(connection, LOADED, pickle.dumps((good, bad)), rows[: len(good)].reshape(-1).data)


def receive(connection: socket.socket) -> tuple[int, int, bytearray]:
    """A message: its kind, number and content. Raises Hangup."""
    header = bytearray(HEADER.size)
    receive_exactly(connection.recv_into, memoryview(header))
    kind, number, count = HEADER.unpack(header)
    content = bytearray(count)
    receive_exactly(connection.recv_into, memoryview(content))
    return kind, number, content


def send(connection: socket.socket, kind: int, content: bytes, data: memoryview | None = None) -> None:
    """Sends a message, and the data that its content describes."""
    connection.sendall(HEADER.pack(kind, 0 if data is None else len(data), len(content)) + content)
    if data is not None:
        connection.sendall(data)


def unpickled(content: bytearray) -> Views | str:
    """The views, or why they cannot be unpickled: a class in a module that only the main process can import."""
    try:
        return pickle.loads(content)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def pickled_error(error: BaseException) -> bytes:
    """An exception and its traceback as text; only the text if it cannot be pickled."""
    text = "".join(traceback.format_exception(error))
    pair: tuple[Any, str] = error, text
    try:
        content = pickle.dumps(pair)
        pickle.loads(content)  # some exceptions cannot be created again from their arguments
    except Exception:
        return pickle.dumps((None, text))
    return content
