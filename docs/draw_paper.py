"""Draws docs/paper/pictures/*.svg, the pictures of the guided reading, in the look of docs/draw_architecture.py.

Every shape and number comes from the model's config or from its layers. After a change on purpose, from the
repository's root: `python -m docs.draw_paper` (with the photos: `python -m docs.draw_paper_photos`).
"""

from collections.abc import Callable, Iterator, Sequence
from math import cos, exp
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from docs.draw_architecture import arrow, pane, shape, text
from docs.draw_parts import B16, PICTURES, box, frame, plus
from vitreous.model.config import ViTConfig
from vitreous.model.encoder import EncoderBlock
from vitreous.model.position_embedding import sincos_2d

# --- positions: Figure 7 center


GRID, SHOWN, LEVELS = (14, 14), (0, 4, 8, 12), 12


def positions() -> str:
    """Which places have position embeddings alike: the computed ones of B/16's width and grid."""
    table = F.normalize(sincos_2d(GRID, B16.width).double(), dim=-1)
    alike = (table @ table.mT).unflatten(1, GRID).unflatten(0, GRID)
    description = (
        f"For {len(SHOWN) ** 2} of the {shape(*GRID)} patches a map of {shape(*GRID)} squares. Each square is as "
        "strong as the position embedding of that place is similar to the patch's own. The patch itself is strongest; "
        "its row and its column follow, and what is near is more similar than what is far."
    )
    return frame(462, "Which positions are alike", description, position_marks(alike))


def position_marks(alike: torch.Tensor, left: int = 236, top: int = 62, side: int = 6) -> Iterator[str]:
    """The maps, and beside them how to read them."""
    low, step = alike.min().item(), 14 * side + 12
    for i, row in enumerate(SHOWN):
        yield text(left + 60, top + i * step + 46, f"row {row}", "note end")
        for j, column in enumerate(SHOWN):
            x, y = left + 70 + j * step, top + i * step
            if i == 0:
                yield text(x + 42, top - 8, f"column {column}", "note middle")
            squares = levels(alike[row, column], low, side)
            yield f'<g transform="translate({x} {y})" style="fill:var(--place)">{squares}</g>'
            yield box(x + column * side - 0.5, y + row * side - 0.5, side + 1, side + 1, "row")
    notes = (
        *("Each map belongs to one", "patch, the one with a frame.", ""),
        *("A square is strong where", "the position embedding of", "that place is similar to"),
        *("the patch's own: the cosine", f"from {low:.2f} (clear) to 1.", ""),
        *("Here: sines and cosines,", f"{shape(*GRID)} places, {B16.width} numbers."),
        *("Learned ones come to look", "much the same (Figure 7)."),
    )
    for i, words in enumerate(notes):
        yield text(28, 92 + 18 * i, words, "note")


def levels(alike: torch.Tensor, low: float, side: int) -> str:
    """A map in a few steps of opacity, one path for each, so that the file stays small."""
    steps = ((alike - low) / (1 - low) * LEVELS).round().int().tolist()
    marks = ""
    for level in range(LEVELS + 1):
        places = [(c, r) for r, row in enumerate(steps) for c, step in enumerate(row) if step == level]
        if places:
            squares = "".join(f"M{side * c} {side * r}h{side}v{side}h-{side}" for c, r in places)
            marks += f'<path d="{squares}" opacity="{0.06 + 0.94 * level / LEVELS:.2f}"/>'
    return marks


# --- LayerNorm


COUNT = 16  # numbers in each token of the picture
TOKENS = (  # offset, size: what an encoder block may be given
    ("token 1: small numbers", 0.2, 0.35),
    ("token 2: all of them shifted", 5.0, 1.0),
    ("token 3: large numbers", -1.0, 4.0),
)


def layer_norm() -> str:
    """The numbers of three tokens, before and after."""
    wave = torch.tensor([cos(2.4 * i) + 0.5 * cos(0.9 * i * i) for i in range(COUNT)])
    before = torch.stack([offset + size * wave.roll(3 * i) for i, (_, offset, size) in enumerate(TOKENS)])
    with torch.no_grad():
        after = nn.LayerNorm(COUNT, eps=B16.norm_eps)(before)
    description = (
        f"Three tokens of {COUNT} numbers, drawn as bars. Before: one with small numbers, one shifted up, one with "
        "large numbers. After LayerNorm each has mean 0 and standard deviation 1, and keeps the form of its bars."
    )
    return frame(424, "LayerNorm: each token by itself", description, norm_marks(before, after))


