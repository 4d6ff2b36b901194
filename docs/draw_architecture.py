"""Draws docs/pictures/architecture.svg: the Vision Transformer as vitreous.model builds it, at the shapes of B/16.

Every number in the picture comes from the model's config. After a change on purpose, from the repository's root:
`python -m docs.draw_architecture`. One unit is one pixel where the picture is 800 pixels wide.
"""

import re
from collections.abc import Iterator
from math import cos, exp, prod
from pathlib import Path

from vitreous.model.config import ViTConfig
from vitreous.model.cost import parameter_count
from vitreous.model.variants import variant

NAME = "B/16"
PICTURE = Path(__file__).parent / "pictures" / "architecture.svg"
WIDTH, HEIGHT = 800, 1004
DRAWN = 3  # rows and columns of patches in the drawing, where the model has more
SLOTS = [88 + 34 * i for i in range(1 + DRAWN * DRAWN)]  # where tokens stand: the class token, then the patches
LEFT, RIGHT = SLOTS[0] - 16, SLOTS[-1] + 16  # edges of the boxes that tokens run through
SHAPES, EQUATIONS = RIGHT + 12, 502  # where shapes begin and equation numbers end, beside those boxes
COLORS = {  # name: (light, dark)
    "paper": ("#f6f9fb", "#0f161c"),
    "card": ("#ffffff", "#151f27"),
    "edge": ("#d3dde5", "#2b3945"),
    "ink": ("#1c2a35", "#e4ecf2"),
    "soft": ("#566673", "#9fb0bd"),
    "line": ("#7f92a1", "#72889a"),
    "patch": ("#227497", "#5ab4d8"),
    "class": ("#c97a12", "#f0ad4e"),
    "place": ("#7a63b8", "#a995e4"),
    "plain": ("#8798a6", "#7f93a3"),
    "shine": ("#ffffffa0", "#ffffff12"),
}
STYLE = """
text{font:13px -apple-system,BlinkMacSystemFont,"Segoe UI","Noto Sans",Helvetica,Arial,sans-serif;fill:var(--ink)}
.head{font-size:21px;font-weight:600;letter-spacing:-.2px}.title{font-weight:600}.note{font-size:12px;fill:var(--soft)}
.file{font:11px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:var(--soft)}
.math{font:italic 16px "STIX Two Text","Times New Roman",Times,serif}.script{font-size:11.5px}
.shape{font-size:12px;font-weight:500;font-variant-numeric:tabular-nums}.letters{font-size:14px;fill:var(--soft)}
.equation{font-weight:600;fill:var(--patch)}.middle{text-anchor:middle}.end{text-anchor:end}
.paper,.card{fill:var(--card);stroke:var(--edge)}.paper{fill:var(--paper)}.glass{fill-opacity:.15;stroke-opacity:.6}.strong{fill-opacity:.34}
.arrow{fill:none;stroke:var(--line);stroke-width:1.3;marker-end:url(#tip)}
.of-class{stroke:var(--class);stroke-width:1.8;marker-end:url(#class-tip)}
.arrow.line{marker-end:none}.arrow.through{marker-end:none;opacity:.45}.sum{fill:var(--card)}
.lens{fill:none;stroke:var(--patch);stroke-width:1.3;stroke-dasharray:3 3}
.ring{fill:var(--card);stroke:var(--patch);stroke-width:1.6}
"""
DEFINITIONS = """
<g id="picture"><path d="M0 0H96V96H0Z" fill="#9fd0e4"/><path d="M0 37H96V64H0Z" fill="#c5e4ee"/>
<circle cx="79" cy="18" r="10" fill="#ffd27a"/><path d="M0 56 22 40 40 54 58 44 96 60V66H0Z" fill="#7fa9b8"/>
<path d="M0 62H96V96H0Z" fill="#3d89aa"/><path d="M0 78q12-5 24 0t24 0 24 0 24 0V96H0Z" fill="#2f7494"/>
<path d="M46 13V63H20Q38 42 46 13Z" fill="#fff"/><path d="M50 20Q66 40 70 63H50Z" fill="#f4e9d8"/>
<path d="M16 69H78Q74 82 64 82H28Q20 82 16 69Z" fill="#b4543a"/><path d="M47 9h2V69h-2Z" fill="#5d3a2c"/></g>
<marker id="tip" viewBox="0 0 8 8" refX="7.4" refY="4" markerWidth="8" markerHeight="8"
 markerUnits="userSpaceOnUse" orient="auto"><path d="M0 .8 7.5 4 0 7.2Z" style="fill:var(--line)"/></marker>
<marker id="class-tip" viewBox="0 0 8 8" refX="7.4" refY="4" markerWidth="8" markerHeight="8"
 markerUnits="userSpaceOnUse" orient="auto"><path d="M0 .8 7.5 4 0 7.2Z" style="fill:var(--class)"/></marker>
<linearGradient id="shine" x2="0" y2="1"><stop style="stop-color:var(--shine)"/>
<stop offset=".6" stop-color="#fff" stop-opacity="0"/></linearGradient>
"""


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Words at a place: `$D$` is a formula; in `z_{0}` and `k^{T}` the braces hold a subscript or a superscript."""
    words = re.sub(r"\$(.*?)\$", r'<tspan class="math">\1</tspan>', words)
    for mark, shift in (("_", 4), ("^", -6)):  # an invisible space carries the way back to the line
        script = rf'<tspan class="script" dy="{shift}">\1</tspan><tspan dy="{-shift}">&#8203;</tspan>'
        words = re.sub(rf"\{mark}{{(.*?)}}", script, words)
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{words}</text>' if words else ""


def pane(x: float, y: float, width: float, height: float, hue: str = "plain", kind: str = "", round: int = 5) -> str:
    """A pane of glass."""
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round}"'
    shine = f'<rect {place} fill="url(#shine)"/>' if height > 16 else ""
    return f'<rect {place} class="glass {kind}" style="fill:var(--{hue});stroke:var(--{hue})"/>{shine}'


def caption(y: float, title: str, file: str, left: float = LEFT + 12, right: float = RIGHT - 10, kind: str = "") -> str:
    """A part's name, and the file of vitreous/model that holds it."""
    return text(left, y, title, kind) + text(right, y, file, "file end")


