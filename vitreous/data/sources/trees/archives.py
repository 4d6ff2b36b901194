"""Images in zip archives, read in place and within bounds; nothing is extracted.

The standard library's zipfile reads the table of contents once. Of each member a row of numbers is kept, so that a
million of them can be sent to a worker process, which loads an image with two reads of the file.
"""

import io
import os
import re
import stat
import struct
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, takewhile
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from vitreous.data.decoding.images import BadImage, Decoding, check_bytes, file_stamp, is_image_name
from vitreous.data.sources.trees.tree import IN_ARCHIVE, Entry, ImageLoader, Tree, is_clutter, kind_of, may_be_class
from vitreous.support.errors import InputError

SUFFIX = ".zip"
MAX_MEMBERS = 10_000_000
MAX_CONTENTS = 100 * MAX_MEMBERS  # bytes of the table of contents: 46 per member, and its name
HEADER, SIGNATURE, LENGTHS_AT = 30, b"PK\3\4", 26  # of a member's header, whose name and extra field follow it
ENCRYPTED, UTF_8 = 1 | 1 << 6, 1 << 11  # flags
MAX_INT64 = 2**63 - 1
DRIVE = re.compile("[A-Za-z]:")  # at the start of an absolute path on Windows
LINK, UNSAFE = "link", "absolute path, or one with '..' or '//' in it"  # kinds of ignored members
MEMBER = np.dtype(
    [("archive", "i4"), ("offset", "i8"), ("stored", "i8"), ("size", "i8"), ("crc", "u4"), ("deflated", "?")]
)
Row = tuple[int, int, int, int, int, bool]


@dataclass(frozen=True, eq=False)
class ArchiveLoader(ImageLoader):
    """Loads the images of archives.

    An archive is opened for each image, so that threads and processes share no position in it.

    Args:
        archives: their paths.
        members: a row of type MEMBER for each image.
    """

    archives: tuple[str, ...]
    members: np.ndarray

    def stamp(self, index: int) -> bytes:
        archive, *row = self.members[index].item()
        return file_stamp(self.archives[archive]) + repr(row).encode()

    def file(self, index: int) -> bytes:
        """The checked bytes of a member, decompressed no further than its recorded size."""
        name = self.names[index]
        archive, offset, stored, size, crc, deflated = self.members[index].item()
        check_bytes(name, max(stored, size), self.decoding)
        try:
            content = _stored(self.archives[archive], offset, stored)
            if deflated:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
        except OSError as error:
            raise BadImage(name, f"cannot be read: {error.strerror or error}", "check the archive") from error
        except zlib.error as error:
            raise BadImage(name, f"is broken in the archive: {error}", "create the archive again") from error
        if len(content) != size or zlib.crc32(content) != crc:
            reason = "is broken in the archive, or the archive has changed: its size or checksum differs"
            raise BadImage(name, reason, "create the archive again")
        return content


def _stored(path: str, offset: int, count: int) -> bytes:
    """The stored bytes of the member whose header is at `offset`; empty if there is no header."""
    with Path(path).open("rb") as file:
        file.seek(offset)
        header = file.read(HEADER)
        if len(header) < HEADER or not header.startswith(SIGNATURE):
            return b""
        file.seek(sum(struct.unpack_from("<2H", header, LENGTHS_AT)), os.SEEK_CUR)
        return file.read(count)


@dataclass(frozen=True, eq=False)
class ArchiveTree(Tree):
    """The members of one or several archives.

    Args:
        archives: their paths.
        names: of all members except clutter, sorted; those of folders end with "/".
        rows: for each name the fields of its MEMBER, or the kind it is ignored as.
        in_hidden: how many images there are directly in each hidden folder.
    """

    archives: tuple[str, ...]
    names: list[str]
    rows: list[Row | str]
    in_hidden: Mapping[str, int]

    def entries(self, folder: str) -> list[Entry]:
        start, below = len(folder) + bool(folder), _below(self.names, folder)
        found = {}
        for name, row in zip(self.names[below], self.rows[below], strict=True):
            top, slash, _ = name[start:].partition("/")
            if top:
                is_link = row == LINK and not slash and not is_image_name(top)
                found[top] = Entry(top, bool(slash), IN_ARCHIVE if is_link else "")
        return sorted(found.values())

    def images(self, folder: str, others: Counter[str]) -> Iterator[str]:
        below = _below(self.names, folder)
        for name, row in zip(self.names[below], self.rows[below], strict=True):
            if not isinstance(row, str):
                yield name
            elif not name.endswith("/"):
                others[row] += 1
        for hidden in self._hidden[_below(self._hidden, folder)]:
            others["image in a hidden folder"] += self.in_hidden[hidden]

    @cached_property
    def _hidden(self) -> list[str]:
        """The paths of the hidden folders with images, sorted."""
        return sorted(self.in_hidden)

    def hidden(self, folder: str) -> list[str]:
        return sorted(name for parent, _, name in (path.rpartition("/") for path in self.in_hidden) if parent == folder)

    def loader(self, names: tuple[str, ...], decoding: Decoding) -> ImageLoader:
        rows = [self.rows[bisect_left(self.names, name)] for name in names]
        return ArchiveLoader(names, decoding, self.archives, np.array(rows, MEMBER))


