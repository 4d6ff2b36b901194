"""Where each file of a tar archive is: its headers are read once, and images are then read in place by offset.

Only what a header says is believed, and that within bounds: nothing is extracted, links are not followed, and a name
cannot lead out of the archive.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from vitreous.data.decoding.images import BadImage, check_bytes
from vitreous.data.sources.trees.tree import ImageLoader, is_clutter
from vitreous.support.errors import InputError

SUFFIX = ".tar"
BLOCK = 512
MAX_MEMBERS = 10_000_000
MAX_EXTENSION = 2**20  # bytes of a long name or of an extended header
MANY_ZEROS = bytes(2**16)  # read at once after the end of an archive
REGULAR, FOLDER, SPARSE = b"0\x007", b"5", b"S"  # the types of a member
LONG_NAME, LONG_LINK, EXTENDED, GLOBAL = b"L", b"K", b"xX", b"g"
WITHOUT_CONTENT = {b"1": "link", b"2": "link", b"3": "device or pipe", b"4": "device or pipe", b"6": "device or pipe"}
COMPRESSIONS = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"(\xb5/\xfd": "unzstd"}
MEMBER = np.dtype([("archive", "i4"), ("offset", "i8"), ("size", "i8")])


@dataclass(frozen=True, eq=False)
class TarIndex:
    """The regular files of a tar archive, in its order.

    Args:
        path: of the archive.
        names: relative, with "/", without clutter such as `._cat.jpg`; two members may have the same name.
        offsets: where the content of each begins, int64.
        sizes: in bytes, int64.
        folders: the names of folders.
        ignored: how many other members there are, by kind.
        stamp: of the archive, by which a loader notices that it has changed.
    """

    path: str
    names: list[str]
    offsets: np.ndarray
    sizes: np.ndarray
    folders: list[str]
    ignored: Counter[str]
    stamp: tuple[int, int]


@dataclass(frozen=True, eq=False)
class TarLoader(ImageLoader):
    """Loads images from tar archives; an archive is opened for each image, so that workers share no position in it.

    Args:
        archives: the path and the stamp of each.
        members: a row of type MEMBER for each image.
    """

    archives: tuple[tuple[str, tuple[int, int]], ...]
    members: np.ndarray

    def file(self, index: int) -> bytes:
        """The bytes of a member."""
        archive, offset, size = self.members[index].item()
        path, stamp = self.archives[archive]
        return read_member(self.names[index], path, stamp, offset, size)


class _Header(NamedTuple):
    """The fields of a member's header that matter."""

    name: str
    size: int
    type: bytes
    is_continued: bool  # blocks that describe a sparse file follow the header


class _Extensions(NamedTuple):
    """What headers before a member's own override."""

    name: str | None = None
    size: int | None = None
    is_sparse: bool = False


def index_tar(path: str) -> TarIndex:
    """Reads the headers of an uncompressed tar archive (ustar, GNU or pax), and of archives appended to it.

    Raises:
        InputError: it cannot be read, is compressed, is not a tar archive, is cut off or broken, or has too many
            members.
    """
    names: list[str] = []
    places: list[tuple[int, int]] = []
    folders: list[str] = []
    ignored: Counter[str] = Counter()
    try:
        with Path(path).open("rb", buffering=4 * BLOCK) as file:
            stamp = _stamp(file.fileno())
            for name, kind, offset, size in _members(file, path, stamp[0]):
                cleaned = _cleaned(name)
                if cleaned is None:
                    ignored["absolute path, or one with '..' or '//' in it"] += 1
                elif not cleaned or any(map(is_clutter, cleaned.split("/"))):
                    continue
                elif kind == "folder":
                    folders.append(cleaned)
                elif kind == "file":
                    names.append(cleaned)
                    places.append((offset, size))
                else:
                    ignored[kind] += 1
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path!r} cannot be read: {reason}", "check its name and permissions") from error
    table = np.array(places, np.int64).reshape(-1, 2)
    return TarIndex(path, names, table[:, 0].copy(), table[:, 1].copy(), folders, ignored, stamp)


def note_on_end(path: str, name: str) -> list[str]:
    """A note on an archive that does not end with a block of zeros, as it should; `name` is that for the user."""
    with Path(path).open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - BLOCK))
        is_whole = not any(file.read(BLOCK))
    return [] if is_whole else [f"{name} has no mark at its end, so it may be cut off"]


def read_member(name: str, path: str, stamp: tuple[int, int], offset: int, size: int) -> bytes:
    """The bytes of one member.

    Raises:
        BadImage: it is too large, or the archive cannot be read or has changed.
    """
    check_bytes(name, size)
    try:
        with Path(path).open("rb", buffering=0) as file:
            changed = _stamp(file.fileno()) != stamp
            content = b"" if changed else os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise BadImage(name, f"cannot be read: {error.strerror or error}", "check the archive") from error
    if changed or len(content) != size:
        raise BadImage(name, "cannot be read: the archive has changed", "start again with the archive as it is now")
    return content


def _stamp(descriptor: int) -> tuple[int, int]:
    """The size and the modification time of an open file."""
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns


