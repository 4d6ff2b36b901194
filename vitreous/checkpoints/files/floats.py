"""Floating-point tensors of a safetensors file, read straight into memory of their own.

The library's reader checks the file; its own way of reading without a memory map holds Python's lock, so that threads
wait for each other.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

LENGTH = 8  # bytes before the header, which hold its length
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class OpenFile:
    """A file open for reading at any place; it is closed with the last tensor that needs it.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True)
class Place:
    """Where the numbers of a tensor are in an open file."""

    file: OpenFile
    dtype: torch.dtype
    start: int
    bytes: int

    def read(self, shape: Sequence[int]) -> Tensor:
        """Reads the tensor. Raises EOFError if the file was cut."""
        memory = torch.empty(self.bytes, dtype=torch.uint8)
        view, done = memory.numpy().data, 0
        while done < self.bytes:
            count = os.preadv(self.file.descriptor, [view[done:]], self.start + done)
            if not count:
                raise EOFError("the file ends within a tensor")
            done += count
        return memory.view(self.dtype).reshape(tuple(shape))


def float_places(path: Path) -> dict[str, Place]:
    """Where the floating-point tensors of a file are that the library has opened without an error.

    Empty where the system cannot read at a place of a file without moving in it.
    """
    if not hasattr(os, "preadv"):
        return {}
    file = OpenFile(path)
    length = int.from_bytes(os.pread(file.descriptor, LENGTH, 0), "little")
    header = json.loads(os.pread(file.descriptor, length, LENGTH))
    return {
        key: Place(file, DTYPES[entry["dtype"]], LENGTH + length + begin, end - begin)
        for key, entry in header.items()
        if entry.get("dtype") in DTYPES
        for begin, end in [entry["data_offsets"]]
    }
