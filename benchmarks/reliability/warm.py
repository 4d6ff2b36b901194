"""Commands that start at once: forks of a process that has imported everything, but has done nothing yet.

Starting Python and importing torch takes seconds, in which a kill finds nothing to break. A fork begins where the
command line is read. It is a process like any other: it gets signals, ends as Python ends, and leaves its status.
"""

import atexit
import ctypes
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn

SUBREAPER = 36  # of prctl: a fork whose parent has ended becomes a child of this process
LONGEST = 65536  # bytes of a request
USED = (  # by a run, besides the command line; the second when its optimizer is made
    "vitreous.training.run", "torch._dynamo", "vitreous.cli.train", "vitreous.pages.report",
    "matplotlib.backends.backend_agg",
)  # fmt: skip
PAUSE = 0.002  # seconds between two looks at a process


class Fork:
    """A running command, with the methods of `subprocess.Popen` that the experiments use.

    Args:
        pid: of a child of this process.
        stdout: the reading end of its output.
        stderr: the file that its errors go to.

    Attributes:
        returncode: as of `Popen`; None while it runs.
    """

    def __init__(self, pid: int, stdout: IO[str], stderr: IO[str]) -> None:
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its status, or None while it runs."""
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its status, once it has ended. Raises subprocess.TimeoutExpired."""
        began = time.monotonic()
        while (status := self.poll()) is None:
            if timeout is not None and time.monotonic() - began > timeout:
                raise subprocess.TimeoutExpired("vitreous", timeout)
            time.sleep(PAUSE)
        return status

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What is left of its output, and its errors, once it has ended. Raises subprocess.TimeoutExpired.

        With a timeout, the output must fit into a pipe.
        """
        if timeout is not None:
            self.wait(timeout)
        with self.stdout, self.stderr:
            output = self.stdout.read()
            self.wait()
            self.stderr.seek(0)
            return output, self.stderr.read()


def fork(folder: Path, arguments: Sequence[str], environment: Mapping[str, str], program: str | None) -> Fork:
    """Starts `vitreous` with arguments in a folder; `program` is Python that runs before."""
    reading, writing = os.pipe()
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - `communicate` closes it
    request = json.dumps([str(folder), list(arguments), dict(environment), program]).encode()
    line = server()
    socket.send_fds(line, [request], [writing, errors.fileno()])
    os.close(writing)
    return Fork(int(line.recv(LONGEST)), os.fdopen(reading), errors)


@cache
def server() -> socket.socket:
    """The connection to the process that forks."""
    if ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("this process cannot take over the children of others")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", __name__, str(theirs.fileno())],
        cwd=Path(__file__).parents[2], env=environment, pass_fds=[theirs.fileno()],
    )  # fmt: skip
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def serve(line: socket.socket) -> None:
    """Answers requests with the process ids of forks, until the connection ends."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(line, LONGEST, 2)
        if not request:
            return
        ours, theirs = os.pipe()
        parent = os.fork()
        if parent == 0:
            pid = os.fork()
            if pid == 0:
                for descriptor in (ours, theirs, line.fileno()):
                    os.close(descriptor)
                leave(command(json.loads(request), descriptors))
            os.write(theirs, b"%d" % pid)
            os._exit(0)  # so that the fork becomes a child of the process that asked
        os.waitpid(parent, 0)
        for descriptor in (theirs, *descriptors):
            os.close(descriptor)
        line.send(os.read(ours, LONGEST))
        os.close(ours)


def command(request: list, descriptors: Sequence[int]) -> int:
    """What a fork does; returns its status."""
    folder, arguments, environment, program = request
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["vitreous", *arguments]
    try:
        if program is not None:
            exec(program, {})
        import_module("vitreous.cli.app").main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    return 1


def leave(status: int) -> NoReturn:
    """Ends this process, once its threads have ended."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    from PIL import Image

    for name in USED:
        import_module(name)
    Image.init()
    gc.freeze()
    sys.stdout.reconfigure(line_buffering=True)
    serve(socket.socket(fileno=int(sys.argv[1])))
    leave(0)
