"""The family "timm": files of timm's modules VisionTransformer, Eva and Beit, under one name."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vitreous.checkpoints.families.shared.family import Family
from vitreous.checkpoints.families.shared.key_map import Rule
from vitreous.checkpoints.families.shared.reading import Reading, Shapes
from vitreous.checkpoints.families.timm import beit, eva_config
from vitreous.checkpoints.families.timm.beit import TimmBeit
from vitreous.checkpoints.families.timm.eva import EvaNaming, TimmEva
from vitreous.checkpoints.families.timm.plain import Timm
from vitreous.checkpoints.families.timm.table import TimmNaming
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError

PLAIN, EVA, BEIT = Timm(), TimmEva(), TimmBeit()
MODULES: tuple[Timm, ...] = (PLAIN, EVA, BEIT)  # the first that holds a model writes it
BY_ARCHITECTURE = ((eva_config.MODULE, EVA), (beit.MODULE, BEIT))


class TimmModules(Family):
    """timm's own files; on the hub, a safetensors file with a config.json that names the architecture."""

    name = Timm.name
    title = Timm.title
    kinds = Timm.kinds
    required_keys = Timm.required_keys
    patch_keys = Timm.patch_keys
    has_json = True

    def claims(self, shapes: Shapes) -> bool:
        return any(module.claims(shapes) for module in MODULES)

    def missing_keys(self, shapes: Shapes) -> list[str]:
        return min((module.missing_keys(shapes) for module in MODULES), key=len)

    def read(self, shapes: Shapes, reading: Reading) -> TimmNaming:
        return module_of(shapes, reading.known).read(shapes, reading)

    def rules(self, config: ViTConfig, naming: Any) -> list[Rule]:
        if config.position_embedding == "relative_bias":
            return BEIT.rules(config, naming)
        return (EVA if isinstance(naming, EvaNaming) else PLAIN).rules(config, naming)

    def unsupported(self, config: ViTConfig) -> list[str]:
        return writer_of(config).unsupported(config)

    def usual_naming(self, config: ViTConfig) -> TimmNaming:
        return writer_of(config).usual_naming(config)

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return writer_of(config).preprocessing(config)

    def fields_from(self, config_json: Mapping[str, Any]) -> dict[str, Any]:
        module = module_named(config_json.get("architecture"))
        named = {"rotary": "none"} if "architecture" in config_json and module is PLAIN else {}
        return named | module.fields_from(config_json)

    def preprocessing_from(
        self, config_json: Mapping[str, Any], preprocessor_json: Mapping[str, Any]
    ) -> Preprocessing | None:
        return PLAIN.preprocessing_from(config_json, preprocessor_json)

    def class_names_from(self, config_json: Mapping[str, Any]) -> tuple[str, ...] | None:
        return PLAIN.class_names_from(config_json)

    def notes(self, config: ViTConfig, config_json: Mapping[str, Any]) -> list[str]:
        return writer_of(config).notes(config, config_json)

    def config_files(
        self, config: ViTConfig, preprocessing: Preprocessing, class_names: Sequence[str] | None
    ) -> dict[str, Any]:
        return writer_of(config).config_files(config, preprocessing, class_names)


def module_named(architecture: Any) -> Timm:
    """The module of an architecture."""
    name = str(architecture)
    return next((module for pattern, module in BY_ARCHITECTURE if re.match(pattern, name)), PLAIN)


def module_of(shapes: Shapes, known: Mapping[str, Any]) -> Timm:
    """The module that a file is of: its keys decide, or else known rotary positions, which only Eva has.

    Raises:
        InputError: the keys are those of Perception Encoder and of a plain ViT, and no field decides.
    """
    if BEIT.claims(shapes):
        return BEIT
    if EVA.claims(shapes) or known.get("rotary", "none") != "none":
        return EVA
    if "rotary" not in known and is_perception(shapes, PLAIN.prefix(shapes)):
        cause = "the file has the keys of Perception Encoder, whose positions are rotary"
        hint = "add its config.json, or set rotary to perception, perception_giant or none"
        raise InputError(cause, hint)
    return PLAIN


def is_perception(shapes: Shapes, prefix: str) -> bool:
    """Whether a file has a norm before the blocks, and attention pooling or no norm after them."""
    has = {name for name in ("norm_pre", "norm", "fc_norm", "attn_pool.norm") if f"{prefix}{name}.weight" in shapes}
    return "norm_pre" in has and ("attn_pool.norm" in has or not has & {"norm", "fc_norm"})


def writer_of(config: ViTConfig) -> Timm:
    """The module that holds a model; if none does, the one that lacks least."""
    return min(MODULES, key=lambda module: len(module.unsupported(config)))
