"""What a family reads from the keys and shapes of a file: config fields, guesses, and dropped keys."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from vitreous.model.config import NOT_NEGATIVE, PAIRS, POSITIVE, ViTConfig, as_pair
from vitreous.model.variants import SIZES
from vitreous.support.errors import InputError, unknown

Shapes = Mapping[str, Sequence[int]]  # of a file's tensors, by key
HEAD_DIM = 64  # of nearly every published ViT
MAX_SIZE = 2**20  # of any width, side or count in a config


@dataclass(frozen=True)
class Guess:
    """A choice that the file does not record: the value taken, and why."""

    field: str
    value: Any
    why: str

    def __str__(self) -> str:
        return f"{self.field} = {self.value} ({self.why})"


@dataclass
class Reading:
    """The result of reading a file's keys and shapes.

    Args:
        known: fields of ViTConfig from the caller, a config.json or a table; they override everything below.
        expected_size: image size of the preprocessing next to the file, taken where it fits the position table.
        fields: read from the file.
        guesses: values the file does not record.
        dropped: keys that have no place in the model, with the reason.
    """

    known: Mapping[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    guesses: list[Guess] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    expected_size: tuple[int, int] | None = None

    def guess(self, name: str, value: Any, why: str) -> None:
        """Sets a field that the file does not record, unless it is known."""
        if name in self.known:
            self.fields[name] = self.known[name]
        else:
            self.fields[name] = value
            self.guesses.append(Guess(name, value, why))

    def guess_heads(self, width: int, depth: int) -> None:
        """Guesses the number of heads: as in the published size of this width and depth, else width / 64."""
        sizes = {(size.width, size.depth): (name, size.num_heads) for name, size in SIZES.items()}
        if "num_heads" in self.known:
            self.fields["num_heads"] = self.known["num_heads"]
        elif (width, depth) in sizes:
            name, heads = sizes[width, depth]
            self.guess("num_heads", heads, f"as published for {name}")
        elif width % HEAD_DIM == 0:
            self.guess("num_heads", width // HEAD_DIM, f"width / {HEAD_DIM}")
        else:
            cause = f"the file does not record the number of attention heads for its width of {width}"
            raise InputError(cause, "set it, for example num_heads=3")

    def guess_image_size(self, patches: int, stride: tuple[int, int]) -> None:
        """Guesses the grid of the preprocessing's size, else a square grid of patches.

        Raises:
            InputError: neither fits the number, and no image size is known.
        """
        if "image_size" in self.known:
            self.fields["image_size"] = self.known["image_size"]
            return
        if self.expected_size is not None and patches_of(self.expected_size, stride) == patches:
            self.guess("image_size", self.expected_size, "the preprocessing's")
            return
        if not is_square(patches):
            hint = f"set image_size=(height, width), such as {size_of(patches, stride)}"
            raise InputError(f"{patches} positions do not make a square grid", hint)
        size = size_of(patches, stride)
        if patches > 1:
            self.guess("image_size", size, "a square grid of patches")
        else:
            self.fields["image_size"] = size

    def choose_rows(
        self, length: int, choices: Mapping[tuple[str, ...], int], stride: tuple[int, int]
    ) -> tuple[str, ...]:
        """The tokens before the patches that have rows in a position table.

        A known or expected image size decides. Otherwise the family's usual choice is taken if it leaves a square grid
        of patches and no other does.

        Args:
            length: rows of the table.
            choices: for each choice of tokens, the number of their rows; the family's usual one first.
            stride: image pixels per patch, (height, width).

        Raises:
            InputError: the table can be read in more than one way; the hint names the image sizes.
        """
        distinct: dict[int, tuple[str, ...]] = {}
        for rows, count in choices.items():
            if length > count:
                distinct.setdefault(length - count, rows)
        usual = next(iter(choices))
        for size in (self.known.get("image_size"), self.expected_size):
            if size is not None and patches_of(size, stride) in distinct:
                return distinct[patches_of(size, stride)]
        squares = [patches for patches in distinct if is_square(patches)]
        first = next(iter(distinct), 0)
        if "image_size" in self.known or len(distinct) < 2 or not squares or squares == [first]:
            return distinct.get(first, usual)
        sizes = " or ".join(f"image_size={size_of(patches, stride)}" for patches in distinct)
        most = max(choices.values())
        cause = f"some of the {length} positions may belong to the {most} token{'s' * (most > 1)} before the patches"
        raise InputError(cause, f"set {sizes}, or the size of another grid with as many patches")

    def drop(self, shapes: Shapes, prefix: str, patterns: Sequence[tuple[str, str]]) -> dict[str, Sequence[int]]:
        """Drops the keys that match a pattern; returns the others without their prefix.

        Patterns match from the start of a key, after its prefix. Keys that neither have the prefix nor match are
        returned as they are, so that they are reported as unexpected.
        """
        inner = {}
        for key, shape in shapes.items():
            name = key.removeprefix(prefix)
            reason = next((why for pattern, why in patterns if re.match(pattern, name)), None)
            if reason is None:
                inner[name] = shape
            else:
                self.dropped[key] = reason
        return inner

    def config(self) -> ViTConfig:
        """The config of all fields. Trailing pixels that do not fill a patch are cropped, as in the families' code.

        Raises:
            InputError: the fields do not make a ViT.
        """
        values = self.fields | dict(self.known)
        try:
            if values.get("stem_blocks") is None:
                sizes = as_pair("image_size", values["image_size"]), as_pair("patch_size", values["patch_size"])
                values["image_size"] = whole_patches(*sizes)
            return ViTConfig.from_dict(values)
        except InputError as error:
            raise InputError(f"the file's shapes do not make a ViT: {error.cause}", error.hint) from error


def is_square(count: int) -> bool:
    """Whether that many patches can make a square grid."""
    return count > 0 and math.isqrt(count) ** 2 == count


def size_of(patches: int, stride: tuple[int, int]) -> tuple[int, int]:
    """The image size of the grid with that many patches that is nearest to a square."""
    rows = next((rows for rows in range(math.isqrt(max(patches, 1)), 0, -1) if patches % rows == 0), 1)
    return rows * stride[0], max(patches, 1) // rows * stride[1]


def patches_of(size: tuple[int, int], stride: tuple[int, int]) -> int:
    """The number of whole patches in an image."""
    return (size[0] // stride[0]) * (size[1] // stride[1])


def whole_patches(size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """The part of an image that whole patches cover, at least one in each direction."""
    height, width = (max(side // step, 1) * step for side, step in zip(size, patch, strict=True))
    return height, width


def checked_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ViTConfig from a caller or a `config.json`, with sizes as (height, width).

    Raises:
        InputError: a name is not a field, or a value is not a size.
    """
    names = [f.name for f in fields(ViTConfig)]
    for name in values:
        if name not in names:
            raise unknown("ViTConfig field", name, names)
    return {name: as_pair(name, value) if name in PAIRS else value for name, value in values.items()}


def check_extent(config: ViTConfig, tensors: int, source: str) -> None:
    """Raises InputError for a model that no file with this number of tensors can hold, before it is built."""
    if config.depth + sum(config.stem_blocks or ()) > tensors:
        raise InputError(f"the config of {source} has more blocks than the file has tensors", "save it again")
    numbers = {name: getattr(config, name) for name in (*POSITIVE, *NOT_NEGATIVE)}
    sides = {name: max(getattr(config, name)) for name in PAIRS}
    for name, value in (numbers | sides).items():
        if value > MAX_SIZE:
            raise InputError(f"the config of {source} has {name} {value:,}", f"the maximum is {MAX_SIZE:,}")
