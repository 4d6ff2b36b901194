"""From what a person names (a file, a folder, a hub's name, an address) to weights, preprocessing and class names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from vitreous.checkpoints.convert import Beside, read_model
from vitreous.checkpoints.files import INDEX, KINDS
from vitreous.checkpoints.hub import CONFIG, MODEL_FILE, PREPROCESSOR, WEIGHTS, fetch, is_remote, read_json
from vitreous.checkpoints.store import StoredModel, is_ours, load_model
from vitreous.model.variants import variant
from vitreous.support.errors import InputError

GIVE = "give a run's folder, a weights file, or a name such as hf:owner/name (vitreous list models)"


def resolve(source: str | Path, *, family: str | None = None, **fields: Any) -> StoredModel:
    """Finds and loads the weights that `source` names.

    Args:
        source: a weights file of any family or of ours; a run's folder, or one as the hubs keep them; a name
            (hf:owner/name, timm:name.tag, torchvision:name, google:name, meta:name); an https address with its
            SHA-256.
        family: whose file it is, where the keys fit several.
        **fields: fields of ViTConfig that the file does not hold, such as `num_heads=3`.

    Raises:
        InputError: there is nothing there, or nothing that can be read.
    """
    if isinstance(source, str) and is_remote(source):
        found = fetch(source)
        beside = Beside(
            found.config or {},
            found.preprocessor or {},
            {**found.fields, **fields},
            family or found.family,
            found.source,
            found.preprocessing,
            found.class_names,
            found.licence,
        )
        return read_any(found.path, beside)
    path = Path(source).expanduser()
    if path.is_dir():
        path = weights_in(path)
    elif not path.exists():
        if is_variant(str(source)):
            cause = f"{source} is the name of a shape, not of weights"
            raise InputError(cause, f"train it first: vitreous train photos/ --model {source}")
        raise InputError(f"there is no model at {source}", GIVE)
    elif path.suffix not in KINDS and not path.name.endswith(INDEX):
        raise InputError(f"{source} is no model file", GIVE)
    config, preprocessor = json_beside(path, CONFIG), json_beside(path, PREPROCESSOR)
    return read_any(path, Beside(config, preprocessor, fields, family))


def read_any(path: Path, beside: Beside) -> StoredModel:
    """Reads a file of ours or of any family; one of ours that tells no licence gets that of the place it came from.

    Raises:
        InputError: as `read_model`; or a file of ours, which says everything itself, is told what it is.
    """
    if not is_ours(path):
        return read_model(path, beside)
    if beside.fields or beside.family:
        raise InputError(f"{path} is a file of vitreous and says all by itself", "leave the fields and the family out")
    stored = load_model(path)
    if beside.licence is None or "licence" in stored.metadata:
        return stored
    return replace(stored, metadata={**stored.metadata, "licence": beside.licence})


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


def json_beside(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file beside the weights; {} where there is no such file.

    Raises:
        InputError: it holds no JSON object.
    """
    file = path.parent / name
    return read_json(file) if file.is_file() else {}
