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
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from vitreous.data.decoding.bands import Picture, picture_of
from vitreous.support.errors import InputError
from vitreous.support.files import DISK_ERRORS, atomic_file

DIGEST = 16  # bytes
KEY = np.dtype(f"S{DIGEST}")  # digests in arrays
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


class Segment(NamedTuple):
    """The index of a segment: the path of its pixels, and digest and row of each image."""

    path: str
    digests: np.ndarray
    rows: np.ndarray


class Store:
    """The segments in a folder; an array each, not an object per image, since there may be millions.

    Args:
        folder: of the segments; created if it does not exist.

    Raises:
        InputError: the folder cannot be created.

    Attributes:
        paths: of the files of pixels.
        digests: of the stored images, of type KEY, in order.
        rows: of type ROW, one for each of these.
        files: the number of each one's file of pixels.
        stamps: of image files, uint64, in order. A stamp changes with the file and is known without reading it.
        stamped: the digest of each of these files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make {str(folder)!r}: {error.strerror}", "set XDG_CACHE_HOME") from error
        self.paths: list[str] = []
        self.digests, self.rows, self.files = np.empty(0, KEY), np.empty(0, ROW), np.empty(0, np.int32)
        self.stamps, self.stamped = np.empty(0, np.uint64), np.empty(0, KEY)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The complete segments of a folder, for which its lock must be held.

        Damaged ones are removed, and their images decoded again.
        """
        store, segments = cls(folder), []
        names = {path.with_suffix("") for ending in (INDEX, PIXELS) for path in folder.glob(f"*{ending}")}
        for name in sorted(names - {(folder / STAMPS).with_suffix("")}):
            segment = _segment(name)
            if segment is not None:
                segments.append(segment)
                continue
            for ending in (INDEX, PIXELS):
                with suppress(OSError):  # a cache that others wrote may be read-only
                    name.with_suffix(ending).unlink()
        store._add(segments)
        known = _arrays(folder / STAMPS, "stamps", "digests")
        if known is not None:
            store.remember(known["stamps"], _keys(known["digests"]))
        return store

    def _add(self, segments: Sequence[Segment]) -> None:
        """Adds the images of segments to the index."""
        digests = np.concatenate([self.digests, *(segment.digests for segment in segments)])
        rows = np.concatenate([self.rows, *(segment.rows for segment in segments)])
        numbers = range(len(self.paths), len(self.paths) + len(segments))
        files = [np.full(len(part.digests), number, np.int32) for number, part in zip(numbers, segments, strict=True)]
        order = np.argsort(digests, kind="stable")
        self.paths += [segment.path for segment in segments]
        self.rows, self.files = rows[order], np.concatenate([self.files, *files])[order]
        self.digests = digests[order]

    def find(self, digests: np.ndarray) -> np.ndarray:
        """The place of each image in the arrays, by its digest; -1 for one that is not stored."""
        return found_in(self.digests, digests)

    def has(self, digest: bytes) -> bool:
        """Whether an image is stored; faster than `find` for a single one."""
        digests = self.digests  # another thread may replace them
        place = digests.searchsorted(digest)
        return bool(place < len(digests) and digests[place] == digest.rstrip(b"\0"))  # NumPy drops zeros at the end

    def known(self, stamps: np.ndarray) -> np.ndarray:
        """The digest of each file by its stamp; empty for an unknown one."""
        places = found_in(self.stamps, stamps)
        return np.where(places >= 0, self.stamped[places] if len(self.stamped) else b"", b"").astype(KEY)

    def remember(self, stamps: np.ndarray, digests: np.ndarray) -> None:
        """Remembers the digests of files by their stamps; the latest counts."""
        both, stamped = np.concatenate([stamps, self.stamps]), np.concatenate([digests, self.stamped])
        self.stamps, places = np.unique(both, return_index=True)
        self.stamped = stamped[places]

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
                    np.savez(
                        file,
                        digests=_bytes(np.array(digests, KEY)),
                        rows=np.array(rows, ROW),
                        size=np.array(offset, np.int64),
                    )
        except BaseException as error:
            with suppress(OSError):  # report the first error
                pixels.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in (*DISK_ERRORS, errno.EACCES, errno.EROFS):
                cause = f"cannot write the cache {str(self.folder)!r}: {error.strerror}"
                raise InputError(cause, "set cache=false, or XDG_CACHE_HOME to a folder with more space") from error
            raise
        if digests:
            self._add([Segment(str(pixels), np.array(digests, KEY), np.array(rows, ROW))])
        else:
            pixels.unlink()

    def write_stamps(self) -> None:
        """Writes what is remembered of stamps."""
        with atomic_file(self.folder / STAMPS) as file:
            np.savez(file, stamps=self.stamps, digests=_bytes(self.stamped))


def found_in(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each wanted value among ordered ones; -1 if it is not there."""
    if not len(values):
        return np.full(len(wanted), -1)
    places = np.searchsorted(values, wanted).clip(max=len(values) - 1)
    return np.where(values[places] == wanted, places, -1)


def _segment(name: Path) -> Segment | None:
    """A segment if its files are whole."""
    arrays, pixels = _arrays(name.with_suffix(INDEX), "digests", "rows", "size"), name.with_suffix(PIXELS)
    if arrays is None or not pixels.is_file() or pixels.stat().st_size != int(arrays["size"]):
        return None
    return Segment(str(pixels), _keys(arrays["digests"]), arrays["rows"])


def _keys(rows: np.ndarray) -> np.ndarray:
    """Digests, from bytes "digests 16" as files have them."""
    return np.ascontiguousarray(rows).reshape(-1).view(KEY)


def _bytes(digests: np.ndarray) -> np.ndarray:
    """Digests as bytes "digests 16"."""
    return np.ascontiguousarray(digests).view(np.uint8).reshape(-1, DIGEST)


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
