"""From a file of any family to a model, and from a model to a file of any family."""

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vitreous.checkpoints.family import Family, Guess, Reading, Shapes, checked_fields
from vitreous.checkpoints.files import INDEX, KINDS, Tensors, read_tensors, write_tensors
from vitreous.checkpoints.huggingface import HuggingFace
from vitreous.checkpoints.imagenet import CLASSES, imagenet_class_names
from vitreous.checkpoints.jax import BigVision, Google, SigLIP
from vitreous.checkpoints.key_map import listed, to_ours, to_theirs
from vitreous.checkpoints.meta import DINO, MAE, DeiT, DINOv2
from vitreous.checkpoints.openai import CLIP
from vitreous.checkpoints.report import ExportReport, LoadReport, losses
from vitreous.checkpoints.store import StoredModel, save_model
from vitreous.checkpoints.timm import Timm
from vitreous.checkpoints.torchvision import Torchvision
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.cost import on_meta
from vitreous.support.errors import InputError, unknown
from vitreous.support.files import atomic_folder, write_json

# Asked in this order whether a file is theirs: the more particular ones first.
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(SigLIP(), BigVision(), Google(), DINOv2(), DINO(), MAE(), DeiT(), Timm()),
        *(HuggingFace(), Torchvision(), CLIP()),
    )
}
OURS = "vitreous"
SUFFIXES = {"safetensors": ".safetensors", "npz": ".npz", "pickle": ".pth"}  # the usual one of each kind
WEIGHTS = "model"  # name of the weights file in a folder
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
        licence: of the weights.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    family: str | None = None
    source: str | None = None
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] | None = None
    licence: str | None = None


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
    reading = Reading(given=family.fields_from(beside.config) | checked_fields(beside.fields))
    dialect = family.read(tensors.shapes, reading)
    config = reading.config()
    model = on_meta(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    keys = [key for key in tensors.shapes if key not in reading.dropped]
    model.load_state_dict(to_ours(tensors, family.rules(config, dialect), shapes, what, keys), assign=True)
    preprocessing = beside.preprocessing or family.preprocessing_from(beside.config, beside.preprocessor)
    if preprocessing is None:
        preprocessing = family.preprocessing(config)
        reading.guesses.append(Guess("preprocessing", preprocessing.summary(), f"{family.title}'s default"))
    names = beside.class_names or family.class_names_from(beside.config)
    if names is None and family.imagenet and config.num_classes == CLASSES:
        names = imagenet_class_names()
        reading.guesses.append(Guess("class_names", "ImageNet-1k's", f"there are {CLASSES:,} classes"))
    told = notes(model)
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
        (*told, *family.notes(beside.config)),
    )
    metadata = {"source": what, "family": family.name, "dialect": dialect.to_dict(), "licence": beside.licence}
    return StoredModel(
        model,
        preprocessing,
        names,
        {key: value for key, value in metadata.items() if value is not None},
        report,
    )


def notes(model: torch.nn.Module) -> list[str]:
    """What a person should know of weights that look wrong and are not."""
    weight = model.state_dict().get("head.classifier.weight")
    if weight is None or weight.any():
        return []
    return [
        "the classifier is zero, as in the ImageNet-21k files on purpose: it gives every class the same probability "
        "until it is trained"
    ]


def export_model(
    stored: StoredModel,
    to: str,
    out: str | Path,
    *,
    plain: bool = False,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> ExportReport:
    """Writes a model as a family keeps it, or as our own one file.

    Args:
        stored: the model with what belongs to it.
        to: a family's name, or "vitreous".
        out: a file, whose suffix tells the kind; or a folder, which gets the weights and the JSON files that the
            family keeps beside them.
        plain: spell the keys as the family usually does, even where the model came from a file that spelt them
            otherwise.
        dtype: of the tensors.
        overwrite: replace what is there.

    Raises:
        InputError: the family cannot hold the model, what it lacks is named; or `out` cannot be written. Nothing is
            left half-written.
    """
    out = Path(out)
    if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise InputError(f"{str(out)!r} exists already", "give another name, or --force to replace it")
    if to == OURS:
        return _export_ours(stored, out, dtype)
    family = family_named(to) if to in FAMILIES else _unknown_target(to)
    config = stored.model.config
    if lacking := family.lacking(config):
        raise InputError(f"{family.title} cannot hold {', '.join(lacking)}", "export to another family")
    file, kind = _weights_file(out, family)
    _check_folder(out, file)
    dialect = family.plain_dialect(config)
    if not plain and stored.metadata.get("family") == family.name and "dialect" in stored.metadata:
        dialect = family.dialects.from_dict(stored.metadata["dialect"])
    if kind == "safetensors":  # it holds no dicts in dicts
        dialect = family.dialects(**(vars(dialect) | {"prefix": dialect.prefix.rpartition("/")[2]}))
    state = {name: tensor.detach() for name, tensor in stored.model.state_dict().items()}
    dropped = {}
    if config.mask_token and not family.mask_token:
        del state["mask_token"]
        dropped["mask_token"] = "it has no place there, and no part in the function"
        config = config.replace(mask_token=False)
    tensors = {key: t.to("cpu", dtype) for key, t in to_theirs(state, family.rules(config, dialect)).items()}
    beside = {}
    if file.parent != out:
        write_tensors(file, tensors)
    else:
        beside = family.belongings(config, stored.preprocessing, stored.class_names)
        with atomic_folder(out) as folder:
            write_tensors(folder / file.name, tensors)
            for name, content in beside.items():
                write_json(folder / name, content)
    files = (str(file), *(str(out / name) for name in beside))
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    notes = losses(family, config, shapes, beside, stored)
    return ExportReport(str(out), family.title, len(tensors), files, dropped, tuple(notes))


def _unknown_target(name: str) -> Family:
    raise unknown("family", name, [*FAMILIES, OURS])


def _export_ours(stored: StoredModel, out: Path, dtype: torch.dtype) -> ExportReport:
    file = out if out.suffix and not out.is_dir() else out / f"{WEIGHTS}.safetensors"
    if file.suffix != ".safetensors":
        raise InputError(f"our own files are safetensors, not {file.suffix}", "give a name that ends in .safetensors")
    _check_folder(out, file)
    with atomic_folder(out) if file.parent == out else nullcontext(file.parent) as folder:
        path = folder / file.name
        save_model(path, stored.model, stored.preprocessing, stored.class_names, stored.metadata, dtype)
    return ExportReport(str(out), OURS, len(stored.model.state_dict()), (str(file),))


def _check_folder(out: Path, file: Path) -> None:
    """Raises InputError where a reader of the folder could take other weights for those that are to be written."""
    if file.parent != out or not out.is_dir():
        return
    others = sorted(p.name for p in out.iterdir() if p != file and (p.suffix in KINDS or p.name.endswith(INDEX)))
    if others:
        raise InputError(f"the folder {str(out)!r} has other weights: {listed(others)}", "give another folder")


def _weights_file(out: Path, family: Family) -> tuple[Path, str]:
    """The file to write the weights to, and its kind."""
    if not out.suffix or out.is_dir():
        kind = family.kinds[0]
        return out / f"{WEIGHTS}{SUFFIXES[kind]}", kind
    kind = KINDS.get(out.suffix)
    if kind not in family.kinds:
        valid = ", ".join(suffix for suffix, of in KINDS.items() if of in family.kinds)
        raise InputError(f"{family.title} keeps no weights in {out.suffix} files", f"valid are {valid}, or a folder")
    return out, kind
