"""Where each patch was: the position embeddings of equation 1 and appendix D.4, and their resampling.

One base class adds a table to the tokens, at the stem or inside the encoder; its subclasses say what the table is.
"""

import math
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.model import initialization
from vitreous.model.attention import PositionBias
from vitreous.model.config import PositionSite, Resampling, SincosExponent, check_choice, check_heads
from vitreous.model.encoder import BlockPositions
from vitreous.model.shapes import Grid, Tokens
from vitreous.support.errors import InputError

Table = Float[Tensor, "tokens width"]
OFFSET = 0.1  # patches that "bicubic_offset" adds to each side of the new grid when it computes the scale


def resample_grid(
    table: Float[Tensor, "old_positions width"], old: Grid, new: Grid, method: Resampling
) -> Float[Tensor, "new_positions width"]:
    """Interpolates a table of positions in 2-D, from one grid of patches to another (section 3.2).

    Args:
        table: one row for each patch, in reading order.
        old: (rows, columns) of the table.
        new: (rows, columns) wanted.
        method: "bilinear_aligned" is the authors' scipy.ndimage.zoom(order=1), "bicubic_aligned" torchvision's,
            "bicubic_antialias" timm's and that of DINOv2 with registers, "bilinear" timm's for npz files, "bicubic"
            transformers', "bicubic_offset" that of DINO and of DINOv2 without registers: a scale of
            (new + 0.1) / old.
    """
    if old == new:
        return table
    mode, _, how = method.partition("_")
    image = table.float().unflatten(0, old).permute(2, 0, 1)[None]  # 1 width rows columns
    if how == "offset":  # the output has floor(old × scale) = new patches, sampled at steps of 1 / scale
        scale = [(wanted + OFFSET) / there for wanted, there in zip(new, old, strict=True)]
        image = F.interpolate(image, scale_factor=scale, mode=mode)
    else:
        image = F.interpolate(image, size=new, mode=mode, align_corners=how == "aligned", antialias=how == "antialias")
    return image[0].permute(1, 2, 0).flatten(0, 1).to(table.dtype)


class PositionEmbedding(nn.Module):
    """Adds E_pos to the tokens (equation 1): the base of all kinds, and itself the kind "none".

    Args:
        site: "stem" adds before the encoder; "every_layer" and "shared" before each block (appendix D.4).
        prefix_tokens: tokens in front of the patches; those without a row of their own get zeros.
    """

    def __init__(self, site: PositionSite = "stem", prefix_tokens: int = 0) -> None:
        super().__init__()
        check_choice("position_site", site)
        self.site = site
        self.prefix_tokens = prefix_tokens

    def table(self, grid: Grid, layer: int = 0, device: torch.device | None = None) -> Table | None:
        """Returns E_pos for a grid of patches, one row for each token, or None if nothing is added.

        Args:
            grid: (rows, columns).
            layer: whose table, where every layer has its own.
            device: where a computed table is wanted; a learned one stays where it is.
        """
        return None

    def forward(self, x: Tokens, grid: Grid) -> Tokens:
        """Adds the positions, if this kind gives them at the stem."""
        return self._add(x, grid, layer=0) if self.site == "stem" else x

    def for_blocks(self, grid: Grid) -> BlockPositions | None:
        """Returns what the encoder calls before each block, or None if positions are given at the stem."""
        return None if self.site == "stem" else partial(self._at_block, grid)

    def _at_block(self, grid: Grid, layer: int, x: Tensor) -> tuple[Tensor, PositionBias | None]:
        return self._add(x, grid, layer if self.site == "every_layer" else 0), None

    def _add(self, x: Tensor, grid: Grid, layer: int) -> Tensor:
        table = self.table(grid, layer, x.device)
        return x if table is None else x + table.to(x.dtype)

    def _with_prefix(self, patches: Tensor, slots: Tensor | None = None) -> Tensor:
        """Puts the prefix tokens' rows in front: their slots, then zeros for tokens that have none."""
        missing = self.prefix_tokens - (0 if slots is None else len(slots))
        if missing:
            patches = F.pad(patches, (0, 0, missing, 0))
        return patches if slots is None else torch.cat([slots, patches])


