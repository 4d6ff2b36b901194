"""Tensors in files that nobody vouches for, read one by one, and written back.

Three kinds: safetensors, npz, and what torch.save writes; the first and the last also in shards with an index. The
content tells the kind, the name only where the content is too damaged to. Nothing but numbers is ever taken from a
file: arrays of objects are refused, and a pickle is searched for what it names before torch reads it, which then
happens with `weights_only`. A file that would unpack into much more than its own size is refused before it does.
"""

import json
import math
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from os import SEEK_END
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitreous.checkpoints.files.layout import INDEX, KINDS, Kind
from vitreous.checkpoints.files.pickles import is_pickle, nested, read_old, read_zipped
from vitreous.support.errors import InputError
from vitreous.support.files import atomic_file, atomic_path
from vitreous.support.text import first_line

READABLE = f"give one of {', '.join(KINDS)}, or the {INDEX} of a file in shards"

SLACK, INFLATION = 2**24, 4  # bytes that any file may unpack into, and how many times its own size besides
CHUNK = 2**18  # bytes read at once, so that reading an array takes its own memory and little more
INDEX_BYTES, SHARDS = 2**24, 1000  # at most


class Tensors(Mapping[str, Tensor]):
    """A file's tensors by key: shapes are known at once, values are read when asked for, one at a time.

    Usable in a `with` block, which ends in `close`. Tensors that were read stay valid after that.

    Args:
        kind: of the file.
        shapes: of all tensors, by key, in the file's order.
        nbytes: of all tensors together.
        read: gives one of them.
        metadata: safetensors' own texts; other files have none.
        ignored: what a pickle holds besides tensors, by its flattened name.
        close: gives the file back.
    """

    def __init__(
        self,
        kind: Kind,
        shapes: Mapping[str, tuple[int, ...]],
        nbytes: int,
        read: Callable[[str], Tensor],
        metadata: Mapping[str, str] | None = None,
        ignored: tuple[str, ...] = (),
        close: Callable[[], object] | None = None,
    ) -> None:
        self.kind: Kind = kind
        self.shapes = shapes
        self.nbytes = nbytes
        self.metadata: Mapping[str, str] = metadata or {}
        self.ignored = ignored
        self._read: Callable[[str], Tensor] | None = read
        self._close = close

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.shapes:
            raise KeyError(key)
        if self._read is None:
            raise ValueError(f"the file of {key!r} is closed")
        return self._read(key)

    def __contains__(self, key: object) -> bool:
        return key in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __enter__(self) -> "Tensors":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the file and its memory back; nothing can be read after it."""
        self._read = None
        if self._close is not None:
            self._close()


def in_memory(tensors: Mapping[str, Tensor], kind: Kind = "safetensors") -> Tensors:
    """Tensors that are there already, as if a file of that kind held them."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    return Tensors(kind, shapes, sum(tensor.nbytes for tensor in tensors.values()), tensors.__getitem__)


def read_tensors(path: str | Path) -> Tensors:
    """Opens a file of tensors, whose values are read when they are asked for.

    safetensors and torch's zip files are mapped: their values take memory when they are used, and the file must stay
    as it is. Of npz files each array is read, and checked against its checksum, when it is asked for; JAX's bfloat16
    is known by its type `|V2`. Files in torch's old format are read as a whole. Nested dicts of a pickle become keys
    with slashes: "model/blocks.0.norm1.weight".

    Args:
        path: of the file; or of the index (`*.index.json`) of a file in shards that lie in the same folder.

    Raises:
        InputError: no such file, damaged, of no known kind, it holds Python objects besides plain tensors, it would
            unpack into much more than its size, or an index does not fit its shards. Damage inside an array of an
            npz file is told when that is read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}", READABLE)
    return _read_shards(path) if path.name.endswith(INDEX) else _read_one(path)


def _read_one(path: Path) -> Tensors:
    try:
        return _readers(path)(path)
    except InputError:
        raise
    except Exception as error:  # four parsers, and damage of any kind
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    reason = first_line(error) or type(error).__name__
    return InputError(f"{path} cannot be read: {reason[:300]}", "copy or download it again")


def _readers(path: Path) -> Callable[[Path], Tensors]:
    """What reads this file, by its first bytes; by its name where they are of no kind."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8:
        return _read_safetensors
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):  # the second starts an archive of nothing
        return _read_zip
    if start[:2] == b"\x80\x02":
        return _read_old
    if path.suffix not in KINDS:
        raise InputError(f"{path} is of no kind that weights are read from", READABLE)
    return {"safetensors": _read_safetensors, "npz": _read_zip, "pickle": _read_old}[KINDS[path.suffix]]


