"""Renews what docs/paper takes from the code: lines of source, tables of shapes, and what the things to try print.

From the repository's root, after a change: `python -m docs.include_source`, or with the names of some pages behind it.
In a page,

- `<!-- code: vitreous/model/mlp.py MLP.forward, MLP.__init__ -->` up to `<!-- /code -->` holds those lines of the file,
  without docstrings;
- `<!-- shapes: encoder.blocks.0.mlp total -->` up to `<!-- /shapes -->` holds those rows of `vt.inspect("B/16")`;
- a fenced `python` block is run, and the fenced `text` block that follows it holds what it prints. The blocks of a page
  share their names, in order, and begin at seed 0. A block that reads files of the reader's own is only shown.
"""

import ast
import contextlib
import io
import os
import re
import sys
import textwrap
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch

import vitreous as vt
from vitreous.inspection.stages import Stage
from vitreous.support.files import write_text

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "paper"
MODEL = "B/16"
OF_THE_READER = ("runs/", "photos/", "photo.jpg")  # what a block names that is only shown
CODE = re.compile(r"(<!-- code: (.+?) -->\n).*?(<!-- /code -->)", re.DOTALL)
SHAPES = re.compile(r"(<!-- shapes: (.+?) -->\n).*?(<!-- /shapes -->)", re.DOTALL)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Fence(NamedTuple):
    """A fenced block of a page, and where in the page its lines begin and end."""

    language: str
    lines: str
    start: int
    end: int


def code(names: str) -> str:
    """The source of some classes, functions and methods, without docstrings.

    Args:
        names: as in a page: a file and what to take from it; more after commas, from the same file or another.

    Raises:
        ValueError: the file has nothing of that name.
    """
    file, parts = "", []
    for words in names.split(","):
        *other, name = words.split()
        file = other[0] if other else file
        parts.append(source(file, name))
    return "\n\n".join(parts)  # as ruff wants it, which formats the code in pages too


def source(file: str, name: str) -> str:
    """The lines of one class, function or method such as `MLP.forward`, moved to the left, without docstrings."""
    text = (ROOT / file).read_text(encoding="utf-8")
    node: Any = ast.parse(text)
    for part in name.split("."):
        found = [child for child in node.body if getattr(child, "name", None) == part]
        if not found:
            there = ", ".join(child.name for child in node.body if hasattr(child, "name"))
            raise ValueError(f"{file} has no {name}: there is no {part} among {there}")
        node = found[0]
    lines = text.splitlines()
    left_out = {number for inner in ast.walk(node) for number in docstring_lines(inner, lines)}
    numbers = [number for number in range(node.lineno, node.end_lineno + 1) if number not in left_out]
    decorators = [decorator.lineno for decorator in node.decorator_list]
    return textwrap.dedent("\n".join(lines[number - 1] for number in [*decorators, *numbers])) + "\n"


def docstring_lines(node: ast.AST, lines: list[str]) -> range:
    """The numbers of a docstring's lines, and of the empty ones behind it; none for what has no docstring."""
    is_documented = isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
    if not is_documented:
        return range(0)
    first, last = node.body[0].lineno, node.body[0].end_lineno or 0
    while not lines[last].strip():
        last += 1
    return range(first, last + 1)


@cache
def stages() -> dict[str, Stage]:
    """Every stage of the model, at every level, by its path; the image and the whole by their names."""
    trace = vt.inspect(MODEL)
    found: dict[str, Stage] = {}

    def add(stage: Stage) -> None:
        found.setdefault(stage.path or stage.name, stage)
        for part in stage.parts:
            add(part)

    for box in trace.boxes:
        add(box)
    first, last = trace.boxes[0].input_shape, trace.boxes[-1].output_shape
    costs = {"parameters": trace.total_parameters, "multiply_adds": trace.total_multiply_adds}
    return found | {"total": Stage("", "whole model", "", "", input_shape=first, output_shape=last, **costs)}


def shapes(paths: str) -> str:
    """A table with a row for each of these stages of the model, at one image.

    Raises:
        ValueError: there is no such stage; the message has those that there are.
    """
    rows = ["| stage | equation | in | out | parameters | multiply-adds |", "|---|---|---|---|---:|---:|"]
    for path in paths.split():
        if path not in stages():
            there = ", ".join(name for name in stages() if not re.match(r"encoder\.blocks\.[1-9]", name))
            raise ValueError(f"{MODEL} has no stage {path}; there are {there}, and so on for the other blocks")
        stage = stages()[path]
        sizes = (" × ".join(map(str, (shape or ())[1:])) for shape in (stage.input_shape, stage.output_shape))
        words = " | ".join((stage.name, stage.equation, *sizes))
        rows.append(f"| {words} | {stage.parameters:,} | {stage.multiply_adds:,} |")
    return "\n".join(rows) + "\n"


def things_to_try(page: str) -> list[tuple[Fence, Fence | None]]:
    """The Python blocks of a page that are run, each with the text block that follows it, if one does."""
    included = [match.span() for match in CODE.finditer(page)]
    fences = [
        Fence(match[1], match[2], match.start(2), match.end(2))
        for match in FENCE.finditer(page)
        if not any(start <= match.start() < end for start, end in included)
    ]
    return [
        (block, after if after.language == "text" else None)
        for block, after in pairwise([*fences, Fence("", "", 0, 0)])
        if block.language == "python" and not any(word in block.lines for word in OF_THE_READER)
    ]


def outputs(blocks: list[str]) -> list[str]:
    """What the blocks of a page print, run one after the other."""
    namespace: dict[str, Any] = {"__name__": "page"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    printed = []
    try:
        for block in blocks:
            out = io.StringIO()
            with mock.patch.dict(os.environ, COLUMNS="120"), contextlib.redirect_stdout(out):
                exec(compile(block, "<a page's block>", "exec"), namespace)
            printed.append("".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines()))
    finally:
        torch.set_num_threads(threads)
    return printed


def with_outputs(page: str) -> str:
    """The page with every text block as its Python block prints it.

    Raises:
        ValueError: a block prints something and no text block follows it, or the other way round.
    """
    pairs = things_to_try(page)
    printed = outputs([block.lines for block, _ in pairs])
    for (block, shown), text in reversed(list(zip(pairs, printed, strict=True))):
        if bool(text) != (shown is not None):
            what = "prints, and no text block follows" if text else "prints nothing, and a text block follows"
            raise ValueError(f"this block {what}:\n{block.lines}\n{text}")
        if shown is not None:
            page = page[: shown.start] + text + page[shown.end :]
    return page


def with_includes(page: str) -> str:
    """The page with its lines of source and its tables renewed."""
    page = CODE.sub(lambda match: f"{match[1]}```python\n{code(match[2])}```\n{match[3]}", page)
    return SHAPES.sub(lambda match: f"{match[1]}{shapes(match[2])}{match[3]}", page)


def main(names: list[str]) -> None:
    """Renews these pages, or all."""
    for path in [PAGES / name for name in names] or sorted(PAGES.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        try:
            after = with_outputs(with_includes(before))
        except ValueError as error:
            sys.exit(f"{path.name}: {error}")
        if after != before:
            write_text(path, after)
            print(f"renewed {path.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