def norm_marks(before: torch.Tensor, after: torch.Tensor) -> Iterator[str]:
    """Bars before at the left, bars after at the right."""
    yield text(190, 68, "before", "title middle") + text(610, 68, "after", "title middle")
    for i, (name, _, _) in enumerate(TOKENS):
        axis = 142 + 104 * i
        yield text(40, axis - 50, name, "note")
        yield from bars(40, axis, before[i].tolist(), 5.5) + bars(460, axis, after[i].tolist(), 14)
        yield arrow(f"M362 {axis}H440") + text(400, axis - 9, "LayerNorm", "middle")
    yield text(40, 408, "one scale for all three", "note")
    yield text(460, 408, "another scale, again for all three", "note")


def bars(x: float, axis: float, numbers: Sequence[float], unit: float) -> list[str]:
    """Numbers as bars up and down from zero, with their mean as a line."""
    mean = sum(numbers) / len(numbers)
    std = (sum((n - mean) ** 2 for n in numbers) / len(numbers)) ** 0.5
    marks = [f'<path d="M{x} {axis}h304" class="zero"/>']
    for i, n in enumerate(numbers):
        height = unit * abs(n)
        marks.append(box(x + 19 * i + 2, round(axis - max(0, unit * n), 1), 15, round(height, 1), "bar", 0.75))
    level = axis - unit * mean
    marks.append(f'<path d="M{x} {level:.1f}h304" class="mean"/>')
    return [*marks, text(x + 304, axis - 50, f"mean {rounded(mean)}, deviation {rounded(std)}", "shape end")]


def rounded(number: float) -> str:
    """A number with two digits; no minus before zero."""
    return f"{round(number, 2) + 0.0:.2f}".replace("-", "−")


# --- attention: one head


SIDE, CELL = 6, 16  # tokens that are drawn, and pixels of each


def attention(c: ViTConfig = B16) -> str:
    """One head, from left to right (equations 5 to 8)."""
    description = (
        f"One of {c.num_heads} heads. LN(z), {shape(c.num_tokens, c.width)}, is projected to q, k and v, "
        f"{shape(c.num_tokens, c.head_dim)} each. Every query is multiplied with every key and divided by √D_h, which "
        f"gives {shape(c.num_tokens, c.num_tokens)} numbers; softmax makes each row sum to 1: A. A v, "
        f"{shape(c.num_tokens, c.head_dim)}, is the head's output; the heads are joined and projected by U_msa."
    )
    return frame(360, "Self-attention, one head", description, attention_marks(c))


