"""Killing a child of this process at an exact place: before a system call."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

from benchmarks.reliability.outcome import LeftOut

TRACE_ME, TRACE_CALLS = 0, 24  # of ptrace


def killed_before(number: int, function: Callable[[], object]) -> bool:
    """Calls a function in a fork of this process, and kills that before its system call of a number.

    Returns:
        Whether it was killed; False if it made fewer calls.

    Raises:
        LeftOut: the system cannot trace processes.
    """
    child = os.fork()
    if child == 0:
        status = 3
        try:
            if _ptrace(TRACE_ME, 0) == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
                function()
                status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    stops = 0  # one before each call, one after it
    while os.WIFSTOPPED(status):
        if stops == 2 * number + 1:
            os.kill(child, signal.SIGKILL)
        elif _ptrace(TRACE_CALLS, child) != 0:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise LeftOut("ptrace is not permitted here")
        status = os.waitpid(child, 0)[1]
        stops += 1
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status) == 3:
        raise LeftOut("ptrace is not permitted here, or the save failed")
    return False


def _ptrace(request: int, process: int) -> int:
    if not sys.platform.startswith("linux"):
        raise LeftOut("ptrace of Linux is needed")
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    ptrace.restype = ctypes.c_long
    return ptrace(request, process, None, None)
