"""What happened to every tensor on its way in or out: nothing is lost silently."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vitreous.checkpoints.families.family import Family, Guess, Reading, Shapes, whole_patches
from vitreous.checkpoints.families.imagenet import CLASSES, imagenet_class_names
from vitreous.checkpoints.sources.hub import CONFIG, PREPROCESSOR
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.support.errors import InputError

if TYPE_CHECKING:
    from vitreous.checkpoints.store import StoredModel

SHOWN = 3  # keys named of a group
UNSAID = ("num_heads", "gelu", "norm_eps", "pooling", "image_size")  # choices that few files hold


@dataclass(frozen=True)
class LoadReport:
    """What was read, from whom, what was guessed and what was left out.

    Args:
        source: the file or name.
        family: its title.
        tensors: how many were taken.
        parameters: how many numbers our model has of them.
        guesses: choices that the file does not hold.
        dropped: keys left out, and the rule that drops them.
        notes: what else a person should know, a sentence each.
    """

    source: str
    family: str
    tensors: int
    parameters: int
    guesses: tuple[Guess, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        return {
            "source": self.source,
            "family": self.family,
            "tensors": self.tensors,
            "parameters": self.parameters,
            "guessed": [{"field": g.field, "value": g.value, "why": g.why} for g in self.guesses],
            "dropped": dict(self.dropped),
            "notes": list(self.notes),
        }

    def remarks(self) -> list[str]:
        """What a person should know, a line each; none where all was certain and all was taken."""
        return [f"guessed: {guess}" for guess in self.guesses] + left_out(self.dropped) + list(self.notes)

    def __str__(self) -> str:
        head = f"read {self.tensors:,} tensors, {self.parameters:,} parameters, from {self.source} ({self.family})"
        return "\n".join([head, *(f"  {remark}" for remark in self.remarks())])


@dataclass(frozen=True)
class ExportReport:
    """What was written, and what was left out.

    Args:
        target: the file or folder.
        family: its title.
        tensors: how many were written.
        files: all that were written.
        dtype: of the numbers in them.
        dropped: parameters of ours without a place there, and why that is no loss.
        notes: what else a person should know, a sentence each.
    """

    target: str
    family: str
    tensors: int
    files: tuple[str, ...]
    dtype: str
    dropped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        return {
            "target": self.target,
            "family": self.family,
            "tensors": self.tensors,
            "files": list(self.files),
            "dtype": self.dtype,
            "dropped": dict(self.dropped),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        head = f"wrote {self.tensors:,} tensors to {', '.join(self.files)} ({self.family}, {self.dtype})"
        return "\n".join([head, *(f"  {remark}" for remark in [*left_out(self.dropped), *self.notes])])


def left_out(dropped: Mapping[str, str]) -> list[str]:
    """A line for each rule that dropped keys, with how many and the first of them."""
    groups: dict[str, list[str]] = {}
    for key, why in dropped.items():
        groups.setdefault(why, []).append(key)
    return [
        f"left out: {', '.join(keys[:SHOWN])}{f' and {len(keys) - SHOWN:,} more' if len(keys) > SHOWN else ''} ({why})"
        for why, keys in groups.items()
    ]


def losses(
    family: Family, config: ViTConfig, shapes: Shapes, beside: Mapping[str, Any], stored: "StoredModel"
) -> list[str]:
    """Tells, a sentence each, what belongs to a model and what a reader of its files would not find there.

    Args:
        family: whose files they are.
        config: of the model that was written.
        shapes: of the tensors that were written.
        beside: the JSON files that were written beside them, by name.
        stored: what was to be written.
    """
    told, preprocessor = beside.get(CONFIG, {}), beside.get(PREPROCESSOR, {})
    lost = []
    unsaid = [f"{name}={value}" for name, value in untold_fields(family, config, shapes, told).items()]
    if unsaid:
        lost.append(f"not said in the file, to be given when it is read: {', '.join(unsaid)}")
    found = family.preprocessing_from(told, preprocessor) or family.preprocessing(config).adapted(
        config.image_size, config.channels
    )
    found = found.trimmed(whole_patches(found.image_size, config.token_stride))
    if unlike := unlike_fields(found, stored.preprocessing):
        lost.append(f"not said in the file, of how images are prepared: {', '.join(unlike)}")
    by_count = imagenet_class_names() if family.imagenet and config.num_classes == CLASSES else None
    if stored.class_names not in (None, family.class_names_from(told) or by_count):
        lost.append(f"not said in the file: the names of the {config.num_classes:,} classes")
    if "license" in stored.metadata:
        lost.append(f"not said in the file: the license, {stored.metadata['license']}")
    return lost


def untold_fields(family: Family, config: ViTConfig, shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
    """The choices of a model that its family would guess wrongly from the keys, given the `config.json` beside."""
    names = [name for name in UNSAID if name != "gelu" or config.mlp == "mlp" or config.pooling == "attention"]
    choices = {name: getattr(config, name) for name in names}
    untold = {}
    for name, value in choices.items():
        given = {other: choices[other] for other in choices if other != name} | family.fields_from(told)
        reading = Reading(given=given)
        try:
            family.read(shapes, reading)
            found = getattr(reading.config(), name)
        except InputError:  # it must be given
            found = None
        if found != value:
            untold[name] = value
    return untold


def unlike_fields(found: Preprocessing, wanted: Preprocessing) -> list[str]:
    """The fields of one preprocessing, as name=value, by which another gives other pixels than it does."""
    theirs, ours = effect(found), effect(wanted)
    names = [name for name in ours if theirs[name] != ours[name] and getattr(found, name) != getattr(wanted, name)]
    return [f"{name}={getattr(wanted, name)}" for name in names]


def effect(p: Preprocessing) -> dict[str, Any]:
    """What each field does, however it is written: the size before the crop, and what is done to values."""
    cut = p.resize == "crop" or p.cover_size != p.whole_size
    return {
        "image_size": p.image_size,
        "trim": p.trim,
        "resize": p.resize,
        "crop_fraction": p.cover_size,
        "crop_rounding": cut and p.crop_rounding,
        "interpolation": p.interpolation,
        "antialias": p.antialias,
        "mean": [round(value, 6) for value in p.mean],
        "std": [round(value, 6) for value in p.std],
    }
