"""Relative positions, which act inside attention: the paper's (appendix D.4) and BEiT's."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.model import initialization
from vitreous.model.config import PositionSite, Resampling, check_heads
from vitreous.model.position_embedding import PositionEmbedding, resample_grid
from vitreous.model.shapes import AttentionBias, Grid, QueryHeads
from vitreous.support.errors import InputError


def inside(site: PositionSite) -> PositionSite:
    """Returns the site. Raises InputError for the stem, which is outside attention."""
    if site == "stem":
        raise InputError("relative positions act inside attention", "site is 'every_layer' or 'shared'")
    return site


def around_prefix(index: Tensor, prefix_tokens: int, first: int) -> Tensor:
    """Adds prefix tokens to an index of pairs of patches: prefix to patch gets `first`, then the other two kinds."""
    index = F.pad(index, (prefix_tokens, 0, prefix_tokens, 0))
    index[:prefix_tokens, prefix_tokens:] = first
    index[prefix_tokens:, :prefix_tokens] = first + 1
    index[:prefix_tokens, :prefix_tokens] = first + 2
    return index


class RelativePosition(PositionEmbedding):
    """Learned keys for the raster offset between query and key (relative in appendix D.4).

    The query times the offset's key, scaled by √D_h, is added to the attention logits. The paper leaves the details
    open; in our reading each offset has one key of D numbers, split over the heads, and pairs that include a prefix
    token have three keys of their own: prefix to patch, patch to prefix, prefix to prefix.

    Args:
        grid: (rows, columns) of the offsets; for other grids the 1-D table is resampled linearly.
        width: D.
        num_heads: k.
        depth: blocks of the encoder, for site "every_layer".
        site: "every_layer" or "shared".
        prefix_tokens: see PositionEmbedding.
    """

    def __init__(
        self,
        grid: Grid,
        width: int,
        num_heads: int,
        depth: int = 1,
        site: PositionSite = "shared",
        prefix_tokens: int = 1,
    ) -> None:
        super().__init__(inside(site), prefix_tokens)
        check_heads(width, num_heads)
        self.num_heads = num_heads
        tables = depth if site == "every_layer" else 1
        offsets = 2 * grid[0] * grid[1] - 1
        self.offset_keys = nn.Parameter(torch.empty(tables, offsets, width))
        self.prefix_keys = nn.Parameter(torch.empty(tables, 3, width)) if prefix_tokens else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for keys in (self.offset_keys, self.prefix_keys):
            if keys is not None:
                initialization.position_(keys, class_slot=True)

    def offsets(self, grid: Grid, device: torch.device | None = None) -> Tensor:
        """Returns the index of the key for each query (row) and key (column): offset + N - 1, then the prefix's."""
        patches = grid[0] * grid[1]
        place = torch.arange(patches, device=device)
        return around_prefix(place[:, None] - place + patches - 1, self.prefix_tokens, 2 * patches - 1)

    def bias(self, grid: Grid, layer: int, q: QueryHeads) -> AttentionBias:
        """Computes q rᵀ / √D_h for every pair; the queries are the first tokens."""
        offsets = 2 * grid[0] * grid[1] - 1
        keys = self.offset_keys[layer]
        keys = resample_grid(keys, (1, len(keys)), (1, offsets), "bilinear_aligned")
        if self.prefix_keys is not None:
            keys = torch.cat([keys, self.prefix_keys[layer]])
        keys = keys.to(q.dtype).unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0)  # heads head_dim offsets
        logits = q @ keys / math.sqrt(q.shape[-1])  # batch heads queries offsets
        index = self.offsets(grid, q.device)[: q.shape[2]]
        return logits.gather(-1, index.expand(*q.shape[:2], -1, -1))


class RelativeBias(PositionEmbedding):
    """A learned number for each 2-D offset and head, added to the attention logits (BEiT, arXiv 2106.08254).

    Pairs that include a prefix token have three numbers of their own: prefix to patch, patch to prefix, prefix to
    prefix; they follow those of the offsets, which are in raster order.

    Args:
        grid: (rows, columns) of the patches; for other grids the offsets are resampled.
        num_heads: k.
        depth: blocks of the encoder, for site "every_layer".
        site: "every_layer" or "shared".
        prefix_tokens: see PositionEmbedding.
        resampling: method, see resample_grid.
    """

    def __init__(
        self, grid: Grid, num_heads: int, depth: int, site: PositionSite, prefix_tokens: int, resampling: Resampling
    ) -> None:
        super().__init__(inside(site), prefix_tokens)
        self.offsets, self.resampling = (2 * grid[0] - 1, 2 * grid[1] - 1), resampling
        pairs = self.offsets[0] * self.offsets[1] + (3 if prefix_tokens else 0)
        self.biases = nn.Parameter(torch.empty(depth if site == "every_layer" else 1, pairs, num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        initialization.zeros_(self.biases)

    def bias(self, grid: Grid, layer: int, q: QueryHeads) -> AttentionBias:
        """Returns the numbers of every pair; the queries are the first tokens."""
        (rows, columns), table = grid, self.resampled(self.biases[layer], grid, self.resampling)
        row, column = (torch.arange(n, device=q.device) for n in grid)
        row, column = row.repeat_interleave(columns), column.repeat(rows)  # of each patch
        down, right = row[:, None] - row + rows - 1, column[:, None] - column + columns - 1
        index = down * (2 * columns - 1) + right
        index = around_prefix(index, self.prefix_tokens, (2 * rows - 1) * (2 * columns - 1))
        return table.to(q.dtype)[index[: q.shape[2]]].permute(2, 0, 1)[None]  # 1 heads queries tokens

    def resampled(self, table: Tensor, grid: Grid, method: Resampling) -> Tensor:
        """Returns one block's table for another grid of patches; the numbers of prefix tokens stay."""
        old, count = self.offsets, self.offsets[0] * self.offsets[1]
        new = 2 * grid[0] - 1, 2 * grid[1] - 1
        return torch.cat([resample_grid(table[:count], old, new, method), table[count:]])