def _read_safetensors(path: Path) -> Tensors:
    with path.open("rb") as raw:
        header = int.from_bytes(raw.read(8), "little")
    file = safe_open(path, framework="pt")
    keys = file.keys()
    shapes = {key: tuple(file.get_slice(key).get_shape()) for key in keys}

    def read(key: str) -> Tensor:
        try:
            return file.get_tensor(key)
        except Exception as error:
            raise _damaged(path, error) from error

    nbytes = path.stat().st_size - 8 - header  # the format leaves no holes
    return Tensors("safetensors", shapes, nbytes, read, file.metadata(), close=lambda: file.__exit__(None, None, None))


def _read_shards(path: Path) -> Tensors:
    if path.stat().st_size > INDEX_BYTES:
        raise InputError(f"{path} is longer than {INDEX_BYTES:,} bytes", "an index has a line for each tensor")
    try:
        places = json.loads(path.read_bytes())["weight_map"]
        names = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no index of shards: {error!r:.300}", "copy or download it again") from error
    _check_shard_names(path, names)
    with ExitStack() as opened:
        shards: dict[str, Tensors] = {}
        for name in names:
            shards[name] = opened.enter_context(read_tensors(path.parent / name))
            _check_shard(path, name, shards, places)
        return _joined(shards, places, opened.pop_all().close)


def _check_shard_names(path: Path, names: list[Any]) -> None:
    # In the cache of a hub both the index and the shards are links into one other folder.
    folders = (path.parent.resolve(), path.resolve().parent)
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.\-+ ]*", name) or name.endswith(INDEX):
            raise InputError(f"{path} names the shard {name!r}", "a shard is a file in the folder of its index")
        shard = path.parent / name
        if shard.is_file() and shard.resolve().parent not in folders:
            raise InputError(f"the shard {name!r} of {path} is a link out of its folder", "put the file itself there")
    if not 0 < len(names) <= SHARDS:
        raise InputError(f"{path} has {len(names)} shards", f"1 to {SHARDS} are read")


def _check_shard(path: Path, name: str, shards: Mapping[str, Tensors], places: Mapping[str, str]) -> None:
    promised = {key for key, place in places.items() if place == name}
    odd = sorted(promised.symmetric_difference(shards[name]))
    if odd:
        where = "the index but not in the file" if odd[0] in promised else "the file but not in the index"
        raise InputError(f"{path} does not fit its shard {name!r}: {odd[0]!r} is in {where}", "download both again")
    if shards[name].kind != next(iter(shards.values())).kind:
        raise InputError(f"the shards of {path} are of different kinds", "download them again")


def _joined(shards: Mapping[str, Tensors], places: Mapping[str, str], close: Callable[[], object]) -> Tensors:
    return Tensors(
        next(iter(shards.values())).kind,
        {key: shards[name].shapes[key] for key, name in places.items()},
        sum(shard.nbytes for shard in shards.values()),
        lambda key: shards[places[key]][key],
        {key: text for shard in shards.values() for key, text in shard.metadata.items()},
        tuple(f"{place}:{name}" for place, shard in shards.items() for name in shard.ignored),
        close,
    )


def _read_zip(path: Path) -> Tensors:
    with ExitStack() as opened:
        archive = opened.enter_context(zipfile.ZipFile(path))
        if is_pickle(archive):
            return _of_pickle(*read_zipped(path, archive))
        names = archive.namelist()
        if names and not any(name.endswith(".npy") for name in names):
            raise InputError(f"{path} is a zip file without tensors", READABLE)
        return _read_npz(path, archive, opened.pop_all().close)


def _read_old(path: Path) -> Tensors:
    return _of_pickle(*read_old(path))


def _of_pickle(tensors: dict[str, Tensor], ignored: tuple[str, ...]) -> Tensors:
    held = in_memory(tensors, "pickle")
    return Tensors("pickle", held.shapes, held.nbytes, held.__getitem__, ignored=ignored, close=tensors.clear)


class _Array(NamedTuple):
    """Where an array lies in an npz file: behind `start` bytes of its entry."""

    entry: zipfile.ZipInfo
    start: int
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


