"""The files of a cache: raw pixels in segments, found by the digest of the image file they came from.

A segment is a file of pixels and an index with the place, the size and a checksum of each image. The index is written
last: a segment without one does not exist, so an interrupted build loses at most one segment, and the next one removes
its pixels. If the checksum of an image is wrong, the index is removed, so that the next build makes the segment anew;
until then the other images are still read from it. Pixels are read through a memory map, so that the processes of a
run, and of several, share one copy of them in memory.
"""

import errno
import mmap
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np

from vitreous.data.decoding.bands import Picture, picture_of
from vitreous.support.errors import InputError
from vitreous.support.files import DISK_ERRORS, atomic_file

DIGEST = 16  # bytes
INDEX, PIXELS, STAMPS = ".npz", ".pixels", "stamps.npz"
ROW = np.dtype([("offset", "i8"), ("height", "i4"), ("width", "i4"), ("channels", "i4"), ("checksum", "u4")])


@dataclass(frozen=True)
class Place:
    """Where the pixels of an image are.

    Args:
        path: of the file of pixels.
        row: offset, height, width, channels and checksum.
    """

    path: str
    row: tuple[int, int, int, int, int]

    def read(self) -> Picture | None:
        """The image; None if its pixels are not those that were written, or no longer there."""
        offset, height, width, channels, checksum = self.row
        try:
            values = _mapped(self.path)[offset : offset + height * width * channels]
        except (OSError, ValueError):  # ValueError: an empty file
            return None
        if zlib.crc32(values) != checksum:
            with suppress(OSError):  # a cache that others wrote may be read-only
                Path(self.path).with_suffix(INDEX).unlink()
            return None
        return picture_of(np.frombuffer(values, np.uint8).reshape(height, width, channels))


class Store:
    """The segments in a folder.

    Args:
        folder: of the segments; created if it does not exist.

    Raises:
        InputError: the folder cannot be created.

    Attributes:
        places: of the images by the digest of their file.
        stamps: digests by the stamp of a file, which changes with the file and is known without reading it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make {str(folder)!r}: {error.strerror}", "set XDG_CACHE_HOME") from error
        self.places: dict[bytes, Place] = {}
        self.stamps: dict[int, bytes] = {}

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The complete segments of a folder, for which its lock must be held.

        Damaged ones are removed, and their images decoded again.
        """
        store = cls(folder)
        names = {path.with_suffix("") for ending in (INDEX, PIXELS) for path in folder.glob(f"*{ending}")}
        for name in sorted(names - {(folder / STAMPS).with_suffix("")}):
            if not store._add(name.with_suffix(INDEX)):
                for ending in (INDEX, PIXELS):
                    with suppress(OSError):  # a cache that others wrote may be read-only
                        name.with_suffix(ending).unlink()
        known = _arrays(folder / STAMPS, "stamps", "digests")
        if known is not None:
            store.stamps = dict(zip(known["stamps"].tolist(), map(bytes, known["digests"]), strict=False))
        return store

    def _add(self, index: Path) -> bool:
        """Adds the images of a segment if its files are whole. Returns whether they are."""
        arrays, pixels = _arrays(index, "digests", "rows", "size"), index.with_suffix(PIXELS)
        if arrays is None or not pixels.is_file() or pixels.stat().st_size != int(arrays["size"]):
            return False
        for digest, row in zip(arrays["digests"], arrays["rows"].tolist(), strict=True):
            self.places[bytes(digest)] = Place(str(pixels), row)
        return True

    def append(self, images: Iterable[tuple[bytes, Picture]]) -> None:
        """Writes a segment with these images; nothing is left of it if that fails.

        Raises:
            InputError: the disk is full, or the folder is not writable.
        """
        name = self.folder / secrets.token_hex(8)
        pixels, index = name.with_suffix(PIXELS), name.with_suffix(INDEX)
        digests, rows, offset = [], [], 0
        try:
            with pixels.open("xb") as file:
                for digest, image in images:
                    content = image.tobytes()
                    channels = len(image.getbands())
                    rows.append((offset, image.height, image.width, channels, zlib.crc32(content)))
                    digests.append(digest)
                    offset += file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if digests:
                with atomic_file(index) as file:
                    np.savez(file, digests=_rows_of(digests), rows=np.array(rows, ROW), size=np.array(offset, np.int64))
        except BaseException as error:
            with suppress(OSError):  # report the first error
                pixels.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in (*DISK_ERRORS, errno.EACCES, errno.EROFS):
                cause = f"cannot write the cache {str(self.folder)!r}: {error.strerror}"
                raise InputError(cause, "set cache=false, or XDG_CACHE_HOME to a folder with more space") from error
            raise
        if digests:
            self._add(index)
        else:
            pixels.unlink()

    def write_stamps(self) -> None:
        """Remembers the digests of the files by their stamps."""
        with atomic_file(self.folder / STAMPS) as file:
            np.savez(file, stamps=np.array([*self.stamps], np.uint64), digests=_rows_of([*self.stamps.values()]))


def _rows_of(digests: list[bytes]) -> np.ndarray:
    """The digests as rows of bytes."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST)


def _arrays(path: Path, *names: str) -> dict[str, np.ndarray] | None:
    """The arrays of an index; None if it is missing or damaged, which the checksums of its format show."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


@lru_cache(maxsize=256)
def _mapped(path: str) -> memoryview:
    """The bytes of a file, mapped into memory; each process maps it once."""
    with Path(path).open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
