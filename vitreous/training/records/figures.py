"""How the figures of a run are written."""

import warnings
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vitreous.support.files import atomic_file


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, atomically. Characters that the font lacks become boxes, without a warning."""
    with warnings.catch_warnings(), atomic_file(path) as file:
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": "vitreous"})
