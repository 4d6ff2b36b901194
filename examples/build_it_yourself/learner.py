"""The learner's file, loaded and run so that an error in it becomes one line with its place."""

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vitreous.support.errors import InputError
from vitreous.support.text import printable

NAME = "my_vit"  # of the module, whatever the name of the file


class Fault(Exception):
    """What is still wrong with a step.

    Args:
        text: one or more lines.
        unwritten: whether the step is still blank.
    """

    def __init__(self, text: str, unwritten: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.unwritten = unwritten


class Learner:
    """The learner's file.

    Args:
        path: of the file.

    Raises:
        InputError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.module = ModuleType(NAME)
        self.module.__file__ = str(path)
        try:
            self.source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise InputError(f"cannot read {str(path)!r}: {reason}", "give your copy of my_vit.py") from error

    def load(self) -> None:
        """Runs the file, which defines its classes and functions.

        Raises:
            Fault: it cannot be run.
        """
        sys.modules[NAME] = self.module  # dataclasses look for it there
        with self.running(f"{self.path.name} cannot be run"):
            # Compiled here, since Python's cache misses a second change within one second.
            exec(compile(self.source, str(self.path), "exec"), self.module.__dict__)

    def find(self, name: str) -> Any:
        """A class or function of the file.

        Raises:
            Fault: the file does not define it.
        """
        if not hasattr(self.module, name):
            raise Fault(f"{self.path.name} does not define {name}: keep the names of its classes and functions.")
        return getattr(self.module, name)

    def build(self, name: str, arguments: Sequence[int]) -> nn.Module:
        """Makes one of the learner's boxes.

        Raises:
            Fault: it cannot be made, or is not a module.
        """
        kind = self.find(name)
        with self.running(f"{name}({', '.join(map(str, arguments))})"):
            box = kind(*arguments)
        if not isinstance(box, nn.Module):
            raise Fault(f"{name} is not an nn.Module: write class {name}(nn.Module).")
        return box

    def run(self, box: nn.Module, x: Tensor, name: str) -> None:
        """Runs a box once; checks that it returns a tensor and does not change its input.

        Args:
            box: to run.
            x: its input.
            name: of the box, for messages.

        Raises:
            Fault: it fails, is not written yet, does not return a tensor, or changes its input.
        """
        before = x.clone()
        with self.running(f"{name} on {' × '.join(map(str, x.shape))} numbers"), torch.no_grad():
            result = box(x)
        check_is_tensor(result, name)
        if not torch.equal(x, before):
            raise Fault(f"{name}.forward changes its input: write x = x + … instead of x += …")

    @contextmanager
    def running(self, what: str) -> Iterator[None]:
        """Turns any exception of the learner's code into a Fault with its place.

        Args:
            what: what was run, for an error outside the file, such as a wrong number of arguments.
        """
        try:
            yield
        except Fault:
            raise
        except NotImplementedError as error:
            raised = traceback.extract_tb(error.__traceback__)[-1]  # torch raises some of its own
            if raised.filename != str(self.path):
                raise Fault(self.one_line(error, what)) from error
            raise Fault(f"not written yet ({self.path}:{raised.lineno})", unwritten=True) from error
        except (Exception, SystemExit) as error:
            raise Fault(self.one_line(error, what)) from error

    def one_line(self, error: BaseException, what: str) -> str:
        """An error in one line: its place in the file, its type, and its message."""
        message = str(error).strip().partition("\n")[0]
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(self.path)
        ]
        if isinstance(error, SyntaxError) and error.filename == str(self.path):
            message, lines = error.msg, [error.lineno]
        reason = printable(f"{type(error).__name__}: {message}" if message else type(error).__name__)
        return f"{self.path}:{lines[-1]}: {reason}" if lines else f"{what}: {reason}"


def check_is_tensor(result: object, name: str) -> Tensor:
    """Checks and returns the result of a box.

    Raises:
        Fault: it is not a tensor.
    """
    if result is None:
        raise Fault(f"{name}.forward returned None: its last line must be a return.")
    if not isinstance(result, Tensor):
        raise Fault(f"{name}.forward returned a {type(result).__name__}, not a tensor.")
    return result