def attention_marks(c: ViTConfig) -> Iterator[str]:
    """Matrices as panes whose sides are tokens or numbers, and the way between them."""
    tall, thin, top = SIDE * CELL, 32, 172
    low, tokens = top + tall, shape(c.num_tokens, c.head_dim)
    logits = [[2.2 * cos(1.9 * row - 1.3 * column) for column in range(SIDE)] for row in range(SIDE)]
    weights = [[exp(n) / sum(map(exp, row)) for n in row] for row in logits]
    yield text(28, 62, f"{SIDE} tokens are drawn, where B/16 has {c.num_tokens}", "note")
    yield matrix(28, top, 80, tall, "LN(z)", shape(c.num_tokens, c.width), "plain")
    yield arrow(f"M112 {top + 48}H182") + text(147, top + 40, "U_{q}", "math middle")
    yield arrow(f"M112 {top + 20}C150 {top + 20} 130 132 238 132") + text(147, 140, "U_{k}", "math middle")
    yield arrow(f"M68 {low + 24}V{low + 62}q0 8 8 8H566q8 0 8-8V{low + 26}") + text(88, low + 60, "U_{v}", "math")
    yield matrix(186, top, thin, tall, "q", tokens)
    yield matrix(242, 116, tall, thin, "", "") + text(290, 106, "$k^{T}$", "middle")
    yield text(346, 137, shape(c.head_dim, c.num_tokens), "shape")
    yield numbers(242, top, logits, 2.2) + text(290, low + 18, shape(c.num_tokens, c.num_tokens), "shape middle")
    yield text(290, low + 40, "q k^{T} / √D_{h}", "math middle")
    yield arrow(f"M346 {top + 48}H416") + text(381, top + 40, "softmax", "middle")
    yield text(381, top + 64, "of each row", "note middle")
    yield numbers(422, top, weights, 1) + text(470, top - 10, "A", "math middle")
    yield text(470, low + 18, shape(c.num_tokens, c.num_tokens), "shape middle")
    yield f'<rect x="420" y="{top + 2 * CELL - 1}" width="{tall + 4}" height="{CELL + 1}" rx="2" class="row"/>'
    yield text(470, low + 38, "a row: where one token", "note middle")
    yield text(470, low + 53, "looks; it sums to 1", "note middle")
    yield text(537, top + 53, "×", "middle") + matrix(558, top, thin, tall, "v", tokens)
    yield text(614, top + 53, "=", "middle") + matrix(636, top, thin, tall, "A v", tokens)
    yield arrow(f"M674 {top + 48}H708") + pane(710, top + 6, 66, 84, "patch", "strong")
    yield text(743, top + 34, "join", "middle") + text(743, top + 51, f"{c.num_heads} heads", "middle")
    yield text(743, top + 74, "U_{msa}", "math middle")
    yield text(743, low + 18, shape(c.num_tokens, c.width), "shape middle")
    for x, label in ((147, "(5)"), (381, "(6)"), (652, "(7)"), (743, "(8)")):
        yield text(x, low + (40 if x > 600 else 18), label, "equation middle")


def matrix(x: float, y: float, width: float, height: float, name: str, sizes: str, hue: str = "patch") -> str:
    """A matrix: a pane with its name above and its shape below."""
    above = text(x + width / 2, y - 10, name, "math middle")
    below = text(x + width / 2, y + height + 18, sizes, "shape middle")
    return pane(x, y, width, height, hue, "strong", round=3) + above + below


def numbers(x: float, y: float, rows: list[list[float]], most: float) -> str:
    """A matrix whose numbers are seen: a square is as strong as its number is large; below zero it is gray."""
    marks = [pane(x, y, SIDE * CELL, SIDE * CELL, "patch", round=3)]
    for i, row in enumerate(rows):
        for j, n in enumerate(row):
            hue = "patch" if n >= 0 else "plain"
            square = box(x + CELL * j + 1, y + CELL * i + 1, CELL - 2, CELL - 2, "", min(1, abs(n) / most))
            marks.append(f'<g style="fill:var(--{hue})">{square}</g>')
    return "".join(marks)


# --- the MLP and its GELU


CURVES: tuple[tuple[str, str, Callable[[torch.Tensor], torch.Tensor]], ...] = (
    ("ReLU", "relu", F.relu),
    ("GELU, exact", "exact", F.gelu),
    ("GELU, by tanh", "", lambda x: F.gelu(x, approximate="tanh")),
)


def mlp(c: ViTConfig = B16) -> str:
    """The two dense layers, the GELU between them, and how far its approximation is from it."""
    description = (
        f"Each token's {c.width} numbers become {c.mlp_dim}, pass the GELU, and become {c.width} again. The curve of "
        "the GELU follows zero far to the left and x far to the right, as ReLU does, but dips below zero between, "
        "without a corner. Its tanh approximation lies on the exact curve: they differ by less than half a thousandth."
    )
    return frame(400, "The MLP and its GELU", description, mlp_marks(c))


