"""What weights files are called, alone and in a folder, and the JSON files next to them."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from vitreous.support.errors import InputError

Kind = Literal["safetensors", "npz", "pickle"]
KINDS: dict[str, Kind] = {
    ".safetensors": "safetensors",
    ".npz": "npz",
    ".pth": "pickle",
    ".pt": "pickle",
    ".bin": "pickle",
    ".ckpt": "pickle",
}
SUFFIXES = tuple(KINDS)
INDEX = ".index.json"  # ending of the index of a sharded checkpoint

MODEL_FILE = "model.safetensors"
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
# The usual names of the weights in a folder or a repository, in order of preference.
WEIGHTS = (
    *(MODEL_FILE, f"{MODEL_FILE}{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}"),
    *("model.npz", "model.pth"),
)
SHARDS = 1000  # at most
MAX_JSON = 2**24  # bytes of a config or an index; a config with 21,843 class names has 2 MB


def is_weights(path: Path) -> bool:
    """Whether a path is named like a weights file or the index of a sharded one."""
    return path.suffix in KINDS or path.name.endswith(INDEX)


def weights_in(folder: Path) -> Path:
    """The weights file of a folder: by its usual name, or the only one there.

    Raises:
        InputError: the folder has no weights, or several files and none with a usual name.
    """
    names = weights_among(path.name for path in folder.iterdir() if path.is_file())
    if not names:
        raise InputError(f"the folder {folder} has no {MODEL_FILE}", "give the folder of a run that finished an epoch")
    if len(names) > 1:
        cause = f"the folder {folder} has {len(names)} weights files: {', '.join(names)}"
        raise InputError(cause, "name one of them")
    return folder / names[0]


def weights_among(files: Iterable[str]) -> list[str]:
    """The weights among the files of a folder: only the one with the most usual name, or all if none has one."""
    files = set(files)
    usual = [name for name in WEIGHTS if name in files]
    return usual[:1] or sorted(name for name in files if name.endswith(SUFFIXES))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file next to weights.

    Raises:
        InputError: the file is not JSON, not an object, or longer than `MAX_JSON`.
    """
    hint = "fix it, or download it again"
    with path.open("rb") as file:
        text = file.read(MAX_JSON + 1)
    try:
        value = json.loads(text) if len(text) <= MAX_JSON else None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r} is not JSON: {error}", hint) from error
    if not isinstance(value, dict):
        raise InputError(f"{str(path)!r} is not a JSON object of at most {MAX_JSON:,} bytes", hint)
    return value


def read_index(path: Path) -> dict[str, str]:
    """The shard of each key, from the index of a sharded checkpoint.

    Raises:
        InputError: the file is not an index, or names files that are not weights in its own folder.
    """
    places = read_json(path).get("weight_map")
    names = set(map(str, places.values())) if isinstance(places, dict) else set()
    if not all(re.fullmatch(r"\w[\w.\-+ ]*", name) and name.endswith(SUFFIXES) for name in names):
        raise InputError(f"{str(path)!r} names shards that are not weights in its own folder", "download it again")
    if not isinstance(places, dict) or not 0 < len(names) <= SHARDS:
        raise InputError(f"{str(path)!r} is not an index of 1 to {SHARDS:,} shards", "download it again")
    return {key: str(name) for key, name in places.items()}
