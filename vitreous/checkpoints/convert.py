"""From a file of any family to a model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vitreous.checkpoints.families.family import (
    Family,
    Guess,
    Reading,
    Shapes,
    check_extent,
    checked_fields,
    whole_patches,
)
from vitreous.checkpoints.families.huggingface import HuggingFace
from vitreous.checkpoints.families.imagenet import CLASSES, imagenet_class_names
from vitreous.checkpoints.families.jax import BigVision, Google, SigLIP
from vitreous.checkpoints.families.key_map import to_ours
from vitreous.checkpoints.families.meta import DINO, MAE, DeiT, DINOv2
from vitreous.checkpoints.families.openai import CLIP
from vitreous.checkpoints.families.timm import Timm
from vitreous.checkpoints.families.torchvision import Torchvision
from vitreous.checkpoints.files.dtypes import REMEMBERED, read_casts, stored_dtype
from vitreous.checkpoints.files.tensors import Tensors, read_tensors
from vitreous.checkpoints.report import LoadReport
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.cost import on_meta
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError, unknown
from vitreous.support.text import listed

# Asked in this order whether a file is theirs: the more particular ones first.
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(SigLIP(), BigVision(), Google(), DINOv2(), DINO(), MAE(), DeiT(), Timm()),
        *(HuggingFace(), Torchvision(), CLIP()),
    )
}
OURS = "vitreous"
TRIMMED = "images of {}×{} are not made of whole patches of {}×{}: the model reads their upper left {}×{}"
VIT_PYTORCH = r"(^|\.)to_patch_embedding\.\d"


@dataclass(frozen=True)
class Beside:
    """What is known about a file from elsewhere: files beside it, a table, or a person.

    Args:
        config: `config.json`.
        preprocessor: `preprocessor_config.json`.
        fields: fields of ViTConfig.
        family: its name.
        source: what to call the file.
        preprocessing: what the weights expect.
        class_names: in the order of the logits.
        license: of the weights.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    family: str | None = None
    source: str | None = None
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] | None = None
    license: str | None = None


def family_named(name: str) -> Family:
    """The family of that name. Raises InputError where there is none."""
    if name not in FAMILIES:
        raise unknown("family", name, FAMILIES)
    return FAMILIES[name]


def recognize(shapes: Shapes, what: str) -> Family:
    """Tells the family of a file from its keys.

    Raises:
        InputError: it is of none; the families tried, and what the nearest one misses, are named.
    """
    for family in FAMILIES.values():
        if family.claims(shapes):
            return family
    if not shapes:
        raise InputError(f"{what} holds no tensors", "give a file of weights")
    if any(re.search(VIT_PYTORCH, key) for key in shapes):
        cause = f"{what} is of vit-pytorch, whose ViT has other norms and no biases of query, key and value"
        raise InputError(cause, "no family here computes the same")
    lacking = {family: family.strangers(shapes) for family in FAMILIES.values()}
    nearest = min(lacking, key=lambda family: len(lacking[family]) / len(family.landmarks))
    raise InputError(
        f"{what} is of no family that is known (tried {', '.join(FAMILIES)}); it has {listed(sorted(shapes), 4)}",
        f"nearest is {nearest.name}, whose files have {listed(lacking[nearest])}",
    )


def read_model(path: str | Path, beside: Beside = Beside()) -> StoredModel:
    """Reads a model from a file of any family, in float32 whatever the file has.

    Args:
        path: of the file, or of the index of a file in shards.
        beside: what is known about it from elsewhere.

    Raises:
        InputError: no such file, of no family, or it does not fit; nothing is loaded in part.
    """
    what = beside.source or str(path)
    with read_tensors(path) as tensors:
        family = recognize(tensors.shapes, what) if beside.family is None else family_named(beside.family)
        if strangers := family.strangers(tensors.shapes):
            raise InputError(
                f"{what} is no file of {family.title}: {listed(strangers)} missing", "leave the family out"
            )
        return _read(tensors, family, beside, what)


def _read(tensors: Tensors, family: Family, beside: Beside, what: str) -> StoredModel:
    reading = Reading(given=checked_fields(family.fields_from(beside.config)) | checked_fields(beside.fields))
    dialect = family.read(tensors.shapes, reading)
    config = reading.config()
    check_extent(config, len(tensors), what)
    model = on_meta(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    keys = [key for key in tensors.shapes if key not in reading.dropped]
    dtypes: set[torch.dtype] = set()
    model.load_state_dict(to_ours(tensors, family.rules(config, dialect), shapes, what, keys, dtypes), assign=True)
    preprocessing = beside.preprocessing or family.preprocessing_from(beside.config, beside.preprocessor)
    if preprocessing is None:
        preprocessing = family.preprocessing(config).adapted(config.image_size, config.channels)
        reading.guesses.append(Guess("preprocessing", preprocessing.summary(), f"{family.title}'s default"))
    told = notes(model)
    whole = whole_patches(preprocessing.image_size, config.token_stride)
    if whole != preprocessing.image_size:
        told.append(TRIMMED.format(*preprocessing.image_size, *config.token_stride, *whole))
        preprocessing = preprocessing.trimmed(whole)
    names = beside.class_names or family.class_names_from(beside.config)
    if names is None and family.imagenet and config.num_classes == CLASSES:
        names = imagenet_class_names()
        reading.guesses.append(Guess("class_names", "ImageNet-1k's", f"there are {CLASSES:,} classes"))
    if names is not None and len(names) != config.num_classes:
        if config.num_classes:
            told.append(f"left out: the names of {len(names):,} classes, since there are {config.num_classes:,}")
        names = None
    report = LoadReport(
        what,
        family.title,
        len(keys),
        sum(p.numel() for p in model.parameters()),
        tuple(reading.guesses),
        dict(reading.dropped) | dict.fromkeys(tensors.ignored, "no tensor"),
        (*told, *read_casts(dtypes), *family.notes(beside.config)),
    )
    metadata = {"source": what, "family": family.name, "dialect": dialect.to_dict(), "license": beside.license}
    metadata |= {REMEMBERED: stored_dtype(dtypes)}
    return StoredModel(
        model,
        preprocessing,
        names,
        {key: value for key, value in metadata.items() if value is not None},
        report,
    )


def notes(model: VisionTransformer) -> list[str]:
    """What a person should know of weights that look wrong and are not, or of what they cannot do."""
    told = []
    if model.config.channels not in (1, 3):
        told.append(
            f"photos have 3 channels or 1, this model takes {model.config.channels}: it can be fed tensors alone"
        )
    weight = model.state_dict().get("head.classifier.weight")
    if weight is None or weight.any():
        return told
    return [
        *told,
        "the classifier is zero, as in the ImageNet-21k files on purpose: it gives every class the same probability "
        "until it is trained",
    ]
