"""Line charts as inline SVG, whose colors are the page's: they follow it into the dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitreous.support.text import html_text

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 12, 34  # margins around the field
TICKS = 5  # about so many steps on an axis
STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        name: what it shows.
        values: one for each x; None where there is none.
        style: the CSS class, which gives the color.
    """

    name: str
    values: Sequence[float | None]
    style: str


def line_chart(
    title: str,
    x: Sequence[float],
    lines: Sequence[Line],
    shown: Callable[[float], str],
    ceiling: float | None = None,
    marked: tuple[float, float] | None = None,
) -> str:
    """Draws lines over x.

    Args:
        title: what a screen reader says first.
        x: where the values are.
        lines: drawn in their order.
        shown: a value as text.
        ceiling: the end of the axis upwards; else a little above the largest value.
        marked: a point (x, y) to ring.
    """
    finite = [v for line in lines for v in line.values if v is not None and math.isfinite(v)] or [0.0]
    ticks = axis(min(finite), max(finite) if ceiling is None else ceiling)
    x_ticks = [t for t in axis(x[0], x[-1]) if t == round(t) and x[0] <= t <= x[-1]]
    y_of = scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    x_of = scale(x[0], x[-1], LEFT, WIDTH - RIGHT)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{spoken(title, lines, shown)}">'
    ]
    for tick in ticks:
        y = f"{y_of(tick):.1f}"
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y}" dy=".33em" text-anchor="end">{shown(tick)}</text>')
    for tick in x_ticks:
        place = f'x="{x_of(tick):.1f}" y="{HEIGHT - BOTTOM + 17}"'
        parts.append(f'<text class="tick" {place} text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">epoch</text>')
    if marked is not None:
        parts.append(f'<path class="kept-line" d="M{x_of(marked[0]):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
    for line in lines:
        for points in runs(x, line.values):
            path = "L".join(f"{x_of(a):.1f} {y_of(b):.1f}" for a, b in points)
            parts.append(f'<path class="line {line.style}" d="M{path}"/>')
    if marked is not None:
        parts.append(f'<circle class="kept" cx="{x_of(marked[0]):.1f}" cy="{y_of(marked[1]):.1f}" r="4.5"/>')
    return "".join([*parts, "</svg>"])


def spoken(title: str, lines: Sequence[Line], shown: Callable[[float], str]) -> str:
    """The chart in words, for an attribute."""
    told = []
    for line in lines:
        known = [value for value in line.values if value is not None]
        if known:
            told.append(f"{line.name} from {shown(known[0])} to {shown(known[-1])}")
    return html_text(f"{title}: {', '.join(told)}")


def runs(x: Sequence[float], values: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    """The points of a line, in pieces where values are missing; a piece of one point is doubled, to be seen."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for place, value in zip(x, values, strict=True):
        if value is None or not math.isfinite(value):
            pieces.append([])
        else:
            pieces[-1].append((place, value))
    return [piece * 2 if len(piece) == 1 else piece for piece in pieces if piece]


def axis(low: float, high: float) -> list[float]:
    """Round numbers at even steps that hold the range from `low` to `high`."""
    span = high - low or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / TICKS))
    step = power * next(step for step in STEPS if step * power * TICKS >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(float(i * step), 10) for i in range(first, max(last, first + 1) + 1)]


def scale(low: float, high: float, start: int, end: int) -> Callable[[float], float]:
    """The linear map that takes low to start and high to end."""
    factor = (end - start) / (high - low or 1.0)
    return lambda value: start + (value - low) * factor