def mlp_marks(c: ViTConfig) -> Iterator[str]:
    """The layers at the left, the curves in the middle, their difference at the right."""
    layers = (
        ("z", c.width, "plain"),
        ("fc1", c.mlp_dim, "patch"),
        ("GELU", c.mlp_dim, "class"),
        ("fc2", c.width, "patch"),
    )
    for i, (name, count, hue) in enumerate(layers):
        y, width = 76 + 74 * i, 50 * count / c.width
        yield pane(128 - width / 2, y, width, 34, hue, "strong") + text(128, y + 22, name, "middle")
        yield arrow(f"M128 {y + 36}V{y + 72}") + text(138, y + 58, f"{count:,}", "shape")
    yield text(128, 388, "each token by itself", "note middle")
    x = torch.linspace(-3, 3, 121, dtype=torch.float64)
    for i, (name, kind, function) in enumerate(CURVES):
        yield curve(PLOTS[0], x, function(x), kind)
        yield f'<path d="M{PLOTS[0].left} {104 + 20 * i}h22" class="curve {kind}"/>'
        yield text(PLOTS[0].left + 28, 108 + 20 * i, name, "note")
    yield curve(PLOTS[1], x, F.gelu(x, approximate="tanh") - F.gelu(x), "")
    for plot in PLOTS:
        yield from axes(plot)


class Plot(NamedTuple):
    """Where a curve is drawn: its left edge and the height of zero, in pixels, and how many of them are 1 upwards."""

    title: str
    left: int
    zero: int
    up: float
    ticks: tuple[tuple[float, str], ...]


ACROSS, PLOT_WIDTH = 40, 240  # pixels of 1 to the right, and of -3 to 3
PLOTS = (
    Plot("the activation", 256, 322, 60, ((1, "1"), (2, "2"), (3, "3"))),
    Plot("tanh approximation minus exact", 534, 232, 240_000, ((0.0004, "0.0004"), (-0.0004, "−0.0004"))),
)


def curve(plot: Plot, x: torch.Tensor, y: torch.Tensor, kind: str) -> str:
    """A function's curve."""
    points = zip((plot.left + ACROSS * (x + 3)).tolist(), (plot.zero - plot.up * y).tolist(), strict=True)
    path = " ".join(f"{across:.1f} {down:.1f}" for across, down in points)
    return f'<path d="M{path}" class="curve {kind}"/>'


def axes(plot: Plot) -> Iterator[str]:
    """A plot's title, its two lines at zero, and some numbers at them."""
    middle = plot.left + PLOT_WIDTH // 2
    yield text(plot.left, 78, plot.title, "title")
    yield f'<path d="M{plot.left} {plot.zero}h{PLOT_WIDTH}M{middle} 92V352" class="zero"/>'
    for number in (-3, -2, -1, 1, 2, 3):
        yield text(middle + ACROSS * number, plot.zero + 24, str(number).replace("-", "−"), "note middle")
    for number, words in plot.ticks:
        yield text(middle + 6, plot.zero - plot.up * number + 4, words, "note")


# --- the encoder block


def encoder_block(c: ViTConfig = B16) -> str:
    """One block, from left to right (equations 2 and 3), with its parameters."""
    with torch.device("meta"):
        block = EncoderBlock(c.width, c.num_heads, c.mlp_dim)
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in block.named_children()}
    description = (
        f"Tokens, {shape(c.num_tokens, c.width)}, pass LayerNorm and multi-head self-attention; a skip connection "
        "leads around both and is added (equation 2). The sum passes LayerNorm and the MLP; a second skip connection "
        "leads around these and is added (equation 3). The shape stays the same throughout."
    )
    return frame(330, "One encoder block", description, block_marks(c, parameters))


