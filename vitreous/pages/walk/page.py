"""The page's frame: its head, its guide at the side, its script."""

import hashlib
import json
from base64 import b64encode
from pathlib import Path

from vitreous.explain.inline import CRISP
from vitreous.inspection.table import short
from vitreous.pages.walk import words
from vitreous.pages.walk.blocks import percent
from vitreous.pages.walk.data import page_data
from vitreous.pages.walk.pictures import gray, photo
from vitreous.pages.walk.sections import Page, likeliest, sections
from vitreous.support.text import html_text

HERE = Path(__file__).parent


def page_html(page: Page) -> str:
    """The whole page."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    found = sections(page)
    title = f"A photo walked through {page.name}"
    # In JSON "<" can only be inside a text, where this is the same; so nothing in it ends the element.
    data = json.dumps(page_data(page.walk, page.maps, page.choice, page.blocks), separators=(",", ":"))
    data = data.replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(script)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html_text(title)}</title>\n<style>\n{style}{variables(page)}</style>\n</head>\n"
        f"<body{' class=crisp' if is_crisp(page) else ''}>\n{guide(page, found)}<main>\n{opening(page, title)}"
        f"{''.join(html for _, _, html in found)}</main>\n"
        f'<script type="application/json" id="data">{data}</script>\n<script>{script}</script>\n</body>\n</html>\n'
    )


def policy(script: str) -> str:
    """What the browser holds the page to: nothing from elsewhere, and this one script."""
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def is_crisp(page: Page) -> bool:
    """Whether the image is so small that its pixels are to be seen."""
    return max(page.pixels.shape[1:]) <= CRISP


def variables(page: Page) -> str:
    """The page's pictures and measures, for the style."""
    (rows, columns), (height, width) = page.walk.grid, page.pixels.shape[1:]
    stride = page.walk.model.config.token_stride
    return (
        f":root {{ --photo: url({photo(page.pixels)}); --gray: url({gray(page.pixels)}); --rows: {rows}; "
        f"--columns: {columns}; --row: {page.choice.row}; --column: {page.choice.column}; "
        f"--ratio: {width}/{height}; --stride: {stride[1]}/{stride[0]}; }}\n"
    )


def guide(page: Page, found: list[tuple[str, str, str]]) -> str:
    """What stays in sight: the choice, and the way to every stage."""
    names = words.prefix_names(page.walk.model.config)
    buttons = "".join(
        f'<button type="button" data-token="{i}" aria-pressed="false">{name}</button>' for i, name in enumerate(names)
    )
    links = ""
    for name, title, _ in found:
        links += f'<li><a href="#{name}">{html_text(title)}</a>{block_links(page) if name == "encoder" else ""}</li>\n'
    return (
        '<a class="skip" href="#image">Skip to the image</a>\n<aside>\n'
        '<div class="picker photo js" data-picker="small"></div>\n'
        '<p class="choice" role="status" aria-live="polite">Chosen: '
        f"<b data-choice>patch ({page.choice.row}, {page.choice.column})</b></p>\n"
        f'<div class="tokens js" role="group" aria-label="other tokens">{buttons}</div>\n'
        f'<nav aria-label="Stages"><ol>\n{links}</ol></nav>\n</aside>\n'
    )


def block_links(page: Page) -> str:
    """A small number for each block."""
    links = "".join(
        f'<li><a href="#block-{i}" aria-label="block {i}">{i}</a></li>' for i in range(page.walk.model.config.depth)
    )
    return f'<ol class="numbers">{links}</ol>'


def opening(page: Page, title: str) -> str:
    """What is walked through what, and how to read on."""
    trace, c = page.walk.trace, page.walk.model.config
    rows, columns = page.walk.grid
    told = {
        "parameters": f"{trace.total_parameters:,}",
        "FLOPs for this photo": short(2 * trace.total_multiply_adds),
        "patches": f"{rows}×{columns}",
        "width": f"{c.width:,}",
        "blocks": str(c.depth),
        "heads": f"{c.num_heads}, each of {c.head_dim}",
    }
    pairs = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in told.items())
    answer = ""
    if not page.fresh and (likely := likeliest(page)):
        answer = (
            f' At the end stands its answer: <a href="#head">{html_text(likely[0][0])}, {percent(likely[0][1])}</a>.'
        )
    fresh = f'<p class="note warning">{words.FRESH}</p>\n' if page.fresh else ""
    return (
        f"<header>\n<h1>{html_text(title)}</h1>\n<p>From pixels to classes, stage by stage: what goes in, what comes "
        f"out, the equation of the paper, its cost, and the lines of code that compute it.{answer}</p>\n"
        f'{fresh}<dl class="overview">{pairs}</dl>\n<p class="soft key">{words.FLOPS}</p>\n</header>\n'
    )
