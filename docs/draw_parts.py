"""What the pictures of the guided reading share: where they go, their frame, and small parts.

The look is that of docs/draw_architecture.py.
"""

from collections.abc import Iterator
from pathlib import Path

from docs.draw_architecture import COLORS, DEFINITIONS, STYLE, arrow, text
from vitreous.model.variants import variant

PICTURES = Path(__file__).parent / "paper" / "pictures"
B16 = variant("B/16")
WIDTH = 800
MORE_STYLE = """
.bar,.cell{fill:var(--patch)}.curve{fill:none;stroke:var(--patch);stroke-width:2}.exact{stroke:var(--class);stroke-width:5;opacity:.45}
.relu{stroke:var(--plain);stroke-dasharray:5 4}.axis{stroke:var(--edge);fill:none}.zero{stroke:var(--line);fill:none}
.row{fill:none;stroke:var(--class);stroke-width:1.8}.mean{stroke:var(--class);stroke-width:1.6}
"""


def frame(height: int, title: str, description: str, marks: Iterator[str]) -> str:
    """A whole picture, as the text of an SVG file: paper, title, and what is on it."""
    light, dark = (";".join(f"--{name}:{pair[i]}" for name, pair in COLORS.items()) for i in (0, 1))
    box = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    colors = f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-labeledby="title description">',
        f'<title id="title">{title}</title><desc id="description">{description}</desc>',
        f"<style>{colors}{STYLE}{MORE_STYLE}</style><defs>{DEFINITIONS}</defs>",
        f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="16" class="paper"/>',
        text(28, 40, title, "head"),
        *marks,
    ]
    return "\n".join([*parts, "</svg>", ""])


def box(x: float, y: float, width: float, height: float, kind: str, opacity: float = 1) -> str:
    """A plain rectangle."""
    faint = "" if opacity == 1 else f' opacity="{opacity:.2f}"'
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" class="{kind}"{faint}/>'


def plus(x: float, y: float) -> str:
    """The sum at the end of a skip connection."""
    return f'<circle cx="{x}" cy="{y}" r="10" class="arrow line sum"/>' + arrow(f"M{x - 5} {y}h10m-5-5v10", "line")
