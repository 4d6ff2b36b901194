"""Our format: one safetensors file holds weights, config, preprocessing and class names, so nothing gets separated."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from vitreous.checkpoints.families.family import check_extent
from vitreous.checkpoints.families.key_map import rule, to_ours
from vitreous.checkpoints.files.dtypes import REMEMBERED, check_dtype, stored_dtype
from vitreous.checkpoints.files.tensors import read_tensors
from vitreous.checkpoints.report import LoadReport
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig, grid_of
from vitreous.model.cost import on_meta
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.support.files import atomic_path

FORMAT = 1
HEADER = "vitreous"  # our key in the file's metadata; its value is JSON


@dataclass(frozen=True)
class StoredModel:
    """A model with all that belongs to its weights.

    Args:
        model: in evaluation mode, on the CPU.
        preprocessing: what the weights expect of an image.
        class_names: in the order of the logits; None for a model without a head, or whose classes have no names.
        metadata: whatever else is known: source, license, accuracy.
        report: how it was read, where it came from a file of another family.
    """

    model: VisionTransformer
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    report: LoadReport | None = None


def save_model(
    path: str | Path,
    model: VisionTransformer,
    preprocessing: Preprocessing,
    class_names: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes the one complete file, atomically.

    Args:
        path: of the file, model.safetensors by custom.
        model: with its weights.
        preprocessing: what the weights expect of an image.
        class_names: one for each logit, or None.
        metadata: JSON values to keep beside the weights.
        dtype: of the numbers that are written; each parameter's own if None.

    Raises:
        InputError: the class names do not fit the model, weights are not written in this type, or the file cannot
            be written; nothing is left behind.
    """
    check_dtype(dtype)
    _check_belongings(class_names, preprocessing, model.config)
    header = {
        "format": FORMAT,
        "config": model.config.to_dict(),
        "preprocessing": preprocessing.to_dict(),
        "class_names": None if class_names is None else list(class_names),
        "metadata": dict(metadata or {}),
    }
    tensors = {
        name: tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    text = json.dumps(header, allow_nan=False)
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, {"format": "pt", HEADER: text})
    except SafetensorError as error:  # it hides the system's own error, a full disk for one
        raise InputError(f"cannot write {str(path)!r}: {error}", "give a folder with room to write") from error


def load_model(path: str | Path) -> StoredModel:
    """Reads a file that `save_model` wrote. Weights are memory-mapped and converted to float32 where they are not.

    The metadata remembers halves, to be written as such again: those of the file, or those that it was made from.

    Raises:
        InputError: not such a file, damaged, or its weights do not fit its own config; nothing is loaded in part.
    """
    with read_tensors(path) as tensors:
        text = tensors.metadata.get(HEADER)
        if text is None:
            raise InputError(f"{path} is not a file of vitreous: it has weights but no config", "")
        try:
            header = json.loads(text)
            if header["format"] != FORMAT:
                raise InputError(
                    f"{path} has format {header['format']!r}, this version reads {FORMAT}", "update vitreous"
                )
            config = ViTConfig.from_dict(header["config"])
            preprocessing = Preprocessing.from_dict(header["preprocessing"])
            names, metadata = header["class_names"], dict(header["metadata"])
            _check_belongings(names, preprocessing, config)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"the header of {path} is damaged: {error!r}", "save or copy it again") from error
        check_extent(config, len(tensors), str(path))
        model = on_meta(config)
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        rules = [rule(name, name) for name in shapes]
        dtypes: set[torch.dtype] = set()
        model.load_state_dict(to_ours(tensors, rules, shapes, str(path), dtypes=dtypes), assign=True)
    if (dtype := stored_dtype(dtypes)) not in (
        None,
        "float32",
    ):  # in float32 the file's own source may have been halves
        metadata[REMEMBERED] = dtype
    return StoredModel(model, preprocessing, None if names is None else tuple(names), metadata)


def check_class_names(names: Any, num_classes: int) -> None:
    """Raises InputError unless the names are texts, one for each class; None stands for none."""
    if names is None:
        return
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise InputError("the class names are no list of texts", "give one text for each class")
    if len(names) != num_classes:
        raise InputError(f"there are {len(names)} class names for {num_classes} classes", "give one for each")


def _check_belongings(names: Any, preprocessing: Preprocessing, config: ViTConfig) -> None:
    check_class_names(names, config.num_classes)
    grid_of(preprocessing.image_size, config.token_stride)
    if config.channels in (1, 3) and preprocessing.channels != config.channels:
        cause = f"the preprocessing gives {preprocessing.channels} channels, the model takes {config.channels}"
        raise InputError(cause, "give the preprocessing that belongs to the model")
