"""Recipe: one validated description of a run; the built-in ones are vitreous/recipes/*.toml."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vitreous.model.config import (
    Gelu,
    MLPKind,
    Pooling,
    PositionKind,
    PositionSite,
    Resampling,
    SincosExponent,
    ViTConfig,
)
from vitreous.model.variants import variant
from vitreous.support.errors import InputError, unknown
from vitreous.support.text import toml_value
from vitreous.training.objective import Loss
from vitreous.training.optimizer import Algorithm
from vitreous.training.schedule import Decay

RECIPES = Path(__file__).parents[1] / "recipes"
MAX_BYTES = 2**20
EXTENDS = "extends"  # key of a recipe file: the built-in recipe that it changes
LEAST_WARMUPS = 5  # that the epochs are, where only these are given

Auto = Literal["auto"]  # chosen from the data; recipe.toml of a run holds what was chosen
Count = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]  # nan is not above 0
Finite = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
ImageSide = Annotated[int, Field(gt=0, le=8192)]
Size = ImageSide | tuple[ImageSide, ImageSide]
Range = tuple[Finite, Finite]


class Section(BaseModel):
    """A table of a recipe; no other keys, and no value of another type, is let through."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSection(Section):
    """The model: a variant, and the fields of ViTConfig that are to differ from it.

    Classes and channels come from the data.
    """

    variant: str = "auto"
    image_size: Size | Auto = "auto"  # (height, width) in pixels; one number for a square
    patch_size: Size | None = None
    width: Count | None = None
    depth: Count | None = None
    mlp_dim: Count | None = None
    num_heads: Count | None = None
    stem_blocks: tuple[Count, ...] | None = None
    stem_width: Count | None = None
    mlp: MLPKind | None = None
    gelu: Gelu | None = None
    norm_eps: Finite | None = None
    layer_scale: Finite | None = None
    pre_norm: bool | None = None
    patch_bias: bool | None = None
    class_token: bool | None = None
    registers: Annotated[int, Field(ge=0)] | None = None
    position_embedding: PositionKind | None = None
    position_site: PositionSite | None = None
    position_class_slot: bool | None = None
    position_resampling: Resampling | None = None
    sincos_exponent: SincosExponent | None = None
    pooling: Pooling | None = None
    norm_after_pooling: bool | None = None
    hidden_dim: Count | None = None
    classifier_bias: bool | None = None
    dropout: Rate = 0.0
    stochastic_depth: Rate = 0.0


SHAPE = (
    "patch_size",
    "width",
    "depth",
    "mlp_dim",
    "num_heads",
    "stem_blocks",
    "stem_width",
)  # what a variant says


class DataSection(Section):
    """The images: how they are split, made fit for the model, and put into batches."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1  # of train, where there is no validation split
    resize: Literal["squash", "crop"] = "squash"
    crop_fraction: Share = 1.0
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] = "bilinear"
    mean: tuple[float, ...] | Auto = "auto"  # one for each channel, of values in [0, 1]; auto is 0.5
    std: tuple[float, ...] | Auto = "auto"
    batch_size: Count | Auto = "auto"  # of one update
    micro_batch: Count | None = None  # images at once, whose gradients are added up; a whole batch if not given
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01  # of a split that may be broken images


class AugmentationSection(Section):
    """The random view of an image that an epoch sees."""

    flip: bool | Auto = "auto"
    crop_scale: Range = (0.25, 1.0)  # the crop's share of the area
    crop_ratio: Range = (0.75, 4 / 3)  # its width over its height
    randaugment_layers: Annotated[int, Field(ge=0)] = 0  # operations of RandAugment; 0 for none
    randaugment_magnitude: Annotated[float, Field(ge=0)] = 10.0
    trivial_augment: bool = False
    color_jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    erasing: Annotated[float, Field(ge=0, le=1)] = 0.0  # how often a box is erased
    mixup: Annotated[float, Field(ge=0)] = 0.0  # alpha of MixUp; 0 for none
    cutmix: Annotated[float, Field(ge=0)] = 0.0  # alpha of CutMix
    mix_per_sample: bool = False  # each sample draws its own share, or the batch one


class ObjectiveSection(Section):
    """The loss."""

    loss: Loss = "softmax"
    class_weights: Literal["equal", "balanced"] = "equal"  # balanced: small classes count as much as large ones
    label_smoothing: Rate = 0.1


class OptimizerSection(Section):
    """The optimizer and the clipping of gradients."""

    algorithm: Algorithm = "adamw"
    lr: Finite = 1e-3  # the highest, which warmup leads to
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05  # on matrices; AdamW's is times the lr
    momentum: Rate = 0.9  # of SGD
    betas: tuple[Rate, Rate] = (0.9, 0.999)  # of Adam and AdamW
    eps: Finite = 1e-8
    clip_norm: Positive = 1.0  # of all gradients together; inf does not clip


class ScheduleSection(Section):
    """How long, and how the learning rate moves: up in a line, then down.

    Whoever gives epochs without warmup_epochs, in a file or as a setting, gets at most a fifth of them as warmup.
    """

    epochs: Count = 60
    warmup_epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0
    decay: Decay = "cosine"
    cooldown_epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0  # a line to 0 at the end

    def with_short_warmup(self) -> Self:
        """The same with a warmup of at most a fifth of the epochs."""
        return self.model_copy(update={"warmup_epochs": min(self.warmup_epochs, self.epochs / LEAST_WARMUPS)})


class AveragingSection(Section):
    """An average of the weights, which is then what is validated and kept."""

    ema_decay: Rate = 0.0  # of the exponential moving average, such as 0.9999; 0 for none


class RunSection(Section):
    """Where and with which random numbers; only the seed changes the result, beyond float rounding."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: str = "auto"
    threads: Count | Auto = "auto"  # for one operation on a CPU
    workers: Annotated[int, Field(ge=0, le=256)] | Auto = "auto"  # processes that load images