def _below(names: Sequence[str], folder: str) -> slice:
    """Where the sorted names below a folder are: they are contiguous, and "0" is the character after "/"."""
    if not folder:
        return slice(None)
    return slice(bisect_left(names, f"{folder}/"), bisect_left(names, f"{folder}0"))


def open_archives(source: str, paths: Sequence[tuple[str, str]], ignored: Counter[str]) -> ArchiveTree:
    """The tree of one archive, or of one archive per split.

    Args:
        source: as the user named it.
        paths: a (folder, path) pair per archive: the folder to put its members in, such as "train" or "", and its path.
        ignored: counts the ignored files by kind.

    Raises:
        InputError: an archive cannot be read, has too many members, two of one name, or only unsafe paths.
    """
    rows: list[tuple[str, Row | str]] = []
    in_hidden: Counter[str] = Counter()
    around: set[str] = set()  # the folders that hold clutter, perhaps alone
    for number, (folder, path) in enumerate(paths):
        prefix = f"{folder}/" if folder else ""
        unsafe, before = ignored[UNSAFE], len(rows)
        for info in _contents(path):
            parts, is_folder = _parts(info)
            if not all(parts) or ".." in parts:
                ignored[UNSAFE] += 1
            elif any(map(is_clutter, parts)):
                _count_hidden(parts, prefix, in_hidden)
                around.add(prefix + "/".join(takewhile(lambda part: not is_clutter(part), parts)))
            elif parts:
                name = "/".join(parts) + "/" * is_folder
                kind = "folder" if is_folder else _why_ignored(name, info)
                rows.append((prefix + name, kind or _row(number, info)))
        if ignored[UNSAFE] > unsafe and all(isinstance(row, str) for _, row in rows[before:]):
            cause = f"all images of {path!r} have absolute paths, or '..' in them, which are not read"
            raise InputError(cause, "create the archive inside the folder, with relative paths: zip -r photos.zip .")
    rows += [(f"{folder}/", "folder") for folder in around if folder.strip("/")]
    rows.sort(key=lambda row: row[0])
    for (name, _), (following, _) in pairwise(rows):
        if name == following and not name.endswith("/"):
            raise InputError(f"{source!r} has two members {name!r}", "create the archive again with one of them")
    return ArchiveTree(
        source=source,
        archives=tuple(path for _, path in paths),
        names=[name for name, _ in rows],
        rows=[row for _, row in rows],
        in_hidden=in_hidden,
        ignored=ignored,
    )


class _Bounded(io.BufferedReader):
    """A file that caps a single read at the largest directory of a zip archive."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_CONTENTS:
            raise BadZipFile(f"its table of contents has {size:,} bytes, {MAX_CONTENTS:,} are allowed")
        return super().read(size)


def _contents(path: str) -> list[ZipInfo]:
    """The table of contents of an archive."""
    # On hostile bytes zipfile raises BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, OverflowError
    # and more. All of them mean that this archive cannot be read.
    try:
        with _Bounded(io.FileIO(path)) as file, ZipFile(file) as archive:
            members = archive.infolist()
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        cause = f"{path!r} cannot be read as a zip archive: {reason or type(error).__name__}"
        raise InputError(cause, "create the archive again, or use the folder") from error
    if len(members) > MAX_MEMBERS:
        raise InputError(
            f"{path!r} has {len(members):,} members, {MAX_MEMBERS:,} are allowed", "split it or use a folder"
        )
    return members


def _parts(info: ZipInfo) -> tuple[list[str], bool]:
    """The parts of a member's path, one of them empty if it is absolute; and whether it is a folder."""
    name = info.filename
    if not name.isascii() and not info.flag_bits & UTF_8:
        with suppress(UnicodeError):  # some systems write UTF-8 without the flag
            name = name.encode("cp437").decode("utf-8")
    if "\\" in name and "/" not in name:  # some programs on Windows write its separator
        name = name.replace("\\", "/")
        name = f"/{name}" if DRIVE.match(name) else name
    parts = [part for part in name.removesuffix("/").split("/") if part != "."]
    return parts, name.endswith("/") or stat.S_ISDIR(info.external_attr >> 16)


def _count_hidden(parts: Sequence[str], prefix: str, in_hidden: Counter[str]) -> None:
    """Counts an image that is directly in a hidden folder which no program is known to leave."""
    *folders, base = parts
    if is_image_name(base) and folders and may_be_class(folders[-1]) and not any(map(is_clutter, folders[:-1])):
        in_hidden[prefix + "/".join(folders)] += 1


def _why_ignored(name: str, info: ZipInfo) -> str | None:
    """The kind a member is ignored as; None for an image to load."""
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if not recorded
    base = name.rpartition("/")[2]
    if kind == stat.S_IFLNK:
        return LINK
    if not is_image_name(base):
        return kind_of(base)
    if kind not in (0, stat.S_IFREG):
        return "device or pipe"
    if info.flag_bits & ENCRYPTED:
        return "encrypted image"
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        return "image with an unsupported compression"
    return None


def _row(number: int, info: ZipInfo) -> Row:
    """The fields of a MEMBER; a number beyond int64 is masked, and fails the checks when the image is loaded."""
    offset, stored, size = info.header_offset & MAX_INT64, info.compress_size & MAX_INT64, info.file_size & MAX_INT64
    return number, offset, stored, size, info.CRC, info.compress_type == ZIP_DEFLATED
