"""npz files, read one array at a time without unpickling, and written."""

import math
import warnings
import zipfile
from collections.abc import Callable, Mapping
from os import SEEK_END
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitreous.support.errors import InputError
from vitreous.support.files import atomic_file

SLACK, INFLATION = 2**24, 4  # a file may unpack into this many bytes plus this many times its own size
CHUNK = 2**18  # bytes read at once, so that reading an array takes little more than its own memory


class NpzArray(NamedTuple):
    """An array in an npz file; its numbers begin at byte `start` of its entry."""

    entry: zipfile.ZipInfo
    start: int
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Size of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def npz_arrays(path: Path, archive: zipfile.ZipFile) -> dict[str, NpzArray]:
    """The arrays of an npz file by name, from their headers.

    Raises:
        InputError: the file would unpack into much more than its size, or its directory is inconsistent.
        Exception: of any kind; the file is damaged.
    """
    entries = archive.infolist()
    unpacked, allowed = sum(entry.file_size for entry in entries), SLACK + INFLATION * path.stat().st_size
    if unpacked > allowed:
        cause = f"{path} would unpack into {unpacked:,} bytes, more than the {allowed:,} allowed for its size"
        raise InputError(cause, "save it again without compression: numpy.savez")
    arrays = {entry.filename.removesuffix(".npy"): _read_header(archive, entry) for entry in entries}
    with path.open("rb") as file:
        file.seek(-12 - len(archive.comment), SEEK_END)  # one bit in a length can hide an entry from zipfile
        announced = int.from_bytes(file.read(2), "little")
    if len(arrays) < len(entries) or announced != min(len(entries), 0xFFFF):
        raise InputError(f"{path} has two arrays of one name, or fewer than it announces", "copy it again")
    return arrays


def _read_header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NpzArray:
    """An entry's array. Raises ValueError if its size does not fit the header, or torch has no such numbers."""
    with archive.open(entry) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # headers of Python 2 are fine
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        array = NpzArray(entry, file.tell(), *read_header(file))._replace(start=file.tell())
    if array.dtype.hasobject:
        raise ValueError(f"{entry.filename} holds objects, not numbers")
    torch.from_numpy(np.empty(0, _torch_dtype(array.dtype)))
    if min(array.shape, default=0) < 0 or array.nbytes != entry.file_size - array.start:
        raise ValueError(f"{entry.filename} does not have the size that its header announces")
    return array


def _torch_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to hold the numbers in; uint16 for bfloat16, which numpy writes as two untyped bytes."""
    return np.dtype(np.uint16) if dtype == np.dtype("V2") else dtype.newbyteorder("=")


def read_array(archive: zipfile.ZipFile, array: NpzArray) -> Tensor:
    """Reads one array and checks its checksum."""
    raw = np.empty(array.entry.file_size - array.start, np.uint8)
    with archive.open(array.entry) as file:
        file.read(array.start)
        for start in range(0, len(raw), CHUNK):
            raw.data[start : start + CHUNK] = file.read(min(CHUNK, len(raw) - start))
    dtype = _torch_dtype(array.dtype)
    typed = raw.view(dtype if array.dtype.kind == "V" else array.dtype)
    values = typed.astype(dtype, copy=False).reshape(array.shape, order="F" if array.fortran else "C")
    tensor = torch.from_numpy(values).contiguous()
    return tensor.view(torch.bfloat16) if array.dtype.kind == "V" else tensor


def write_npz(path: Path, tensors: Mapping[str, Tensor], plain: Callable[[Tensor], Tensor]) -> None:
    """Writes tensors one at a time; `plain` makes each contiguous and on the CPU. bfloat16 becomes float32."""
    with atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, tensor in tensors.items():
            values = plain(tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, values, allow_pickle=False)