def card(x: float, y: float, width: float, height: float, title: str, file: str) -> str:
    """A panel that holds an unfolded part."""
    frame = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" class="card"/>'
    return frame + caption(y + 24, title, file, x + 14, x + width - 14, "title")


def arrow(path: str, kind: str = "") -> str:
    """An arrow, or with kind "line" a line."""
    return f'<path d="{path}" class="arrow {kind}"/>'


def rays(top: float, bottom: float, slots: list[int], kind: str = "") -> str:
    """Tokens on their way down, each by itself; the class token, in the first slot, has its color."""
    return "".join(arrow(f"M{x} {top}V{bottom}", f"{'of-class ' * (x == SLOTS[0])}{kind}") for x in slots)


def lens(x: float, y: float, path: str) -> str:
    """Where a part is looked at closely, and the way to where it is unfolded."""
    return f'<path d="M{x} {y}{path}" class="lens"/><circle cx="{x}" cy="{y}" r="5" class="ring"/>'


def shape(*sizes: int) -> str:
    """Sizes as they are read."""
    return " × ".join(map(str, sizes))


def beside(y: float, sizes: str, letters: str, symbol: str = "", equation: str = "") -> str:
    """What flows at this height: its symbol, the equation that makes it, its shape in numbers and in letters."""
    marks = text(SHAPES, y, sizes, "shape") + text(SHAPES, y + 16, letters, "math letters")
    return marks + text(SHAPES, y - 19, symbol, "math") + text(EQUATIONS, y - 19, equation, "equation end")


# --- the model, from the image to the class


def tile(x: float, y: float, size: float, row: int, column: int) -> str:
    """One patch of the picture, cut out."""
    view = f'viewBox="{column * 96 // DRAWN} {row * 96 // DRAWN} {96 // DRAWN} {96 // DRAWN}"'
    return f'<svg x="{x:g}" y="{y:g}" width="{size}" height="{size}" {view}><use href="#picture"/></svg>'


