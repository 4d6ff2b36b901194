"""The style of all figures: layout, fonts, colors, bitmaps, and files.

Positions are in inches from a figure's upper left corner. An inch is 100 pixels on screen and 200 in a PNG.
"""

import math
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from numpy import ndarray

from vitreous.explain.inline import CRISP, HEAT, overlay
from vitreous.support.figures import missing_glyphs_ignored
from vitreous.support.fonts import fallback_fonts, use_fallback_fonts
from vitreous.support.text import printable

FONT, FONT_SIZE = "DejaVu Sans", 7  # comes with matplotlib, so figures look the same everywhere
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": FONT,
    "font.size": FONT_SIZE,
    "text.usetex": False,
    "text.color": "#5a6470",
    "axes.labelcolor": "#5a6470",
    "axes.labelsize": 7,
    "axes.edgecolor": "#e2e6ea",
    "axes.unicode_minus": True,
    "xtick.color": "#5a6470",
    "ytick.color": "#5a6470",
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "figure.facecolor": "#ffffff",
    "image.composite_image": False,  # a map over a photo stays a small separate bitmap
    "svg.fonttype": "none",  # text stays text: small files, searchable and accessible
    "svg.hashsalt": "vitreous",  # the same figure gives the same bytes
}
INK, SOFT, LINE, RAISED = "#16191d", "#5a6470", "#e2e6ea", "#f1f3f5"
PALEST, GRAYEST = 0.35, 0.6  # a grayed photo is PALEST white + GRAYEST × its luminance
PNG_DPI, SVG_DPI = 200, 110  # SVG_DPI is for embedded photos; everything else is vector graphics
MARGIN, GAP, TEXT_LINE = 0.12, 0.06, 0.15  # inches
NARROWEST = 0.02  # inches of the narrowest letter
FLAT = 1e-3  # a map with a smaller relative range counts as constant
KINDS: tuple[Literal["png", "svg"], ...] = ("png", "svg")

Photo = UInt8[ndarray, "height width colors"]


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Writes a figure as PNG and as SVG, next to each other at `stem` plus a suffix; returns both files."""
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in KINDS]
    for file, kind in zip(files, KINDS, strict=True):
        file.write_bytes(figure_bytes(figure, kind))
    return files


def figure_bytes(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The bytes of a figure's file, reproducible to the bit. A PNG has two pixels per screen pixel.

    Characters missing from all installed fonts become boxes in a PNG, without a warning.
    """
    file = BytesIO()
    with rc_context(STYLE), missing_glyphs_ignored():
        use_fallback_fonts(figure)
        if kind == "svg":
            figure.set_dpi(SVG_DPI)
            FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": "vitreous"})
        else:
            figure.set_dpi(PNG_DPI)
            FigureCanvasAgg(figure).print_png(file, metadata={"Software": "vitreous"})
    return file.getvalue()


# ---- colors


def heat(scores: Float[ndarray, "rows columns"]) -> UInt8[ndarray, "rows columns 4"]:
    """A map as one color, transparent at the smallest value and most opaque at the largest."""
    return overlay(strength(scores))


def tints(scores: Float[ndarray, "rows columns"]) -> UInt8[ndarray, "rows columns 3"]:
    """A map as shades of one color, nearly white at the smallest value."""
    return mixed(strength(scores)[..., None], RAISED, HEAT)


def strength(scores: Float[ndarray, "rows columns"]) -> Float[ndarray, "rows columns"]:
    """A map scaled to [0, 1]; all 0 if it is constant up to rounding."""
    low, high = float(scores.min()), float(scores.max())
    if high - low <= FLAT * max(abs(low), abs(high)):
        return np.zeros_like(scores)
    return (scores - low) / (high - low)


def diverging(values: Float[ndarray, "*shape"]) -> UInt8[ndarray, "*shape 3"]:
    """Values from -1 to 1 as dark gray over white at 0 to the accent color."""
    size = np.abs(np.clip(values, -1, 1))[..., None]
    return np.where(values[..., None] < 0, mixed(size, "#ffffff", "#3a4350"), mixed(size, "#ffffff", HEAT))


