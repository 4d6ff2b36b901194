"""Tensors as short text for the page: four bits a value or float32, deflated, in base64.

The page's script unpacks them with the browser's own DecompressionStream.
"""

import zlib
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vitreous.model.shapes import AttentionMap, Grid
from vitreous.pages.walk.values import Walk, attention_map

STEPS = 15  # of four bits
ZERO = 7  # the step that means 0 where values have a sign: 0 is -1, 14 is 1
CLIPPED = 0.995  # the share of values that a signed scale reaches
MOST_MAPS = 6_000_000  # characters that all attention maps may take
COARSER = [
    (1, 1),
    (2, 1),
    (2, 2),
    (4, 2),
    (4, 4),
    (8, 4),
    (8, 8),
    (16, 8),
    (16, 16),
]  # patches of a side: keys, queries
LEAST = 0.25  # deflated maps are not smaller than this share, so that what cannot fit is not tried


@dataclass(frozen=True)
class Maps:
    """The attention of all blocks, packed.

    Attributes:
        keys: patches of a side that are shown as one; 1 where every patch is.
        queries: patches of a side around the chosen one whose attention is shown as one.
        blocks: for each block "maps" (heads, queries, keys; each row the square root of its share of the row's
            maximum), "peaks" (those maxima) and "prefix" (what the row gives to the tokens in front of the patches).
    """

    keys: int
    queries: int
    blocks: list[dict[str, str]]


def pack_maps(walk: Walk, most: int = MOST_MAPS) -> Maps:
    """Packs the attention of all blocks, at full size where that fits, else with patches put together.

    Args:
        walk: the pass.
        most: characters that they may take; the coarsest way there is may take more.
    """
    depth, heads = walk.model.config.depth, walk.model.config.num_heads
    for keys, queries in COARSER:
        rows = walk.model.config.prefix_tokens + size(coarse(walk.grid, queries))
        nibbles = depth * heads * rows * size(coarse(walk.grid, keys))
        if nibbles * 2 / 3 * LEAST > most and (keys, queries) != COARSER[-1]:
            continue
        blocks, used = [], 0
        for block in packed_blocks(walk, keys, queries):
            blocks.append(block)
            used += sum(map(len, block.values()))
            if used > most:
                break
        if used <= most or (keys, queries) == COARSER[-1]:
            break
    return Maps(keys, queries, blocks)


def packed_blocks(walk: Walk, keys: int, queries: int) -> Iterator[dict[str, str]]:
    """Each block's maps, packed."""
    for block in range(walk.model.config.depth):
        weights = pooled(attention_map(walk, block).float().cpu(), walk.grid, walk.model.config.prefix_tokens, queries)
        patches, prefix = key_patches(weights, walk.grid, keys)
        peaks = patches.amax(dim=-1)
        steps = (patches / peaks.clamp_min(1e-30)[..., None]).sqrt() * STEPS
        yield {"maps": nibbles(steps.round()), "peaks": floats(peaks), "prefix": floats(prefix)}


def pooled(weights: AttentionMap, grid: Grid, prefix: int, side: int) -> Float[Tensor, "batch heads fewer tokens"]:
    """Maps of which neighboring queries, `side`×`side` patches, are put together as their mean."""
    if side == 1:
        return weights
    [maps] = weights[:, :, prefix:].transpose(-1, -2)  # heads tokens queries
    few = average(maps.unflatten(-1, grid), side).flatten(-2).transpose(-1, -2)[None]
    return torch.cat([weights[:, :, :prefix], few], dim=2)


def key_patches(
    weights: AttentionMap, grid: Grid, side: int
) -> tuple[Float[Tensor, "heads queries patches"], Float[Tensor, "heads queries"]]:
    """What each query gives each patch, or the mean of `side`×`side` of them; and what all tokens in front get."""
    patches = weights[0, :, :, -size(grid) :]
    prefix = weights[0, :, :, : -size(grid)].sum(dim=-1)
    return average(patches.unflatten(-1, grid), side).flatten(-2), prefix


def average(maps: Float[Tensor, "a b rows columns"], side: int) -> Float[Tensor, "a b fewer_rows fewer_columns"]:
    """The mean of each `side`×`side` neighbors; fewer at the lower and the right edge, where they do not fit."""
    return maps if side == 1 else F.avg_pool2d(maps, side, ceil_mode=True)


def coarse(grid: Grid, side: int) -> Grid:
    """The grid whose cells are `side`×`side` of this one's."""
    return -(-grid[0] // side), -(-grid[1] // side)


def size(grid: Grid) -> int:
    """Cells of a grid."""
    return grid[0] * grid[1]


def signed(values: Tensor) -> tuple[float, Tensor]:
    """The value that the last step stands for, and the values in steps around ZERO."""
    far = values.abs().flatten().sort().values
    scale = float(far[round((len(far) - 1) * CLIPPED)]) or 1.0
    return scale, (values / scale * ZERO).round().clamp(-ZERO, ZERO) + ZERO


def nibbles(steps: Tensor) -> str:
    """Whole numbers from 0 to 15, two in a byte, the first in its upper half; what is no number is 0."""
    flat = steps.flatten().nan_to_num().to(torch.uint8).numpy()
    even = np.append(flat, np.zeros(len(flat) % 2, np.uint8))
    return f"u4:{packed(even[::2] << 4 | even[1::2])}"


def floats(values: Tensor) -> str:
    """Numbers as float32, least significant byte first."""
    numbers = np.ascontiguousarray(values.float().cpu().numpy(), dtype="<f4")
    return f"f4:{packed(numbers.reshape(-1).view(np.uint8))}"


def packed(values: UInt8[np.ndarray, " count"]) -> str:
    """Bytes, deflated, in base64."""
    return b64encode(zlib.compress(values.tobytes(), 9)).decode("ascii")
