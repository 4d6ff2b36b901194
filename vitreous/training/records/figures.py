"""What all figures of a run have in common: how they are written, and how long a class name may be."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vitreous.support.figures import missing_glyphs_ignored
from vitreous.support.files import atomic_file
from vitreous.support.text import printable

LONGEST_NAME = 24


def shortened(name: str) -> str:
    """A class name that fits an axis."""
    name = printable(name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, atomically. Characters that the font lacks become boxes, without complaint."""
    with missing_glyphs_ignored(), atomic_file(path) as file:
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": "vitreous"})
