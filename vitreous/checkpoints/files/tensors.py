"""Tensors in untrusted files, read one by one, and written back.

Three formats: safetensors, npz, and torch.save's; the first and the last also in shards with an index. The content
determines the format, the suffix only if the content is damaged. Only numbers are taken from a file: arrays of objects
are refused, and a pickle is scanned for the names it uses before torch reads it with `weights_only`. A file that would
unpack into much more than its own size is refused.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitreous.checkpoints.files.change import FileVersion
from vitreous.checkpoints.files.floats import float_places
from vitreous.checkpoints.files.layout import INDEX, KINDS, Kind, read_index
from vitreous.checkpoints.files.npz import npz_arrays, read_array, write_npz
from vitreous.checkpoints.files.pickles import is_pickle, nested, read_old, read_zipped
from vitreous.support.errors import InputError
from vitreous.support.files import atomic_file, atomic_path
from vitreous.support.text import first_line

READABLE = f"give one of {', '.join(KINDS)}, or the {INDEX} of a sharded file"


class Tensors(Mapping[str, Tensor]):
    """A file's tensors by key: shapes are read eagerly, values lazily.

    Use it in a `with` block, which closes the file. Tensors stay valid after that.

    Args:
        kind: format of the file.
        shapes: of all tensors, by key, in the file's order.
        read: reads one tensor.
        metadata: safetensors' strings; other formats have none.
        ignored: flattened names of the non-tensor entries of a pickle.
        close: closes the file.
    """

    def __init__(
        self,
        kind: Kind,
        shapes: Mapping[str, tuple[int, ...]],
        read: Callable[[str], Tensor],
        metadata: Mapping[str, str] | None = None,
        ignored: tuple[str, ...] = (),
        close: Callable[[], object] | None = None,
    ) -> None:
        self.kind: Kind = kind
        self.shapes = shapes
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
        """Closes the file; nothing can be read after that."""
        self._read = None
        if self._close is not None:
            self._close()


def read_tensors(path: str | Path, *, mapped: bool = False) -> Tensors:
    """Opens a file of tensors, whose values are read on access.

    A tensor that was read has memory of its own: whatever happens to the file later does not change it. An array of
    an npz file is read, and its checksum verified, on access; JAX's bfloat16 is recognized by its dtype `|V2`. Files
    in torch's old format are read completely. Nested dicts of a pickle become keys with slashes:
    "model/blocks.0.norm1.weight".

    Args:
        path: of the file; or of the index (`*.index.json`) of a sharded file, with the shards in the same folder.
        mapped: leave the tensors of safetensors and of torch's zip files in the file, which must then never change:
            the operating system ends a process that uses tensors of a file that was cut. Writing to them does not
            change the file.

    Raises:
        InputError: the file does not exist, is damaged or of an unknown format, holds Python objects besides plain
            tensors, would unpack into much more than its size, or an index does not fit its shards. Damage inside an
            array of an npz file is an error when that is read, as is a file that changes while it is read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}", READABLE)
    return _read_shards(path, mapped) if path.name.endswith(INDEX) else _read_one(path, mapped)


def _read_one(path: Path, mapped: bool) -> Tensors:
    try:
        return _reader_of(path)(path, mapped)
    except InputError:
        raise
    except Exception as error:  # four parsers, and damage of any kind
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    reason = first_line(error) or type(error).__name__
    return InputError(f"{path} cannot be read: {reason[:300]}", "copy or download it again")


def _unchanged(read: Callable[[str], Tensor], version: FileVersion) -> Callable[[str], Tensor]:
    """A reader that refuses the tensors of a file that changes meanwhile."""

    def read_checked(key: str) -> Tensor:
        version.check()  # before: touching a mapped page that was cut off ends the process
        tensor = read(key)
        version.check()  # after: half of the numbers may be new
        return tensor

    return read_checked