class LearnedPosition(PositionEmbedding):
    """A learned vector for each place in raster order, the paper's default (1-D in appendix D.4).

    Args:
        grid: (rows, columns) the table is made for; other grids are resampled.
        width: D.
        slots: prefix tokens that have a row of their own (the class token's, in the paper).
        resampling: how, see resample_grid.
        depth: blocks of the encoder, for site "every_layer".
        site: see PositionEmbedding.
        prefix_tokens: see PositionEmbedding.
    """

    def __init__(
        self,
        grid: Grid,
        width: int,
        slots: int = 1,
        resampling: Resampling = "bilinear_aligned",
        depth: int = 1,
        site: PositionSite = "stem",
        prefix_tokens: int = 1,
    ) -> None:
        super().__init__(site, prefix_tokens)
        check_choice("position_resampling", resampling)
        if slots > prefix_tokens:
            raise InputError(f"slots is {slots}, but there are only {prefix_tokens} prefix tokens")
        self.grid, self.slots, self.resampling = grid, slots, resampling
        self.make_tables(depth if site == "every_layer" else 1, width)
        self.reset_parameters()

    def make_tables(self, count: int, width: int) -> None:
        """Makes room for so many tables."""
        self.embedding = nn.Parameter(torch.empty(count, self.slots + self.grid[0] * self.grid[1], width))

    def reset_parameters(self) -> None:
        """Draws the first tables."""
        for table in self.parameters():
            initialization.position_(table, class_slot=self.slots > 0)

    def table(self, grid: Grid, layer: int = 0, device: torch.device | None = None) -> Table:
        """Returns the learned table; its patches are resampled if the grid is another, its slots are kept."""
        embedding = self.embedding[layer]
        if grid == self.grid and self.slots == self.prefix_tokens:
            return embedding
        patches = resample_grid(embedding[self.slots :], self.grid, grid, self.resampling)
        return self._with_prefix(patches, embedding[: self.slots] if self.slots else None)


