"""From a file, folder or remote name to a model: locate, open, choose the family, read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitreous.checkpoints.families.imagenet import CLASSES, imagenet_class_names
from vitreous.checkpoints.families.recognize import family_named, recognize
from vitreous.checkpoints.families.shared.family import Family
from vitreous.checkpoints.families.shared.key_map import to_ours
from vitreous.checkpoints.families.shared.reading import Guess, Reading, check_extent, checked_fields, whole_patches
from vitreous.checkpoints.files.dtypes import read_casts
from vitreous.checkpoints.files.layout import MODEL_FILE, is_weights, weights_in
from vitreous.checkpoints.files.tensors import Tensors, read_tensors
from vitreous.checkpoints.parts import Part, choose_part
from vitreous.checkpoints.report import LoadReport
from vitreous.checkpoints.sources.hub import Located, fetch, is_remote
from vitreous.checkpoints.store import HEADER, StoredModel, read_model
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.model.cost import on_meta
from vitreous.model.variants import is_variant
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.support.text import listed

NO_MODEL = "give a run's folder, a weights file, or a name such as hf:owner/name (vitreous list models)"


def load_checkpoint(
    source: str | Path, *, family: str | None = None, part: str | None = None, mapped: bool = False, **fields: Any
) -> StoredModel:
    """Loads weights of any family, in float32 and on the CPU.

    Args:
        source: a weights file of vitreous or of any family; a run's folder, or one laid out as on the hubs; a name
            (hf:owner/name, timm:name.tag, torchvision:name, google:name, meta:name); an https address with its
            SHA-256.
        family: the file's family, if its keys match several.
        part: prefix of the keys of one model, if the file holds several: "student", "ema_model".
        mapped: leave float32 weights in the file where its format allows it, to save memory and time. The model then
            depends on the file, which must never change: see `read_tensors`.
        **fields: fields of ViTConfig that the file does not record, such as `num_heads=3`. They override every guess.

    Raises:
        InputError: there is no such file, or it cannot be read; it holds several models; or `family`, `part` or
            `fields` are given for a vitreous file, which stores its config.
    """
    located = locate(source)
    with read_tensors(located.path, mapped=mapped) as tensors:
        if HEADER not in tensors.metadata:
            return _read_foreign(tensors, located, family, part, fields)
        if fields or family or part is not None:
            cause = f"{located.path} is a vitreous file, which already stores its config"
            raise InputError(cause, "leave out --family, --part and --set (family=, part= and fields in Python)")
        return read_model(tensors, str(located.path), located.license)


def locate(source: str | Path) -> Located:
    """Finds the weights of a local path or a remote name, downloading them if necessary.

    Raises:
        InputError: there are none.
    """
    if isinstance(source, str) and is_remote(source):
        return fetch(source)
    path = Path(source).expanduser()
    name = path.absolute().name or MODEL_FILE  # the root of a file system has no name
    if path.is_dir():
        path = weights_in(path)
    elif not path.exists():
        if is_variant(str(source)):
            hint = f"train it first: vitreous train photos/ --model {source}"
            raise InputError(f"{source} is a model variant, not weights", hint)
        raise InputError(f"there is no model at {source}", NO_MODEL)
    elif not is_weights(path):
        raise InputError(f"{source} is not a model file", NO_MODEL)
    return Located(path, name)


def _choose_family(tensors: Part, located: Located, requested: str | None) -> Family:
    """The requested family, that of the remote name, or the one that the keys match. Raises InputError for a misfit."""
    if requested is None and located.family is None:
        return recognize(tensors.shapes, located.source, lambda: located.json_files()[0])
    family = family_named(requested or located.family or "")
    if missing := family.missing_keys(tensors.shapes):
        hint = "leave out the family" if requested else "choose another name (vitreous list models), or set the family"
        raise InputError(f"{located.source} is not a checkpoint of {family.title}: {listed(missing)} missing", hint)
    return family


def _read_foreign(
    file: Tensors, located: Located, requested: str | None, part: str | None, fields: Mapping[str, Any]
) -> StoredModel:
    """Reads a file of another project's family. No model is loaded in part."""
    tensors = choose_part(file, located.source, part)
    family = _choose_family(tensors, located, requested)
    config_json, preprocessor_json = located.json_files() if family.has_json else ({}, {})
    known = checked_fields(family.fields_from(config_json)) | checked_fields(located.fields) | checked_fields(fields)
    preprocessing = located.preprocessing or family.preprocessing_from(config_json, preprocessor_json)
    reading = Reading(known, expected_size=None if preprocessing is None else preprocessing.image_size)
    naming = family.read(tensors.shapes, reading)
    config = reading.config()
    check_extent(config, len(tensors), located.source)
    model = on_meta(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    keys = [key for key in tensors.shapes if key not in reading.dropped]
    dtypes: set[torch.dtype] = set()
    state = to_ours(tensors, family.rules(config, naming), shapes, located.source, keys, dtypes)
    model.load_state_dict(state, assign=True)
    notes = _notes(model)
    if preprocessing is not None and "image_size" in fields:
        preprocessing = preprocessing.adapted(config.image_size, config.channels)
    preprocessing = _fit_preprocessing(preprocessing, family, config, reading, notes)
    names = located.class_names or family.class_names_from(config_json)
    names = _fit_class_names(names, family, config, reading, notes)
    dropped = reading.dropped | tensors.left_out(family.drops, config.width)
    notes += [*read_casts(dtypes), *family.notes(config, config_json)]
    parameters = sum(p.numel() for p in model.parameters())
    guesses = tuple(reading.guesses)
    report = LoadReport(located.source, family.title, len(keys), parameters, guesses, dropped, tuple(notes))
    metadata = {"source": located.source, "family": family.name}
    metadata |= {} if located.license is None else {"license": located.license}
    return StoredModel(model, preprocessing, names, metadata, report)


def _fit_preprocessing(
    known: Preprocessing | None, family: Family, config: ViTConfig, reading: Reading, notes: list[str]
) -> Preprocessing:
    """The known preprocessing or else the family's default, trimmed to whole patches."""
    preprocessing = known
    if preprocessing is None:
        preprocessing = family.preprocessing(config).adapted(config.image_size, config.channels)
        reading.guesses.append(Guess("preprocessing", preprocessing.summary(), f"{family.possessive} default"))
    (height, width), stride = preprocessing.image_size, config.token_stride
    whole = whole_patches((height, width), stride)
    if whole != (height, width):
        notes.append(
            f"{height}×{width} pixels are not a whole number of {stride[0]}×{stride[1]} patches: the model reads the "
            f"upper left {whole[0]}×{whole[1]}"
        )
    return preprocessing.trimmed(whole)


def _fit_class_names(
    known: tuple[str, ...] | None, family: Family, config: ViTConfig, reading: Reading, notes: list[str]
) -> tuple[str, ...] | None:
    """The known class names, or ImageNet's for 1,000 classes; None if there is not one for each class."""
    if known is None and family.imagenet and config.num_classes == CLASSES:
        reading.guesses.append(Guess("class_names", "ImageNet-1k's", f"there are {CLASSES:,} classes"))
        return imagenet_class_names()
    if known is None or len(known) == config.num_classes:
        return known
    if config.num_classes:
        notes.append(f"left out: the names of {len(known):,} classes, because the model has {config.num_classes:,}")
    return None


def _notes(model: VisionTransformer) -> list[str]:
    """Remarks on weights that look wrong but are not, and on what they cannot do."""
    notes = []
    if model.config.channels not in (1, 3):
        notes.append(f"this model takes images of {model.config.channels} channels, such as TIFF files")
    weight = model.state_dict().get("head.classifier.weight")
    if weight is not None and not weight.any():
        notes.append("the classifier is all zero, as in the ImageNet-21k files: train it before you predict")
    return notes
