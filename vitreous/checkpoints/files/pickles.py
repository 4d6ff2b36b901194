"""What torch.save writes, read without running it: plain tensors in nested dicts.

A pickle is a program. torch's own reader with `weights_only` runs none but a small part of it; before that part
is run, the pickle is searched here for all it names, and refused for anything that plain tensors do not need.
"""

import mmap
import pickletools
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from vitreous.support.errors import InputError

STEPS, DEPTH, LEAVES = 2_000_000, 16, 100_000  # at most: of a pickle, and of the nested dicts that it makes
SAVE_AGAIN = "get its tensors alone, best as safetensors"

# All that files of plain tensors name; less than torch allows, which takes some that grow without bound.
PLAIN_OBJECTS = {
    "collections OrderedDict",
    "collections Counter",
    "__builtin__ set",
    "argparse Namespace",  # DeiT, MAE and DINO keep their arguments; it has attributes and does nothing
    "torch Tensor",
    "torch Size",
    "torch device",
    "torch.nn.parameter Parameter",
    "torch.storage UntypedStorage",
    "torch._tensor _rebuild_from_type_v2",
    *(f"torch._utils _rebuild_{what}" for what in ("tensor", "tensor_v2", "tensor_v3")),
    *(f"torch._utils _rebuild_{what}" for what in ("parameter", "parameter_with_state")),
}


def is_pickle(archive: zipfile.ZipFile) -> bool:
    """Tells whether a zip file is one of torch.save's, by the place of its pickle."""
    return any(name.count("/") == 1 and name.endswith("/data.pkl") for name in archive.namelist())


def read_zipped(path: Path, archive: zipfile.ZipFile) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Reads what torch.save writes today: a zip file of a pickle and of storages, which are mapped.

    Args:
        path: of the file.
        archive: the same, opened.

    Returns:
        The tensors by their flattened key, and the names of all else.

    Raises:
        InputError: it holds other Python objects, is compressed, or is a TorchScript program.
        Exception: of any kind; the file is damaged.
    """
    entries = archive.infolist()
    names = {entry.filename.casefold() for entry in entries}  # torch finds them in any case
    root = entries[0].filename.partition("/")[0]  # where torch looks
    if f"{root}/constants.pkl".casefold() in names:
        raise InputError(f"{path} is a TorchScript program", "save the state_dict of the model that it came from")
    packed = any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries)
    if packed or len(names) < len(entries) or path.suffix == ".safetensors":
        raise InputError(f"{path} is not as torch.save writes it", SAVE_AGAIN)
    _check(path, BytesIO(archive.read(f"{root}/data.pkl")))
    return _load(path, mapped=True)


def read_old(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Reads what torch.save wrote before its version 1.6: pickles in a row, and the storages after them.

    Args:
        path: of the file.

    Returns:
        The tensors by their flattened key, and the names of all else.

    Raises:
        InputError: it holds other Python objects.
        Exception: of any kind; the file is damaged.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for _ in range(5):  # a magic number, the version, the machine, the objects, the keys of the storages
            _check(path, content)
    return _load(path, mapped=False)


def _check(path: Path, file: Any) -> None:
    """Refuses a pickle that names anything but plain tensors and containers, before any of it is built."""
    for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if step == STEPS:
            raise InputError(f"{path} holds more than {STEPS:,} Python values", SAVE_AGAIN)
        if opcode.name in ("GLOBAL", "INST") and not _is_plain(str(argument)):
            name = str(argument).replace(" ", ".")[:100]
            raise InputError(f"{path} holds Python objects that weights do not need, first {name!r}", SAVE_AGAIN)
        if opcode.name == "PROTO" and argument != 2:
            raise InputError(f"{path} is a pickle of protocol {argument}, which torch.save does not write", SAVE_AGAIN)


def _is_plain(name: str) -> bool:
    module, _, attribute = name.partition(" ")
    of_numbers = attribute.endswith("Storage") or isinstance(vars(torch).get(attribute), torch.dtype)
    return name in PLAIN_OBJECTS or (module in ("torch", "torch.cuda") and of_numbers)


def _load(path: Path, *, mapped: bool) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    try:
        with torch.serialization.safe_globals([Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:  # whose own words advise to load without the safety
        raise ValueError("its pickle is damaged, or builds more than plain tensors") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no tensors by name but a {type(content).__name__}", "save a dict of tensors")
    tensors: dict[str, Tensor] = {}
    ignored: dict[str, None] = {}
    for count, (name, leaf) in enumerate(_leaves(content, "", 1)):
        if count == LEAVES or name in tensors:
            raise ValueError(f"it holds more than {LEAVES:,} values" if count == LEAVES else f"it holds {name!r} twice")
        if isinstance(leaf, Tensor) and leaf.layout == torch.strided and leaf.device.type == "cpu":
            tensors[name] = Tensor.detach(leaf).as_subclass(Tensor)  # not the method that the file may have put there
        else:
            ignored[name] = None
    _check_sizes(tensors, path.stat().st_size)
    return tensors, tuple(ignored)


def _leaves(content: dict[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """What nested dicts hold, empty ones too, by the path there. A key that is no plain value goes by its type."""
    for key, inner in dict.items(content):
        plain = key is None or isinstance(key, str | int | float)
        name = f"{prefix}{key if plain else type(key).__name__}"
        if not isinstance(inner, dict) or not inner or not plain:
            yield name, inner if plain else None
        elif depth == DEPTH:
            raise ValueError(f"it nests deeper than {DEPTH} at {name!r}")
        else:
            yield from _leaves(inner, f"{name}/", depth + 1)


def _check_sizes(tensors: Mapping[str, Tensor], size: int) -> None:
    """Refuses storages that the file cannot hold, and tensors that say the same number many times over."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    if sum(storages.values()) > size or sum(tensor.nbytes for tensor in tensors.values()) > 2**24 + 4 * size:
        raise ValueError("its tensors have more numbers than it holds")


def nested(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The tensors in nested dicts, one for each slash of a key.

    Raises:
        InputError: a key is the beginning of another, or has too many slashes to be read again.
    """
    root: dict[str, Any] = {}
    for key, tensor in tensors.items():
        *folders, name = key.split("/")
        node: Any = root
        for folder in folders:
            node = node.setdefault(folder, {}) if isinstance(node, dict) else node
        if not isinstance(node, dict) or name in node or len(folders) >= DEPTH:
            raise InputError(f"a pickle cannot hold the key {key!r} beside the others", "write safetensors")
        node[name] = tensor
    return root
