"""torch.save's files, read without running code: plain tensors in nested dicts.

A pickle is a program. torch's reader with `weights_only` runs only a small part of it; before that, the pickle is
scanned here for the names it uses, and refused for any that plain tensors do not need.
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

STEPS, DEPTH, LEAVES = 2_000_000, 16, 100_000  # limits of a pickle, and of its nested dicts
SAVE_AGAIN = "save only its tensors, preferably as safetensors"

ENCODE = "_codecs encode"  # how protocol 2 spells bytes, such as those of a numpy scalar


class Inert:
    """Stands for an object that weights do not need; takes what would make it, and keeps nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def without_factory(*_: object) -> dict[Any, Any]:
    """Stands for `defaultdict`: an empty dict, which makes no values by itself."""
    return {}


# Plain data next to the weights of a training run. None of it is built: each becomes an `Inert`, since numpy's own
# functions would take memory without bound for a few bytes of a file.
INERT_OBJECTS = (
    *(f"numpy.{core}.multiarray {name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy dtype", "numpy ndarray"),
    *(f"{module} {name}" for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")),
)
DEFAULT_DICT = "collections defaultdict"
# What makes the missing values of one, and how torch spells it.
FACTORIES = {f"__builtin__ {name}": f"builtins {name}" for name in ("list", "dict", "float", "bool", "tuple")}
FACTORIES |= {"__builtin__ long": "builtins int", "__builtin__ unicode": "builtins str"}
# All names that files of plain tensors use; fewer than torch allows, since some of those grow without bound.
PLAIN_OBJECTS = {
    *INERT_OBJECTS,
    *(DEFAULT_DICT, *FACTORIES),
    ENCODE,  # only where _check_encoding has seen what it encodes
    "collections OrderedDict",
    "collections Counter",
    "__builtin__ set",
    "argparse Namespace",  # DeiT, MAE and DINO store their arguments in one; it only has attributes
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
    """Whether a zip file is torch.save's, by the place of its pickle."""
    return any(name.count("/") == 1 and name.endswith("/data.pkl") for name in archive.namelist())


def read_zipped(path: Path, archive: zipfile.ZipFile) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Reads torch.save's format of today: a zip file of a pickle and storages, which are memory-mapped.

    Args:
        path: of the file.
        archive: the same, opened.

    Returns:
        The tensors by their flattened key, and the names of everything else.

    Raises:
        InputError: it holds other Python objects, is compressed, or is a TorchScript program.
        Exception: of any kind; the file is damaged.
    """
    entries = archive.infolist()
    names = {entry.filename.casefold() for entry in entries}  # torch finds them in any case
    root = entries[0].filename.partition("/")[0]  # where torch looks
    if f"{root}/constants.pkl".casefold() in names:
        raise InputError(f"{path} is a TorchScript program", "save the state_dict of the original model")
    packed = any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries)
    if packed or len(names) < len(entries) or path.suffix == ".safetensors":
        raise InputError(f"{path} was not written by torch.save", SAVE_AGAIN)
    _check(path, BytesIO(archive.read(f"{root}/data.pkl")))
    return _load(path, mapped=True)


def read_old(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Reads torch.save's format before version 1.6: several pickles, then the storages.

    Args:
        path: of the file.

    Returns:
        The tensors by their flattened key, and the names of everything else.

    Raises:
        InputError: it holds other Python objects.
        Exception: of any kind; the file is damaged.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for _ in range(5):  # a magic number, the version, the machine, the objects, the keys of the storages
            _check(path, content)
    return _load(path, mapped=False)


def _check(path: Path, file: Any) -> None:
    """Refuses a pickle that uses anything but plain tensors and containers, before any of it is built."""
    encoding = Encoding(path)
    for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        encoding.check(opcode.name, argument)
        if step == STEPS:
            raise InputError(f"{path} holds more than {STEPS:,} Python values", SAVE_AGAIN)
        if opcode.name in ("GLOBAL", "INST") and not _is_plain(str(argument)):
            name = str(argument).replace(" ", ".")[:100]
            raise InputError(f"{path} holds Python objects that weights do not need, such as {name!r}", SAVE_AGAIN)
        if opcode.name == "PROTO" and argument != 2:
            raise InputError(f"{path} is a pickle of protocol {argument}, which torch.save does not write", SAVE_AGAIN)


class Encoding:
    """Checks that each use of `_codecs.encode` is one call that spells bytes: of a text written there, in Latin-1.

    Anything else could repeat a long text, or encode its own output, and so take memory without bound.

    Args:
        path: of the file, for errors.
    """

    EXPECTED = ("BINUNICODE", "BINUNICODE", "TUPLE2", "REDUCE")  # after the function; a memo entry may follow each

    def __init__(self, path: Path) -> None:
        self.path = path
        self.functions: set[Any] = set()  # memo entries that hold the function
        self.latin: set[Any] = set()  # memo entries that hold "latin1"
        self.place: int | None = None  # in EXPECTED, inside a call
        self.is_latin = False  # whether the last value is "latin1"

    def check(self, opcode: str, argument: Any) -> None:
        """Takes the next step of the pickle. Raises InputError for another use of the function."""
        if opcode in ("BINPUT", "LONG_BINPUT"):
            self.functions.discard(argument)
            self.latin.discard(argument)
            if self.place == 0:
                self.functions.add(argument)
            elif self.is_latin:
                self.latin.add(argument)
            return
        got = opcode in ("BINGET", "LONG_BINGET")
        self.is_latin = (opcode == "BINUNICODE" and argument == "latin1") or (got and argument in self.latin)
        if (opcode in ("GLOBAL", "INST") and argument == ENCODE) or (got and argument in self.functions):
            fits, self.place = self.place is None and opcode != "INST", 0
        elif self.place is None:
            return
        else:
            fits = self.is_latin if self.place == 1 else opcode == self.EXPECTED[self.place]
            self.place = self.place + 1 if self.place + 1 < len(self.EXPECTED) else None
        if not fits:
            raise InputError(f"{self.path} holds text that its pickle encodes in an unusual way", SAVE_AGAIN)


def _is_plain(name: str) -> bool:
    module, _, attribute = name.partition(" ")
    of_numbers = attribute.endswith("Storage") or isinstance(vars(torch).get(attribute), torch.dtype)
    return name in PLAIN_OBJECTS or (module in ("torch", "torch.cuda") and of_numbers)


def _load(path: Path, *, mapped: bool) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    try:
        inert: list[Any] = [(Inert, name.replace(" ", ".")) for name in (*INERT_OBJECTS, *FACTORIES.values())]
        inert.append((without_factory, DEFAULT_DICT.replace(" ", ".")))
        with torch.serialization.safe_globals([Namespace, *inert]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:  # its message suggests loading without this safety
        raise ValueError("its pickle is damaged, or builds more than plain tensors") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not tensors by name", "save a dict of tensors")
    tensors: dict[str, Tensor] = {}
    ignored: dict[str, None] = {}
    for count, (name, leaf) in enumerate(_leaves(content, "", 1)):
        if count == LEAVES or name in tensors:
            raise ValueError(f"it holds more than {LEAVES:,} values" if count == LEAVES else f"it holds {name!r} twice")
        if isinstance(leaf, Tensor) and leaf.layout == torch.strided and leaf.device.type == "cpu":
            tensors[name] = Tensor.detach(leaf).as_subclass(Tensor)  # not a method from the file
        else:
            ignored[name] = None
    _check_sizes(tensors, path.stat().st_size)
    return tensors, tuple(ignored)


def _leaves(content: dict[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """The leaves of nested dicts by path, empty dicts too. A key that is not a plain value becomes its type."""
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
    """Refuses storages larger than the file, and tensors that repeat numbers many times."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    if sum(storages.values()) > size or sum(tensor.nbytes for tensor in tensors.values()) > 2**24 + 4 * size:
        raise ValueError("its tensors have more numbers than the file holds")


def nested(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The tensors in nested dicts, one level per slash of a key.

    Raises:
        InputError: a key is a prefix of another, or has too many slashes to be read again.
    """
    root: dict[str, Any] = {}
    for key, tensor in tensors.items():
        *folders, name = key.split("/")
        node: Any = root
        for folder in folders:
            node = node.setdefault(folder, {}) if isinstance(node, dict) else node
        if not isinstance(node, dict) or name in node or len(folders) >= DEPTH:
            raise InputError(f"a pickle cannot hold the key {key!r} with the others", "write safetensors")
        node[name] = tensor
    return root
