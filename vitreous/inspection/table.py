"""A trace as a table: from the image to the class, line by line."""

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

from vitreous.inspection.recording import Shape
from vitreous.inspection.stages import Stage
from vitreous.support.text import html_text, printable

GAP = 2  # spaces between columns
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
ROUNDING = 1e-6  # of the largest value: a smaller mean is rounding, and differs between machines


@runtime_checkable
class Traced(Protocol):
    """What the table reads of a trace."""

    @property
    def model(self) -> str: ...
    @property
    def boxes(self) -> tuple[Stage, ...]: ...
    @property
    def stages(self) -> tuple[Stage, ...]: ...
    @property
    def images(self) -> int | None: ...
    @property
    def level(self) -> int: ...
    @property
    def total_parameters(self) -> int: ...
    @property
    def total_multiply_adds(self) -> int: ...
    @property
    def notes(self) -> list[str]: ...


@dataclass(frozen=True)
class Line:
    """One line of the table: a stage, the heading of a stage's parts, or several equal stages."""

    name: str
    depth: int
    stages: tuple[Stage, ...]  # none for a heading

    @property
    def parameters(self) -> int:
        """Of all its stages."""
        return sum(stage.parameters for stage in self.stages)

    @property
    def multiply_adds(self) -> int:
        """Of all its stages."""
        return sum(stage.multiply_adds for stage in self.stages)


class Column(NamedTuple):
    """One column: its heading, its cells, and whether they are right-aligned."""

    title: str
    cells: list[str]
    right: bool

    @property
    def width(self) -> int:
        """Characters of the widest cell."""
        return max(len(text) for text in (self.title, *self.cells))


@dataclass(frozen=True)
class Table:
    """A trace laid out: a grid of columns, or several below each other if the width is small; and footnotes."""

    title: str
    lines: list[Line]
    grids: list[list[Column]]
    notes: list[str]


def lay_out(trace: Traced, width: int | None = 0, fold: bool = True) -> Table:
    """Chooses lines and columns.

    Args:
        trace: shown at its level.
        width: in characters; None for no limit, 0 for the terminal's.
        fold: whether a run of equal blocks becomes one line.
    """
    if width == 0:
        width = shutil.get_terminal_size((120, 24)).columns
    values = any(stage.statistics for stage in trace.stages)
    lines = list(lines_of(trace.boxes, trace.level, 0, fold, separate=values))
    total = Stage("", "total", "", "", parameters=trace.total_parameters, multiply_adds=trace.total_multiply_adds)
    lines.append(Line("total", 0, (total,)))
    names = Column("stage", ["  " * line.depth + printable(line.name) for line in lines], right=False)
    shapes = [
        column_of("in", lines, lambda line: shape_text(line.stages[0].input_shape, trace.images)),
        column_of("out", lines, lambda line: shape_text(line.stages[0].output_shape, trace.images)),
    ]
    equation = column_of("equation", lines, lambda line: line.stages[0].equation)
    groups = [shapes, [equation], cost_columns(lines, trace), value_columns(lines) if values else []]
    words = [column_of("path", lines, path_text), column_of("what it is", lines, lambda line: line.stages[0].what)]
    grids, left_out = pack(names, groups, words, width)
    notes = trace.notes
    if left_out:
        missing = " and ".join(column.title for column in left_out)
        notes.append(f"Not shown, for lack of width: {missing}. A wider terminal shows more, --json and to_dict() all.")
    title = printable(trace.model)
    if trace.boxes and trace.boxes[0].output_shape:
        title += f" on {shape_text(trace.boxes[0].output_shape)}"
    return Table(title, lines, grids, notes)


def pack(
    names: Column, groups: Iterable[Iterable[Column]], words: Sequence[Column], width: int | None
) -> tuple[list[list[Column]], list[Column]]:
    """Distributes columns over as few grids as possible, each beginning with the names.

    Args:
        names: of the stages.
        groups: columns that stay together, in order; only text columns can be left out.
        words: long columns, shown if there is room.
        width: in characters; None for no limit.

    Returns:
        The grids, and the columns that fit nowhere.
    """

    def fits(columns: Sequence[Column]) -> bool:
        total = sum(column.width for column in columns) + GAP * (len(columns) - 1)
        return width is None or total <= width

    shown = [columns for group in groups if (columns := [column for column in group if any(column.cells)])]
    grids, left_out = [[names, *(shown[0] if shown else ())]], []
    for columns in shown[1:]:
        if fits([*grids[-1], *columns]):
            grids[-1] += columns
        elif fits([names, *columns]) or any(column.right for column in columns):
            grids.append([names, *columns])
        else:
            left_out += columns
    for column in words:
        if any(column.cells):
            next((grid for grid in grids if fits([*grid, column])), left_out).append(column)
    return grids, left_out


def lines_of(stages: Sequence[Stage], level: int, depth: int, fold: bool, separate: bool) -> Iterator[Line]:
    """The lines of consecutive stages and, down to the level, their parts.

    Args:
        stages: of one parent.
        level: number of levels to show.
        depth: indentation.
        fold: whether only the first of a run of equal stages shows its parts.
        separate: whether folded stages keep a line each, since their values differ.
    """
    for _, run in itertools.groupby(stages, key=signature):
        same = list(run)
        opened = level > 1 and same[0].parts
        numbered = all(stage.name[-1:].isdigit() for stage in same)  # blocks 0, 1, 2, not just equal in form
        shown = same[:1] if fold and numbered else same
        for stage in shown:
            if opened:
                yield Line(stage.name, depth, ())
                yield from lines_of(stage.parts, level - 1, depth + 1, fold, separate)
            else:
                yield Line(stage.name, depth, (stage,))
        rest = same[len(shown) :]
        if len(rest) == 1 or separate:
            for stage in rest:
                yield Line(f"{stage.name}, as {numbers(same[:1])}", depth, (stage,))
        elif rest:
            yield Line(f"{plural(rest[0].name)} {numbers(rest)}, as {numbers(same[:1])}", depth, tuple(rest))