class Recipe(BaseModel):
    """Everything that decides a run, but the data itself."""

    model_config = Section.model_config

    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    augmentation: AugmentationSection = AugmentationSection()
    objective: ObjectiveSection = ObjectiveSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    averaging: AveragingSection = AveragingSection()
    run: RunSection = RunSection()

    @classmethod
    def load(cls, source: str | Path) -> Self:
        """Reads a TOML file, or a built-in recipe by its name.

        A file that begins with `extends = "plain"` needs to say only what differs from that built-in recipe.

        Raises:
            InputError: no such recipe, no TOML, over 1 MiB, unknown keys, values that are not valid.
        """
        path = built_in().get(str(source))
        if path is None:
            path = Path(source).expanduser()
            if not path.exists() and path.suffix != ".toml":
                raise unknown("recipe", str(source), built_in())
        return cls.from_dict(extended(read_toml(path)))

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> Self:
        """Builds a recipe from its tables, `{"optimizer": {"lr": 1e-3}}`.

        Raises:
            InputError: naming the key, its value and what is valid.
        """
        for section, table in tables.items():
            check_section(section, table)
        try:
            recipe = cls.model_validate(as_tuples(tables))
        except ValidationError as error:
            raise invalid(error, tables) from error
        return recipe if "warmup_epochs" in tables.get("schedule", {}) else recipe.with_short_warmup()

    def with_settings(self, settings: Mapping[str, Any]) -> Self:
        """A copy with some values changed.

        Args:
            settings: values by leaf ("lr") or dotted path ("optimizer.lr"). Text is read as TOML where it is
                TOML ("1e-3", "[0.5, 1]"), and else kept as it is.

        Raises:
            InputError: as `from_dict`.
        """
        tables = self.model_dump(exclude_none=True)
        for key, value in settings.items():
            section, leaf = find(key)
            tables[section][leaf] = toml_value(value) if isinstance(value, str) else value
        given = {find(key)[1] for key in settings}
        changed = self.from_dict(tables)
        return changed.with_short_warmup() if "epochs" in given and "warmup_epochs" not in given else changed

    def with_short_warmup(self) -> Self:
        """A copy whose warmup is at most a fifth of the epochs."""
        return self.model_copy(update={"schedule": self.schedule.with_short_warmup()})

    def with_model(self, name: str) -> Self:
        """A copy with another variant, in the variant's own shape."""
        tables = self.model_dump(exclude_none=True)
        kept = {key: value for key, value in tables["model"].items() if key not in SHAPE}
        return self.from_dict(tables | {"model": kept | {"variant": name}})

    def config(self, num_classes: int, channels: int) -> ViTConfig:
        """The model's config.

        Raises:
            InputError: there is no such variant, or the fields contradict each other.
        """
        fields = self.model.model_dump(exclude_none=True)
        try:
            return variant(fields.pop("variant"), **fields, num_classes=num_classes, channels=channels)
        except ValueError as error:
            cause, _, mend = str(error).partition("; ")
            raise InputError(f"the recipe's [model] is not valid: {cause}", mend) from error

    def to_toml(self) -> str:
        """The recipe as TOML, every value in it but the model's where they are the variant's own."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


LEAVES: Mapping[str, str] = MappingProxyType(
    {leaf: section for section, field in Recipe.model_fields.items() for leaf in type(field.default).model_fields}
)  # the section of every leaf; their names are unique


def built_in() -> dict[str, Path]:
    """The files of the built-in recipes by their names."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}


