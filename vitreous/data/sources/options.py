"""How a source of labeled images is read: the settings that every kind of source follows."""

from dataclasses import dataclass

from vitreous.support.errors import InputError


@dataclass(frozen=True)
class DataOptions:
    """The settings of a source.

    Args:
        validation_fraction: of the training images to hold out, in (0, 1), if there is no validation split.

    Raises:
        InputError: a value is out of range.
    """

    validation_fraction: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"the validation fraction is {self.validation_fraction}", "set it between 0 and 1")
