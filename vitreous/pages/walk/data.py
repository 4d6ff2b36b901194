"""What the page's script draws from: the numbers of every token, packed; and those of the one that is chosen first."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from vitreous.pages.walk.packing import (
    STEPS,
    Maps,
    average,
    coarse,
    floats,
    nibbles,
    signed,
    size,
)
from vitreous.pages.walk.values import (
    BlockValues,
    Walk,
    attention_map,
    block_values,
    first_head,
    position_table,
)
from vitreous.pages.walk.words import front_name, prefix_names

FIRST = 8  # numbers of a patch and of its token that are written out
SHOWN_NUMBERS = 400_000  # of all tokens' strips, each kind
FIRST_HEAD_NUMBERS = 600_000  # of all blocks' queries, keys and values; with more only the first block has them
MOST_PLACES = 700  # patches up to which similarities of positions are not put together


@dataclass(frozen=True)
class Choice:
    """The patch that is chosen when the page opens.

    Attributes:
        row: from 0.
        column: from 0.
        place: among the patches, in reading order.
        token: among all tokens.
    """

    row: int
    column: int
    place: int
    token: int


@dataclass(frozen=True, eq=False)
class FirstHead:
    """Queries, keys and values of all tokens in head 0 of one block, and the keys that fit each query most and least.

    Attributes:
        kinds: "q", "k" and "v" in signed steps, "tokens head_dim".
        most: the token that each one looks at most.
        least: the token that it looks at least.
        scores: q kᵀ / √D_h of those two, with relative positions where there are any left out.
    """

    kinds: dict[str, Float[Tensor, "tokens head_dim"]]
    most: Tensor
    least: Tensor
    scores: Float[Tensor, "tokens 2"]


@dataclass(frozen=True, eq=False)
class Strip:
    """The first numbers of one vector for every patch, in signed steps; `scale` is what the last step stands for."""

    scale: float
    steps: Float[Tensor, "patches numbers"]


@dataclass(frozen=True, eq=False)
class Similarity:
    """How alike the positions are: in steps of [0, 1], which go from `low` to `high`."""

    low: float
    high: float
    maps: Float[Tensor, "patches rows columns"]


def first_choice(pixels: UInt8[ndarray, "channels height width"], walk: Walk) -> Choice:
    """The patch whose pixels differ most among themselves: there is something to see in it."""
    (rows, columns), (height, width) = walk.grid, walk.model.config.token_stride
    cut = torch.from_numpy(pixels).float().unflatten(2, (columns, width)).unflatten(1, (rows, height))
    place = int(cut.permute(1, 3, 0, 2, 4).flatten(2).std(dim=-1).argmax())
    return Choice(place // columns, place % columns, place, walk.model.config.prefix_tokens + place)


def shown_maps(
    walk: Walk, maps: Maps, block: int, choice: Choice
) -> tuple[Float[Tensor, "heads rows columns"], Float[Tensor, " heads"]]:
    """What the chosen patch gives each patch in each head, in the page's cells; and all tokens in front together."""
    weights = attention_map(walk, block)[0].float().cpu()
    prefix = walk.model.config.prefix_tokens
    rows, columns = (slice(v // maps.queries * maps.queries, None) for v in (choice.row, choice.column))
    around = weights[:, prefix:].unflatten(1, walk.grid)[:, rows, columns]
    row = around[:, : maps.queries, : maps.queries].flatten(1, 2).mean(dim=1)
    patches = average(row[:, None, prefix:].unflatten(-1, walk.grid), maps.keys)[:, 0]
    return patches, row[:, :prefix].sum(dim=-1)


def opacity(shares: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """How opaque each cell of a map of attention is, in the steps that the script has too."""
    return (shares / shares.max().clamp_min(1e-30)).sqrt().mul(STEPS).round() / STEPS


def strips(walk: Walk) -> dict[str, Strip]:
    """For every patch "embedded", x_p E; where there is a table "positions", E_pos; at the stem also "summed", z_0."""
    prefix = walk.model.config.prefix_tokens
    kinds = {"embedded": walk.value("patch_embedding")}
    table = position_table(walk)
    if table is not None:
        kinds["positions"] = table[prefix:]
        if walk.model.config.position_site == "stem":
            kinds["summed"] = walk.value("position_embedding")[prefix:]
    patches, width = kinds["embedded"].shape
    count = max(1, min(width, SHOWN_NUMBERS // patches))
    return {name: Strip(*signed(values[:, :count])) for name, values in kinds.items()}


def similarity(walk: Walk) -> Similarity | None:
    """Cosine similarities of all places' positions, or None where there is no table."""
    from vitreous.explain.embeddings import position_similarity

    if position_table(walk) is None:
        return None
    maps = position_similarity(walk.model, walk.grid).flatten(0, 1).float().cpu()
    side = 1 if size(walk.grid) <= MOST_PLACES else 2
    maps = average(maps[None], side)[0]
    low, high = float(maps.min()), float(maps.max())
    return Similarity(low, high, ((maps - low) / max(high - low, 1e-12) * STEPS).round() / STEPS)


def head_strips(walk: Walk, block: int) -> FirstHead | None:
    """Head 0 of a block, or None where it is left out to keep the page small."""
    numbers = 3 * walk.tokens * walk.model.config.head_dim * walk.model.config.depth
    if block and numbers > FIRST_HEAD_NUMBERS:
        return None
    q, k, v = (x[0, 0].float().cpu() for x in first_head(walk, block))
    weights = attention_map(walk, block)[0, 0].float().cpu()
    most, least = weights.argmax(dim=-1), weights.argmin(dim=-1)
    scores = torch.stack([(q * k[other]).sum(dim=-1) / q.shape[-1] ** 0.5 for other in (most, least)], dim=-1)
    return FirstHead({"q": signed(q)[1], "k": signed(k)[1], "v": signed(v)[1]}, most, least, scores)


def page_data(walk: Walk, maps: Maps, choice: Choice, blocks: list[BlockValues]) -> dict[str, Any]:
    """Everything that the script reads, as JSON holds it."""
    config = walk.model.config
    found, alike = strips(walk), similarity(walk)
    return {
        "grid": walk.grid,
        "stride": config.token_stride,
        "prefix": prefix_names(config),
        "front": front_name(config),
        "heads": config.num_heads,
        "channels": config.channels if config.stem_blocks is None else 1,
        "chosen": choice.place,
        "keys": {"side": maps.keys, "grid": coarse(walk.grid, maps.keys)},
        "queries": {"side": maps.queries, "grid": coarse(walk.grid, maps.queries)},
        "patches": rounded(walk.value("patch_embedding:patches")[:, :FIRST]),
        "tokens": rounded(walk.value("patch_embedding")[:, :FIRST]),
        "strips": {
            "numbers": found["embedded"].steps.shape[1],
            **{name: nibbles(one.steps) for name, one in found.items()},
        },
        "similarity": alike and {"grid": list(alike.maps.shape[1:]), "maps": nibbles((alike.maps * STEPS).round())},
        "blocks": [
            {**maps.blocks[i], **of_tokens(values), "first": of_first_head(head_strips(walk, i))}
            for i, values in enumerate(blocks)
        ],
    }


def of_tokens(values: BlockValues) -> dict[str, Any]:
    """A block's numbers for each token."""
    return {
        "norms": floats(values.norms),
        "active": floats(values.active),
        "units": floats(values.units.float()),
        "heights": floats(values.heights),
    }


def of_first_head(head: FirstHead | None) -> dict[str, Any] | None:
    """Head 0 of a block."""
    if head is None:
        return None
    chosen = torch.stack([head.most.float(), head.least.float()], dim=-1)
    return {
        "numbers": head.kinds["q"].shape[1],
        "best": floats(torch.cat([chosen, head.scores], dim=-1)),
        **{kind: nibbles(values) for kind, values in head.kinds.items()},
    }


def all_blocks(walk: Walk) -> list[BlockValues]:
    """What every block does to each token."""
    return [block_values(walk, i) for i in range(walk.model.config.depth)]


def rounded(values: Tensor) -> list[list[float]]:
    """Numbers with two digits behind the point; JSON has no NaN, and so it becomes 0."""
    return [[round(v, 2) for v in row] for row in values.nan_to_num().tolist()]
