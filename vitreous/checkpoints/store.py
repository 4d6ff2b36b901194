"""The vitreous format: one safetensors file with weights, config, preprocessing and class names."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from vitreous.checkpoints.families.shared.key_map import rule, to_ours
from vitreous.checkpoints.families.shared.reading import check_extent
from vitreous.checkpoints.files.dtypes import check_dtype
from vitreous.checkpoints.files.tensors import Tensors, read_tensors
from vitreous.checkpoints.report import LoadReport
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig, grid_of
from vitreous.model.cost import on_meta
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.support.files import atomic_path

FORMAT = 1
HEADER = "vitreous"  # key of the header, which is JSON, in the file's metadata


@dataclass(frozen=True)
class StoredModel:
    """A model with everything that belongs to its weights.

    Args:
        model: on the CPU and in evaluation mode when it comes from a file.
        preprocessing: what the weights expect of an image.
        class_names: in the order of the logits; None for a model without a head, or with unnamed classes.
        metadata: whatever else is known: source, license, accuracy.
        report: how a file of another family was read; None for a vitreous file.

    Raises:
        InputError: there is not one class name for each class.
    """

    model: VisionTransformer
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    report: LoadReport | None = None

    def __post_init__(self) -> None:
        check_class_names(self.class_names, self.model.config.num_classes)


def save_model(
    path: str | Path,
    model: VisionTransformer,
    preprocessing: Preprocessing,
    class_names: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes a complete model file, atomically.

    Args:
        path: of the file, usually model.safetensors.
        model: with its weights.
        preprocessing: what the weights expect of an image.
        class_names: one for each logit, or None.
        metadata: JSON values to keep with the weights.
        dtype: of the stored numbers; each parameter's own if None.

    Raises:
        InputError: the class names do not fit the model, the dtype is not one for weights, or the file cannot be
            written; nothing is left behind.
    """
    check_dtype(dtype)
    _check_fit(class_names, preprocessing, model.config)
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
    except SafetensorError as error:  # it hides the operating system's error, such as a full disk
        raise InputError(f"cannot write {str(path)!r}: {error}", "choose a folder with free space") from error


def load_model(path: str | Path) -> StoredModel:
    """Reads a file that `save_model` wrote; see `read_model`."""
    with read_tensors(path) as tensors:
        return read_model(tensors, str(path))


def read_model(tensors: Tensors, source: str, license: str | None = None) -> StoredModel:
    """Reads an open file that `save_model` wrote. Weights are converted to float32 if necessary.

    Args:
        tensors: the open file.
        source: its path, for errors.
        license: recorded in the metadata if the file itself has none.

    Raises:
        InputError: the file has no header, is damaged, or its weights do not fit its config; nothing is loaded in
            part.
    """
    text = tensors.metadata.get(HEADER)
    if text is None:
        raise InputError(f"{source} is not a vitreous file: it has weights but no config", "load it with vt.load")
    try:
        header = json.loads(text)
        if header["format"] != FORMAT:
            cause = f"{source} has format {header['format']!r}, but this version reads {FORMAT}"
            raise InputError(cause, "update vitreous: git pull and pip install . in its clone")
        config = ViTConfig.from_dict(header["config"])
        preprocessing = Preprocessing.from_dict(header["preprocessing"])
        if config.channels not in (1, 3):  # in older files the preprocessing has three
            preprocessing = preprocessing.adapted(preprocessing.image_size, config.channels)
        names = header["class_names"]
        metadata = dict(header["metadata"])
        if "licence" in metadata:  # as files of version 0.1 before its release have it
            metadata.setdefault("license", metadata.pop("licence"))
        _check_fit(names, preprocessing, config)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"the header of {source} is damaged: {error!r}", "save or copy it again") from error
    check_extent(config, len(tensors), source)
    model = on_meta(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.load_state_dict(to_ours(tensors, [rule(name, name) for name in shapes], shapes, source), assign=True)
    if license is not None:
        metadata.setdefault("license", license)
    return StoredModel(model, preprocessing, None if names is None else tuple(names), metadata)


def check_class_names(names: Any, num_classes: int) -> None:
    """Raises InputError unless there is one string for each class; None means unnamed classes."""
    if names is None:
        return
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise InputError("class names must be a list of strings", "give one string for each class")
    if len(names) != num_classes:
        raise InputError(f"there are {len(names)} class names for {num_classes} classes", "give one for each class")


def _check_fit(names: Any, preprocessing: Preprocessing, config: ViTConfig) -> None:
    check_class_names(names, config.num_classes)
    grid_of(preprocessing.image_size, config.token_stride)
    if preprocessing.channels != config.channels:
        cause = f"the preprocessing gives {preprocessing.channels} channels, but the model takes {config.channels}"
        raise InputError(cause, f"use a preprocessing with channels={config.channels}")
