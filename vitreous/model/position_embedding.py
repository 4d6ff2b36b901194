"""Position embeddings added to the tokens (equation 1, appendix D.4), and their resampling.

The base class adds a table to the tokens, at the stem or before each block; subclasses define the table.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.model import initialization
from vitreous.model.attention import BlockPositions
from vitreous.model.config import PositionSite, Resampling, SincosExponent, check_choice, check_sincos
from vitreous.model.encoder import EncoderPositions, no_positions
from vitreous.model.shapes import AttentionBias, Grid, QueryHeads, Tokens
from vitreous.support.errors import InputError

Table = Float[Tensor, "tokens width"]
OFFSET = 0.1  # what "bicubic_offset" adds to each side of the new grid to compute the scale


def resample_grid(
    table: Float[Tensor, "old_positions width"], old: Grid, new: Grid, method: Resampling
) -> Float[Tensor, "new_positions width"]:
    """Interpolates a table of positions in 2-D, from one grid of patches to another (section 3.2).

    Args:
        table: one row per patch, in raster order.
        old: (rows, columns) of the table.
        new: (rows, columns) of the result.
        method: "bilinear_aligned" is the authors' scipy.ndimage.zoom(order=1); "bicubic_aligned" is torchvision's;
            "bicubic_antialias" timm's and DINOv2's with registers; "bilinear" timm's for npz files; "bicubic"
            transformers'; "bicubic_offset" DINO's and DINOv2's without registers, a scale of (new + 0.1) / old.
    """
    mode, _, how = method.partition("_")
    if is_known(new, how) and old == new:
        return table
    image = table.float().unflatten(0, old).permute(2, 0, 1)[None]  # 1 width rows columns
    if how == "offset":  # the output has floor(old × scale) = new patches, sampled at steps of 1 / scale
        scale = [(n + OFFSET) / o for n, o in zip(new, old, strict=True)]
        image = F.interpolate(image, scale_factor=scale, mode=mode)
    else:
        image = F.interpolate(image, size=new, mode=mode, align_corners=how == "aligned", antialias=how == "antialias")
    return image[0].permute(1, 2, 0).flatten(0, 1).to(table.dtype)


def is_known(grid: Grid, method: str) -> bool:
    """Whether to compare a grid with a table's: not in a graph exported for any size, where it would be a guard.

    Resampling to the same grid changes nothing, but by "bicubic_offset".
    """
    return method.endswith("offset") or not any(isinstance(n, torch.SymInt) for n in grid)


class PositionEmbedding(nn.Module):
    """Adds E_pos to the tokens (equation 1): the base of all kinds, and itself the kind "none".

    Args:
        site: "stem" adds before the encoder; "every_layer" and "shared" before each block (appendix D.4).
        prefix_tokens: tokens before the patches; those without a row in the table get zeros.
    """

    def __init__(self, site: PositionSite = "stem", prefix_tokens: int = 0) -> None:
        super().__init__()
        check_choice("position_site", site)
        self.site = site
        self.prefix_tokens = prefix_tokens

    def table(self, grid: Grid, layer: int = 0, device: torch.device | None = None) -> Table | None:
        """Returns E_pos for a grid of patches, one row per token; None if nothing is added.

        Args:
            grid: (rows, columns).
            layer: of the block, if each has its own table.
            device: for a computed table; a learned one stays where it is.
        """
        return None

    def forward(self, x: Tokens, grid: Grid) -> Tokens:
        """Adds the positions, if the site is the stem."""
        return self.add(x, grid) if self.site == "stem" else x

    def for_blocks(self, grid: Grid) -> EncoderPositions:
        """Returns the positions inside the encoder's blocks; at the stem there are none."""
        if self.site == "stem":
            return no_positions
        return lambda block: PositionsInBlock(self, grid, block if self.site == "every_layer" else 0)

    def add(self, x: Tokens, grid: Grid, layer: int = 0) -> Tokens:
        table = self.table(grid, layer, x.device)
        return x if table is None else x + table.to(x.dtype)

    def bias(self, grid: Grid, layer: int, q: QueryHeads) -> AttentionBias | None:
        """Computes what this kind adds to the attention logits; None for nothing."""
        return None

    def _with_prefix(self, patches: Tensor, slots: Tensor | None = None) -> Tensor:
        """Prepends the prefix tokens' rows: their slots, then zeros for tokens without one."""
        missing = self.prefix_tokens - (0 if slots is None else len(slots))
        if missing:
            patches = F.pad(patches, (0, 0, missing, 0))
        return patches if slots is None else torch.cat([slots, patches])


