"""The pictures of docs/results.md: validation accuracy during training."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image, PngImagePlugin

from experiments.results import Result
from experiments.table import Experiment
from vitreous.support.files import write_bytes

SIZE, DPI = (7.2, 3.6), 100  # inches
COLORS = (
    "#1f5fa8", "#c97a12", "#2e8b57", "#a83279", "#6a51a3", "#b22222", "#008b8b", "#7f6000", "#555555", "#e377c2"
)  # fmt: skip
PALETTE = 64  # colors of the file
SOURCE = "Source"  # the picture's metadata field with the hash of its data
LABELS = {"epoch": "epoch", "seconds": "seconds", "cpu_seconds": "seconds of the processor"}
Curves = Mapping[str, Sequence[Result]]  # of each run, by its name


def points(result: Result, experiment: Experiment) -> list[tuple[float, float]]:
    """The points of a result's line, if any."""
    levels = experiment.levels
    if levels is None:
        pairs = ((getattr(point, experiment.axis), point.val_accuracy) for point in result.curve)
        return [(x, y) for x, y in pairs if x is not None and y is not None]
    if levels.axis is None or result.levels is None:
        return []
    return [(float(key), value) for key, value in result.levels.items()]


def axis_of(experiment: Experiment) -> str:
    """What an experiment's lines are drawn over."""
    return LABELS[experiment.axis] if experiment.levels is None else experiment.levels.axis or ""


def measured(experiment: Experiment) -> str:
    """What an experiment's lines show."""
    return "accuracy on validation" if experiment.levels is None else experiment.levels.measured


def digest(curves: Curves, experiment: Experiment) -> str:
    """A hash of the data of a picture."""
    drawn = [(name, r.seed, points(r, experiment)) for name, results in curves.items() for r in results]
    return hashlib.sha256(json.dumps([axis_of(experiment), drawn]).encode()).hexdigest()[:16]


def draw(curves: Curves, experiment: Experiment, path: Path) -> None:
    """Writes the picture: a color for each run, a line for each of its seeds; unless it is up to date."""
    source = digest(curves, experiment)
    if drawn_from(path) == source:
        return
    figure = Figure(SIZE, DPI, layout="constrained")
    axes = figure.add_subplot()
    for number, (name, results) in enumerate(curves.items()):
        for first, result in enumerate(results):
            x, y = zip(*points(result, experiment), strict=True)
            label = None if first else name
            axes.plot(x, y, color=COLORS[number % len(COLORS)], linewidth=1.2, marker=".", markersize=3, label=label)
    axes.set_xlabel(axis_of(experiment))
    axes.set_ylabel(measured(experiment))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    save(figure, path, source)


def save(figure: Figure, path: Path, source: str) -> None:
    """Writes a figure as a small PNG with the hash of its data."""
    canvas, content = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(PALETTE)
    metadata = PngImagePlugin.PngInfo()
    metadata.add_text(SOURCE, source)
    picture.save(content, "png", optimize=True, pnginfo=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content.getvalue())


def drawn_from(path: Path) -> str | None:
    """The hash in a picture; None if there is no picture."""
    if not path.is_file():
        return None
    with Image.open(path) as picture:
        return picture.info.get(SOURCE)
