"""Renews what the documents take from the code: source, tables of shapes, and what their examples print.

Run it from the repository's root after a change, for all documents or for some:
`python -m docs.include_source docs/paper/mlp.md`. In a document,

- `<!-- code: vitreous/model/mlp.py MLP.forward, MLP.__init__ -->` up to `<!-- /code -->` holds the source of those
  methods, without docstrings;
- `<!-- shapes: encoder.blocks.0.mlp total -->` up to `<!-- /shapes -->` holds those rows of `vt.inspect("B/16")`;
- a fenced `python` block is run, and the fenced `text` block after it holds what it prints. The blocks of a document
  share their names, in order, and start at seed 0. A block that reads the reader's own files is shown but not run.
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
DOCUMENTS = (
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("explain", "inspect", "models", "predict", "scale")),
    *sorted(PAGES.glob("*.md")),
)
MODEL = "B/16"
READERS_FILES = ("runs/", "photos/", "photo.jpg", "sys.argv")  # a block that names one of these is not run
CODE = re.compile(r"(<!-- code: (.+?) -->\n).*?(<!-- /code -->)", re.DOTALL)
SHAPES = re.compile(r"(<!-- shapes: (.+?) -->\n).*?(<!-- /shapes -->)", re.DOTALL)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Fence(NamedTuple):
    """A fenced block of a document, and where its lines start and end in the text."""

    language: str
    lines: str
    start: int
    end: int


def code(names: str) -> str:
    """The source of classes, functions and methods, without docstrings.

    Args:
        names: as in a document: a file and a name in it; more after commas, from the same file or another.

    Raises:
        ValueError: the file does not define a name.
    """
    file, parts = "", []
    for entry in names.split(","):
        *new_file, name = entry.split()
        file = new_file[0] if new_file else file
        parts.append(source(file, name))
    return "\n\n".join(parts)  # two empty lines, since ruff formats the code in documents too


def source(file: str, name: str) -> str:
    """The lines of one class, function or method such as `MLP.forward`, dedented, without docstrings."""
    text = (ROOT / file).read_text(encoding="utf-8")
    node: Any = ast.parse(text)
    for part in name.split("."):
        children = {child.name: child for child in node.body if hasattr(child, "name")}
        if part not in children:
            raise ValueError(f"{file} does not define {name}: {part} is not one of {', '.join(children)}")
        node = children[part]
    lines = text.splitlines()
    docstrings = {number for inner in ast.walk(node) for number in docstring_lines(inner, lines)}
    numbers = [number for number in range(node.lineno, node.end_lineno + 1) if number not in docstrings]
    decorators = [decorator.lineno for decorator in node.decorator_list]
    return textwrap.dedent("\n".join(lines[number - 1] for number in [*decorators, *numbers])) + "\n"


def docstring_lines(node: ast.AST, lines: list[str]) -> range:
    """The line numbers of a node's docstring and of the empty lines after it."""
    is_documented = isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
    if not is_documented:
        return range(0)
    first, last = node.body[0].lineno, node.body[0].end_lineno or 0
    while not lines[last].strip():
        last += 1
    return range(first, last + 1)


@cache
def stages() -> dict[str, Stage]:
    """Every stage of the model, at every level, by path; the image and the whole model by name."""
    trace = vt.inspect(MODEL)
    by_path: dict[str, Stage] = {}

    def add(stage: Stage) -> None:
        by_path.setdefault(stage.path or stage.name, stage)
        for part in stage.parts:
            add(part)

    for box in trace.boxes:
        add(box)
    first, last = trace.boxes[0].input_shape, trace.boxes[-1].output_shape
    costs = {"parameters": trace.total_parameters, "multiply_adds": trace.total_multiply_adds}
    return by_path | {"total": Stage("", "whole model", "", "", input_shape=first, output_shape=last, **costs)}


def shapes(paths: str) -> str:
    """A table with one row per stage of the model, for one image.

    Raises:
        ValueError: the model has no such stage; the message lists the stages.
    """
    rows = ["| stage | equation | in | out | parameters | multiply-adds |", "|---|---|---|---|---:|---:|"]
    for path in paths.split():
        if path not in stages():
            names = ", ".join(name for name in stages() if not re.match(r"encoder\.blocks\.[1-9]", name))
            raise ValueError(f"{MODEL} has no stage {path}; its stages are {names}, and the same for the other blocks")
        stage = stages()[path]
        sizes = (" × ".join(map(str, (shape or ())[1:])) for shape in (stage.input_shape, stage.output_shape))
        cells = " | ".join((stage.name, stage.equation, *sizes))
        rows.append(f"| {cells} | {stage.parameters:,} | {stage.multiply_adds:,} |")
    return "\n".join(rows) + "\n"


def examples(document: str) -> list[tuple[Fence, Fence | None]]:
    """The Python blocks of a document that are run, each with the text block after it, if there is one."""
    included = [match.span() for match in CODE.finditer(document)]
    fences = [
        Fence(match[1], match[2], match.start(2), match.end(2))
        for match in FENCE.finditer(document)
        if not any(start <= match.start() < end for start, end in included)
    ]
    return [
        (block, after if after.language == "text" else None)
        for block, after in pairwise([*fences, Fence("", "", 0, 0)])
        if block.language == "python" and not any(name in block.lines for name in READERS_FILES)
    ]


def outputs(blocks: list[str]) -> list[str]:
    """What each block prints, run one after the other with the same names."""
    namespace: dict[str, Any] = {"__name__": "document"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    printed = []
    try:
        for block in blocks:
            out = io.StringIO()
            with mock.patch.dict(os.environ, COLUMNS="120"), contextlib.redirect_stdout(out):
                exec(compile(block, "<example>", "exec"), namespace)
            printed.append("".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines()))
    finally:
        torch.set_num_threads(threads)
    return printed


def with_outputs(document: str) -> str:
    """The document with what each Python block prints in the text block after it.

    Raises:
        ValueError: a block prints something and no text block follows, or prints nothing and one does.
    """
    pairs = examples(document)
    printed = outputs([block.lines for block, _ in pairs])
    for (block, shown), text in reversed(list(zip(pairs, printed, strict=True))):
        if bool(text) != (shown is not None):
            problem = "prints, but no text block follows" if text else "prints nothing, but a text block follows"
            raise ValueError(f"this block {problem}:\n{block.lines}\n{text}")
        if shown is not None:
            document = document[: shown.start] + text + document[shown.end :]
    return document


def with_includes(document: str) -> str:
    """The document with its source and its tables of shapes renewed."""
    document = CODE.sub(lambda match: f"{match[1]}```python\n{code(match[2])}```\n{match[3]}", document)
    return SHAPES.sub(lambda match: f"{match[1]}{shapes(match[2])}{match[3]}", document)


def main(paths: list[str]) -> None:
    """Renews the documents at these paths, or all."""
    for path in map(Path, paths) if paths else DOCUMENTS:
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