def image(c: ViTConfig) -> Iterator[str]:
    """The image is cut into patches, and these are put in a row."""
    grid, middle = 248, (124 + 248) / 2
    yield '<svg x="28" y="89" width="96" height="96" viewBox="0 0 96 96"><use href="#picture"/></svg>'
    yield arrow(f"M128 137H{grid - 4}") + text(middle, 128, shape(*c.image_size, c.channels), "shape middle")
    yield text(middle, 155, "H × W × C", "math letters middle")
    for i, end in enumerate(SLOTS[1:]):
        start, (row, column) = grid + 5 + 12 * i, divmod(i, DRAWN)
        yield tile(grid + 37 * column, 84 + 37 * row, 32, row, column) + tile(end - 13, 232, 26, row, column)
        yield arrow(f"M{start} 194C{start} 218 {end} 206 {end} 231")
    yield text(grid + 122, 126, f"{shape(*c.grid)} patches", "shape")
    yield text(grid + 122, 142, f"of {shape(*c.patch_size, c.channels)}", "shape")
    yield text(grid + 122, 158, f"(drawn: {shape(DRAWN, DRAWN)})", "note")
    yield text(98, 243, "flattened", "note end") + text(98, 257, "patches", "note end")


def embedding(c: ViTConfig) -> Iterator[str]:
    """Equation 1: the projection, the class token, the positions."""
    patches, left = prod(c.grid), SLOTS[1] - 16
    yield beside(252, shape(patches, c.channels * prod(c.patch_size)), "N × P²C", "x_{p}")
    yield rays(259, 279, SLOTS[1:]) + pane(left, 280, RIGHT - left, 34, "patch")
    yield caption(302, "Linear projection $E$", "patch_embedding.py", left + 12)
    yield rays(315, 341, SLOTS) + beside(325, shape(patches, c.width), "N × D")
    yield text(98, 291, "class token", "note end") + text(98, 308, "x_{class}", "math end")
    yield text(SLOTS[0] - 20, 359, "vit.py", "file end") + beside(369, shape(c.num_tokens, c.width), "(N+1) × D")
    yield pane(LEFT, 390, RIGHT - LEFT, 58, "place")
    for i, x in enumerate(SLOTS):
        yield pane(x - 12, 342, 24, 26, "patch" if i else "class", "strong")
        yield arrow(f"M{x - 5} 379h10M{x} 374v10", "line")
        yield pane(x - 10, 397, 20, 20, "place", "strong", round=10) + text(x, 411.5, str(i), "shape middle")
    yield caption(437, "Position embeddings $E_{pos}$", "position_embedding.py")
    yield rays(449, 471, SLOTS) + beside(463, shape(c.num_tokens, c.width), "(N+1) × D", "z_{0}", "(1)")


