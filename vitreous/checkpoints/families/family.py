"""What every family of weights has in common: how it is recognized, read, and what it can hold.

A family is one file with one class: the keys that tell it, a table of rules for a config, what it can hold, and what
its keys do not say. The rest (reading, checking, refusing, reporting) is here, once.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from vitreous.checkpoints.families.key_map import Rule, constant, rule
from vitreous.checkpoints.files.tensors import Kind
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import NOT_NEGATIVE, PAIRS, POSITIVE, ViTConfig, as_pair
from vitreous.model.variants import SIZES
from vitreous.support.errors import InputError, unknown

Shapes = Mapping[str, Sequence[int]]  # of a file's tensors, by key
HEAD_DIM = 64  # of nearly every ViT that was published
MOST = 2**20  # of any width, side or count in a config

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Dialect:
    """How one file of a family spells its keys; kept with the model, so that export writes the same keys again.

    Args:
        prefix: in front of every key.
    """

    prefix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Any) -> "Dialect":
        """The inverse of `to_dict`. Raises InputError where the values are none of this class."""
        plain = cls().to_dict()
        if not isinstance(values, dict) or values.keys() != plain.keys():
            raise InputError("the header tells a spelling of keys that is not known", "export it without: --plain")
        for name, value in values.items():
            if not alike(value, plain[name], any_length=name == "rows") or (name == "prefix" and not is_prefix(value)):
                raise InputError(f"the header's spelling has {name} {value!r:.100}", "export it without: --plain")
        read: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**read)


def is_prefix(text: str) -> bool:
    """Tells whether a text can stand in front of a key."""
    return not text or text[-1] in "./"


def alike(value: Any, plain: Any, any_length: bool) -> bool:
    """Tells whether a value is of the same type as another; a list also in its length, and element by element."""
    if not isinstance(plain, list):
        return type(value) is type(plain)
    if not isinstance(value, list) or (len(value) != len(plain) and not any_length):
        return False
    return all(type(each) is type(plain[0]) for each in value)


@dataclass(frozen=True)
class Guess:
    """A choice that the keys do not hold: what was taken, and by which rule."""

    field: str
    value: Any
    why: str

    def __str__(self) -> str:
        return f"{self.field} = {self.value} ({self.why})"


@dataclass
class Reading:
    """What a family reads off the keys and shapes of a file.

    Args:
        given: fields of ViTConfig that are known from elsewhere; they go before what is guessed.
        fields: those found.
        guesses: those guessed.
        dropped: keys without a place in the model, and the rule that drops them.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    guesses: list[Guess] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)

    def guess(self, name: str, value: Any, why: str) -> None:
        """Takes a value that the keys do not hold, unless it was given."""
        if name in self.given:
            self.fields[name] = self.given[name]
        else:
            self.fields[name] = value
            self.guesses.append(Guess(name, value, why))

    def guess_heads(self, width: int, depth: int) -> None:
        """Takes the number of heads of the published size with this width and depth, or one for each 64 numbers."""
        sizes = {(size.width, size.depth): (name, size.num_heads) for name, size in SIZES.items()}
        if "num_heads" in self.given:
            self.fields["num_heads"] = self.given["num_heads"]
        elif (width, depth) in sizes:
            name, heads = sizes[width, depth]
            self.guess("num_heads", heads, f"as published for {name}")
        elif width % HEAD_DIM == 0:
            self.guess("num_heads", width // HEAD_DIM, f"width / {HEAD_DIM}")
        else:
            raise InputError(
                f"the file does not say how many heads share its width of {width}", "say it: num_heads=3, for one"
            )

    def guess_image_size(self, patches: int, stride: tuple[int, int]) -> None:
        """Takes a square number of patches for a square grid.

        Raises:
            InputError: it is no square, and no size was given.
        """
        if "image_size" in self.given:
            self.fields["image_size"] = self.given["image_size"]
            return
        side = round(max(patches, 0) ** 0.5)
        if side**2 != patches or patches < 1:
            raise InputError(f"{patches} positions are no square grid", "give image_size=(height, width)")
        size = side * stride[0], side * stride[1]
        if patches > 1:
            self.guess("image_size", size, "a square grid of patches")
        else:
            self.fields["image_size"] = size

    def config(self) -> ViTConfig:
        """The config of all fields; what was given goes last, so that it decides.

        A size that is not made of whole patches loses its last pixels, as in the other families' code.

        Raises:
            InputError: the fields make no ViT.
        """
        found = self.fields | dict(self.given)
        try:
            if found.get("stem_blocks") is None:
                sizes = as_pair("image_size", found["image_size"]), as_pair("patch_size", found["patch_size"])
                found["image_size"] = whole_patches(*sizes)
            return ViTConfig.from_dict(found)
        except ValueError as error:
            raise InputError(f"the file's shapes make no ViT: {error}", "nothing was loaded") from error


def whole_patches(size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """The part of an image that whole patches cover, at least one each way."""
    height, width = (max(side // step, 1) * step for side, step in zip(size, patch, strict=True))
    return height, width


@dataclass(frozen=True)
class Holds:
    """Which models a family can hold: those whose every choice is among these. The defaults are what all hold.

    None stands for any value.
    """

    gelu: tuple[str, ...] | None = ("exact",)
    norm_eps: tuple[float, ...] | None = (1e-6,)
    mlp: tuple[str, ...] = ("mlp",)
    layer_scale: tuple[bool, ...] = (False,)
    pre_norm: tuple[bool, ...] = (False,)
    patch_bias: tuple[bool, ...] = (True, False)  # a bias of zeros can be written
    stem: tuple[bool, ...] = (False,)
    class_token: tuple[bool, ...] = (True,)
    distillation_token: tuple[bool, ...] = (False,)
    registers: tuple[bool, ...] = (False,)
    positions: tuple[str, ...] = ("learned", "learned_2d", "sincos_2d", "none")  # a table holds what adds a table
    pooling: tuple[str, ...] = ("class_token",)
    norm_after_pooling: tuple[bool, ...] = (False,)
    hidden: tuple[bool, ...] = (False,)
    classifier: tuple[bool, ...] = (True, False)
    classifier_bias: tuple[bool, ...] = (True, False)  # here too
    rectangles: tuple[bool, ...] = (True, False)  # image or patch
    channels: tuple[int, ...] | None = None

    def lacking(self, c: ViTConfig) -> list[str]:
        """Names what of a model is not among these."""
        with_classifier = c.num_classes > 0
        found: dict[str, tuple[Any, str]] = {
            "gelu": (c.gelu if c.mlp == "mlp" or c.pooling == "attention" else None, f"{c.gelu} GELU"),
            "norm_eps": (c.norm_eps, f"eps {c.norm_eps:g}"),
            "mlp": (c.mlp, "SwiGLU" if c.mlp == "swiglu" else "the plain MLP"),
            "layer_scale": (c.layer_scale is not None, said(c.layer_scale is not None, "LayerScale")),
            "pre_norm": (c.pre_norm, said(c.pre_norm, "a norm before the encoder")),
            "patch_bias": (c.patch_bias, said(c.patch_bias, "a bias of the patch projection")),
            "stem": (c.stem_blocks is not None, said(c.stem_blocks is not None, "a ResNet stem")),
            "class_token": (c.class_token, said(c.class_token, "a class token")),
            "distillation_token": (c.distillation_token, said(c.distillation_token, "a distillation token")),
            "registers": (c.registers > 0, said(c.registers > 0, "registers")),
            "positions": (c.position_embedding, f"{c.position_embedding} positions"),
            "pooling": (c.pooling, f"{c.pooling.replace('_', ' ')} pooling"),
            # Behind the pooling of one token the norm gives the same as before it.
            "norm_after_pooling": (
                c.norm_after_pooling if c.pooling == "mean" else None,
                f"the final norm {'after' if c.norm_after_pooling else 'before'} mean pooling",
            ),
            "hidden": (c.hidden_dim is not None, said(c.hidden_dim is not None, "a tanh hidden layer in the head")),
            "classifier": (with_classifier, said(with_classifier, "a classifier")),
            "classifier_bias": (
                c.classifier_bias if with_classifier else None,
                said(c.classifier_bias, "a bias of the classifier"),
            ),
            "rectangles": (
                len({*c.image_size}) > 1 or len({*c.patch_size}) > 1,
                f"images of {c.image_size[0]}×{c.image_size[1]} in patches of {c.patch_size[0]}×{c.patch_size[1]}",
            ),
            "channels": (c.channels, f"{c.channels} channels"),
        }
        lacking = [
            words
            for name, (value, words) in found.items()
            if value is not None and getattr(self, name) is not None and value not in getattr(self, name)
        ]
        return lacking + (["positions inside the encoder"] if c.position_site != "stem" else [])


def said(has: bool, what: str) -> str:
    """A part that a model has, or lacks."""
    return what if has else f"no {what.removeprefix('a ')}"


class Family(ABC):
    """One family of weights files. Instances hold no state.

    Attributes:
        name: what `--to` takes.
        title: as it is spoken of.
        kinds: the files it is kept in, the usual one first.
        landmarks: keys that every file has, behind its prefix, in any dialect; "0" stands for the first block.
        imagenet: whether 1,000 classes without names are taken for ImageNet's.
        mask_token: whether a mask token has a key; it has no part in the function, and is left out where it has none.
        drops: patterns of keys (behind the prefix where they have it) that are no part of the model, and why.
        holds: which models it can hold.
        dialects: the class of its dialects.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]] = ("safetensors", "pickle")
    landmarks: ClassVar[tuple[str, ...]]
    imagenet: ClassVar[bool] = True
    mask_token: ClassVar[bool] = False
    drops: ClassVar[tuple[tuple[str, str], ...]] = ()
    holds: ClassVar[Holds]
    dialects: ClassVar[type[Dialect]] = Dialect

    def claims(self, shapes: Shapes) -> bool:
        """Tells whether a file with these keys is of this family."""
        return not self.strangers(shapes)

    def strangers(self, shapes: Shapes) -> list[str]:
        """What a file with these keys lacks of this family; empty if it is one."""
        found = [
            [mark for mark in self.landmarks if prefix + mark not in shapes]
            for prefix in prefixes(shapes, self.landmarks)
        ]
        return min(found, key=len, default=list(self.landmarks))

    @abstractmethod
    def read(self, shapes: Shapes, reading: Reading) -> Dialect:
        """Reads config fields and the dialect off the keys and shapes of a file that this family claims.

        Args:
            shapes: of all tensors of the file.
            reading: takes the fields, the guesses, and the keys to drop.

        Raises:
            InputError: something is missing, or must be given.
        """

    @abstractmethod
    def rules(self, config: ViTConfig, dialect: Any) -> list[Rule]:
        """The table for one model: a rule for each parameter. The config is one that the family holds."""

    def lacking(self, config: ViTConfig) -> list[str]:
        """Names what of a model the family cannot hold."""
        return self.holds.lacking(config)

    def plain_dialect(self, config: ViTConfig) -> Dialect:
        """The usual spelling, for a model that comes from elsewhere."""
        return self.dialects()

    @abstractmethod
    def preprocessing(self, config: ViTConfig) -> Preprocessing:
        """What the family's weights expect of an image, where nothing beside them says it."""

    def fields_from(self, belongings: Mapping[str, Any]) -> dict[str, Any]:
        """The config fields that a `config.json` beside the weights holds."""
        return {}

    def preprocessing_from(
        self, belongings: Mapping[str, Any], preprocessor: Mapping[str, Any]
    ) -> Preprocessing | None:
        """What `config.json` and `preprocessor_config.json` beside the weights say; None where they say nothing."""
        return None

    def class_names_from(self, belongings: Mapping[str, Any]) -> tuple[str, ...] | None:
        """The class names that a `config.json` beside the weights holds."""
        return None

    def notes(self, belongings: Mapping[str, Any]) -> list[str]:
        """What a person should know of files of this family, given the `config.json` beside one."""
        return []

    def belongings(
        self, config: ViTConfig, preprocessing: Preprocessing, class_names: Sequence[str] | None
    ) -> dict[str, Any]:
        """The JSON files that belong beside the weights, by name; {} where the family has none."""
        return {}


def prefixes(shapes: Shapes, landmarks: Sequence[str]) -> list[str]:
    """What stands in front of the landmarks in a file, the prefix of most landmarks first."""
    counts: dict[str, int] = {}
    for key in shapes:
        for mark in landmarks:
            prefix = key.removesuffix(mark)
            if key.endswith(mark) and (not prefix or prefix[-1] in "./"):
                counts[prefix] = counts.get(prefix, 0) + 1
    return sorted(counts, key=lambda prefix: (-counts[prefix], prefix))


def drop(
    reading: Reading, shapes: Shapes, prefix: str, patterns: Sequence[tuple[str, str]]
) -> dict[str, Sequence[int]]:
    """Sorts out keys by named rules; returns the others, without their prefix.

    A pattern matches a key from its start, without the prefix where it has it. Keys that lack the prefix and match no
    pattern stay as they are, to be told as left over.
    """
    inner = {}
    for key, shape in shapes.items():
        name = key.removeprefix(prefix)
        reason = next((why for pattern, why in patterns if re.match(pattern, name)), None)
        if reason is None:
            inner[name] = shape
        else:
            reading.dropped[key] = reason
    return inner


def classifier(ours: str, theirs: str, c: ViTConfig) -> Iterator[Rule]:
    """The rules of a classifier; where ours has no bias, one of zeros is written."""
    yield rule(f"{ours}.weight", f"{theirs}.weight")
    yield (
        rule(f"{ours}.bias", f"{theirs}.bias")
        if c.classifier_bias
        else Rule((), (f"{theirs}.bias",), constant(0.0, c.num_classes))
    )


def block_count(shapes: Shapes, pattern: str) -> int:
    """Counts the blocks: the distinct numbers that the pattern's first group finds in the keys."""
    return len({match[1] for key in shapes if (match := re.match(pattern, key))})


def shape_of(shapes: Shapes, key: str, rank: int) -> Sequence[int]:
    """The shape of a tensor that must be there. Raises InputError where it is not, or has another rank."""
    if key not in shapes:
        raise InputError(f"the file's key {key!r} is missing", "nothing was loaded")
    if len(shapes[key]) != rank:
        raise InputError(f"{key} has shape {tuple(shapes[key])}, where {rank} axes are due", "nothing was loaded")
    return shapes[key]


def checked_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ViTConfig that a person or a `config.json` gave, sizes as (height, width).

    Raises:
        InputError: a name is none of a field, or a size is none.
    """
    names = [f.name for f in fields(ViTConfig)]
    for name in given:
        if name not in names:
            raise unknown("field of ViTConfig", name, names)
    try:
        return {name: as_pair(name, value) if name in PAIRS else value for name, value in given.items()}
    except ValueError as error:
        raise InputError(str(error), "") from error


def check_extent(config: ViTConfig, tensors: int, what: str) -> None:
    """Raises InputError for a model that no file of so many tensors can hold, before it is built."""
    if config.depth + sum(config.stem_blocks or ()) > tensors:
        raise InputError(f"the config of {what} has more blocks than the file has tensors", "save it again")
    numbers = {name: getattr(config, name) for name in (*POSITIVE, *NOT_NEGATIVE)}
    sides = {name: max(getattr(config, name)) for name in PAIRS}
    for name, value in (numbers | sides).items():
        if value > MOST:
            raise InputError(f"the config of {what} has {name} {value:,}", f"at most {MOST:,} is read")