def block_marks(c: ViTConfig, parameters: dict[str, int]) -> Iterator[str]:
    """Two branches, each with a norm in it and a skip connection above it."""
    axis, tokens = 196, shape(c.num_tokens, c.width)
    halves = (
        (
            28,
            "z_{l−1}",
            ("LayerNorm", "attention_norm"),
            ("Self-attention", "attention"),
            "z&#8242;_{l} = MSA(LN(z_{l−1})) + z_{l−1}",
        ),
        (
            396,
            "z&#8242;_{l}",
            ("LayerNorm", "mlp_norm"),
            ("MLP", "mlp"),
            "z_{l} = MLP(LN(z&#8242;_{l})) + z&#8242;_{l}",
        ),
    )
    yield text(772, 40, f"B/16: {tokens} at every arrow, {sum(parameters.values()):,} parameters", "note end")
    for i, (x, symbol, norm, branch, equation) in enumerate(halves):
        yield text(x + 12, axis - 12, symbol, "math middle")
        yield (
            arrow(f"M{x} {axis}H{x + 52}")
            + arrow(f"M{x + 158} {axis}H{x + 180}")
            + arrow(f"M{x + 302} {axis}H{x + 344}")
        )
        yield arrow(f"M{x + 32} {axis}V104q0-8 8-8H{x + 348}q8 0 8 8V{axis - 11}", "of-class")
        yield text(x + 194, 86, "skip connection: added as it is", "note middle")
        for left, width, (name, part), hue in ((x + 54, 103, norm, "plain"), (x + 182, 120, branch, "patch")):
            yield pane(left, axis - 32, width, 64, hue) + text(left + width / 2, axis - 2, name, "middle")
            yield text(left + width / 2, axis + 18, part, "file middle")
            yield text(left + width / 2, axis + 50, f"{parameters[part]:,}", "shape middle")
        yield plus(x + 356, axis)
        yield text(x + 170, 288, equation, "math middle") + text(x + 330, 288, f"({2 + i})", "equation middle")
    yield arrow(f"M763 {axis}H786") + text(776, axis - 12, "z_{l}", "math middle")


# --- the head


def head(c: ViTConfig = B16) -> str:
    """Three ways from the tokens to one vector, and the classifier."""
    description = (
        f"Three heads. The first takes the class token of LN(z_L), {c.width} numbers. The second takes the mean of the "
        "patches. The third lets a learned probe attend to all tokens, and an MLP with a skip connection follows. "
        f"In each a linear classifier maps the {c.width} numbers y to {c.num_classes} classes."
    )
    return frame(412, "The head: from tokens to classes", description, head_marks(c))


def head_marks(c: ViTConfig) -> Iterator[str]:
    """A card for each way."""
    mean, count = "appendix D.3", 7
    ways = (
        ("class token", "equation 4", "take token 0", (1.0, *[0.0] * (count - 1))),
        ("mean of the patches", mean, "mean", (0.0, *[0.5] * (count - 1))),
        ("attention pooling", "arXiv 2106.04560", "probe attends, MLP", (0.2, 0.9, 0.35, 0.15, 1.0, 0.6, 0.25)),
    )
    for i, (title, source, pooling, shares) in enumerate(ways):
        x = 28 + 252 * i
        middle = x + 120
        yield f'<rect x="{x}" y="62" width="240" height="328" rx="10" class="card"/>'
        yield text(x + 14, 86, title, "title") + text(x + 226, 86, source, "note end")
        for j, share in enumerate(shares):
            place = x + 36 + 28 * j
            if title == "class token" or j:
                yield pane(place - 10, 122, 20, 26, "patch" if j else "class", "strong")
                way = f"M{place} 150C{place} 172 {middle} 162 {middle} 184"
                yield f'<path d="{way}" class="arrow line" opacity="{share}"/>'
        tokens = c.num_tokens if title == "class token" else c.num_tokens - 1
        yield text(x + 226, 112, shape(tokens, c.width), "shape end") + text(x + 14, 112, "LN(z_{L})", "math")
        yield pane(x + 34, 186, 172, 34, "class") + text(middle, 208, pooling, "middle")
        yield arrow(f"M{middle} 222V270") + text(middle - 10, 250, "y", "math end")
        yield text(middle + 10, 250, str(c.width), "shape")
        yield pane(x + 34, 272, 172, 34, "patch") + text(middle, 294, "Linear classifier", "middle")
        yield arrow(f"M{middle} 308V340") + text(middle + 10, 328, str(c.num_classes), "shape")
        for j, height in enumerate((7, 12, 6, 34, 9, 4, 8, 5)):
            yield pane(middle - 46 + 12 * j, 380 - height, 8, height, "class", "strong", round=1)


SVGS: dict[str, Callable[[], str]] = {
    "positions.svg": positions,
    "layer_norm.svg": layer_norm,
    "attention.svg": attention,
    "mlp.svg": mlp,
    "encoder_block.svg": encoder_block,
    "head.svg": head,
}

if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for file, draw in SVGS.items():
        (PICTURES / file).write_text(draw(), encoding="utf-8", newline="\n")
