"""How a source of labeled images is read: the settings that every kind of source follows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from vitreous.data.decoding.bands import MOST_CHANNELS
from vitreous.data.decoding.images import MAX_PIXELS, MAX_VALUE
from vitreous.support.errors import InputError, unknown

NAME, COUNT = str | None, int | None
KINDS = {  # of value of each option
    "validation_fraction": float,
    "max_pixels": int,
    "max_value": COUNT,
    "follow_links": bool,
    "path_column": NAME,
    "label_column": NAME,
    "split_column": NAME,
    "channels": COUNT,
}


@dataclass(frozen=True)
class DataOptions:
    """The settings of a source.

    Args:
        validation_fraction: of the training images to hold out, in (0, 1), if there is no validation split.
        max_pixels: of an image; larger ones are listed as bad.
        max_value: of 16-bit images, which becomes 255; None takes it from the training images.
        follow_links: whether links out of the source are followed, to files and to folders.
        path_column: of a table, the name of the column of paths or images; None finds it by its usual names.
        label_column: the same for the column of labels.
        split_column: the same for the column of splits.
        channels: of the images that a model gets; None takes them from the source and its training images.

    Raises:
        InputError: a value is out of range.
    """

    validation_fraction: float = 0.1
    max_pixels: int = MAX_PIXELS
    max_value: int | None = None
    follow_links: bool = False
    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"the validation fraction is {self.validation_fraction}", "set it between 0 and 1")
        if self.max_pixels < 1:
            raise InputError(f"max_pixels is {self.max_pixels}", "set it to at least 1")
        if self.channels is not None and not 1 <= self.channels <= MOST_CHANNELS:
            raise InputError(f"channels is {self.channels}", f"set it from 1 to {MOST_CHANNELS}")
        if self.max_value is not None and not 1 <= self.max_value <= MAX_VALUE:
            raise InputError(f"max_value is {self.max_value}", f"set it from 1 to {MAX_VALUE}")

    @property
    def names_columns(self) -> bool:
        """Whether a column of a table is named."""
        return any(name is not None for name in (self.path_column, self.label_column, self.split_column))

    def with_settings(self, settings: Mapping[str, Any]) -> Self:
        """These options, with values as `--set` names them: {"channels": 4} or {"data.channels": 4}.

        Raises:
            InputError: a name is not one of the options, or its value is not valid.
        """
        values = {name.removeprefix("data."): None if value == "auto" else value for name, value in settings.items()}
        for name, value in values.items():
            if name not in KINDS:
                raise unknown("data setting", name, KINDS)
            if isinstance(value, float) and value.is_integer():
                values[name] = value = int(value)
            if not isinstance(value, KINDS[name]) or (isinstance(value, bool) and KINDS[name] is not bool):
                raise InputError(f"{name} is {value!r}", "give it a value as in docs/data.md")
        return replace(self, **values)
