# ruff: noqa: RUF001 (the symbols are the paper's)
"""The encoder's blocks on the page, each behind its summary."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vitreous.pages.walk import words
from vitreous.pages.walk.data import Choice, head_strips, opacity, shown_maps
from vitreous.pages.walk.packing import Maps
from vitreous.pages.walk.parts import bars, captioned, facts, part, strip_row, view
from vitreous.pages.walk.pictures import heat, strip, strip_size
from vitreous.pages.walk.values import BlockValues, Walk

NORMS = ("z<sub>ℓ−1</sub>", "attention adds", "z′<sub>ℓ</sub>", "the MLP adds", "z<sub>ℓ</sub>")

TIMES = 10  # from here on a share is told as so many times


@dataclass(frozen=True, eq=False)
class Block:
    """One block, as the page shows it first.

    Attributes:
        number: from 0.
        walk: the pass.
        maps: how attention is packed.
        choice: the patch that is chosen.
        values: what it does to each token.
        read: the words for the tokens that the head reads, where the pass computes only those here; else empty.
    """

    number: int
    walk: Walk
    maps: Maps
    choice: Choice
    values: BlockValues
    read: str

    @property
    def path(self) -> str:
        """Of the module."""
        return f"encoder.blocks.{self.number}"

    @property
    def computed(self) -> bool:
        """Whether the pass computes the chosen patch here."""
        return self.choice.token < len(self.values.norms)

    def part(self, name: str, places: str = "", figure: str = "", text: str = "") -> str:
        """A step of the block, if this model has it."""
        stage = self.walk.stages.get(f"{self.path}{name}")
        return "" if stage is None else part(stage, places or name.rpartition(".")[2], figure, text, level=5)


def block_html(block: Block) -> str:
    """A block: its summary, then its steps. The first one is open and explains more than the others."""
    first = block.number == 0
    shares, prefix = shown_maps(block.walk, block.maps, block.number, block.choice)
    c = block.walk.model.config
    note = f'<p class="note">{words.READ_ONLY.format(read=block.read)}</p>\n' if block.read else ""
    attention = f"{block.path}.attention"
    few = block.walk.stages.get(f"{attention}.qkv", None)
    qkv = "qkv of the tokens read" if few is not None and few.kind == "linear" else "qkv"
    heads_text = words.HEADS.format(heads=c.num_heads) if first else ""
    steps = [
        facts(block.walk.stages[block.path], "block"),
        half("attention", words.GATHER),
        block.part(".attention_norm"),
        block.part(".attention.qkv", qkv, head_figure(block), words.QKV.format(head_dim=c.head_dim) if first else ""),
        block.part(".attention:matmul", "relative"),
        block.part(".attention:scaled_dot_product_attention", "heads", heads_figure(block, shares, prefix), heads_text),
        block.part(".attention.out"),
        block.part(".attention_scale"),
        block.part(":add", "add"),
        half("the MLP", words.THINK),
        block.part(".mlp_norm"),
        *mlp_steps(block),
        block.part(".mlp_scale"),
        block.part(":add.2", "add.2", norms_figure(block)),
    ]
    return (
        f'<details class="block" id="block-{block.number}"{" open" if first else ""}>\n{summary(block, shares)}'
        f'<div class="inside">\n{note}{"".join(steps)}</div>\n</details>\n'
    )


def half(name: str, text: str) -> str:
    """The heading of one half of a block."""
    return f"<h4><span>{name}</span> {text}</h4>\n"


def summary(block: Block, shares: Float[Tensor, "heads rows columns"]) -> str:
    """What is seen of a block that is not open: where the chosen token looks on average, and what is added."""
    mean = view(
        heat(opacity(shares.mean(dim=0))),
        f"Block {block.number}: where the chosen token looks, mean of all heads",
        "mini photo",
        map="mean",
        block=block.number,
    )
    numbers = [f'<b data-adds="{i}">{added(block, i)}</b>' for i in (1, 3)]
    told = (
        f'<span class="soft"{hidden(not block.computed)}>attention adds {numbers[0]}, the MLP {numbers[1]}'
        '<span class="wide"> of the token’s length</span></span>'
    )
    if block.read:
        told += f'<span class="soft absent"{hidden(block.computed)}>computes only {block.read}</span>'
    return (
        f'<summary data-block="{block.number}">{mean}<span class="name">Block {block.number}</span>{told}</summary>\n'
    )


def hidden(yes: bool) -> str:
    """The attribute, where it is wanted."""
    return " hidden" if yes else ""


def added(block: Block, branch: int) -> str:
    """How long what a branch adds is, as a share of what it is added to."""
    if not block.computed:
        return ""
    norms = block.values.norms[block.choice.token]
    share = float(norms[branch] / norms[branch - 1].clamp_min(1e-12))
    return whole(share) if share < TIMES else f"{share:.0f} times"


def whole(share: float) -> str:
    """A share in whole per cent."""
    return f"{100 * share:.0f} %"


def heads_figure(block: Block, shares: Float[Tensor, "heads rows columns"], prefix: Float[Tensor, " heads"]) -> str:
    """Where the chosen token looks: the mean of all heads, then head by head."""
    where = {"block": block.number}
    mean = view(heat(opacity(shares.mean(dim=0))), "mean of all heads", "photo pick", map="mean", **where)
    front = words.front_name(block.walk.model.config)
    heads = "".join(
        f'<figure class="captioned">{view(heat(opacity(share)), f"head {i}", "photo pick", map=i, **where)}'
        f'<figcaption>head {i}<br><span data-peak="{i}">{peak(share, prefix[i], front)}</span></figcaption></figure>\n'
        for i, share in enumerate(shares)
    )
    caption = captioned(mean, '<b class="chosen">the chosen token</b>, mean of all heads', "mean")
    return f'<div class="maps">{caption}<div class="heads">{heads}</div></div>\n'


def peak(share: Float[Tensor, "rows columns"], prefix: Tensor, front: str) -> str:
    """The most that one place gets, and what the tokens in front get; `front` is what these are called."""
    told = f"most {percent(float(share.max()))}"
    return f"{told}<br>{front} {percent(float(prefix))}" if front else told


def percent(share: float) -> str:
    """A share in few characters; the script writes them the same way."""
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"


def head_figure(block: Block) -> str:
    """Query, keys and value of the chosen token in head 0."""
    head = head_strips(block.walk, block.number)
    if head is None:
        return ""
    token = block.choice.token
    most, least = int(head.most[token]), int(head.least[token])
    scores = head.scores[token].tolist()
    rows = [
        ("q of the chosen token, head 0", head.kinds["q"][token], "q"),
        (f"k that fits most{fit(token_name(block.walk, most), scores[0])}", head.kinds["k"][most], "most"),
        (f"k that fits least{fit(token_name(block.walk, least), scores[1])}", head.kinds["k"][least], "least"),
        ("v of the token that fits most", head.kinds["v"][most], "v"),
    ]
    drawn = "".join(
        strip_row(name, strip(values), strip_size(len(values)), "its numbers as colors", first=kind)
        for name, values, kind in rows
    )
    return f'<div class="strips" data-block="{block.number}" data-of="first">{drawn}</div>\n'


def fit(name: str, score: float) -> str:
    """Whose key a strip shows, and how it fits the query."""
    told = f"{score:.2f}".replace("-", "−")
    product = "q k<sup>T</sup> / √D<sub>h</sub>"
    return f"<small><span data-name>{name}</span>, {product} = <span data-score>{told}</span></small>"


def token_name(walk: Walk, token: int) -> str:
    """A token in words."""
    names = words.prefix_names(walk.model.config)
    if token < len(names):
        return names[token]
    row, column = divmod(token - len(names), walk.grid[1])
    return f"patch ({row}, {column})"


def mlp_steps(block: Block) -> list[str]:
    """The MLP's dense layers with what is between them."""
    figure = hidden_figure(block)
    if f"{block.path}.mlp:mul" in block.walk.stages:
        return [
            block.part(".mlp.fc1", "SwiGLU fc1"),
            block.part(".mlp:silu", "SwiGLU gate"),
            block.part(".mlp:mul", "SwiGLU gate", figure),
            block.part(".mlp.fc2", "SwiGLU fc2"),
        ]
    return [
        block.part(".mlp.fc1"),
        block.part(".mlp.activation", figure=figure),
        block.part(".mlp.fc2"),
    ]


