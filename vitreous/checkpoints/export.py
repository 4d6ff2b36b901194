"""From a model to a file of any family that can compute the same function, or an error that names what it lacks."""

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitreous.checkpoints.families.imagenet import CLASSES, imagenet_class_names
from vitreous.checkpoints.families.recognize import FAMILIES, OURS, recognize
from vitreous.checkpoints.families.shared.family import Family
from vitreous.checkpoints.families.shared.key_map import to_theirs
from vitreous.checkpoints.families.shared.reading import Reading, Shapes, whole_patches
from vitreous.checkpoints.files.dtypes import check_dtype, dtype_name, write_casts
from vitreous.checkpoints.files.layout import CONFIG, KINDS, PREPROCESSOR, Kind, is_weights, read_json
from vitreous.checkpoints.files.tensors import write_tensors
from vitreous.checkpoints.report import ExportReport
from vitreous.checkpoints.store import StoredModel, save_model
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError, unknown
from vitreous.support.files import atomic_folder, check_target, write_json
from vitreous.support.text import listed

SUFFIXES: dict[Kind, str] = {"safetensors": ".safetensors", "npz": ".npz", "pickle": ".pth"}  # the usual ones
WEIGHTS = "model"  # stem of the weights file in a folder
UNRECORDED = (  # choices that few formats record
    *("num_heads", "gelu", "norm_eps", "pooling", "image_size", "norm_site", "rotary", "rotary_grid", "pooling_heads"),
    "position_embedding",
)


def export_model(
    stored: StoredModel, to: str, out: str | Path, *, dtype: torch.dtype | None = None, overwrite: bool = False
) -> ExportReport:
    """Writes a model in a family's usual format, or as a vitreous file.

    Args:
        stored: the model with everything that belongs to it.
        to: a family's name, or "vitreous".
        out: a file, whose suffix selects the format; or a folder (any other name), which gets the weights and the
            family's JSON files.
        dtype: of the stored numbers; float32 if None.
        overwrite: replace an existing file, or files in an existing folder.

    Raises:
        InputError: the family cannot hold the model, and it names the parts; the dtype cannot hold the numbers; a
            reader of `out` would mix it up with other files there; or it cannot be written. Nothing is left
            half-written.
    """
    out, dtype = Path(out), dtype or torch.float32
    check_dtype(dtype)
    if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise InputError(f"{str(out)!r} already exists", "choose another name, or replace it with --force")
    if to == OURS:
        return _export_ours(stored, out, dtype)
    if to not in FAMILIES:
        raise unknown("family", to, [*FAMILIES, OURS])
    return _export_theirs(stored, FAMILIES[to], out, dtype)


def _export_theirs(stored: StoredModel, family: Family, out: Path, dtype: torch.dtype) -> ExportReport:
    if unsupported := family.unsupported(stored.model.config):
        able = [OURS, *(name for name, other in FAMILIES.items() if not other.unsupported(stored.model.config))]
        hint = f"choose a format that can hold the model: {', '.join(able)}"
        raise InputError(f"{family.title} cannot hold {', '.join(unsupported)}", hint)
    file, kind = _weights_file(out, family)
    config, tensors, dropped = _tensors_for(stored, family, kind)
    json_files: dict[str, Any] = {}
    if file.parent == out:
        json_files = family.config_files(config, stored.preprocessing, stored.class_names)
    _check_folder(out, file, json_files)
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    _check_stale_json(file, json_files, family, shapes)
    notes = write_casts(tensors, dtype)
    if kind == "npz" and dtype == torch.bfloat16:
        dtype, notes = torch.float32, [*notes, "npz has no bfloat16: its numbers are written as float32, exactly"]
    written = {key: tensor.to("cpu", dtype) for key, tensor in tensors.items()}
    if file.parent != out:
        write_tensors(file, written)
    else:
        with atomic_folder(out, file.name) as folder:
            write_tensors(folder / file.name, written)
            for name, content in json_files.items():
                write_json(folder / name, content)
    files = (str(file), *(str(out / name) for name in json_files))
    notes += _unrecorded(family, config, shapes, json_files, stored)
    return ExportReport(str(out), family.title, len(tensors), files, dtype_name(dtype), dropped, tuple(notes))