def _read_npz(path: Path, archive: zipfile.ZipFile, close: Callable[[], object]) -> Tensors:
    entries = archive.infolist()
    unpacked, allowed = sum(entry.file_size for entry in entries), SLACK + INFLATION * path.stat().st_size
    if unpacked > allowed:
        raise InputError(f"{path} would unpack into {unpacked:,} bytes", f"{allowed:,} are allowed for its size")
    arrays = {entry.filename.removesuffix(".npy"): _read_header(archive, entry) for entry in entries}
    with path.open("rb") as file:
        file.seek(-12 - len(archive.comment), SEEK_END)  # one bit in a length can hide an entry from zipfile
        promised = int.from_bytes(file.read(2), "little")
    if len(arrays) < len(entries) or promised != min(len(entries), 0xFFFF):
        raise InputError(f"{path} has two arrays of one name, or lacks some that it promises", "copy it again")

    def read(key: str) -> Tensor:
        try:
            return _read_array(archive, arrays[key])
        except Exception as error:
            raise _damaged(path, error) from error

    shapes = {key: array.shape for key, array in arrays.items()}
    nbytes = sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays.values())
    return Tensors("npz", shapes, nbytes, read, close=close)


def _read_header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _Array:
    """What an entry says of its array, if the entry is as long as that takes and torch has such numbers."""
    with archive.open(entry) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a header of Python 2 is as good as another
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        array = _Array(entry, file.tell(), *read_header(file))._replace(start=file.tell())
    if array.dtype.hasobject:
        raise ValueError(f"{entry.filename} holds objects, not numbers")
    torch.from_numpy(np.empty(0, _number(array.dtype)))
    if (
        min(array.shape, default=0) < 0
        or math.prod(array.shape) * array.dtype.itemsize != entry.file_size - array.start
    ):
        raise ValueError(f"{entry.filename} is not the array that its header promises")
    return array


def _number(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type to hold the numbers in: bfloat16, which numpy writes as two bytes of unknown meaning, in uint16."""
    return np.dtype(np.uint16) if dtype == np.dtype("V2") else dtype.newbyteorder("=")


def _read_array(archive: zipfile.ZipFile, array: _Array) -> Tensor:
    raw = np.empty(array.entry.file_size - array.start, np.uint8)
    with archive.open(array.entry) as file:
        file.read(array.start)
        for start in range(0, len(raw), CHUNK):
            raw.data[start : start + CHUNK] = file.read(min(CHUNK, len(raw) - start))
    number = _number(array.dtype)
    typed = raw.view(number if array.dtype.kind == "V" else array.dtype)
    values = typed.astype(number, copy=False).reshape(array.shape, order="F" if array.fortran else "C")
    tensor = torch.from_numpy(values).contiguous()
    return tensor.view(torch.bfloat16) if array.dtype.kind == "V" else tensor


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors as the kind of file that the name says, atomically.

    Types are kept, except that npz has no bfloat16: it is written as float32, which holds its values exactly. In a
    pickle keys with slashes become nested dicts. Tensors that share memory are written apart.

    Args:
        path: ending in .safetensors, .npz, .pth, .pt, .bin or .ckpt.
        tensors: by key, on any device; for npz they are taken one at a time.
        metadata: texts to keep in a safetensors file, besides the "format" that other readers ask for.

    Raises:
        InputError: the name tells no kind, that kind cannot hold the tensors or texts, or the file cannot be written;
            nothing is left behind.
    """
    path = Path(path)
    kind = KINDS.get(path.suffix)
    if kind is None:
        raise InputError(f"cannot write {str(path)!r}: its name tells no kind", f"end it in one of {', '.join(KINDS)}")
    if metadata and kind != "safetensors":
        raise InputError(f"{path} cannot hold metadata", "give a name that ends in .safetensors")
    try:
        if kind == "safetensors":
            _write_safetensors(path, tensors, {"format": "pt", **(metadata or {})})
        elif kind == "npz":
            _write_npz(path, tensors)
        else:
            content = nested(_apart(tensors))
            with atomic_file(path) as file:
                torch.save(content, file)
    except (SafetensorError, RuntimeError, TypeError) as error:  # the first two hide the system's own, a full disk too
        cause = f"cannot write {str(path)!r}: {first_line(error)}"
        raise InputError(cause, "give plain tensors, and a folder with room to write") from error


def _write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    if "__metadata__" in tensors:
        raise InputError("a safetensors file cannot hold a tensor of the name '__metadata__'", "rename it")
    content = _apart(tensors)
    with atomic_path(path) as temporary:
        save_file(content, temporary, metadata)


def _write_npz(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, tensor in tensors.items():
            values = _plain(tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, values, allow_pickle=False)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each with a memory of its own and nothing else in it."""
    apart: dict[str, Tensor] = {}
    taken = set()
    for key, tensor in tensors.items():
        plain = _plain(tensor)
        memory = plain.untyped_storage()
        if memory.nbytes() != plain.nbytes or memory.data_ptr() in taken:
            plain = plain.clone()
        taken.add(memory.data_ptr())
        apart[key] = plain
    return apart