def find(key: str) -> tuple[str, str]:
    """The (section, leaf) that a leaf or a dotted path names. Raises InputError with the nearest one."""
    section, dot, leaf = key.rpartition(".")
    if leaf not in LEAVES:
        raise unknown("recipe key", leaf, LEAVES)
    if dot and section != LEAVES[leaf]:
        raise InputError(f"there is no recipe key {key!r}", f"did you mean '{LEAVES[leaf]}.{leaf}'?")
    return LEAVES[leaf], leaf


def check_section(section: str, table: object) -> None:
    """Raises InputError for a section or a key that does not exist or stands in the wrong place."""
    if section in LEAVES:
        raise InputError(f"the recipe key {section!r} is outside its section", f"put it below [{LEAVES[section]}]")
    if section not in Recipe.model_fields:
        raise unknown("recipe section", section, Recipe.model_fields)
    if not isinstance(table, Mapping):
        raise InputError(f"the recipe's {section!r} is {table!r:.100}", f"it must be a table, [{section}]")
    for key in table:
        find(f"{section}.{key}")


def invalid(error: ValidationError, tables: Mapping[str, Any]) -> InputError:
    """The error for the first value that pydantic refused."""
    problems = error.errors(include_url=False)
    section, leaf = map(str, problems[0]["loc"][:2])
    # A key that may hold values of several types has a problem for each of them.
    valid = [in_words(problem["type"], problem["msg"]) for problem in problems if problem["loc"][:2] == (section, leaf)]
    wanted = " or ".join(dict.fromkeys(valid))
    return InputError(f"the recipe's {section}.{leaf} is {tables[section][leaf]!r:.100}", f"it should be {wanted}")


def in_words(kind: str, message: str) -> str:
    """What pydantic says a value should be, as it goes on after "it should be"."""
    if kind in ("missing", "too_long"):
        return "a pair of numbers"
    if kind == "tuple_type":  # TOML has none
        return "a list of numbers"
    return message.removeprefix("Input should be ")


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file of at most 1 MiB. Raises InputError for anything else."""
    if path.exists() and not path.is_file():
        raise InputError(f"the recipe {str(path)!r} is not a file", "give a .toml file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read the recipe {str(path)!r}: {error.strerror}", "check its name") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"the recipe {str(path)!r} is larger than {MAX_BYTES:,} bytes", "a recipe is a few lines")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or nested without end
        raise InputError(f"the recipe {str(path)!r} is not TOML: {error}", "mend that place") from error


def extended(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables of a recipe over those of the built-in one that it extends, if it does.

    Raises:
        InputError: there is no built-in recipe of that name.
    """
    if EXTENDS not in tables:
        return tables
    name = tables.pop(EXTENDS)
    if not isinstance(name, str) or name not in built_in():
        raise unknown("built-in recipe", str(name), built_in())
    merged = read_toml(built_in()[name])
    for section, table in tables.items():
        check_section(section, table)
        merged[section] = merged.get(section, {}) | table
    if "epochs" in tables.get("schedule", {}) and "warmup_epochs" not in tables["schedule"]:
        merged["schedule"].pop("warmup_epochs", None)  # at most a fifth of the new epochs is the warmup then
    return merged


def as_tuples(value: Any) -> Any:
    """The same with every list a tuple, as frozen models hold them."""
    if isinstance(value, Mapping):
        return {key: as_tuples(inner) for key, inner in value.items()}
    return tuple(as_tuples(inner) for inner in value) if isinstance(value, list | tuple) else value
