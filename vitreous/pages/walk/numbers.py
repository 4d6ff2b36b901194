"""The numbers of every token: the view shows those of the chosen one, the page's script those of any other.

Maps and strips have LEVELS steps, one byte each, which deflate to less than half a byte; the browser's own
DecompressionStream unpacks them.
"""

import math
import zlib
from base64 import b64encode
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vitreous.explain.embeddings import position_similarity
from vitreous.model.shapes import AttentionMap, Grid
from vitreous.pages.pictures import LEVELS, levels, signed_levels
from vitreous.pages.walk.recording import Walk, block_attention, position_table

MOST_ACTIVE = 5  # hidden units that are named
STRIP_NUMBERS = 400_000  # of all patches' strips, for each kind
FIRST_HEAD_NUMBERS = 600_000  # of all blocks' queries, keys and values; beyond it, only block 0 has them
SIMILAR_PLACES = 700  # patches up to which each has its own similarity map
MAP_NUMBERS = 12_000_000  # of all attention maps; ViT-B/16 at 384 pixels keeps every query, 4 to 5.5 MB
COARSER = ((1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4), (8, 8), (16, 8), (16, 16))  # see Resolution


class Resolution(NamedTuple):
    """How many patches the attention maps show as one, so that the page stays small."""

    keys: int  # side of the square of patches whose attention is averaged
    queries: int  # side of the square of chosen patches whose maps are averaged


class Strips(NamedTuple):
    """The first numbers of one vector per patch, in signed levels; `scale` is the size at which colors are full."""

    scale: float
    levels: UInt8[Tensor, "patches numbers"]


class Similarity(NamedTuple):
    """The similarity of the positions, in levels from `low` to `high`."""

    low: float
    high: float
    maps: UInt8[Tensor, "patches rows columns"]


def block_numbers(walk: Walk, block: int, sides: Resolution) -> dict[str, Tensor]:
    """What one block does to each token.

    If the head reads only the first few tokens, the pass computes only those in the last block; the "computed"
    dimension is then that short.

    Returns:
        For attention: "maps" in levels, "heads queries rows columns", with "peaks", the maximum of each, and "prefix",
        the share of all prefix tokens, "heads queries". For head 0, if it fits on the page: "q", "k" and "v" in
        signed levels, and "matches", "tokens 4": the token that each one attends to most, the one that it attends to
        least, and q kᵀ / √D_h of both, without relative positions. For the residual branches: "norms", "computed 5",
        the L2 norms of z_{l-1}, of what attention adds, of z'_l, of what the MLP adds, and of z_l. For the MLP:
        "active", "computed", the share of hidden units above 0 (in SwiGLU, of gates); "units" and "heights",
        "computed most", the largest hidden units and their values.
    """
    path, config = f"encoder.blocks.{block}", walk.model.config
    weights = block_attention(walk, block)
    patches, prefix = pooled(weights, walk, sides)
    numbers = {"maps": levels(patches), "peaks": patches.amax(dim=(-2, -1)), "prefix": prefix}
    if not block or 3 * weights.shape[-1] * config.head_dim * config.depth <= FIRST_HEAD_NUMBERS:
        numbers |= first_head(walk, block, weights[0, 0])

    between, after = walk.value(f"{path}:add"), walk.value(f"{path}:add.2")
    attention, mlp = (branch(walk, f"{path}.{name}") for name in ("attention", "mlp"))
    states = (between - attention, attention, between, mlp, after)
    gated = f"{path}.mlp:mul" in walk.stages
    hidden = walk.value(f"{path}.mlp:mul" if gated else f"{path}.mlp.activation")
    gates = walk.value(f"{path}.mlp:silu") if gated else hidden
    heights, units = hidden.topk(min(MOST_ACTIVE, hidden.shape[-1]), dim=-1)
    return numbers | {
        "norms": torch.stack([x.norm(dim=-1) for x in states], dim=-1),
        "active": (gates > 0).float().mean(dim=-1),
        "units": units,
        "heights": heights,
    }


def branch(walk: Walk, path: str) -> Float[Tensor, "computed width"]:
    """What a block's attention or MLP adds to the tokens: after its norm, if that comes after it, and its scale."""
    steps = (f"{path}_scale", *([f"{path}_norm"] if walk.model.config.norm_site == "after" else []), path)
    return walk.value(next(step for step in steps if step in walk.stages))


def first_head(walk: Walk, block: int, weights: Float[Tensor, "tokens tokens"]) -> dict[str, Tensor]:
    """Head 0 of one block (equation 5); see `block_numbers`."""
    module, tokens, positions = walk.block(block)
    q, k, v = (x[0, 0].float().cpu() for x in module.attention.project(tokens, positions=positions))
    matches = weights.argmax(dim=-1), weights.argmin(dim=-1)
    scores = [(q * k[other]).sum(dim=-1) / q.shape[-1] ** 0.5 for other in matches]
    vectors = {name: signed_levels(x)[1] for name, x in (("q", q), ("k", k), ("v", v))}
    return {**vectors, "matches": torch.stack([*(match.float() for match in matches), *scores], dim=-1)}


# ---- attention maps at a resolution


def resolution(walk: Walk) -> Resolution:
    """The finest resolution at which all attention maps fit on the page."""
    for sides in COARSER:
        keys, queries = (math.prod(coarse(walk.grid, side)) for side in sides)
        if walk.model.config.depth * walk.model.config.num_heads * (walk.prefix + queries) * keys <= MAP_NUMBERS:
            break
    return Resolution(*sides)


def pooled(
    weights: AttentionMap, walk: Walk, sides: Resolution
) -> tuple[Float[Tensor, "heads few_queries rows columns"], Float[Tensor, "heads few_queries"]]:
    """The attention to the patches, at the page's resolution, and that to all prefix tokens together."""
    [maps] = weights
    if sides.queries > 1:
        patches = maps[:, walk.prefix :].mT.unflatten(-1, walk.grid)  # heads keys rows columns
        maps = torch.cat([maps[:, : walk.prefix], average(patches, sides.queries).flatten(2).mT], dim=1)
    return average(maps[..., walk.prefix :].unflatten(-1, walk.grid), sides.keys), maps[..., : walk.prefix].sum(dim=-1)


def average(maps: Float[Tensor, "a b rows columns"], side: int) -> Float[Tensor, "a b fewer_rows fewer_columns"]:
    """The mean of each `side`×`side` neighbors; of fewer at the lower and right edges, if they do not fit."""
    return maps if side == 1 else F.avg_pool2d(maps, side, ceil_mode=True)


def coarse(grid: Grid, side: int) -> Grid:
    """The grid of `side`×`side` cells."""
    return -(-grid[0] // side), -(-grid[1] // side)


# ---- patches


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
    maps = average(maps[None], 1 if math.prod(walk.grid) <= SIMILAR_PLACES else 2)[0]
    low, high = float(maps.min()), float(maps.max())
    shares = (maps - low) / max(high - low, 1e-12)
    return Similarity(low, high, (shares * LEVELS).round().nan_to_num().to(torch.uint8))


def packed(values: Tensor) -> str:
    """Numbers as bytes or float32: their kind, then the deflated bytes in base64."""
    array = values.numpy() if values.dtype == torch.uint8 else values.float().numpy().astype("<f4")
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    return f"{kind}:{b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode('ascii')}"
