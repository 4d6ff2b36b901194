"""Makes examples/guided_reading.ipynb from the pages of docs/paper.

Run `python -m docs.make_notebook` from the repository's root after a page has changed. From each page, the notebook
takes the title with its introduction and picture, the equations, and every section with a block of Python that is run.
What the blocks print is left out, since running the notebook shows it. Source, shapes and common mistakes stay on the
page, and the notebook links to it.
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
ROW = re.compile(r"^\| *\d+ \| \[[^]]+\]\((\w+)\.md\)", re.MULTILINE)  # a page in the table of README.md
LINK = re.compile(r"(!?\[[^]]*\])\((?!https?:|#)([^)]+)\)")
SECTION = re.compile(r"^(?=## )", re.MULTILINE)
EQUATIONS = ("## Equation", "## Equations")
WELCOME = """\
# A guided reading, to run

"An Image is Worth 16x16 Words" ([arXiv 2010.11929](https://arxiv.org/abs/2010.11929)), box by box: the equations and
the examples from the [pages](README.md) of docs/paper, in their order. Run a cell, change something, and guess before
you look. Nothing is downloaded, and all of it takes about a minute on one core.
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


def page_names() -> list[str]:
    """The names of the pages, in the order of README.md."""
    return ROW.findall((PAGES / "README.md").read_text(encoding="utf-8"))


def relinked(text: str) -> str:
    """The text of a page with its links relative to the notebook's folder."""

    def relink(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs/paper", match[2]))
        return f"{match[1]}({posixpath.relpath(target, 'examples')})"

    return LINK.sub(relink, text)


def with_seed(code: str) -> str:
    """The first block of a page, with the page's seed set after the imports.

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
        raise ValueError(f"the first block of a page sets the seed, but this one does not import torch:\n{code}")
    lines = code.splitlines(keepends=True)
    rest = "".join(lines[end:]).lstrip("\n")
    return "".join(lines[:end]) + f"\ntorch.manual_seed(0)\n{rest}"


def cells(name: str) -> Iterator[tuple[str, str]]:
    """A page as cells: pairs of kind and content."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    run = {block.lines for block, _ in examples(page)}
    first, *sections = SECTION.split(page)
    link = f"More on [the page]({name}.md)."
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
    """A section as text and code. Blocks that are not run stay in the text; printed output is left out."""
    text, place = "", 0
    for fence in FENCE.finditer(section):
        text += section[place : fence.start()]
        place = fence.end()
        if fence[2] in run:
            yield from text_cell(text)
            yield "code", fence[2]
            text = ""
        elif fence[1] == "text":
            text = re.sub(r"^You should see:\s*\Z", "", text, flags=re.MULTILINE)
            text = re.sub(r":\s*\Z", ".", text)  # "You should see that …:" now follows the cell that shows it
        else:
            text += fence[0]
    yield from text_cell(re.sub(r"^Next: .*$", "", text + section[place:], flags=re.MULTILINE))


def text_cell(text: str) -> Iterator[tuple[str, str]]:
    """A cell of text, if there is any."""
    if text.strip():
        yield "markdown", text.strip()


def cell(identity: str, kind: str, content: str) -> dict[str, Any]:
    """A cell in nbformat 4.5."""
    content = relinked(content) if kind == "markdown" else content
    lines = content.strip().splitlines(keepends=True)
    fields: dict[str, Any] = {"cell_type": kind, "id": identity, "metadata": {}, "source": lines}
    return fields if kind == "markdown" else fields | {"execution_count": None, "outputs": []}


def notebook() -> str:
    """The notebook as JSON."""
    all_cells = [cell("welcome", "markdown", WELCOME)]
    for name in page_names():
        numbered = enumerate(cells(name))
        all_cells += [cell(f"{name.replace('_', '-')}-{i}", kind, content) for i, (kind, content) in numbered]
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