def mixed(
    share: Float[ndarray, "*shape 1"], start: str | tuple[int, int, int], end: str | tuple[int, int, int]
) -> UInt8[ndarray, "*shape 3"]:
    """Colors between two, each given as #rrggbb or as bytes."""
    low, high = (np.frombuffer(bytes.fromhex(c[1:]), np.uint8) if isinstance(c, str) else c for c in (start, end))
    return (np.asarray(low) * (1 - share) + np.asarray(high) * share).round().astype(np.uint8)


def grayed(photo: Photo) -> UInt8[ndarray, "height width 3"]:
    """A photo in pale gray, as a background for color."""
    luminance = photo @ np.array([0.299, 0.587, 0.114]) if photo.shape[2] == 3 else photo[..., 0]
    pale = (PALEST * 255 + GRAYEST * luminance).clip(0, 255).round().astype(np.uint8)
    return pale[..., None].repeat(3, axis=2)


# ---- drawing


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Frameless axes, in inches from the upper left corner."""
    across, down = figure.get_size_inches()
    axes = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.set_axis_off()
    return axes


def write(
    figure: Figure, left: float, top: float, text: str, *, width: float = math.inf, ink: str = SOFT, align: str = "left"
) -> None:
    """Writes one line of text, vertically centered at `top`, cut to `width`; $a$ is text, not math."""
    across, down = figure.get_size_inches()
    where = {"ha": align, "va": "center_baseline"}
    figure.text(left / across, 1 - top / down, fitting(text, width), color=ink, parse_math=False, **where)


def fitting(text: str, width: float) -> str:
    """The text cut to a width in inches, but to no fewer than four characters."""
    line = elided(text, len(text) if width == math.inf else int(width / NARROWEST))
    while len(line) > 4 and inches(line) > width:
        line = elided(text, len(line) - 1)
    return line


def inches(line: str) -> float:
    """The width of a line of text in inches."""
    letters = FontProperties(family=[FONT, *fallback_fonts([line])], size=FONT_SIZE)
    with missing_glyphs_ignored():
        return TextToPath().get_text_width_height_descent(line, letters, False)[0] / 72 if line else 0.0


def elided(text: str, most: int) -> str:
    """The text on one line of at most `most` characters; of a long one the beginning and the end."""
    text = printable(text)
    if len(text) <= most:
        return text
    end = most // 2
    return f"{text[: most - end - 1]}…{text[len(text) - end :]}"


def show_photo(axes: Axes, photo: Photo) -> None:
    """Fills axes with a photo; pixels of a tiny one become squares."""
    crisp = max(photo.shape[:2]) <= CRISP
    shown = photo if photo.shape[2] == 3 else photo.repeat(3, axis=2)
    axes.imshow(shown, interpolation="none" if crisp else "antialiased", aspect="auto")


def show_map(axes: Axes, photo: Photo, scores: Float[ndarray, "rows columns"]) -> None:
    """Fills axes with a map of the patches over the grayed photo."""
    show_photo(axes, grayed(photo))
    height, width = photo.shape[:2]
    axes.imshow(heat(scores), extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="none", aspect="auto")


def mosaic(
    cells: UInt8[ndarray, "down across rows columns 3"], finest: int, gap: int = 3
) -> UInt8[ndarray, "height width 3"]:
    """Many small pictures in one bitmap, with white gaps between them.

    Args:
        cells: the pictures.
        finest: least pixels of a picture's longer side, reached by enlarging its pixels to squares.
        gap: pixels between two pictures.
    """
    down, across, rows, columns, _ = cells.shape
    scale = math.ceil(finest / max(rows, columns))
    cells = cells.repeat(scale, axis=2).repeat(scale, axis=3)
    padded = np.pad(cells, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    rows, columns = padded.shape[2:4]
    joined = padded.transpose(0, 2, 1, 3, 4).reshape(down * rows, across * columns, 3)
    return joined[: down * rows - gap, : across * columns - gap]
