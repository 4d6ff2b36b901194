"""The geometry of the report's line charts; the template `report/chart.html` draws them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 12, 34  # margins
TICKS = 5  # about this many steps on an axis
STEPS = (1, 2, 2.5, 5, 10)


class Curve(NamedTuple):
    """One line of a chart: a value per x, or None; the CSS class sets the color."""

    name: str
    values: Sequence[float | None]
    style: str


@dataclass(frozen=True)
class Chart:
    """A chart, in the coordinates of the drawing."""

    title: str
    label: str  # the chart in words, for screen readers
    y_ticks: list[tuple[float, str]]  # (y, text)
    x_ticks: list[tuple[float, str]]  # (x, text)
    lines: list[tuple[str, str]]  # (CSS class, SVG path); one line is several paths if values are missing
    kept: tuple[float, float] | None  # the marked point (x, y), if any

    width, height = WIDTH, HEIGHT
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM


def line_chart(
    title: str,
    x: Sequence[float],
    lines: Sequence[Curve],
    text: Callable[[float], str],
    ceiling: float | None = None,
    kept: tuple[float, float] | None = None,
) -> Chart:
    """Lays out lines over an ascending x, drawn in the given order.

    `text` formats a value. `ceiling` is the top of the y axis, by default a round number above the largest value.
    `kept` is a point (x, y) to mark.
    """
    finite = [v for line in lines for v in line.values if v is not None and math.isfinite(v)] or [0.0]
    ticks = axis(min(finite), max(finite) if ceiling is None else ceiling)
    y_of = scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    x_of = scale(x[0], x[-1], LEFT, WIDTH - RIGHT)
    return Chart(
        title,
        spoken(title, lines, text),
        [(y_of(tick), text(tick)) for tick in ticks],
        [(x_of(tick), f"{tick:g}") for tick in axis(x[0], x[-1]) if tick == round(tick) and x[0] <= tick <= x[-1]],
        [
            (line.style, "M" + "L".join(f"{x_of(a):.1f} {y_of(b):.1f}" for a, b in points))
            for line in lines
            for points in segments(x, line.values)
        ],
        None if kept is None else (x_of(kept[0]), y_of(kept[1])),
    )


def spoken(title: str, lines: Sequence[Curve], text: Callable[[float], str]) -> str:
    """The chart for screen readers: each line's first and last value."""
    spans = []
    for line in lines:
        values = [value for value in line.values if value is not None]
        if values:
            spans.append(f"{line.name} from {text(values[0])} to {text(values[-1])}")
    return f"{title}: {', '.join(spans)}"


def segments(x: Sequence[float], values: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    """The points of a line, split where values are missing; a single point is doubled so that it shows."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for place, value in zip(x, values, strict=True):
        if value is None or not math.isfinite(value):
            pieces.append([])
        else:
            pieces[-1].append((place, value))
    return [piece * 2 if len(piece) == 1 else piece for piece in pieces if piece]


def axis(low: float, high: float) -> list[float]:
    """Evenly spaced round numbers that cover the range from `low` to `high`."""
    span = high - low or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / TICKS))
    step = power * next(step for step in STEPS if step * power * TICKS >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(float(i * step), 10) for i in range(first, max(last, first + 1) + 1)]


def scale(low: float, high: float, start: int, end: int) -> Callable[[float], float]:
    """The linear map from [low, high] to [start, end]."""
    factor = (end - start) / (high - low or 1.0)
    return lambda value: start + (value - low) * factor
