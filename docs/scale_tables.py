"""Renews the tables of docs/scale.md from formulas: `python -m docs.scale_tables`.

A table is what is between `<!-- name -->` and `<!-- /name -->`. Nothing here is measured.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vitreous.model.config import ViTConfig
from vitreous.model.cost import nominal_multiply_adds
from vitreous.model.variants import variant
from vitreous.support.files import write_text
from vitreous.training.parallel.memory import (
    FLOAT,
    HALF,
    SHARE,
    Kind,
    Shape,
    activation_bytes,
    device_memory,
    state_bytes,
)

PAGE = Path(__file__).with_name("scale.md")
MODELS = ("B/16", "L/16", "g/14")
KINDS: tuple[Kind, Kind] = ("ddp", "fsdp")
NODE = 8  # GPUs
MANY = 64
IMAGES = 64  # for each GPU, of a batch of 4,096 on MANY
DEVICE = 80e9  # bytes of a GPU
USABLE = 0.8  # of its memory, after the context, workspaces and gaps
PEAK, UTILIZATION = 989e12, 0.5  # FLOP/s of an H100 in bfloat16, and the share that a ViT reaches
LINK_SHARE = 0.8  # of a link's speed that collectives reach


class Link(NamedTuple):
    """How GPUs are connected: the speed of what leaves a node, or a GPU inside one, in one direction."""

    name: str
    bytes_per_second: float
    ranks: int


LINKS = (
    Link("NVLink, one node of 8 GPUs", 450e9, NODE),
    Link("8 × InfiniBand 400 Gb/s a node", 400e9, MANY),
    Link("8 × InfiniBand 200 Gb/s a node", 200e9, MANY),
    Link("1 × InfiniBand 200 Gb/s a node", 25e9, MANY),
    Link("25 Gb/s Ethernet", 25e9 / 8, MANY),
    Link("10 Gb/s Ethernet", 10e9 / 8, MANY),
)


def shape_of(config: ViTConfig) -> Shape:
    """The numbers of a config that its memory depends on."""
    c = config
    return Shape(
        *(c.width, c.depth, c.mlp_dim, c.num_heads),
        patches=math.prod(c.grid),
        patch_values=c.channels * math.prod(c.patch_size),
        num_classes=c.num_classes,
        prefix_tokens=c.prefix_tokens,
        hidden_dim=c.hidden_dim or 0,
        reads=1 if c.pooling == "class_token" else None,
    )


class Traffic(NamedTuple):
    """Bytes that a GPU sends in one update, and receives just as many; in a ring, what crosses each link too."""

    forward: float
    backward: float

    @property
    def total(self) -> float:
        """Of the update."""
        return self.forward + self.backward


def traffic(kind: Kind, ranks: int, parameters: int, half: bool = True) -> Traffic:
    """The bytes of one update in one micro-batch.

    DDP sums float32 gradients: a reduce-scatter and an all-gather. FSDP gathers the weights twice, in 16 bits if half,
    and sums float32 gradients by a reduce-scatter.
    """
    share = (ranks - 1) / ranks * parameters
    if kind == "ddp":
        return Traffic(0, 2 * share * FLOAT)
    gather = share * (HALF if half else FLOAT)
    return Traffic(gather, gather + share * FLOAT)


def seconds_per_image(config: ViTConfig) -> float:
    """Of the forward pass; the backward pass takes twice as long."""
    return 2 * nominal_multiply_adds(config) / (UTILIZATION * PEAK)


def efficiency(kind: Kind, link: Link, name: str, images: int = IMAGES) -> float:
    """Computation over the whole of an update, if communication hides behind the pass that it belongs to."""
    forward = images * seconds_per_image(variant(name))
    sent = traffic(kind, link.ranks, shape_of(variant(name)).parameters)
    speed = LINK_SHARE * link.bytes_per_second
    return 3 * forward / (max(forward, sent.forward / speed) + max(2 * forward, sent.backward / speed))


def hiding_images(kind: Kind, link: Link, name: str) -> int:
    """The fewest images for each GPU at which all communication hides."""
    forward = seconds_per_image(variant(name))
    sent = traffic(kind, link.ranks, shape_of(variant(name)).parameters)
    speed = LINK_SHARE * link.bytes_per_second
    return math.ceil(max(sent.forward / speed / forward, sent.backward / speed / (2 * forward)))


def fitting_images(kind: Kind, ranks: int, shape: Shape, checkpointing: bool) -> int:
    """The most images at once on a GPU, in 16 bits with AdamW."""
    empty = device_memory(kind, ranks, shape, 0)
    room = USABLE * DEVICE - empty.state - empty.copies - empty.buffers
    return max(0, int(room // activation_bytes(shape, checkpointing=checkpointing)))


# ---- tables


def bytes_table() -> list[list[str]]:
    """Bytes each update."""
    head = ["model", "parameters"]
    head += [f"{what}, {ranks} GPUs" for what in ("DDP", "FSDP, 16 bits", "FSDP, float32") for ranks in (NODE, MANY)]
    ways: tuple[tuple[Kind, bool], ...] = (("ddp", True), ("fsdp", True), ("fsdp", False))
    rows = [head]
    for name in MODELS:
        p = shape_of(variant(name)).parameters
        sent = [traffic(kind, ranks, p, half).total for kind, half in ways for ranks in (NODE, MANY)]
        rows.append([name, f"{p:,}", *(gigabytes(each) for each in sent)])
    return rows


def state_table() -> list[list[str]]:
    """Memory that does not depend on the images."""
    head = ["model", "DDP", f"FSDP, {NODE} GPUs", f"FSDP, {MANY} GPUs", "average", "evaluation", "auto takes DDP from"]
    rows = [head]
    for name in MODELS:
        shape = shape_of(variant(name))
        cells = []
        for kind, ranks in (("ddp", 1), ("fsdp", NODE), ("fsdp", MANY)):
            memory = device_memory(kind, ranks, shape, 0)
            cells.append(f"{gigabytes(memory.state)} + {gigabytes(memory.copies + memory.buffers)}")
        copy = gigabytes(FLOAT * shape.parameters)
        least = state_bytes(shape.parameters) / SHARE
        rows.append([name, *cells, copy, copy, gigabytes(least)])
    return rows


def activations_table() -> list[list[str]]:
    """Memory of one image."""
    head = ["model", "16 bits", "16 bits, dropout", "16 bits, checkpointed", "float32", "float32, checkpointed"]
    rows = [head]
    for name in MODELS:
        shape = shape_of(variant(name))
        each = [
            activation_bytes(shape),
            activation_bytes(shape, dropout=True),
            activation_bytes(shape, checkpointing=True),
            activation_bytes(shape, half=False),
            activation_bytes(shape, half=False, checkpointing=True),
        ]
        rows.append([name, *(f"{bytes_ / 1e6:.1f}" for bytes_ in each)])
    return rows


def images_table() -> list[list[str]]:
    """How many images fit."""
    rows = [["model", "DDP", f"FSDP, {NODE} GPUs", f"FSDP, {MANY} GPUs"]]
    for name in MODELS:
        shape = shape_of(variant(name))
        ways: tuple[tuple[Kind, int], ...] = (("ddp", 1), ("fsdp", NODE), ("fsdp", MANY))
        fits = [[fitting_images(kind, ranks, shape, again) for again in (False, True)] for kind, ranks in ways]
        rows.append([name, *(f"{plain:,} / {again:,}" for plain, again in fits)])
    return rows


def compute_table() -> list[list[str]]:
    """Time of computation."""
    rows = [["model", "GFLOPs an image", "ms an image", f"ms of {IMAGES} images", "images a second and GPU"]]
    for name in MODELS:
        seconds = 3 * seconds_per_image(variant(name))
        gflops = 6e-9 * nominal_multiply_adds(variant(name))
        rows.append(
            [name, f"{gflops:,.0f}", f"{1e3 * seconds:.2f}", f"{1e3 * IMAGES * seconds:.0f}", f"{1 / seconds:,.0f}"]
        )
    return rows


def scaling_table() -> list[list[str]]:
    """Time of communication, and what remains of the speed."""
    rows = [["link", *(f"{name}, {kind.upper()}" for name in MODELS for kind in KINDS)]]
    for link in LINKS:
        cells = []
        for name in MODELS:
            for kind in KINDS:
                sent = traffic(kind, link.ranks, shape_of(variant(name)).parameters)
                milliseconds = 1e3 * sent.total / (LINK_SHARE * link.bytes_per_second)
                cells.append(f"{milliseconds:,.1f} ms, {efficiency(kind, link, name):.0%}".replace("%", " %"))
        rows.append([link.name, *cells])
    return rows


def hiding_table() -> list[list[str]]:
    """Images that hide communication."""
    rows = [["link", *(f"{name}, {kind.upper()}" for name in MODELS for kind in KINDS)]]
    for link in LINKS:
        rows.append([link.name, *(f"{hiding_images(kind, link, name):,}" for name in MODELS for kind in KINDS)])
    return rows


TABLES = {
    "bytes": bytes_table,
    "state": state_table,
    "activations": activations_table,
    "images": images_table,
    "compute": compute_table,
    "scaling": scaling_table,
    "hiding": hiding_table,
}


def gigabytes(number: float) -> str:
    """In units of 10⁹ bytes."""
    return f"{number / 1e9:.2f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is the head; all columns but the first are numbers."""
    lines = [rows[0], ["---", *("--:" for _ in rows[0][1:])], *rows[1:]]
    return (
        "".join(f"| {' | '.join(cells)} |\n" for cells in lines).replace("| --- |", "|---|").replace(" --: |", "--:|")
    )


def renewed(document: str) -> str:
    """The document with its tables renewed.

    Raises:
        ValueError: a table has no place in it.
    """
    for name, table in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(document):
            raise ValueError(f"there is no <!-- {name} --> in {PAGE.name}")
        lines = markdown(table())
        document = pattern.sub(lambda match, lines=lines: match[1] + lines + match[2], document)
    return document


if __name__ == "__main__":
    write_text(PAGE, renewed(PAGE.read_text(encoding="utf-8")))
