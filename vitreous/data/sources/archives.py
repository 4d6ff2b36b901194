"""Images in zip archives, read in place: nothing is extracted, and no archive costs more than its size says.

The table of contents is read once, by the standard library's zipfile. What is kept of a member is a row of
numbers, so that a worker process gets a million of them at once and reads one with two reads of the file.
"""

import io
import os
import stat
import struct
import threading
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from PIL import Image

from vitreous.data.images import BadImage, ImageLimits, decode_image, header_size, is_image_name
from vitreous.data.sources.layouts import SPLITS, Entry, is_clutter, kind_of
from vitreous.support.errors import InputError

SUFFIX = ".zip"
MAX_MEMBERS = 10_000_000
MAX_CONTENTS = 100 * MAX_MEMBERS  # bytes of the table of contents: of a member 46 and those of its name
HEADER, SIGNATURE, LENGTHS_AT = 30, b"PK\3\4", 26  # what stands before a member's bytes, with a name and more after it
ENCRYPTED, UTF_8 = 1 | 1 << 6, 1 << 11  # flags
MOST = 2**63 - 1
MEMBER = np.dtype(
    [("archive", "i4"), ("offset", "i8"), ("stored", "i8"), ("size", "i8"), ("crc", "u4"), ("deflated", "?")]
)


class ArchiveFile:
    """An archive's stored members, for any thread of any process.

    Each process opens the file for itself, since processes that share one share its position.

    Args:
        path: of the archive.
        stamp: its size in bytes and its time of change in ns; by default as they are.
    """

    def __init__(self, path: str, stamp: tuple[int, int] | None = None) -> None:
        self._opened: _Opened | None = None
        self.path = path
        self.stamp = stamp or _stamp(Path(path).stat())

    def __reduce__(self) -> tuple[type["ArchiveFile"], tuple[str, tuple[int, int]]]:
        return ArchiveFile, (self.path, self.stamp)

    def __del__(self) -> None:
        if self._opened:
            self._opened.file.close()

    def stored(self, offset: int, count: int) -> bytes:
        """The bytes of the member whose header is at `offset`, as they are stored; none where there is no header.

        Raises:
            OSError: the file cannot be read, or is not the one it was any more.
        """
        opened = self._open()
        with opened.lock:
            opened.file.seek(offset)
            header = opened.file.read(HEADER)
            if len(header) < HEADER or not header.startswith(SIGNATURE):
                return b""
            opened.file.seek(sum(struct.unpack_from("<2H", header, LENGTHS_AT)), os.SEEK_CUR)
            return opened.file.read(count)

    def _open(self) -> "_Opened":
        """The file as this process opened it."""
        opened = self._opened
        if opened and opened.process == os.getpid():
            return opened
        fresh = _Opened(self.path)
        if _stamp(os.fstat(fresh.file.fileno())) != self.stamp:
            fresh.file.close()
            raise OSError("the archive has changed since it was opened")
        if opened:  # by the process that this one is a fork of; it keeps its own
            opened.file.close()
        self._opened = fresh
        return fresh


class _Opened:
    """A file as one process opened it; the lock is for its position."""

    def __init__(self, path: str) -> None:
        self.process = os.getpid()
        self.file = io.BufferedReader(io.FileIO(path))
        self.lock = threading.Lock()


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True, eq=False)
class ArchiveLoader:
    """Decodes members of archives by their places.

    Args:
        archives: the files.
        names: what the members are called.
        members: a row for each: which archive, and where and how it lies there.
        limits: what an image may cost.
    """

    archives: tuple[ArchiveFile, ...]
    names: tuple[str, ...]
    members: np.ndarray
    limits: ImageLimits = field(default_factory=ImageLimits)

    def __call__(self, index: int) -> Image.Image:
        try:
            return decode_image(self.content(index), self.limits)
        except BadImage as error:
            raise BadImage(self.names[index], error.reason, error.hint) from error

    def size(self, index: int) -> tuple[int, int]:
        """The (height, width) that the header tells, undecoded."""
        try:
            return header_size(self.content(index), self.limits)
        except BadImage as error:
            raise BadImage(self.names[index], error.reason, error.hint) from error

    def content(self, index: int) -> bytes:
        """A member's bytes, checked. However much a member would unpack to, no more is unpacked than it says."""
        name, most = self.names[index], self.limits.max_bytes
        archive, offset, stored, size, crc, deflated = self.members[index].item()
        if max(stored, size) > most:
            raise BadImage(name, f"has more than {most:,} bytes", "make it smaller")
        try:
            content = self.archives[archive].stored(offset, stored)
            if deflated:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
        except OSError as error:
            raise BadImage(name, f"cannot be read: {error.strerror or error}", "check the archive") from error
        except zlib.error as error:
            raise BadImage(name, f"is broken in the archive: {error}", "make the archive again") from error
        if len(content) != size or zlib.crc32(content) != crc:
            reason = "is broken in the archive: its size or checksum is another than the archive says"
            raise BadImage(name, reason, "make the archive again")
        return content


