"""What every checkpoint family provides, and the helpers they share.

A family is one file with one class: the keys that identify it, a table of rules for a config, the models that its
format can hold, and defaults for what its files do not record.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vitreous.checkpoints.families.shared.holds import Holds
from vitreous.checkpoints.families.shared.key_map import Rule
from vitreous.checkpoints.families.shared.reading import Reading, Shapes
from vitreous.checkpoints.files.layout import Kind
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Naming:
    """How a file of a family names its keys.

    Args:
        prefix: of every key.
    """

    prefix: str = ""


class Family(ABC):
    """One family of weights files. Instances have no state.

    Attributes:
        name: value of `--to` and `--family`.
        title: for messages.
        kinds: file formats, the usual one first.
        required_keys: keys that every file has, after its prefix and under any naming; "0" stands for the first block.
        patch_keys: keys of the patch projection under each naming, after the prefix; a model has one of them.
        bodies: prefixes in the family's own names, beside which it has more keys: "visual." beside a text tower.
        has_json: whether its files may have a config.json next to them.
        imagenet: whether 1,000 unnamed classes are taken for ImageNet's.
        mask_token: whether the format has a key for a mask token. It does not affect the output, so it is left out
            where there is none.
        drops: patterns of keys (after the prefix, if any) that are not part of the model, and why.
        holds: the models that the format can hold.
        naming: of the family's own code, if it is the same for all models.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]] = ("safetensors", "pickle")
    required_keys: ClassVar[tuple[str, ...]]
    patch_keys: ClassVar[tuple[str, ...]]
    bodies: ClassVar[tuple[str, ...]] = ()
    has_json: ClassVar[bool] = False
    imagenet: ClassVar[bool] = True
    mask_token: ClassVar[bool] = False
    drops: ClassVar[tuple[tuple[str, str], ...]] = ()
    holds: ClassVar[Holds]
    naming: ClassVar[Naming] = Naming()

    @property
    def possessive(self) -> str:
        """The title's possessive: timm's, transformers'."""
        return f"{self.title}'" if self.title.endswith("s") else f"{self.title}'s"

    def claims(self, shapes: Shapes) -> bool:
        """Whether a file with these keys belongs to this family."""
        return not self.missing_keys(shapes)

    def missing_keys(self, shapes: Shapes) -> list[str]:
        """The required keys that a file lacks; empty if it belongs to the family."""
        missing = [
            [key for key in self.required_keys if prefix + key not in shapes]
            for prefix in prefixes(shapes, self.required_keys)
        ]
        return min(missing, key=len, default=list(self.required_keys))

    @abstractmethod
    def read(self, shapes: Shapes, reading: Reading) -> Naming:
        """Reads config fields and the naming of keys from a file that this family claims.

        Args:
            shapes: of all tensors of the file.
            reading: collects the fields, the guesses, and the keys to drop.

        Raises:
            InputError: a key is missing, or a field must be given.
        """

    @abstractmethod
    def rules(self, config: ViTConfig, naming: Any) -> list[Rule]:
        """The table for one model that the family holds: a rule for each parameter."""

    def unsupported(self, config: ViTConfig) -> list[str]:
        """Names the parts of a model that the family cannot hold."""
        return self.holds.unsupported(config)

    def usual_naming(self, config: ViTConfig) -> Naming:
        """The naming of the family's own code, which export writes."""
        return self.naming

    def has_mask_token(self, config: ViTConfig) -> bool:
        """Whether the format has a key for this model's mask token."""
        return self.mask_token

    @abstractmethod
    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        """The family's default preprocessing."""

    def check_config(self, config_json: Mapping[str, Any]) -> None:  # noqa: B027, most have nothing to refuse
        """Raises InputError for a `config.json` of the family's own code whose model is not supported."""

    def fields_from(self, config_json: Mapping[str, Any]) -> dict[str, Any]:
        """The config fields that a `config.json` records."""
        return {}

    def preprocessing_from(
        self, config_json: Mapping[str, Any], preprocessor_json: Mapping[str, Any]
    ) -> Preprocessing | None:
        """The preprocessing that `config.json` and `preprocessor_config.json` record, if any."""
        return None

    def class_names_from(self, config_json: Mapping[str, Any]) -> tuple[str, ...] | None:
        """The class names that a `config.json` records, if any."""
        return None

    def notes(self, config: ViTConfig, config_json: Mapping[str, Any]) -> list[str]:
        """Remarks for users on a file of this family with this model and `config.json`."""
        return []

    def config_files(
        self, config: ViTConfig, preprocessing: Preprocessing, class_names: Sequence[str] | None
    ) -> dict[str, Any]:
        """The JSON files to write next to the weights, by name; {} if the family has none."""
        return {}


def prefixes(shapes: Shapes, keys: Sequence[str]) -> list[str]:
    """The prefixes that some of these keys have in a file, the most frequent first."""
    counts: dict[str, int] = {}
    for name in shapes:
        for key in keys:
            prefix = name.removesuffix(key)
            if name.endswith(key) and (not prefix or prefix[-1] in "./"):
                counts[prefix] = counts.get(prefix, 0) + 1
    return sorted(counts, key=lambda prefix: (-counts[prefix], prefix))


def block_count(shapes: Shapes, pattern: str) -> int:
    """The number of blocks: distinct values of the pattern's first group in the keys."""
    return len({match[1] for key in shapes if (match := re.match(pattern, key))})


def shape_of(shapes: Shapes, key: str, rank: int) -> Sequence[int]:
    """The shape of a required tensor. Raises InputError if it is missing or has another rank."""
    if key not in shapes:
        raise InputError(f"the file's key {key!r} is missing", "check the family, or download the file again")
    if len(shapes[key]) != rank:
        raise InputError(
            f"{key} has shape {tuple(shapes[key])}, expected {rank} axes",
            "check the family, or download the file again",
        )
    return shapes[key]
