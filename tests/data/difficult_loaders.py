"""Loaders that end, stop or fail where they are; in a module, so that loading processes can import them."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vitreous.data.sources.splits import Loader, Split
from vitreous.support.errors import InputError

COUNT = 40


def split_of(loader: Loader) -> Split:
    """A split of 40 gray images of two classes."""
    names = tuple(f"{'ab'[index % 2]}/{index}.png" for index in range(COUNT))
    return Split("train", names, np.arange(COUNT) % 2, loader)


@dataclass(frozen=True, eq=False)
class Plain(Loader):
    """Images that are made, not read."""

    def __call__(self, index: int) -> Image.Image:
        return Image.new("L", (8, 8), index)

    def size(self, index: int) -> tuple[int, int]:
        return 8, 8

    def content(self, index: int) -> bytes:
        return bytes([index])


@dataclass(frozen=True, eq=False)
class Difficult(Plain):
    """Does something else at one image, as often as is allowed by a file per time; never in the process `spared`."""

    folder: Path
    times: int
    at: int = 17
    spared: int = 0

    def __call__(self, index: int) -> Image.Image:
        if index == self.at and os.getpid() != self.spared:
            number = len(list(self.folder.iterdir()))
            if number < self.times:
                (self.folder / str(number)).touch()
                self.act()
        return super().__call__(index)

    def act(self) -> None:
        raise NotImplementedError


class Killed(Difficult):
    """As by the kernel, when memory is short."""

    def act(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Crashed(Difficult):
    """As by a decoder that exits."""

    def act(self) -> None:
        os._exit(3)


class Stuck(Difficult):
    """As on a network folder that is gone."""

    def act(self) -> None:
        time.sleep(600)


class Buggy(Difficult):
    """A bug in a user's data set."""

    def act(self) -> None:
        raise KeyError("a bug")


class Refusing(Difficult):
    """A user error that is no broken image."""

    def act(self) -> None:
        raise InputError("the data has moved", "open it again")


@dataclass(frozen=True, eq=False)
class Slow(Plain):
    """Takes its time for each image."""

    seconds: float = 0.05

    def __call__(self, index: int) -> Image.Image:
        time.sleep(self.seconds)
        return super().__call__(index)


class Elsewhere(Plain):
    """Can be pickled, but not unpickled in another process."""

    def __reduce__(self) -> tuple[object, ...]:
        return _only_in, (os.getpid(),)


def _only_in(pid: int) -> Elsewhere:
    if os.getpid() != pid:
        raise ModuleNotFoundError("No module named 'mine'")
    return Elsewhere()
