"""What the page's script draws: the numbers of every token, as bytes in base64.

Maps and strips have LEVELS steps, one byte each, which deflate to less than half a byte; the browser's own
DecompressionStream unpacks them.
"""

import zlib
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vitreous.explain.embeddings import position_similarity
from vitreous.explain.inline import HEAT, STRONGEST
from vitreous.model.shapes import AttentionMap, Grid
from vitreous.pages.pictures import COLD, LEVELS, STRIP, ZERO, levels, signed_levels
from vitreous.pages.walk.recording import BlockValues, Walk, attention_map, first_head, position_table

FIRST = 8  # numbers of a patch and of its token that are written out
STRIP_NUMBERS = 400_000  # of all patches' strips, for each kind
FIRST_HEAD_NUMBERS = 600_000  # of all blocks' queries, keys and values; beyond it, only block 0 has them
SIMILAR_PLACES = 700  # patches up to which each has its own similarity map
MAP_NUMBERS = 10_000_000  # of all attention maps
COARSER = ((1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4), (8, 8), (16, 8), (16, 16))  # see Resolution


@dataclass(frozen=True)
class Resolution:
    """How many patches the attention maps show as one, so that the page stays small.

    Attributes:
        keys: side of the square of patches whose attention is averaged.
        queries: side of the square of chosen patches whose maps are averaged.
    """

    keys: int
    queries: int


@dataclass(frozen=True)
class Choice:
    """The patch that is chosen when the page opens.

    Attributes:
        row: from 0.
        column: from 0.
        place: its index among the patches.
        token: its index among all tokens.
    """

    row: int
    column: int
    place: int
    token: int


@dataclass(frozen=True, eq=False)
class Strips:
    """The first numbers of one vector per patch, in signed levels; `scale` is the size at which colors are full."""

    scale: float
    levels: Float[Tensor, "patches numbers"]


@dataclass(frozen=True, eq=False)
class Similarity:
    """The similarity of the positions, in levels from `low` to `high`."""

    low: float
    high: float
    maps: Float[Tensor, "patches rows columns"]


@dataclass(frozen=True, eq=False)
class FirstHead:
    """Head 0 of one block: queries, keys and values, and the best and worst matching key of each query.

    Attributes:
        vectors: "q", "k" and "v" in signed levels, "tokens head_dim".
        best: the token that each token attends to most.
        worst: the token that it attends to least.
        scores: q kᵀ / √D_h of those two, without relative positions.
    """

    vectors: dict[str, Float[Tensor, "tokens head_dim"]]
    best: Tensor
    worst: Tensor
    scores: Float[Tensor, "tokens 2"]


