# ruff: noqa: RUF001 (the symbols are the paper's)
"""Small parts of the page: facts, code, maps, strips and bars. Every text from elsewhere goes through `html_text`."""

import re
from collections.abc import Sequence

from vitreous.inspection.stages import Stage
from vitreous.inspection.table import shape_text, short
from vitreous.pages.walk.source import excerpts
from vitreous.pages.walk.values import statistics
from vitreous.support.text import html_text

ALMOST_NONE = 1e-6
INDICES = {"ℓ₋₁": "ℓ−1", "ℓ": "ℓ", "₀": "0"}


def section(name: str, number: str, title: str, text: str, content: str) -> str:
    """One stage of the walk, under its heading."""
    return (
        f'<section id="{name}" class="stage" tabindex="-1" aria-labeledby="{name}-title">\n'
        f'<h2 id="{name}-title"><span class="number">{number}</span>{html_text(title)}</h2>\n'
        f"<p>{html_text(text)}</p>\n{content}</section>\n"
    )


def part(stage: Stage, places: str, figure: str = "", text: str = "", level: int = 3) -> str:
    """One step inside a stage: its name, what it is, its figure, its facts and its code.

    Args:
        stage: from the recorded pass.
        places: its entry in `source.PLACES`.
        figure: HTML.
        text: in place of the stage's own short one.
        level: of the heading.
    """
    told = html_text(text or sentence(stage.what))
    heading = f"<h{level}>{html_text(stage.name)}</h{level}>"
    return f'<div class="part">\n{heading}\n<p>{told}</p>\n{figure}{facts(stage, places)}</div>\n'


def facts(stage: Stage, places: str) -> str:
    """Shapes, equation, parameters, FLOPs and values of a stage, beside the lines that compute it."""
    pairs = [
        ("in", html_text(shape_text(stage.input_shape, 1))),
        ("out", html_text(shape_text(stage.output_shape, 1))),
        ("parameters", f"{stage.parameters:,}"),
        ("FLOPs", short(2 * stage.multiply_adds) or "0"),
        ("equation", equation_html(stage.equation)),
        ("values", html_text(values_text(stage))),
        ("note", html_text(sentence(stage.note))),
    ]
    rows = "".join(f'<div class="{name}"><dt>{name}</dt><dd>{value}</dd></div>' for name, value in pairs if value)
    return f'<div class="told"><dl class="facts">{rows}</dl>{code(places)}</div>\n'


def values_text(stage: Stage) -> str:
    """What a stage's output is like, in words."""
    found = statistics(stage)
    if found is None:
        return ""
    broken = f", {found.non_finite:.1%} NaN or ∞" if found.non_finite else ""
    mean = 0.0 if abs(found.mean) < ALMOST_NONE else found.mean  # what a norm leaves
    told = f"mean {mean:.3g}, std {found.std:.3g}, from {found.min:.3g} to {found.max:.3g}{broken}"
    return told.replace("-", "−")


def equation_html(equation: str) -> str:
    """An equation with its indices below the line and its powers above it."""
    told = re.sub(r"(z′?)(ℓ₋₁|ℓ|₀)", lambda found: f"{found[1]}_{INDICES[found[2]]}", equation)
    told = re.sub(r"_([A-Za-z]+|ℓ−1|ℓ|0)", r"<sub>\1</sub>", html_text(told))
    return re.sub(r"\^\(((?:[^()]|\([^()]*\))+)\)", r"<sup>\1</sup>", told)


def code(places: str) -> str:
    """The lines of source that compute a stage."""
    found = ""
    for file, line, lines in excerpts(places):
        shown = "".join(f"<span>{html_text(one)}\n</span>" for one in lines.splitlines())
        found += f'<figure class="code"><figcaption>{html_text(file)}, line {line}</figcaption>'
        found += f"<pre><code>{shown}</code></pre></figure>"
    return f'<div class="codes">{found}</div>'


def view(picture: str, label: str, kind: str = "", **data: object) -> str:
    """A picture over the photo, or over nothing; `data` tells the script what it shows.

    Args:
        picture: a data URI.
        label: the picture in words.
        kind: further CSS classes.
        data: of the element.
    """
    attributes = "".join(f' data-{name.replace("_", "-")}="{value}"' for name, value in data.items())
    return (
        f'<span class="view {kind}"{attributes} role="img" aria-label="{html_text(label)}">'
        f'<img src="{picture}" alt=""></span>'
    )


def captioned(content: str, caption: str, kind: str = "") -> str:
    """A picture and the words below it; they may hold HTML of ours."""
    return f'<figure class="captioned {kind}">{content}<figcaption>{caption}</figcaption></figure>\n'


def strip_row(name: str, picture: str, size: tuple[int, int], label: str, **data: object) -> str:
    """A strip of numbers with its name at the left; the name may hold HTML of ours."""
    columns, rows = size
    ratio = f"aspect-ratio:{columns}/{max(rows, 2)}"
    attributes = "".join(f' data-{key}="{value}"' for key, value in data.items())
    return (
        f'<div class="strip-row"><span class="name">{name}</span>'
        f'<span class="strip" style="{ratio}"{attributes} role="img" aria-label="{html_text(label)}">'
        f'<img src="{picture}" alt=""></span></div>\n'
    )


def bars(rows: Sequence[tuple[str, float, str]], kind: str = "", most: float | None = None) -> str:
    """Numbers as bars; names may hold HTML of ours, values are text.

    Args:
        rows: name, size and value.
        kind: a further CSS class.
        most: what the whole width stands for; the largest of the numbers if None.
    """
    if most is None:
        most = max(0.0, *(size for _, size, _ in rows)) or 1.0
    items = "".join(
        f'<li><b>{name}</b><span class="bar"><i style="width:{max(0.0, size / most):.1%}"></i></span>'
        f"<span>{html_text(value)}</span></li>"
        for name, size, value in rows
    )
    return f'<ul class="bars {kind}">{items}</ul>\n'


def numbers_text(values: Sequence[float], more: bool = True) -> str:
    """The first numbers of a list."""
    told = ", ".join(f"{value:.2f}".replace("-", "−") for value in values)
    return f"({told}{', …' if more else ''})"


def sentence(text: str) -> str:
    """A short text with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""