@dataclass(frozen=True)
class PositionsInBlock(BlockPositions):
    """The positions inside one block, for a grid."""

    embedding: PositionEmbedding
    grid: Grid
    layer: int

    def tokens(self, x: Tokens) -> Tokens:
        return self.embedding.add(x, self.grid, self.layer)

    def bias(self, q: QueryHeads) -> AttentionBias | None:
        return self.embedding.bias(self.grid, self.layer, q)


class LearnedPosition(PositionEmbedding):
    """A learned vector per patch in raster order, the paper's default (1-D in appendix D.4).

    Args:
        grid: (rows, columns) of the table; it is resampled for other grids.
        width: D.
        slots: prefix tokens with a row in the table (the class token's, in the paper).
        resampling: method, see resample_grid.
        depth: blocks of the encoder, for site "every_layer".
        site, prefix_tokens: see PositionEmbedding.
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
            cause = f"slots is {slots}, more than the prefix tokens ({prefix_tokens})"
            raise InputError(cause, f"set slots={prefix_tokens}, or prefix_tokens={slots}")
        self.grid, self.slots, self.resampling = grid, slots, resampling
        self.make_tables(depth if site == "every_layer" else 1, width)
        self.reset_parameters()

    def make_tables(self, count: int, width: int) -> None:
        self.embedding = nn.Parameter(torch.empty(count, self.slots + self.grid[0] * self.grid[1], width))

    def reset_parameters(self) -> None:
        for table in self.parameters():
            initialization.position_(table, class_slot=self.slots > 0)

    def table(self, grid: Grid, layer: int = 0, device: torch.device | None = None) -> Table:
        """Returns the learned table; for another grid the patches' rows are resampled, the slots kept."""
        embedding = self.embedding[layer]
        if self.slots == self.prefix_tokens and is_known(grid, self.resampling) and grid == self.grid:
            return embedding
        patches = resample_grid(embedding[self.slots :], self.grid, grid, self.resampling)
        return self._with_prefix(patches, embedding[: self.slots] if self.slots else None)


class Learned2DPosition(LearnedPosition):
    """Learned vectors of width D/2 for each column (X) and each row (Y), concatenated (2-D in appendix D.4)."""

    def make_tables(self, count: int, width: int) -> None:
        """Allocates the tables of columns, rows and slots."""
        self.x = nn.Parameter(torch.empty(count, self.grid[1], width // 2))
        self.y = nn.Parameter(torch.empty(count, self.grid[0], width // 2))
        self.class_slot = nn.Parameter(torch.empty(count, self.slots, width)) if self.slots else None

    def table(self, grid: Grid, layer: int = 0, device: torch.device | None = None) -> Table:
        """Returns one row per token; the patch in row r, column c has [X_c; Y_r]."""
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
    """Fixed sines and cosines of row and column: nothing to learn, exact at every grid.

    Args:
        width: D, a multiple of 4.
        exponent: "big_vision" or "mae", see sincos_2d.
        site, prefix_tokens: see PositionEmbedding.
    """

    def __init__(
        self, width: int, exponent: SincosExponent = "big_vision", site: PositionSite = "stem", prefix_tokens: int = 0
    ) -> None:
        super().__init__(site, prefix_tokens)
        check_choice("sincos_exponent", exponent)
        check_sincos(width)
        self.width, self.exponent = width, exponent
        self._cached: tuple[tuple[Grid, torch.device | None], Tensor] | None = None

    def table(self, grid: Grid, layer: int = 0, device: torch.device | None = None) -> Table:
        """Returns the table on that device, and caches the last one."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # the graph computes it itself
            return self._with_prefix(sincos_2d(grid, self.width, self.exponent, device))
        if self._cached is None or self._cached[0] != (grid, device):
            table = self._with_prefix(sincos_2d(grid, self.width, self.exponent, device))
            self._cached = (grid, device), table
        return self._cached[1]
