"""From what a person names (a file, a folder, a hub's name, an address) to weights, preprocessing and class names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from vitreous.checkpoints.convert import OURS, Beside, family_named, read_model, recognize
from vitreous.checkpoints.files.tensors import INDEX, KINDS, read_tensors
from vitreous.checkpoints.sources.hub import (
    CONFIG,
    MODEL_FILE,
    PREPROCESSOR,
    WEIGHTS,
    Fetched,
    fetch,
    is_remote,
    read_json,
)
from vitreous.checkpoints.store import HEADER, StoredModel, load_model
from vitreous.model.variants import variant
from vitreous.support.errors import InputError
from vitreous.support.text import listed

GIVE = "give a run's folder, a weights file, or a name such as hf:owner/name (vitreous list models)"
# The families whose files have JSON beside them; timm's files may have the keys of Meta's.
WITH_JSON = ("timm", "huggingface", "deit", "dino", "dinov2", "mae")


def load_checkpoint(source: str | Path, *, family: str | None = None, **fields: Any) -> StoredModel:
    """Finds and loads the weights that `source` names.

    One of our own files that tells no license gets that of the place it came from.

    Args:
        source: a weights file of any family or of ours; a run's folder, or one as the hubs keep them; a name
            (hf:owner/name, timm:name.tag, torchvision:name, google:name, meta:name); an https address with its
            SHA-256.
        family: whose file it is, where the keys fit several.
        **fields: fields of ViTConfig that the file does not hold, such as `num_heads=3`.

    Raises:
        InputError: there is nothing there, or nothing that can be read; or one of our own files, which says
            everything itself, is told what it is.
    """
    found = fetch(source) if isinstance(source, str) and is_remote(source) else find(Path(source))
    whose = family_of(found, family)
    if whose == OURS:
        if fields or family:
            cause = f"{found.path} is a file of vitreous and says all by itself"
            raise InputError(cause, "leave the fields and the family out")
        stored = load_model(found.path)
        if found.license is None or "license" in stored.metadata:
            return stored
        return replace(stored, metadata={**stored.metadata, "license": found.license})
    beside = Beside(
        json_of(found.config, whose),
        json_of(found.preprocessor, whose),
        {**found.fields, **fields},
        whose,
        found.source,
        found.preprocessing,
        found.class_names,
        found.license,
    )
    return read_model(found.path, beside)


def find(given: Path) -> Fetched:
    """The weights on this machine that a person named; called by the name of the file or folder alone.

    Raises:
        InputError: there are none.
    """
    path = given.expanduser()
    name = path.absolute().name or MODEL_FILE  # the root of a file system has no name
    if path.is_dir():
        path = weights_in(path)
    elif not path.exists():
        if is_variant(str(given)):
            cause = f"{given} is the name of a shape, not of weights"
            raise InputError(cause, f"train it first: vitreous train photos/ --model {given}")
        raise InputError(f"there is no model at {given}", GIVE)
    elif path.suffix not in KINDS and not path.name.endswith(INDEX):
        raise InputError(f"{given} is no model file", GIVE)
    config, preprocessor = (path.with_name(name) for name in (CONFIG, PREPROCESSOR))
    return Fetched(
        path,
        name,
        config=config if config.is_file() else None,
        preprocessor=preprocessor if preprocessor.is_file() else None,
    )


def family_of(found: Fetched, given: str | None) -> str:
    """Tells whose file it is: ours, the family that a person gave, that of the name, or that of its keys.

    Raises:
        InputError: it is of none, or not of the one that its name says.
    """
    with read_tensors(found.path) as tensors:
        if HEADER in tensors.metadata:
            return OURS
        if given is not None:
            return given
        if found.family is None:
            return recognize(tensors.shapes, found.source).name
        family = family_named(found.family)
        if strangers := family.strangers(tensors.shapes):
            raise InputError(
                f"{found.source} is no Vision Transformer of {family.title}: {listed(strangers)} missing",
                "give another name (vitreous list models), or say of which other family it is",
            )
        return family.name


def json_of(path: Path | None, family: str) -> dict[str, Any]:
    """The JSON object in a file beside weights of that family; {} where there is none, or it has no part in them.

    Raises:
        InputError: it holds no JSON object.
    """
    return read_json(path) if path is not None and family in WITH_JSON else {}


def is_variant(name: str) -> bool:
    """Tells whether a name such as "B/16" is a shape's."""
    try:
        variant(name)
    except ValueError:
        return False
    return True


def weights_in(folder: Path) -> Path:
    """The weights file of a folder: by its usual name, or the only one there is.

    Raises:
        InputError: there is none, or there are several.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    found = sorted(path for path in folder.iterdir() if path.suffix in KINDS)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise InputError(f"the folder {folder} has {len(found)} weights files: {names}", "give one of them")
    raise InputError(
        f"the folder {folder} has no {MODEL_FILE}", "give the folder of a run that finished its first epoch"
    )