class Learned2DPosition(LearnedPosition):
    """Learned vectors of D/2 for each column (X) and each row (Y), joined, X first (2-D in appendix D.4)."""

    def make_tables(self, count: int, width: int) -> None:
        """Makes room for so many tables of columns, of rows, and of slots."""
        self.x = nn.Parameter(torch.empty(count, self.grid[1], width // 2))
        self.y = nn.Parameter(torch.empty(count, self.grid[0], width // 2))
        self.class_slot = nn.Parameter(torch.empty(count, self.slots, width)) if self.slots else None

    def table(self, grid: Grid, layer: int = 0, device: torch.device | None = None) -> Table:
        """Returns one row for each token; row r, column c holds [X_c; Y_r]."""
        rows, columns = grid
        x = resample_grid(self.x[layer], (1, self.grid[1]), (1, columns), self.resampling)
        y = resample_grid(self.y[layer], (self.grid[0], 1), (rows, 1), self.resampling)
        joined = torch.cat([x.expand(rows, -1, -1), y[:, None].expand(-1, columns, -1)], dim=-1)
        slots = None if self.class_slot is None else self.class_slot[layer]
        return self._with_prefix(joined.flatten(0, 1), slots)


def sincos_2d(
    grid: Grid, width: int, exponent: SincosExponent = "big_vision", device: torch.device | None = None
) -> Table:
    """Computes the fixed positions [sin x; cos x; sin y; cos y] at D/4 frequencies from 1 down to 1/10000.

    The exponent of frequency i is i / (D/4 - 1) in big_vision (arXiv 2205.01580) and i / (D/4) in MAE (2111.06377).
    """
    quarter = width // 4
    dtype = torch.float32 if device is not None and device.type == "mps" else torch.float64  # MPS has no float64
    steps = torch.arange(quarter, dtype=dtype, device=device)
    frequencies = 10_000.0 ** -(steps / (quarter - 1 if exponent == "big_vision" else quarter))
    rows, columns = (torch.arange(n, dtype=dtype, device=device) for n in grid)
    y = (rows[:, None] * frequencies)[:, None].expand(-1, grid[1], -1)  # rows columns D/4
    x = (columns[:, None] * frequencies)[None].expand(grid[0], -1, -1)
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=-1).flatten(0, 1).float()


class SinCos2DPosition(PositionEmbedding):
    """Fixed sines and cosines of the row and the column: nothing to learn, and right at every size.

    Args:
        width: D, a multiple of 4.
        exponent: "big_vision" or "mae", see sincos_2d.
        site: see PositionEmbedding.
        prefix_tokens: see PositionEmbedding.
    """

    def __init__(
        self,
        width: int,
        exponent: SincosExponent = "big_vision",
        site: PositionSite = "stem",
        prefix_tokens: int = 0,
    ) -> None:
        super().__init__(site, prefix_tokens)
        check_choice("sincos_exponent", exponent)
        if width % 4 or width < 8:
            raise InputError(f"width is {width}", "sincos_2d positions need a multiple of 4, 8 or more")
        self.width, self.exponent = width, exponent
        self._cached: tuple[tuple[Grid, torch.device | None], Tensor] | None = None

    def table(self, grid: Grid, layer: int = 0, device: torch.device | None = None) -> Table:
        """Returns the table on that device; the last one is kept."""
        if torch.compiler.is_compiling():  # the compiled graph computes it where it needs it
            return self._with_prefix(sincos_2d(grid, self.width, self.exponent, device))
        if self._cached is None or self._cached[0] != (grid, device):
            table = self._with_prefix(sincos_2d(grid, self.width, self.exponent, device))
            self._cached = (grid, device), table
        return self._cached[1]


class RelativePosition(PositionEmbedding):
    """Learned keys for the raster offset between query and key (relative in appendix D.4).

    The query times the offset's key is added to the content logits before the softmax, scaled by √D_h as they are.
    The paper leaves details open; here (our reading) each offset has one key of D numbers, split over the heads,
    and pairs with a token in front of the patches have three offsets of their own:
    prefix to patch, patch to prefix, prefix to prefix.

    Args:
        grid: (rows, columns) the offsets are made for; for other grids the 1-D table is resampled linearly.
        width: D.
        num_heads: k.
        depth: blocks of the encoder, for site "every_layer".
        site: "every_layer" or "shared".
        prefix_tokens: see PositionEmbedding.
    """

    PREFIX_OFFSETS = 3

    def __init__(
        self,
        grid: Grid,
        width: int,
        num_heads: int,
        depth: int = 1,
        site: PositionSite = "shared",
        prefix_tokens: int = 1,
    ) -> None:
        super().__init__(site, prefix_tokens)
        if site == "stem":
            raise InputError("relative positions act inside attention", "site is 'every_layer' or 'shared'")
        check_heads(width, num_heads)
        self.num_heads = num_heads
        tables = depth if site == "every_layer" else 1
        offsets = 2 * grid[0] * grid[1] - 1
        self.offset_keys = nn.Parameter(torch.empty(tables, offsets, width))
        with_prefix = prefix_tokens > 0
        self.prefix_keys = nn.Parameter(torch.empty(tables, self.PREFIX_OFFSETS, width)) if with_prefix else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the first keys."""
        for keys in (self.offset_keys, self.prefix_keys):
            if keys is not None:
                initialization.position_(keys, class_slot=True)

    def offsets(self, grid: Grid, device: torch.device | None = None) -> Tensor:
        """Returns for each query (row) and key (column) the index of its key: offset + N - 1, then the three."""
        patches = grid[0] * grid[1]
        place = torch.arange(patches, device=device)
        index = F.pad(place[:, None] - place + patches - 1, (self.prefix_tokens, 0, self.prefix_tokens, 0))
        first = 2 * patches - 1
        index[: self.prefix_tokens, self.prefix_tokens :] = first
        index[self.prefix_tokens :, : self.prefix_tokens] = first + 1
        index[: self.prefix_tokens, : self.prefix_tokens] = first + 2
        return index

    def _at_block(self, grid: Grid, layer: int, x: Tensor) -> tuple[Tensor, PositionBias | None]:
        return x, partial(self.bias, grid, layer if self.site == "every_layer" else 0)

    def bias(self, grid: Grid, layer: int, q: Tensor) -> Tensor:
        """Computes q rᵀ / √D_h for every pair, "batch heads queries tokens"; the queries are the first tokens."""
        wanted = 2 * grid[0] * grid[1] - 1
        keys = self.offset_keys[layer]
        keys = resample_grid(keys, (1, len(keys)), (1, wanted), "bilinear_aligned")
        if self.prefix_keys is not None:
            keys = torch.cat([keys, self.prefix_keys[layer]])
        keys = keys.to(q.dtype).unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0)  # heads head_dim offsets
        logits = q @ keys / math.sqrt(q.shape[-1])  # batch heads queries offsets
        index = self.offsets(grid, q.device)[: q.shape[2]]
        return logits.gather(-1, index.expand(*q.shape[:2], -1, -1))