def encoder(c: ViTConfig, y: int = 472) -> Iterator[str]:
    """Equations 2 to 4: L blocks, and the final norm."""
    top, bottom = y + 36, y + 40 + 9 * c.depth
    yield pane(LEFT, y, RIGHT - LEFT, bottom - y) + rays(top - 5, bottom, SLOTS, "through")
    yield caption(y + 22, f"Transformer encoder, $L$ = {c.depth} blocks", "encoder.py")
    for i in range(c.depth):
        yield pane(LEFT + 10, top + 9 * i, RIGHT - LEFT - 20, 6, "patch", "strong", round=3)
    yield lens(RIGHT - 10, top + 9 * (c.depth // 2) + 3, "H520")
    yield rays(bottom + 1, bottom + 23, SLOTS) + pane(LEFT, bottom + 24, RIGHT - LEFT, 34)
    yield caption(bottom + 45, "LayerNorm", "encoder.py")
    yield beside(bottom + 15, shape(c.num_tokens, c.width), "(N+1) × D", "z_{L}", "(2), (3)")


def head(c: ViTConfig, y: int = 726) -> Iterator[str]:
    """The class token is read, the other tokens are not."""
    yield rays(y - 47, y - 1, SLOTS[:1]) + rays(y - 47, y - 33, SLOTS[1:], "line")
    yield text(SLOTS[1] - 12, y - 14, "only the class token is read", "note")
    yield beside(y - 21, str(c.width), "D", "y", "(4)")
    yield pane(LEFT, y, 150, 44, "class") + caption(y + 27, "MLP head", "head.py", right=LEFT + 140)
    yield arrow(f"M{LEFT + 151} {y + 22}H{RIGHT - 121}", "of-class") + pane(RIGHT - 120, y, 120, 44, "class")
    yield text(LEFT + 182, y + 14, str(c.num_classes), "shape middle")
    yield text(LEFT + 182, y + 39, "K", "math letters middle")
    for i, height in enumerate((5, 9, 4, 28, 7, 3)):
        yield pane(RIGHT - 108 + 7 * i, y + 36 - height, 5, height, "class", "strong", round=1)
    yield text(RIGHT - 58, y + 19, "class") + text(RIGHT - 58, y + 35, "sailboat", "note")


# --- unfolded


def symbols(c: ViTConfig, x: int = 520, y: int = 84) -> Iterator[str]:
    """The paper's letters, their names in the config, and their numbers."""
    rows = [("P", "patch_size", c.patch_size[0]), ("C", "channels", c.channels), ("N", "patches", prod(c.grid))]
    rows += [("D", "width", c.width), ("L", "depth", c.depth), ("k", "num_heads", c.num_heads)]
    rows += [("D_{h}", "head_dim", c.head_dim), ("K", "num_classes", c.num_classes)]
    yield card(x, y, 252, 232, f"Symbols, at {NAME}", "config.py")
    for i, (symbol, name, number) in enumerate(rows):
        base = y + 53 + 23.5 * i
        yield text(x + 14, base, symbol, "math") + text(x + 50, base, name, "file")
        yield text(x + 238, base, str(number), "shape end")


def encoder_block(c: ViTConfig, x: int = 520, y: int = 334) -> Iterator[str]:
    """Equations 2 and 3: two branches, each behind a norm and beside a skip connection."""
    left, width, skip, right, tokens = x + 42, 176, x + 20, x + 232, shape(c.num_tokens, c.width)
    middle = left + width // 2
    attention = ("z_{l−1}", "Multi-head self-attention", f"{c.num_heads} heads", "attention.py")
    mlp = ("z&#8242;_{l}", "MLP", f"{c.width} → {c.mlp_dim} → {c.width}", "mlp.py")
    yield card(x, y, 252, 436, "One encoder block", "encoder.py")
    for i, (symbol, name, detail, file) in enumerate((attention, mlp)):
        top = y + 42 + 179 * i
        yield arrow(f"M{middle} {top}v35")
        yield arrow(f"M{middle} {top + 15}H{skip + 8}q-8 0-8 8V{top + 162}q0 8 8 8H{middle - 10}")
        yield text(middle - 14, top + 8, symbol, "math end") + text(right, top + 18, tokens, "shape end")
        yield pane(left, top + 36, width, 28) + text(middle, top + 54.5, "LayerNorm", "middle")
        yield arrow(f"M{middle} {top + 65}v17") + pane(left, top + 83, width, 60, "patch")
        yield text(middle, top + 102, name, "middle") + text(middle, top + 118, detail, "shape middle")
        yield text(middle, top + 134, file, "file middle") + arrow(f"M{middle} {top + 144}v16")
        yield f'<circle cx="{middle}" cy="{top + 170}" r="9" class="arrow line sum"/>'
        yield arrow(f"M{middle - 5} {top + 170}h10m-5-5v10", "line")
        yield text(right, top + 175, f"({2 + i})", "equation end")
    yield arrow(f"M{middle} {y + 400}v26") + text(middle - 14, y + 416, "z_{l}", "math end")
    yield text(right, y + 416, tokens, "shape end") + lens(left + width, y + 155, f"H{x + 234}q8 0 8 8V786")


def attention(c: ViTConfig, x: int = 28, y: int = 786) -> Iterator[str]:
    """Equations 5 to 8, from left to right."""
    axis, high, tokens = y + 113, y + 96, shape(c.num_tokens, c.width)
    yield card(x, y, 744, 190, "Multi-head self-attention", "attention.py")
    yield arrow(f"M40 {axis}H103") + dense(104, axis, "U_{qkv}", "(5)")
    yield text(70, axis - 9, "LN(z)", "math middle") + text(70, axis + 18, tokens, "shape middle")
    for i in reversed(range(c.num_heads)):
        yield f'<rect x="{212 + 1.8 * i:g}" y="{y + 58 - 1.8 * i:g}" width="294" height="116" rx="7" class="card"/>'
    yield text(369, y + 24, f"$k$ = {c.num_heads} heads, each by itself", "note middle")
    for level, letter in zip((axis - 34, axis, axis + 34), "qkv", strict=True):
        yield arrow(f"M189 {axis}C206 {axis} 202 {level} 221 {level}")
        yield pane(222, level - 13, 30, 26, "patch", "strong") + text(237, level + 4, letter, "math middle")
    yield arrow(f"M253 {axis - 34}H271") + arrow(f"M253 {axis}H271") + pane(272, axis - 47, 90, 60, "patch")
    yield text(317, high - 8, "softmax", "middle") + text(317, high + 14, "q k^{T} / √D_{h}", "math middle")
    yield text(258, y + 141, shape(c.num_heads, c.num_tokens, c.head_dim), "shape")
    yield arrow(f"M363 {high}H380") + attention_map(382, high - 22) + arrow(f"M429 {high}H446")
    yield text(404, y + 136, shape(c.num_heads, c.num_tokens, c.num_tokens), "shape middle")
    yield pane(447, high - 24, 46, 48, "patch") + text(470, high + 5, "A v", "math middle")
    yield arrow(f"M253 {axis + 34}H462q8 0 8-8V{high + 25}")
    yield text(317, y + 167, "(6)", "equation middle") + text(470, y + 167, "(7)", "equation middle")
    yield arrow(f"M494 {high}H599") + text(563, high - 9, tokens, "shape middle")
    yield text(563, high + 18, "joined", "note middle")
    yield dense(600, axis, "U_{msa}", "(8)") + arrow(f"M685 {axis}H758") + text(722, axis - 9, tokens, "shape middle")


def dense(x: float, axis: float, symbol: str, equation: str) -> str:
    """A dense layer in attention."""
    words = text(x + 42, axis - 4, "projection", "middle") + text(x + 42, axis + 18, symbol, "math middle")
    return pane(x, axis - 35, 84, 70, "patch") + words + text(x + 42, axis + 54, equation, "equation middle")


def attention_map(x: float, y: float, side: int = 6, cell: float = 7.5) -> str:
    """A small A: each row sums to one."""
    marks = ""
    for row in range(side):
        weights = [exp(2.2 * cos(1.9 * row - 1.3 * column)) for column in range(side)]
        for column, weight in enumerate(weights):
            place = f'x="{x + cell * column:g}" y="{y + cell * row:g}" width="6.5" height="6.5"'
            marks += f'<rect {place} opacity="{0.1 + 0.9 * weight / sum(weights):.2f}"/>'
    return f'<g style="fill:var(--patch)">{marks}</g>'


def description(c: ViTConfig) -> str:
    """The picture in words, for those who do not see it."""
    return (
        f"An image of {shape(*c.image_size, c.channels)} is cut into {prod(c.grid)} patches. Each is flattened and "
        f"projected to {c.width} numbers; the class token joins, position embeddings are added (equation 1): "
        f"{shape(c.num_tokens, c.width)}. {c.depth} encoder blocks follow: LayerNorm, multi-head self-attention, skip "
        "connection (2); LayerNorm, MLP, skip connection (3). After a last LayerNorm (4) the MLP head maps the class "
        f"token to {c.num_classes} classes. Self-attention projects to queries, keys and values, weighs the values by "
        f"softmax(q kᵀ / √D_h) in each of {c.num_heads} heads, joins the heads and projects the result (5 to 8)."
    )


def draw(c: ViTConfig) -> str:
    """The whole picture, as the text of an SVG file."""
    light, dark = (";".join(f"--{name}:{pair[i]}" for name, pair in COLORS.items()) for i in (0, 1))
    summary = f"ViT-{NAME} on an image of {shape(*c.image_size)} pixels: {parameter_count(c):,} parameters"
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-labeledby="title description">',
        f'<title id="title">The Vision Transformer {NAME}</title><desc id="description">{description(c)}</desc>',
        f"<style>:root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}{STYLE}</style>",
        f"<defs>{DEFINITIONS}</defs>",
        f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="16" class="paper"/>',
        text(28, 44, "The Vision Transformer", "head") + text(28, 66, summary, "note"),
        text(772, 66, "(1) to (8): equations of arXiv 2010.11929", "note end"),
        *(mark for part in (image, embedding, encoder, head, symbols, encoder_block, attention) for mark in part(c)),
    ]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(variant(NAME)), encoding="utf-8", newline="\n")