def _reader_of(path: Path) -> Callable[[Path, bool], Tensors]:
    """The reader for a file, by its first bytes; by its suffix if they match no format."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8:
        return _read_safetensors
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):  # the second is an empty archive's
        return _read_zip
    if start[:2] == b"\x80\x02":
        return _read_old
    if path.suffix not in KINDS:
        raise InputError(f"{path} is not a weights file", READABLE)
    return {"safetensors": _read_safetensors, "npz": _read_zip, "pickle": _read_old}[KINDS[path.suffix]]


def _read_safetensors(path: Path, mapped: bool) -> Tensors:
    version = FileVersion(path)
    file = safe_open(path, framework="pt", backend="mmap" if mapped else "pread")
    keys = file.keys()
    shapes = {key: tuple(file.get_slice(key).get_shape()) for key in keys}
    places = {} if mapped else float_places(path)

    def read(key: str) -> Tensor:
        try:
            return places[key].read(shapes[key]) if key in places else file.get_tensor(key)
        except Exception as error:
            raise _damaged(path, error) from error

    reader = read if mapped else _unchanged(read, version)
    return Tensors("safetensors", shapes, reader, file.metadata(), close=lambda: file.__exit__(None, None, None))


def _read_shards(path: Path, mapped: bool) -> Tensors:
    places = read_index(path)
    # In the cache of a hub both the index and the shards are links into one other folder.
    folders = (path.parent.resolve(), path.resolve().parent)
    with ExitStack() as opened:
        shards: dict[str, Tensors] = {}
        for name in sorted(set(places.values())):
            shard = path.parent / name
            if shard.is_file() and shard.resolve().parent not in folders:
                raise InputError(f"the shard {name!r} of {path} links to another folder", "copy the file itself there")
            shards[name] = opened.enter_context(read_tensors(shard, mapped=mapped))
            _check_shard(path, name, shards, places)
        return _joined(shards, places, opened.pop_all().close)


def _check_shard(path: Path, name: str, shards: Mapping[str, Tensors], places: Mapping[str, str]) -> None:
    listed = {key for key, shard in places.items() if shard == name}
    if differing := sorted(listed.symmetric_difference(shards[name])):
        key = differing[0]
        where = "the index but not in the file" if key in listed else "the file but not in the index"
        raise InputError(f"{path} does not fit its shard {name!r}: {key!r} is in {where}", "download both again")
    if shards[name].kind != next(iter(shards.values())).kind:
        raise InputError(f"the shards of {path} have different formats", "download them again")


def _joined(shards: Mapping[str, Tensors], places: Mapping[str, str], close: Callable[[], object]) -> Tensors:
    return Tensors(
        next(iter(shards.values())).kind,
        {key: shards[name].shapes[key] for key, name in places.items()},
        lambda key: shards[places[key]][key],
        {key: text for shard in shards.values() for key, text in shard.metadata.items()},
        tuple(f"{place}:{name}" for place, shard in shards.items() for name in shard.ignored),
        close,
    )


def _read_zip(path: Path, mapped: bool) -> Tensors:
    with ExitStack() as opened:
        version = FileVersion(path)
        archive = opened.enter_context(zipfile.ZipFile(path))
        if is_pickle(archive):
            content = read_zipped(path, archive)
            return _of_pickle(*content, None if mapped else version)
        names = archive.namelist()
        if names and not any(name.endswith(".npy") for name in names):
            raise InputError(f"{path} is a zip file without tensors", READABLE)
        return _read_npz(path, archive, opened.pop_all().close)


def _read_old(path: Path, mapped: bool) -> Tensors:
    return _of_pickle(*read_old(path), None)


def _of_pickle(tensors: dict[str, Tensor], ignored: tuple[str, ...], version: FileVersion | None) -> Tensors:
    """The tensors of a pickle; those of a mapped file are copied on access if its version is given."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if version is None:
        read: Callable[[str], Tensor] = tensors.__getitem__
    else:
        read = _unchanged(lambda key: tensors[key].clone(), version)
    return Tensors("pickle", shapes, read, ignored=ignored, close=tensors.clear)


def _read_npz(path: Path, archive: zipfile.ZipFile, close: Callable[[], object]) -> Tensors:
    arrays = npz_arrays(path, archive)

    def read(key: str) -> Tensor:
        try:
            return read_array(archive, arrays[key])
        except Exception as error:
            raise _damaged(path, error) from error

    shapes = {key: array.shape for key, array in arrays.items()}
    return Tensors("npz", shapes, read, close=close)


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors in the format of the path's suffix, atomically.

    dtypes are kept, except that npz has no bfloat16: it becomes float32, exactly. In a pickle, keys with slashes
    become nested dicts. Tensors that share memory are written separately.

    Args:
        path: ending in .safetensors, .npz, .pth, .pt, .bin or .ckpt.
        tensors: by key, on any device; for npz they are taken one at a time.
        metadata: strings for a safetensors file, besides the "format" that other readers require.

    Raises:
        InputError: the suffix is unknown, the format cannot hold the tensors or metadata, or the file cannot be
            written; nothing is left behind.
    """
    path = Path(path)
    kind = KINDS.get(path.suffix)
    if kind is None:
        raise InputError(f"cannot write {str(path)!r}: unknown suffix", f"use one of {', '.join(KINDS)}")
    if metadata and kind != "safetensors":
        raise InputError(f"{path} cannot hold metadata", "choose a name ending in .safetensors")
    try:
        if kind == "safetensors":
            _write_safetensors(path, tensors, {"format": "pt", **(metadata or {})})
        elif kind == "npz":
            write_npz(path, tensors, _plain)
        else:
            content = nested(_apart(tensors))
            with atomic_file(path) as file:
                torch.save(content, file)
    except (SafetensorError, RuntimeError, TypeError) as error:  # the first two hide the system's error
        cause = f"cannot write {str(path)!r}: {first_line(error)}"
        raise InputError(cause, "give plain tensors, and a folder with free space") from error


def _write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    if "__metadata__" in tensors:
        raise InputError("a safetensors file cannot hold a tensor named '__metadata__'", "rename it")
    content = _apart(tensors)
    with atomic_path(path) as temporary:
        save_file(content, temporary, metadata)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each in memory of its own and no larger than necessary."""
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