def first_choice(pixels: np.ndarray, walk: Walk) -> Choice:
    """The patch with the most contrast."""
    (rows, columns), (height, width) = walk.grid, walk.model.config.token_stride
    cut = torch.from_numpy(pixels).float().unflatten(2, (columns, width)).unflatten(1, (rows, height))
    place = int(cut.permute(1, 3, 0, 2, 4).flatten(2).std(dim=-1).argmax())
    return Choice(place // columns, place % columns, place, walk.prefix + place)


# ---- attention


def resolution(walk: Walk) -> Resolution:
    """The finest resolution at which all attention maps fit on the page."""
    for keys, queries in COARSER:
        rows = walk.prefix + size(coarse(walk.grid, queries))
        numbers = walk.model.config.depth * walk.model.config.num_heads * rows * size(coarse(walk.grid, keys))
        if numbers <= MAP_NUMBERS:
            break
    return Resolution(keys, queries)


def attention_data(walk: Walk, block: int, sides: Resolution) -> dict[str, str]:
    """The attention of a block: maps in levels, the maximum of each map, and the share of all prefix tokens."""
    weights = attention_map(walk, block).float().cpu()
    patches, prefix = split_keys(pooled_queries(weights, walk, sides.queries), walk, sides.keys)
    peaks = patches.amax(dim=(-2, -1))
    return {"maps": packed_levels(levels(patches)), "peaks": packed_floats(peaks), "prefix": packed_floats(prefix)}


def attention_of(
    walk: Walk, block: int, choice: Choice, sides: Resolution
) -> tuple[Float[Tensor, "heads rows columns"], Float[Tensor, " heads"]]:
    """The attention of the chosen patch in each head: to the patches, and to all prefix tokens together."""
    weights = pooled_queries(attention_map(walk, block).float().cpu(), walk, sides.queries)
    patches, prefix = split_keys(weights, walk, sides.keys)
    columns = coarse(walk.grid, sides.queries)[1]
    row = walk.prefix + choice.row // sides.queries * columns + choice.column // sides.queries
    return patches[:, row], prefix[:, row]


def pooled_queries(weights: AttentionMap, walk: Walk, side: int) -> Float[Tensor, "batch heads fewer tokens"]:
    """Attention maps averaged over `side`×`side` neighboring queries."""
    if side == 1:
        return weights
    [maps] = weights[:, :, walk.prefix :].transpose(-1, -2)  # heads tokens queries
    few = average(maps.unflatten(-1, walk.grid), side).flatten(-2).transpose(-1, -2)[None]
    return torch.cat([weights[:, :, : walk.prefix], few], dim=2)


def split_keys(
    weights: AttentionMap, walk: Walk, side: int
) -> tuple[Float[Tensor, "heads queries rows columns"], Float[Tensor, "heads queries"]]:
    """The attention to the patches, averaged over `side`×`side` of them, and that to all prefix tokens together."""
    patches = weights[0, :, :, walk.prefix :].unflatten(-1, walk.grid)
    return average(patches, side), weights[0, :, :, : walk.prefix].sum(dim=-1)


def average(maps: Float[Tensor, "a b rows columns"], side: int) -> Float[Tensor, "a b fewer_rows fewer_columns"]:
    """The mean of each `side`×`side` neighbors; of fewer at the lower and right edges, if they do not fit."""
    return maps if side == 1 else F.avg_pool2d(maps, side, ceil_mode=True)


def coarse(grid: Grid, side: int) -> Grid:
    """The grid of `side`×`side` cells."""
    return -(-grid[0] // side), -(-grid[1] // side)


def size(grid: Grid) -> int:
    """The cells of a grid."""
    return grid[0] * grid[1]


# ---- tokens


def strips(walk: Walk) -> dict[str, Strips]:
    """For every patch: "embedded", x_p E; "positions", E_pos; and "summed", z_0, if positions are added at the stem."""
    kinds = {"embedded": walk.value("patch_embedding")}
    table = position_table(walk)
    if table is not None:
        kinds["positions"] = table[walk.prefix :]
        if walk.model.config.position_site == "stem":
            kinds["summed"] = walk.value("position_embedding")[walk.prefix :]
    patches, width = kinds["embedded"].shape
    count = max(1, min(width, STRIP_NUMBERS // patches))
    return {name: Strips(*signed_levels(values[:, :count])) for name, values in kinds.items()}


def similarity(walk: Walk) -> Similarity | None:
    """The cosine similarity of each position to all others; None if there is no table."""
    if position_table(walk) is None:
        return None
    maps = position_similarity(walk.model, walk.grid).flatten(0, 1).float().cpu()
    maps = average(maps[None], 1 if size(walk.grid) <= SIMILAR_PLACES else 2)[0]
    low, high = float(maps.min()), float(maps.max())
    return Similarity(low, high, ((maps - low) / max(high - low, 1e-12) * LEVELS).round())


def head_of(walk: Walk, block: int) -> FirstHead | None:
    """Head 0 of a block, or None if it is left out to keep the page small."""
    config = walk.model.config
    if block and 3 * walk.tokens * config.head_dim * config.depth > FIRST_HEAD_NUMBERS:
        return None
    q, k, v = (x[0, 0].float().cpu() for x in first_head(walk, block))
    weights = attention_map(walk, block)[0, 0].float().cpu()
    best, worst = weights.argmax(dim=-1), weights.argmin(dim=-1)
    scores = torch.stack([(q * k[other]).sum(dim=-1) / q.shape[-1] ** 0.5 for other in (best, worst)], dim=-1)
    return FirstHead({name: signed_levels(x)[1] for name, x in zip("qkv", (q, k, v), strict=True)}, best, worst, scores)


# ---- packing


def script_data(
    walk: Walk, choice: Choice, sides: Resolution, blocks: list[BlockValues], prefix_names: list[str], prefix_label: str
) -> dict[str, Any]:
    """Everything the script reads, ready for JSON."""
    config, similar = walk.model.config, similarity(walk)
    vectors = strips(walk)
    return {
        "grid": walk.grid,
        "stride": config.token_stride,
        "prefix": prefix_names,
        "prefixLabel": prefix_label,
        "heads": config.num_heads,
        "chosen": choice.place,
        "colors": {"heat": HEAT, "cold": COLD, "strongest": STRONGEST, "levels": LEVELS, "zero": ZERO, "strip": STRIP},
        "keys": {"side": sides.keys, "grid": coarse(walk.grid, sides.keys)},
        "queries": {"side": sides.queries, "grid": coarse(walk.grid, sides.queries)},
        "patches": rounded(walk.value("patch_embedding:patches")[:, :FIRST]),
        "tokens": rounded(walk.value("patch_embedding")[:, :FIRST]),
        "strips": {
            "numbers": vectors["embedded"].levels.shape[1],
            **{name: packed_levels(strip.levels) for name, strip in vectors.items()},
        },
        "similarity": similar and {"grid": list(similar.maps.shape[1:]), "maps": packed_levels(similar.maps)},
        "blocks": [
            {
                **attention_data(walk, i, sides),
                "norms": packed_floats(values.norms),
                "active": packed_floats(values.active),
                "units": packed_floats(values.units.float()),
                "heights": packed_floats(values.heights),
                "first": head_data(head_of(walk, i)),
            }
            for i, values in enumerate(blocks)
        ],
    }


def head_data(head: FirstHead | None) -> dict[str, Any] | None:
    """Head 0 of a block."""
    if head is None:
        return None
    matches = torch.stack([head.best.float(), head.worst.float()], dim=-1)
    return {
        "numbers": head.vectors["q"].shape[1],
        "matches": packed_floats(torch.cat([matches, head.scores], dim=-1)),
        **{name: packed_levels(values) for name, values in head.vectors.items()},
    }


def packed_levels(values: Tensor) -> str:
    """Levels as one byte each; NaN is 0."""
    return packed("u1", values.nan_to_num().to(torch.uint8).numpy())


def packed_floats(values: Tensor) -> str:
    """Numbers as little-endian float32."""
    return packed("f4", values.float().cpu().numpy().astype("<f4"))


def packed(kind: str, values: np.ndarray) -> str:
    """An array as its kind and its deflated bytes in base64."""
    return f"{kind}:{b64encode(zlib.compress(values.tobytes(), 9)).decode('ascii')}"


def rounded(values: Tensor) -> list[list[float]]:
    """Numbers with two decimals; JSON has no NaN, so it becomes 0."""
    return [[round(v, 2) for v in row] for row in values.nan_to_num().tolist()]
