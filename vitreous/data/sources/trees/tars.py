"""Images in tar archives. An uncompressed one is read in place; nothing is extracted.

A compressed archive has no places to read from: to reach its last image, all of it is decompressed. It is therefore
decompressed once, into a file in the user's cache that is removed when the process ends.
"""

import bz2
import gzip
import lzma
import os
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from vitreous.data.decoding.images import Decoding, is_image_name
from vitreous.data.sources.trees.archives import ArchiveTree, Row
from vitreous.data.sources.trees.spool import check_space, new_spool, remove_spool
from vitreous.data.sources.trees.tar_index import MEMBER, TarIndex, TarLoader, index_tar, note_on_end
from vitreous.data.sources.trees.tree import kind_of
from vitreous.support.errors import InputError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
CHUNK = 2**20  # bytes
CHECKED = 64 * CHUNK  # bytes between two checks of the free space
MAX_RATIO = 200  # of the decompressed size to that of the archive
RATIO_FREE = 2**30  # bytes that any archive may have when decompressed
Decompressed = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile
OPENERS: dict[bytes, Callable[[str], Decompressed]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}


@dataclass(frozen=True, eq=False)
class TarTree(ArchiveTree):
    """The members of one or several tar archives.

    Args:
        stamps: of the archives, by which a loader notices that one has changed.
    """

    stamps: tuple[tuple[int, int], ...]

    def loader(self, names: tuple[str, ...], decoding: Decoding) -> TarLoader:
        rows = [cast(Row, self.rows[bisect_left(self.names, name)]) for name in names]
        members = np.array([(archive, offset, size) for archive, offset, _, size, _, _ in rows], MEMBER)
        return TarLoader(names, decoding, tuple(zip(self.archives, self.stamps, strict=True)), members)


def suffix_of(name: str) -> str:
    """The suffix of a tar archive, compressed or not, such as ".tar.gz"; empty for other files."""
    return max((suffix for suffix in SUFFIXES if name.casefold().endswith(suffix)), key=len, default="")


def is_tar_name(name: str) -> bool:
    """Whether a file has the suffix of a tar archive."""
    return bool(suffix_of(name))


def open_tars(source: str, paths: Sequence[tuple[str, str]], ignored: Counter[str]) -> TarTree:
    """The tree of one tar archive, or of one per split; compressed ones are decompressed to the cache.

    Of members of the same name the last one counts, as for tar itself.

    Args:
        source: as the user named it.
        paths: a (folder, path) pair per archive: the folder to put its members in, such as "train" or "", and its path.
        ignored: counts the ignored members by kind.

    Raises:
        InputError: an archive cannot be read, is too large to decompress, or has only unsafe paths.
    """
    rows: dict[str, Row | str] = {}
    indices: list[TarIndex] = []
    notes: list[str] = []
    for number, (folder, path) in enumerate(paths):
        index = _index(path)
        indices.append(index)
        prefix = f"{folder}/" if folder else ""
        notes += note_on_end(index.path, Path(path).name)
        ignored.update(index.ignored)
        if not index.names and any("absolute" in kind for kind in index.ignored):
            cause = f"all files of {path!r} have absolute paths, or '..' in them, which are not read"
            raise InputError(cause, "create the archive inside the folder, with relative paths: tar -cf photos.tar *")
        rows |= {f"{prefix}{name}/": "folder" for name in index.folders}
        for name, offset, size in zip(index.names, index.offsets.tolist(), index.sizes.tolist(), strict=True):
            if rows.get(prefix + name) is not None:
                ignored["file that a later one of its name replaces"] += 1
            kind = None if is_image_name(name.rpartition("/")[2]) else kind_of(name.rpartition("/")[2])
            rows[prefix + name] = kind or (number, offset, size, size, 0, False)
    names = sorted(rows)
    return TarTree(
        source=source,
        archives=tuple(index.path for index in indices),
        names=names,
        rows=[rows[name] for name in names],
        in_hidden={},
        stamps=tuple(index.stamp for index in indices),
        ignored=ignored,
        notes=notes,
    )


def _index(path: str) -> TarIndex:
    """The index of an archive, decompressed if necessary."""
    file = decompressed(path)
    try:
        return index_tar(file)
    except InputError as error:
        if file == path:
            raise
        remove_spool(Path(file))
        raise InputError(error.cause.replace(repr(file), repr(path)), error.hint) from error


def decompressed(path: str) -> str:
    """The path of an archive's uncompressed bytes: its own, or that of a file in the cache.

    Raises:
        InputError: it cannot be read or decompressed, or the disk is full.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(8)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{path!r} cannot be read: {error.strerror}", "check its name and permissions") from error
    opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)
    if opener is None:
        return path
    spool = new_spool(path)
    try:
        with opener(path) as compressed, spool.open("wb") as file:
            _copy(path, compressed, file, max(RATIO_FREE, MAX_RATIO * size))
    except BaseException as error:
        remove_spool(spool)
        if isinstance(error, OSError | EOFError | lzma.LZMAError | zlib.error):
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            cause = f"{path!r} cannot be decompressed: {reason}"
            raise InputError(cause, "copy or download it again, or decompress it yourself") from error
        raise
    return str(spool)


def _copy(path: str, compressed: Decompressed, file: BinaryIO, most: int) -> None:
    """Copies the bytes of an archive while they are few enough and the disk has space."""
    total = checked = 0
    while content := compressed.read(CHUNK):
        if total + len(content) > most:
            cause = f"{path!r} decompresses to more than {most / 2**30:.0f} GiB, {MAX_RATIO} times its size"
            raise InputError(cause, "if you trust it, decompress it yourself and use the .tar")
        if total + len(content) > checked:
            check_space(path, CHECKED)
            checked = total + CHECKED
        total += file.write(content)