@dataclass(frozen=True, eq=False)
class ArchiveTree:
    """The members of one or several archives as a `vitreous.data.sources.layouts.Tree`.

    Args:
        source: as it was given.
        archives: the files.
        names: of all members but clutter, sorted; those of folders end with "/".
        places: for each name the member's row in `members`, or what kind of thing it is that is ignored.
        members: rows as in `ArchiveLoader`.
        ignored: what is left out.
    """

    source: str
    archives: tuple[ArchiveFile, ...]
    names: list[str]
    places: list[int | str]
    members: np.ndarray
    ignored: Counter[str]

    def path(self, folder: str) -> str:
        return f"{self.source}/{folder}".rstrip("/")

    def entries(self, folder: str) -> list[Entry]:
        prefix = f"{folder}/" if folder else ""
        found = []
        place = bisect_left(self.names, prefix)
        while place < len(self.names) and self.names[place].startswith(prefix):
            name, slash, _ = self.names[place][len(prefix) :].partition("/")
            if name:  # none is the folder itself
                found.append(Entry(name, bool(slash)))
            # In this order all that is below a folder comes together, and "0" comes next after "/".
            place = bisect_left(self.names, f"{prefix}{name}0", place) if name and slash else place + 1
        return found

    def images(self, folder: str, others: Counter[str]) -> Iterator[str]:
        begin, end = bisect_left(self.names, f"{folder}/"), bisect_left(self.names, f"{folder}0")
        for name, place in zip(self.names[begin:end], self.places[begin:end], strict=True):
            if isinstance(place, int):
                yield name
            elif not name.endswith("/"):
                others[place] += 1

    def loader(self, names: tuple[str, ...]) -> ArchiveLoader:
        rows = [self.places[bisect_left(self.names, name)] for name in names]
        return ArchiveLoader(self.archives, names, self.members[np.array(rows, dtype=np.int64)])


def open_archives(source: str, paths: Sequence[tuple[str, str]], ignored: Counter[str] | None = None) -> ArchiveTree:
    """Reads what one archive, or those of several splits, hold.

    One folder that all lies below is left out of the names, unless it is that of a split in the only archive.

    Args:
        source: as it was given.
        paths: of each archive, after the folder that its members are to lie in: "train", or "" for the top.
        ignored: what is left out already.

    Raises:
        InputError: an archive cannot be read, has too many members, two of one name, or is that of a split but
            has no folders of classes.
    """
    ignored = Counter(ignored or ())
    archives = tuple(ArchiveFile(path) for _, path in paths)
    listed: list[tuple[str, int | str]] = []
    images: list[tuple[int, ZipInfo]] = []
    for number, (folder, path) in enumerate(paths):
        members = [(name, info) for info in _contents(path) if (name := _name(info, ignored))]
        top = _common_top([name for name, _ in members], keep_splits=not folder)
        if folder and not _holds_only_folders([name.removeprefix(top) for name, _ in members]):
            raise InputError(f"{path!r} has no folders of classes, or images beside them", "expected is CLASS/IMAGE")
        for name, info in members:
            kind = "folder" if name.endswith("/") else _why_ignored(name, info)
            listed.append((f"{folder}/{name.removeprefix(top)}".lstrip("/"), kind or len(images)))
            if not kind:
                images.append((number, info))
    listed.sort(key=lambda member: member[0])
    for (name, _), (following, _) in pairwise(listed):
        if name == following and not name.endswith("/"):
            raise InputError(f"{source!r} has two members {name!r}", "make the archive again, with one of them")
    return ArchiveTree(
        source=source,
        archives=archives,
        names=[name for name, _ in listed],
        places=[place for _, place in listed],
        members=np.fromiter((_row(number, info) for number, info in images), MEMBER, len(images)),
        ignored=ignored,
    )


