"""Prediction: what a classifier says of one image."""

from dataclasses import dataclass
from typing import Any

from vitreous.support.text import html_text


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image.

    Args:
        image: its name, or its number in the list where it came without one.
        top: the likeliest classes and their probabilities, best first, five at most.
    """

    image: str
    top: tuple[tuple[str, float], ...]

    @property
    def class_name(self) -> str:
        """The likeliest class."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """The likeliest class's probability, in [0, 1]."""
        return self.top[0][1]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "image": self.image,
            "class_name": self.class_name,
            "probability": self.probability,
            "top": [{"class_name": name, "probability": p} for name, p in self.top],
        }

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{html_text(name)}</td><td>{p:.1%}</td></tr>" for name, p in self.top)
        return f"<table><caption>{html_text(self.image)}</caption>{rows}</table>"
