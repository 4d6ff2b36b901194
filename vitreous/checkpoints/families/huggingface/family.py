"""transformers' ViTs as a checkpoint family; `kinds.py` lists the models.

All have a body (embeddings, encoder, final norm) and a head. `names.py` has the names of their keys, on disk and in
memory; `reading.py` reads them; `rules.py` maps them to ours; the other files read and write the JSON files next to
them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vitreous.checkpoints.families.huggingface import config, processors, writing
from vitreous.checkpoints.families.huggingface.config import notes_of
from vitreous.checkpoints.families.huggingface.kinds import KINDS, VIT, kind_for, unsupported_by
from vitreous.checkpoints.families.huggingface.names import DISK, LAYOUTS, MSN_CLASSIFIER
from vitreous.checkpoints.families.huggingface.reading import BODIES, DROPS, nearest_layout, read_file
from vitreous.checkpoints.families.huggingface.rules import HuggingFaceNaming, model_rules
from vitreous.checkpoints.families.shared.family import Family
from vitreous.checkpoints.families.shared.key_map import Rule
from vitreous.checkpoints.families.shared.reading import Reading, Shapes
from vitreous.checkpoints.files.layout import CONFIG, PREPROCESSOR
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig


class HuggingFace(Family):
    """transformers' image models, with or without a head.

    DeiT with one classifier has a distillation token that no classifier reads; it is loaded as a register.
    """

    name = "huggingface"
    title = "transformers"
    has_json = True
    required_keys = DISK.required_keys
    patch_keys = tuple(dict.fromkeys(f"{names.patch}.weight" for names in LAYOUTS.values() if names != MSN_CLASSIFIER))
    bodies = BODIES
    drops: ClassVar[tuple[tuple[str, str], ...]] = DROPS
    holds = KINDS[VIT].holds

    def missing_keys(self, shapes: Shapes) -> list[str]:
        """As for every family, for the nearest layout."""
        _, _, missing = nearest_layout(shapes)
        return missing

    def read(self, shapes: Shapes, reading: Reading) -> HuggingFaceNaming:
        return read_file(shapes, reading)

    def unsupported(self, config: ViTConfig) -> list[str]:
        return unsupported_by(kind_for(config), config)

    def usual_naming(self, config: ViTConfig) -> HuggingFaceNaming:
        return writing.naming_of(config)

    def rules(self, config: ViTConfig, naming: HuggingFaceNaming) -> list[Rule]:
        return model_rules(config, naming)

    def has_mask_token(self, config: ViTConfig) -> bool:
        return KINDS[kind_for(config)].mask_token

    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        return processors.default_preprocessing(config)

    def check_config(self, config_json: Mapping[str, Any]) -> None:
        config.check_model_type(config_json)

    def fields_from(self, config_json: Mapping[str, Any]) -> dict[str, Any]:
        return config.fields_of(config_json)

    def notes(self, config: ViTConfig, config_json: Mapping[str, Any]) -> list[str]:
        return notes_of(config_json)

    def preprocessing_from(
        self, config_json: Mapping[str, Any], preprocessor_json: Mapping[str, Any]
    ) -> Preprocessing | None:
        return processors.preprocessing_of(config_json, preprocessor_json)

    def class_names_from(self, config_json: Mapping[str, Any]) -> tuple[str, ...] | None:
        return config.class_names_of(config_json)

    def config_files(
        self, config: ViTConfig, preprocessing: Preprocessing, class_names: Sequence[str] | None
    ) -> dict[str, Any]:
        return {
            CONFIG: writing.config_json(config, preprocessing, class_names),
            PREPROCESSOR: processors.preprocessor_json(config, preprocessing),
        }
