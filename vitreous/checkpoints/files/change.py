"""Noticing that a file changes while it is read."""

from pathlib import Path

from vitreous.support.errors import InputError


class FileVersion:
    """The state of a file when it was opened.

    A file that is deleted, or replaced by another of the same name, does not change: who has it open reads the old one.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity, self.state = _now(path)

    def check(self) -> None:
        """Raises InputError if the file was written to since it was opened."""
        try:
            identity, state = _now(self.path)
        except FileNotFoundError:
            return
        if identity == self.identity and state != self.state:
            raise InputError(f"{self.path} changed while it was read", "load it again when it is complete")


def _now(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """The device and number of a file, and its size and time of the last write."""
    status = path.stat()
    return (status.st_dev, status.st_ino), (status.st_size, status.st_mtime_ns)