class _Bounded(io.BufferedReader):
    """A file of which no more is read at once than a table of contents may have."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_CONTENTS:
            raise BadZipFile(f"its table of contents has {size:,} bytes, {MAX_CONTENTS:,} are allowed")
        return super().read(size)


def _contents(path: str) -> list[ZipInfo]:
    """What an archive says it holds."""
    # zipfile meets hostile bytes with errors of many kinds (BadZipFile, NotImplementedError, UnicodeDecodeError,
    # struct.error, OverflowError, ...). All of them mean that this archive cannot be read.
    try:
        with _Bounded(io.FileIO(path)) as file, ZipFile(file) as archive:
            members = archive.infolist()
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        cause = f"{path!r} cannot be read as a zip archive: {reason or type(error).__name__}"
        raise InputError(cause, "make the archive again, or give the folder") from error
    if len(members) > MAX_MEMBERS:
        raise InputError(f"{path!r} has {len(members):,} members, {MAX_MEMBERS:,} are allowed", "make it smaller")
    return members


def _name(info: ZipInfo, ignored: Counter[str]) -> str:
    """A member's path, of a folder with "/" at its end; nothing for clutter and for what leads elsewhere."""
    name = info.filename
    if not name.isascii() and not info.flag_bits & UTF_8:
        with suppress(UnicodeError):  # what some systems write does not say that it is UTF-8
            name = name.encode("cp437").decode("utf-8")
    parts = [part for part in name.removesuffix("/").split("/") if part != "."]
    if not all(parts) or ".." in parts:
        ignored["absolute path, or one with '..' or '//' in it"] += 1
        return ""
    if any(map(is_clutter, parts)):
        return ""
    is_folder = name.endswith("/") or stat.S_ISDIR(info.external_attr >> 16)
    return "/".join(parts) + "/" * (is_folder and bool(parts))


def _why_ignored(name: str, info: ZipInfo) -> str | None:
    """What kind of thing a member is, if not an image that we read."""
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive does not say
    base = name.rpartition("/")[2]
    if kind == stat.S_IFLNK:
        return "link"
    if not is_image_name(base):
        return kind_of(base)
    if kind not in (0, stat.S_IFREG):
        return "device or pipe"
    if info.flag_bits & ENCRYPTED:
        return "encrypted image"
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        return "image compressed otherwise than by deflate"
    return None


def _row(number: int, info: ZipInfo) -> tuple[int, int, int, int, int, bool]:
    """A row of MEMBER; a number that no file has becomes another that is found wrong when the image is loaded."""
    offset, stored, size = info.header_offset & MOST, info.compress_size & MOST, info.file_size & MOST
    return number, offset, stored, size, info.CRC, info.compress_type == ZIP_DEFLATED


def _common_top(names: Sequence[str], keep_splits: bool) -> str:
    """The folder, with "/", that holds all folders of classes and no images itself, if there is such a one."""
    tops = {name[: name.index("/") + 1] for name in names if "/" in name}
    if len(tops) != 1 or not _holds_only_folders(names):
        return ""
    (top,) = tops
    if keep_splits and top[:-1].casefold() in SPLITS:
        return ""
    return top if _holds_only_folders([name.removeprefix(top) for name in names]) else ""


def _holds_only_folders(names: Sequence[str]) -> bool:
    """Whether there are folders, and no images next to them."""
    return any("/" in name for name in names) and not any("/" not in name and is_image_name(name) for name in names)