def _export_ours(stored: StoredModel, out: Path, dtype: torch.dtype) -> ExportReport:
    file = out / f"{WEIGHTS}.safetensors" if _is_folder(out) else out
    if file.suffix != ".safetensors":
        raise InputError(f"vitreous files are safetensors, not {file.suffix}", "choose a name ending in .safetensors")
    _check_folder(out, file, ())
    state = stored.model.state_dict()
    notes = write_casts(state, dtype)
    with atomic_folder(out, file.name) if file.parent == out else nullcontext(file.parent) as folder:
        save_model(folder / file.name, stored.model, stored.preprocessing, stored.class_names, stored.metadata, dtype)
    return ExportReport(str(out), OURS, len(state), (str(file),), dtype_name(dtype), {}, tuple(notes))


def _tensors_for(
    stored: StoredModel, family: Family, kind: Kind
) -> tuple[ViTConfig, dict[str, Tensor], dict[str, str]]:
    """The config that is written, the family's tensors by key, and the parameters that have no place there."""
    config, dropped = stored.model.config, {}
    state = {name: tensor.detach() for name, tensor in stored.model.state_dict().items()}
    if config.mask_token and not family.has_mask_token(config):
        del state["mask_token"]
        dropped["mask_token"] = "the format has no place for it, and it does not affect the output"
        config = config.replace(mask_token=False)
    naming = family.usual_naming(config)
    if kind == "safetensors":  # cannot hold nested dicts
        naming = replace(naming, prefix=naming.prefix.rpartition("/")[2])
    return config, to_theirs(state, family.rules(config, naming)), dropped


def _is_folder(out: Path) -> bool:
    """Whether a name is a folder's: it is one, or its suffix is not one of weights."""
    return out.is_dir() or out.suffix not in KINDS


def _weights_file(out: Path, family: Family) -> tuple[Path, Kind]:
    """The weights file to write, and its format."""
    if _is_folder(out):
        kind = family.kinds[0]
        return out / f"{WEIGHTS}{SUFFIXES[kind]}", kind
    kind = KINDS[out.suffix]
    if kind not in family.kinds:
        valid = ", ".join(suffix for suffix, other in KINDS.items() if other in family.kinds)
        raise InputError(f"{family.title} has no {out.suffix} files", f"use {valid}, or a folder")
    return out, kind


def _check_folder(out: Path, file: Path, json_files: Collection[str]) -> None:
    """Raises InputError if a folder is in a file's place, or a reader could load other weights instead."""
    if file.parent != out or not out.is_dir():
        return
    for name in (file.name, *json_files):
        check_target(out / name)
    if others := sorted(path.name for path in out.iterdir() if path != file and is_weights(path)):
        raise InputError(f"the folder {str(out)!r} has other weights: {listed(others)}", "choose another folder")


def _check_stale_json(file: Path, json_files: Collection[str], family: Family, shapes: Shapes) -> None:
    """Raises InputError if a reader of the weights would use another model's JSON files next to them."""
    stale = [name for name in (CONFIG, PREPROCESSOR) if name not in json_files and file.with_name(name).is_file()]
    if not stale:
        return
    config, preprocessor = (read_json(file.with_name(n)) if n in stale else {} for n in (CONFIG, PREPROCESSOR))
    for reader in (family, recognize(shapes, str(file))):
        misled = reader.fields_from(config) or reader.class_names_from(config)
        if misled or reader.preprocessing_from(config, preprocessor):
            cause = f"{' and '.join(stale)} in {str(file.parent)!r} would be read as the config of {file.name}"
            raise InputError(cause, "choose another folder, or this folder itself to replace its JSON files too")