def hidden_figure(block: Block) -> str:
    """The hidden units of the chosen token that are largest, and the share that is active."""
    values, token = block.values, block.choice.token if block.computed else 0
    pairs = zip(values.units[token].tolist(), values.heights[token].tolist(), strict=True)
    rows = [(f"unit {unit}", height, f"{height:.2f}") for unit, height in pairs]
    open_or_active = "gates are open" if f"{block.path}.mlp:mul" in block.walk.stages else "units are above 0"
    caption = f"{words.HIDDEN} <b data-active>{whole(float(values.active[token]))}</b> of all {open_or_active}."
    return absent(block, f"{bars(rows)}<figcaption>{caption}</figcaption>", "units")


def norms_figure(block: Block) -> str:
    """How long the chosen token is before, between and after, and what is added."""
    norms = block.values.norms[block.choice.token if block.computed else 0].tolist()
    rows = [(name, value, f"{value:.3g}") for name, value in zip(NORMS, norms, strict=True)]
    return absent(block, f"{bars(rows)}<figcaption>{words.ADDED}</figcaption>", "norms")


def absent(block: Block, content: str, kind: str) -> str:
    """A figure of the chosen token's numbers, hidden where the pass has none of it."""
    note = f'<p class="absent"{hidden(block.computed)}>Not computed for this token.</p>' if block.read else ""
    return (
        f'<figure class="numbers" data-block="{block.number}" data-of="{kind}"><div{hidden(not block.computed)}>'
        f"{content}</div>{note}</figure>\n"
    )
