"""The picture of a run's first batch, and how all pictures of a run are written."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vitreous.support.figures import missing_glyphs_ignored, shown_as, visible
from vitreous.support.files import atomic_file
from vitreous.support.fonts import use_fallback_fonts
from vitreous.support.text import first_line
from vitreous.training.objectives.objective import View

COLUMNS = 4
CELL = 2.1  # width of a view in inches
TALLEST = 2  # times the width; taller views are drawn narrower
GAP, TEXT_LINE = 0.12, 0.15  # inches
TEXT = "#333333"


def picture(views: Sequence[View]) -> Figure:
    """Views in rows of four, each below its caption.

    Args:
        views: at least one; pixels in [0, 1], all of one size; of channels other than three or one, the mean is shown.
    """
    height, width, channels = views[0][0].shape
    columns = min(COLUMNS, len(views))
    rows = math.ceil(len(views) / columns)
    lines = max(len(caption.splitlines()) for _, caption in views)
    cell = CELL * min(height / width, TALLEST) + GAP + TEXT_LINE * lines
    figure = Figure(figsize=(columns * CELL, rows * cell), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (pixels, caption) in zip(grid.flat, views, strict=False):
        shown = visible(pixels.transpose(2, 0, 1))
        axes.imshow(shown.transpose(1, 2, 0) if len(shown) == 3 else shown[0], cmap="gray", vmin=0, vmax=1)
        # A class may be called $a$; that is a name, not a formula.
        axes.set_title(caption, fontsize=8, color=TEXT, pad=4, parse_math=False)
    if caption := shown_as(channels):
        figure.suptitle(caption, fontsize=8, color=TEXT)
    return figure


def draw(make: Callable[[], Figure], path: Path, notify: Callable[[str], None]) -> None:
    """Makes a figure and writes it. If that fails, it costs a warning: the run is worth more than a picture."""
    try:
        save(make(), path)
    except Exception as error:  # whatever matplotlib raises, or the disk is full
        notify(f"warning: {path.name} could not be drawn: {first_line(error) or type(error).__name__}")


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, atomically. Characters that no installed font has become boxes, without a warning."""
    use_fallback_fonts(figure)
    with missing_glyphs_ignored(), atomic_file(path) as file:
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": "vitreous"})