def _unrecorded(
    family: Family, config: ViTConfig, shapes: Shapes, json_files: Mapping[str, Any], stored: StoredModel
) -> list[str]:
    """What a reader of the written files would not find in them, one sentence each."""
    config_json, preprocessor_json = json_files.get(CONFIG, {}), json_files.get(PREPROCESSOR, {})
    notes = []
    if fields := unrecorded_fields(family, config, shapes, config_json):
        values = ", ".join(f"{name}={value}" for name, value in fields.items())
        notes.append(f"not recorded in the file, set it when loading: {values}")
    read = family.preprocessing_from(config_json, preprocessor_json) or family.preprocessing(config).adapted(
        config.image_size, config.channels
    )
    read = read.trimmed(whole_patches(read.image_size, config.token_stride))
    if differing := differing_fields(read, stored.preprocessing):
        notes.append(f"not recorded in the file, preprocessing: {', '.join(differing)}")
    default_names = imagenet_class_names() if family.imagenet and config.num_classes == CLASSES else None
    if stored.class_names not in (None, family.class_names_from(config_json) or default_names):
        notes.append(f"not recorded in the file: the names of the {config.num_classes:,} classes")
    if "license" in stored.metadata:
        notes.append(f"not recorded in the file: the license, {stored.metadata['license']}")
    return notes


def unrecorded_fields(
    family: Family, config: ViTConfig, shapes: Shapes, config_json: Mapping[str, Any]
) -> dict[str, Any]:
    """The choices of a model that its family would guess wrongly from the keys and this `config.json`."""
    choices = choices_of(config)
    recorded = family.fields_from(config_json)
    unrecorded = {}
    for name, value in choices.items():
        others = {other: choices[other] for other in choices if other != name}
        guesses = _guesses(family, shapes, others | recorded)
        if guesses is None or guesses.get(name, value) != value:  # it must be given, or is another
            unrecorded[name] = value
    if (guesses := _guesses(family, shapes, unrecorded | recorded)) is not None:  # all others left open at once
        unrecorded = {
            name: value for name, value in choices.items() if name in unrecorded or guesses.get(name, value) != value
        }
    return unrecorded


def choices_of(config: ViTConfig) -> dict[str, Any]:
    """The values of UNRECORDED that matter to a model; heads of attention pooling as their number."""
    c = config
    idle = {
        "gelu": c.mlp != "mlp" and c.pooling != "attention",
        "pooling_heads": c.pooling != "attention",
        "rotary_grid": c.rotary == "none",
        "position_embedding": c.position_embedding != "none",  # the others are in the keys, or their values are
    }
    values = {name: getattr(c, name) for name in UNRECORDED if not idle.get(name, False)}
    return values | ({"pooling_heads": c.pooling_heads or c.num_heads} if "pooling_heads" in values else {})


def _guesses(family: Family, shapes: Shapes, known: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a family takes for the choices of UNRECORDED; None if it asks for more than is known."""
    reading = Reading(known)
    try:
        family.read(shapes, reading)
        config = reading.config()
    except InputError:
        return None
    values = {name: getattr(config, name) for name in UNRECORDED}
    values["pooling_heads"] = config.pooling_heads or config.num_heads
    if config.position_embedding != "none":
        del values["position_embedding"]  # a table, whose values may all be zero
    return values


def differing_fields(read: Preprocessing, expected: Preprocessing) -> list[str]:
    """The fields, as name=value, that make a preprocessing produce other pixels than expected."""
    a, b = effect(read), effect(expected)
    names = [name for name in b if a[name] != b[name] and getattr(read, name) != getattr(expected, name)]
    return [f"{name}={getattr(expected, name)}" for name in names]


def effect(p: Preprocessing) -> dict[str, Any]:
    """What each field of a preprocessing does to pixels, however it is written."""
    is_cropped = p.resize == "crop" or p.cover_size != p.whole_size
    return {
        "image_size": p.image_size,
        "trim": p.trim,
        "resize": p.resize,
        "crop_fraction": p.cover_size,
        "crop_rounding": is_cropped and p.crop_rounding,
        "interpolation": p.interpolation,
        "antialias": p.antialias,
        "mean": [round(value, 6) for value in p.mean],
        "std": [round(value, 6) for value in p.std],
        "max_value": p.max_value,
    }
