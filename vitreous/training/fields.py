"""The types of recipe values, and the base of a recipe's sections."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _whole(value: Any) -> Any:
    """A float without a fraction as an integer, since 2e8 is easier to read than 200000000."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Auto = Literal["auto"]  # chosen from the data; a run's recipe.toml holds the choice
Count = Annotated[int, Field(gt=0)]
LargeCount = Annotated[int, BeforeValidator(_whole), Field(gt=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]  # nan is not above 0
Finite = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
ImageSide = Annotated[int, Field(gt=0, le=8192)]
Size = ImageSide | tuple[ImageSide, ImageSide]
Range = tuple[Finite, Finite]


class Section(BaseModel):
    """A table of a recipe: frozen, with no unknown keys and no values of other types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
