"""From what a person names (a file, a run's folder) to weights, config, preprocessing and class names."""

from pathlib import Path

from vitreous.checkpoints.jax import load_npz
from vitreous.checkpoints.store import StoredModel, load_model
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.variants import variant
from vitreous.support.errors import InputError

MODEL_FILE = "model.safetensors"


def resolve(source: str | Path) -> StoredModel:
    """Finds and loads the weights that `source` names.

    Args:
        source: a file of ours (.safetensors), a run's folder, or a Google or big_vision file (.npz).

    Raises:
        InputError: there is nothing there, or nothing that can be read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return load_model(_file_of_run(path))
    if not path.exists():
        if is_variant(str(source)):
            raise InputError(
                f"{source} is the name of a shape, not of weights",
                f"train it first: vitreous train photos/ --model {source}",
            )
        raise InputError(f"there is no model at {source}", "give a run's folder, a .safetensors or an .npz file")
    if path.suffix == ".npz":
        model, _ = load_npz(path)
        return StoredModel(model, Preprocessing(model.config.image_size), None, {"source": path.name})
    if path.suffix == ".safetensors":
        return load_model(path)
    raise InputError(f"{source} is no model file", "give a run's folder, a .safetensors or an .npz file")


def is_variant(name: str) -> bool:
    """Tells whether a name such as "B/16" is a shape's."""
    try:
        variant(name)
    except ValueError:
        return False
    return True


def _file_of_run(folder: Path) -> Path:
    file = folder / MODEL_FILE
    if not file.is_file():
        raise InputError(
            f"the folder {folder} has no {MODEL_FILE}",
            "give the folder of a run that finished its first epoch",
        )
    return file
