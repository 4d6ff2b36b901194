"""From a model to a file of any family: the same function there, or a refusal that names what the family lacks."""

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitreous.checkpoints.convert import FAMILIES, OURS, family_named, recognize
from vitreous.checkpoints.families.family import Dialect, Family, Shapes
from vitreous.checkpoints.families.key_map import to_theirs
from vitreous.checkpoints.files.dtypes import REMEMBERED, check_dtype, settle, type_name
from vitreous.checkpoints.files.tensors import INDEX, KINDS, write_tensors
from vitreous.checkpoints.report import ExportReport, losses
from vitreous.checkpoints.sources.hub import CONFIG, PREPROCESSOR, read_json
from vitreous.checkpoints.store import StoredModel, save_model
from vitreous.support.errors import InputError, unknown
from vitreous.support.files import atomic_folder, check_target, write_json
from vitreous.support.text import listed

SUFFIXES = {"safetensors": ".safetensors", "npz": ".npz", "pickle": ".pth"}  # the usual one of each kind
WEIGHTS = "model"  # name of the weights file in a folder


def export_model(
    stored: StoredModel,
    to: str,
    out: str | Path,
    *,
    plain: bool = False,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Writes a model as a family keeps it, or as our own one file.

    Args:
        stored: the model with what belongs to it.
        to: a family's name, or "vitreous".
        out: a file, whose suffix tells the kind; or a folder (any other name), which gets the weights and the JSON
            files that the family keeps beside them.
        plain: spell the keys as the family usually does, even where the model came from a file that spelt them
            otherwise.
        dtype: of the tensors; that of the file that the model came from if None, or float32 where it had several or
            does not hold the numbers as they are now.
        overwrite: replace what is there.

    Raises:
        InputError: the family cannot hold the model, what it lacks is named; the type cannot hold the numbers; a
            reader of `out` would mix it up with other files there; or it cannot be written. Nothing is left
            half-written.
    """
    out = Path(out)
    check_dtype(dtype)
    if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise InputError(f"{str(out)!r} exists already", "give another name, or --force to replace it")
    if to == OURS:
        return _export_ours(stored, out, dtype)
    if to not in FAMILIES:
        raise unknown("family", to, [*FAMILIES, OURS])
    return _export_theirs(stored, family_named(to), out, plain, dtype)


def _export_theirs(
    stored: StoredModel, family: Family, out: Path, plain: bool, dtype: torch.dtype | None
) -> ExportReport:
    if lacking := family.lacking(stored.model.config):
        raise InputError(f"{family.title} cannot hold {', '.join(lacking)}", "export to another family")
    file, kind = _weights_file(out, family)
    tensors, dropped = _tensors_for(stored, family, kind, plain)
    config = stored.model.config.replace(mask_token=False) if dropped else stored.model.config
    beside: dict[str, Any] = {}
    if file.parent == out:
        beside = family.belongings(config, stored.preprocessing, stored.class_names)
    _check_folder(out, file, beside)
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    _check_beside(file, beside, family, shapes)
    written, told = settle(tensors, dtype, stored.metadata)
    if kind == "npz" and written == torch.bfloat16:
        written, told = torch.float32, [*told, "npz has no bfloat16: its numbers are written as float32, exactly"]
    _write(file, {key: tensor.to("cpu", written) for key, tensor in tensors.items()}, beside, out)
    return ExportReport(
        str(out),
        family.title,
        len(tensors),
        (str(file), *(str(out / name) for name in beside)),
        type_name(written),
        dropped,
        (*told, *losses(family, config, shapes, beside, stored)),
    )


def _export_ours(stored: StoredModel, out: Path, dtype: torch.dtype | None) -> ExportReport:
    file = out / f"{WEIGHTS}.safetensors" if _is_folder(out) else out
    if file.suffix != ".safetensors":
        raise InputError(f"our own files are safetensors, not {file.suffix}", "give a name that ends in .safetensors")
    _check_folder(out, file, ())
    state = stored.model.state_dict()
    written, told = settle(state, dtype, stored.metadata)
    metadata = {**stored.metadata, REMEMBERED: type_name(written)}
    with atomic_folder(out, file.name) if file.parent == out else nullcontext(file.parent) as folder:
        save_model(folder / file.name, stored.model, stored.preprocessing, stored.class_names, metadata, written)
    return ExportReport(str(out), OURS, len(state), (str(file),), type_name(written), {}, tuple(told))


def _tensors_for(
    stored: StoredModel, family: Family, kind: str, plain: bool
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The family's tensors by key, in the model's type; and the parameters that have no place there, and why."""
    config, dropped = stored.model.config, {}
    state = {name: tensor.detach() for name, tensor in stored.model.state_dict().items()}
    if config.mask_token and not family.mask_token:
        del state["mask_token"]
        dropped["mask_token"] = "it has no place there, and no part in the function"
        config = config.replace(mask_token=False)
    dialect: Dialect = family.plain_dialect(config)
    if not plain and stored.metadata.get("family") == family.name and "dialect" in stored.metadata:
        dialect = family.dialects.from_dict(stored.metadata["dialect"])
    if kind == "safetensors":  # it holds no dicts in dicts
        dialect = replace(dialect, prefix=dialect.prefix.rpartition("/")[2])
    return to_theirs(state, family.rules(config, dialect)), dropped


def _write(file: Path, tensors: Mapping[str, Tensor], beside: Mapping[str, Any], out: Path) -> None:
    if file.parent != out:
        write_tensors(file, tensors)
        return
    with atomic_folder(out, file.name) as folder:
        write_tensors(folder / file.name, tensors)
        for name, content in beside.items():
            write_json(folder / name, content)


def _is_folder(out: Path) -> bool:
    """Tells whether a name is a folder's: it is one, or it does not end as weights do."""
    return out.is_dir() or out.suffix not in KINDS


def _weights_file(out: Path, family: Family) -> tuple[Path, str]:
    """The file to write the weights to, and its kind."""
    if _is_folder(out):
        kind = family.kinds[0]
        return out / f"{WEIGHTS}{SUFFIXES[kind]}", kind
    kind = KINDS[out.suffix]
    if kind not in family.kinds:
        valid = ", ".join(suffix for suffix, of in KINDS.items() if of in family.kinds)
        raise InputError(f"{family.title} keeps no weights in {out.suffix} files", f"valid are {valid}, or a folder")
    return out, kind


def _check_folder(out: Path, file: Path, beside: Collection[str]) -> None:
    """Raises InputError where a folder is in a file's place, or a reader could take other weights for these."""
    if file.parent != out or not out.is_dir():
        return
    for name in (file.name, *beside):
        check_target(out / name)
    others = sorted(p.name for p in out.iterdir() if p != file and (p.suffix in KINDS or p.name.endswith(INDEX)))
    if others:
        raise InputError(f"the folder {str(out)!r} has other weights: {listed(others)}", "give another folder")


def _check_beside(file: Path, beside: Collection[str], family: Family, shapes: Shapes) -> None:
    """Raises InputError where a reader would take another model's JSON files for those of the weights."""
    stale = [name for name in (CONFIG, PREPROCESSOR) if name not in beside and file.with_name(name).is_file()]
    if not stale:
        return
    config, preprocessor = (read_json(file.with_name(n)) if n in stale else {} for n in (CONFIG, PREPROCESSOR))
    for reader in (family, recognize(shapes, str(file))):
        misled = reader.fields_from(config) or reader.class_names_from(config)
        if misled or reader.preprocessing_from(config, preprocessor):
            cause = f"{' and '.join(stale)} in {str(file.parent)!r} would be read as if {file.name} were theirs"
            raise InputError(cause, "give another folder, or this folder itself to replace its JSON files too")