def signature(stage: Stage) -> tuple[object, ...]:
    """What equal stages have in common: everything but numbers, paths and values."""
    return (
        *(stage.name.rstrip("0123456789"), stage.kind, stage.input_shape, stage.output_shape, stage.note),
        *(stage.parameters, stage.multiply_adds, tuple(map(signature, stage.parts))),
    )


def numbers(stages: Sequence[Stage]) -> str:
    """The last words of the stages' names: 1–10."""
    words = [stage.name.rpartition(" ")[2] for stage in stages]
    return words[0] if len(words) == 1 else f"{words[0]}–{words[-1]}"


def plural(name: str) -> str:
    """Plural stage name: blocks."""
    return f"{name.rpartition(' ')[0] or name}s"


def column_of(title: str, lines: Sequence[Line], cell: Callable[[Line], str], right: bool = False) -> Column:
    """A column with a cell for each line; empty for headings."""
    return Column(title, [printable(cell(line)) if line.stages else "" for line in lines], right)


def cost_columns(lines: Sequence[Line], trace: Traced) -> list[Column]:
    """Parameters and multiply-adds, with the share of each."""
    parameters, work = trace.total_parameters, trace.total_multiply_adds
    return [
        column_of("parameters", lines, lambda line: f"{line.parameters:,}" if line.parameters else "", True),
        column_of("share", lines, lambda line: share(line.parameters, parameters), True),
        column_of("mult-adds", lines, lambda line: short(line.multiply_adds), True),
        column_of("share", lines, lambda line: share(line.multiply_adds, work), True),
    ]


def value_columns(lines: Sequence[Line]) -> list[Column]:
    """The statistics of each stage's output; a mean that is nothing but rounding, as after a norm, is 0."""

    def cell(line: Line, name: str) -> str:
        statistics = line.stages[0].statistics
        value = getattr(statistics, name, None)
        if value is None or statistics is None:
            return ""
        is_rounding = name == "mean" and abs(value) < ROUNDING * max(abs(statistics.min), abs(statistics.max))
        return "0" if is_rounding else f"{value:.3g}"

    def non_finite(line: Line) -> str:
        part = getattr(line.stages[0].statistics, "non_finite", 0)
        return f"{part:.1%}" if part else ""

    names = ("mean", "std", "min", "max", "token_norm")
    columns = [column_of(name.replace("_", " "), lines, partial(cell, name=name), True) for name in names]
    return [*columns, column_of("NaN, ∞", lines, non_finite, True)]


def shape_text(shape: Shape | None, images: int | None = None) -> str:
    """A shape, without the batch if that is known."""
    if shape is None:
        return ""
    if images is not None and shape and shape[0] == images:
        shape = shape[1:]
    return "×".join(map(str, shape)) or "number"


def path_text(line: Line) -> str:
    """The paths of a line's stages."""
    paths = [stage.path for stage in line.stages]
    return paths[0] if len(paths) == 1 else f"{paths[0]} … {paths[-1]}"


def short(count: int) -> str:
    """A count in four digits and a unit: 115.6 M."""
    for size, unit in UNITS:
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return str(count) if count else ""


def share(part: int, whole: int) -> str:
    """A share in percent; empty for zero."""
    if not part or not whole:
        return ""
    return f"{part / whole:.1%}" if part / whole >= 0.0005 else "<0.1%"


def styled_lines(table: Table) -> Iterator[tuple[str, str]]:
    """The lines of the table as aligned text, each with its rich style."""
    yield table.title, "bold"
    bold = [True, *(not line.stages or line.name == "total" for line in table.lines)]
    for columns in table.grids:
        yield "", ""
        rows = [[c.title for c in columns], *zip(*(c.cells for c in columns), strict=True)]
        for row, strong in zip(rows, bold, strict=True):
            cells = zip(row, columns, strict=True)
            line = (" " * GAP).join(f"{cell:{'>' if c.right else '<'}{c.width}}" for cell, c in cells)
            yield line.rstrip(), "bold" if strong else ""
    yield "", ""
    for note in table.notes:
        yield printable(note), "dim"


def plain_table(table: Table) -> str:
    """The table as aligned text."""
    return "\n".join(line for line, _ in styled_lines(table))


def html_table(table: Table) -> str:
    """The table for a notebook, with all text escaped and the indentation of names kept."""
    grids = []
    for columns in table.grids:
        heads = "".join(f"<th>{html_text(column.title)}</th>" for column in columns)
        starts = [f'<td style="text-align: {"right" if c.right else "left"}; white-space: pre">' for c in columns]
        rows = [
            "".join(f"{start}{html_text(cell)}</td>" for start, cell in zip(starts, cells, strict=True))
            for cells in zip(*(column.cells for column in columns), strict=True)
        ]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        grids.append(f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>")
    notes = "".join(f"<p>{html_text(note)}</p>" for note in table.notes)
    return f"<p><b>{html_text(table.title)}</b></p>{''.join(grids)}{notes}"
