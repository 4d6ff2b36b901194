"""Makes examples/guided_reading.ipynb out of the pages of docs/paper: what a page says first, and what it has to try.

From the repository's root, after a change of a page: `python -m docs.make_notebook`. A page gives the notebook its
title with the sentences and the picture below it, its equations, and every section that has a block of Python that is
run, with the words around that block. What the blocks print is left out: running the notebook shows it. Source, shapes
and common mistakes stay on the page, to which the notebook links.
"""

import ast
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.include_source import FENCE, PAGES, ROOT, examples
from vitreous.support.files import write_text

NOTEBOOK = ROOT / "examples" / "guided_reading.ipynb"
LISTED = re.compile(r"^\| *\d+ \| \[[^]]+\]\((\w+)\.md\)", re.MULTILINE)  # a page in the table of README.md
LINK = re.compile(r"(!?\[[^]]*\])\((?!https?:|#)([^)]+)\)")
SECTION = re.compile(r"^(?=## )", re.MULTILINE)
EQUATIONS = ("## Equation", "## Equations")
WELCOME = """\
# A guided reading, to run

"An Image is Worth 16x16 Words" ([arXiv 2010.11929](https://arxiv.org/abs/2010.11929)), box by box: the equations, and
the things to try from the [pages](README.md) of docs/paper, in their order. Run a cell, change something, guess before
you look. Nothing is downloaded, and a minute on one core is enough for all of it.
"""
FAREWELL = """\
# And now

Answer [twenty questions](questions.md), and [build it yourself](build.md). With a model and a photo of your own,
`vitreous inspect MODEL --image photo.jpg --html walk.html` shows all of this on that photo.
"""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def way() -> list[str]:
    """The names of the pages, in the order in which README.md lists them."""
    return LISTED.findall((PAGES / "README.md").read_text(encoding="utf-8"))


def from_here(words: str) -> str:
    """Words of a page with its links as they lead from the notebook's folder."""

    def turned(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs/paper", match[2]))
        return f"{match[1]}({posixpath.relpath(target, 'examples')})"

    return LINK.sub(turned, words)


def with_seed(code: str) -> str:
    """The first block of a page, with the seed that its numbers were made with behind its first imports.

    Raises:
        ValueError: the block does not import torch.
    """
    end, names = 0, set()
    for node in ast.parse(code).body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            break
        end = node.end_lineno or 0
        names |= {alias.name for alias in node.names}
    if "torch" not in names:
        raise ValueError(f"the first block of a page sets the seed, and this one does not import torch:\n{code}")
    lines = code.splitlines(keepends=True)
    rest = "".join(lines[end:]).lstrip("\n")
    return "".join(lines[:end]) + f"\ntorch.manual_seed(0)\n{rest}"


def cells(name: str) -> Iterator[tuple[str, str]]:
    """A page as kinds and contents of cells."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    run = {block.lines for block, _ in examples(page)}
    first, *sections = SECTION.split(page)
    link = f"[The page]({name}.md) has the rest."
    equations = [section for section in sections if section.splitlines()[0] in EQUATIONS]
    yield "markdown", "\n\n".join(part.strip() for part in (first, *equations, link))
    seeded = False
    for section in sections:
        parts = list(pieces(section, run))
        if not any(kind == "code" for kind, _ in parts):
            continue
        for kind, content in parts:
            yield kind, content if kind == "markdown" or seeded else with_seed(content)
            seeded = seeded or kind == "code"


def pieces(section: str, run: set[str]) -> Iterator[tuple[str, str]]:
    """A section as words and code; blocks that are not run stay among the words, what is printed is left out."""
    words, place = "", 0
    for fence in FENCE.finditer(section):
        words += section[place : fence.start()]
        place = fence.end()
        if fence[2] in run:
            yield from said(words)
            yield "code", fence[2]
            words = ""
        elif fence[1] == "text":
            words = re.sub(r"^You should see:\s*\Z", "", words, flags=re.MULTILINE)
            words = re.sub(r":\s*\Z", ".", words)  # "You should see that …:", now behind the cell that shows it
        else:
            words += fence[0]
    yield from said(re.sub(r"^Next: .*$", "", words + section[place:], flags=re.MULTILINE))


def said(words: str) -> Iterator[tuple[str, str]]:
    """A cell of words, if there are any."""
    if words.strip():
        yield "markdown", words.strip()


def cell(identity: str, kind: str, content: str) -> dict[str, Any]:
    """A cell as nbformat 4.5 has it."""
    content = from_here(content) if kind == "markdown" else content
    lines = content.strip().splitlines(keepends=True)
    fields: dict[str, Any] = {"cell_type": kind, "id": identity, "metadata": {}, "source": lines}
    return fields if kind == "markdown" else fields | {"execution_count": None, "outputs": []}


def notebook() -> str:
    """The text of the notebook's file."""
    all_cells = [cell("welcome", "markdown", WELCOME)]
    for name in way():
        found = enumerate(cells(name))
        all_cells += [cell(f"{name.replace('_', '-')}-{i}", kind, content) for i, (kind, content) in found]
    all_cells.append(cell("farewell", "markdown", FAREWELL))
    fields = {"cells": all_cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"


def main(path: Path = NOTEBOOK) -> None:
    """Writes the notebook, if it differs."""
    text = notebook()
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
        print(f"renewed {path.name}")


if __name__ == "__main__":
    main()