def _members(file: BinaryIO, path: str, end: int) -> Iterator[tuple[str, str, int, int]]:
    """The name, kind ("file", "folder" or what it is ignored as), offset and size of each member."""
    position = count = 0
    extensions = _Extensions()
    while position < end:
        file.seek(position)
        block = file.read(BLOCK)
        if not any(block):
            position = _after_zeros(file, position, end)
            continue
        header = _header(block)
        if header is None:
            raise _broken(path, block, position)
        start = position + BLOCK
        while header.is_continued:
            file.seek(start)
            block = file.read(BLOCK)
            header = header._replace(is_continued=len(block) == BLOCK and block[504] != 0)
            start += BLOCK
        size = header.size if extensions.size is None else extensions.size
        has_content = header.type != FOLDER and header.type not in WITHOUT_CONTENT
        stop = start + size if has_content else start
        position = start + (stop - start + BLOCK - 1) // BLOCK * BLOCK
        name = extensions.name or header.name
        if stop > end:
            cause = f"{path!r} is cut off: it ends inside {name!r}"
            raise InputError(cause, "copy or download it again")
        count += 1
        if count > MAX_MEMBERS:
            raise InputError(f"{path!r} has more than {MAX_MEMBERS:,} members", "split it")
        if header.type in EXTENDED or header.type in (LONG_NAME, LONG_LINK, GLOBAL):
            extensions = _extended(file, path, header, extensions)
            continue
        yield name, _kind(header, name, extensions), start, size
        extensions = _Extensions()


def _kind(header: _Header, name: str, extensions: _Extensions) -> str:
    """What a member is: "file", "folder", or the kind it is ignored as."""
    if header.type == FOLDER or (header.type in REGULAR and name.endswith("/")):
        return "folder"
    if header.type == SPARSE or extensions.is_sparse:
        return "sparse file"
    return "file" if header.type in REGULAR else WITHOUT_CONTENT.get(header.type, "member of an unknown type")


def _header(block: bytes) -> _Header | None:
    """The header in a block; None if its checksum or its size is wrong."""
    if len(block) < BLOCK:
        return None
    recorded, size = _number(block[148:156]), _number(block[124:136])
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if recorded != total:
        total -= 256 * sum(byte > 127 for byte in block[:148] + block[156:])  # some old archives add signed bytes
    if recorded != total or size is None:
        return None
    name, magic, kind = _text(block[:100]), block[257:263], block[156:157]
    if magic == b"ustar\0" and block[345]:  # in GNU's format other fields are here
        name = f"{_text(block[345:500])}/{name}"
    return _Header(name, size, kind, is_continued=kind == SPARSE and block[482] != 0)


def _number(field: bytes) -> int | None:
    """A number of a header: octal digits, or binary if the first bit is set; None if it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    try:
        return int(digits, 8) if digits and digits.isdigit() else 0 if not digits else None
    except ValueError:  # 8 or 9
        return None


def _text(field: bytes) -> str:
    """The text of a field, up to its null."""
    return os.fsdecode(field.partition(b"\0")[0])


def _extended(file: BinaryIO, path: str, header: _Header, extensions: _Extensions) -> _Extensions:
    """What an extended header says of the member that follows; one for the whole archive does not matter here."""
    if header.size > MAX_EXTENSION:
        cause = f"{path!r} has an extended header of {header.size:,} bytes, {MAX_EXTENSION:,} are allowed"
        raise InputError(cause, "create the archive again")
    content = file.read(header.size)
    if header.type == LONG_NAME:
        return extensions._replace(name=_text(content))
    if header.type in EXTENDED:
        records = _records(content)
        size = records.get(b"size", b"")
        return _Extensions(
            name=_text(records[b"path"]) if b"path" in records else extensions.name,
            size=int(size) if size.isdigit() and len(size) < 20 else extensions.size,
            is_sparse=any(key.startswith(b"GNU.sparse.") for key in records),
        )
    return extensions


def _records(content: bytes) -> dict[bytes, bytes]:
    """The records of a pax header: each is its length, a space, KEY=VALUE and a newline."""
    records = {}
    position = 0
    while match := re.compile(rb"(\d{1,9}) ([^=]+)=").match(content, position):
        length = int(match[1])
        if length < match.end() - position:
            break
        records[match[2]] = content[match.end() : position + length - 1]
        position += length
    return records


def _after_zeros(file: BinaryIO, position: int, end: int) -> int:
    """Where an appended archive begins, after the zeros that end one; `end` if nothing follows."""
    file.seek(position)
    while position < end:
        content = file.read(len(MANY_ZEROS))
        if not content:
            return end
        if content != MANY_ZEROS[: len(content)]:
            first = len(content) - len(content.lstrip(b"\0"))
            return position + first // BLOCK * BLOCK
        position += len(content)
    return end


def _broken(path: str, block: bytes, position: int) -> InputError:
    """Why a block is not a header."""
    for magic, command in COMPRESSIONS.items():
        if not position and block.startswith(magic):
            cause = f"{path!r} is compressed, so that its images cannot be read one by one"
            return InputError(cause, f"decompress it first, with {command}")
    if len(block) < BLOCK:
        return InputError(f"{path!r} is cut off inside a header", "copy or download it again")
    if not position:
        return InputError(f"{path!r} is not a tar archive", "create it with tar -cf")
    return InputError(f"{path!r} is broken at byte {position:,}: no header is there", "create the archive again")


def _cleaned(name: str) -> str | None:
    """A member's relative path without "." in it; None if it is unsafe."""
    parts = name.removesuffix("/").split("/")
    if "." in parts:
        parts = [part for part in parts if part != "."]
    return "/".join(parts) if all(parts) and ".." not in parts and "\0" not in name else None


def first_names(path: str, count: int) -> list[str]:
    """The names of the first few files; empty if it is not a tar archive that can be read."""
    names: list[str] = []
    with (
        suppress(OSError, ValueError),
        Path(path).open("rb", buffering=4 * BLOCK) as file,
    ):  # InputError is a ValueError
        for name, kind, _, _ in _members(file, path, _stamp(file.fileno())[0]):
            cleaned = _cleaned(name)
            if kind == "file" and cleaned and not any(map(is_clutter, cleaned.split("/"))):
                names.append(cleaned)
            if len(names) >= count:
                break
    return names
