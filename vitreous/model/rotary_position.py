"""Rotary positions: queries and keys are turned by angles that grow with row and column (arXiv 2104.09864)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.model import initialization
from vitreous.model.attention import BlockPositions
from vitreous.model.config import RotaryKind, check_choice, check_rotary
from vitreous.model.encoder import EncoderPositions
from vitreous.model.shapes import Grid, Heads, QueryHeads


class Convention(NamedTuple):
    """How a family turns q and k."""

    base: float = 10_000.0  # of the frequencies base^(-4i / D_h), for i below D_h / 4
    columns_first: bool = True  # the first half of the numbers is turned by the column, not by the row
    offset: float = 0.0  # added to rows and columns, which count from 0
    centered: bool = False  # rows and columns go from -1 to 1, at the centers of the patches, times 2π
    halves: bool = False  # number i is paired with i + D_h / 2, not with its neighbor


CONVENTIONS: dict[RotaryKind, Convention] = {
    "eva02": Convention(columns_first=False),  # arXiv 2303.11331
    "axial": Convention(base=100.0),  # arXiv 2403.13298
    "mixed": Convention(base=10.0),  # arXiv 2403.13298, with learned frequencies in both directions
    "perception": Convention(offset=1.0),  # arXiv 2504.13181
    "perception_giant": Convention(),
    "dinov3": Convention(base=100.0, columns_first=False, centered=True, halves=True),  # arXiv 2508.10104
    "mlcd": Convention(columns_first=False, halves=True),  # arXiv 2407.17331, with learned angles of the class token
}


class RotaryPosition(nn.Module):
    """Turns the patches' queries and keys, in pairs of numbers; those of prefix tokens stay, but MLCD's class token.

    Args:
        kind: the convention of a family.
        num_heads: k.
        head_dim: D_h, a multiple of 4.
        depth: blocks of the encoder, for the learned frequencies of "mixed".
        prefix_tokens: tokens before the patches.
        reference: (rows, columns) that every grid is scaled to; None for no scaling.
    """

    def __init__(
        self,
        kind: RotaryKind,
        num_heads: int,
        head_dim: int,
        depth: int,
        prefix_tokens: int,
        reference: Grid | None = None,
    ) -> None:
        super().__init__()
        check_choice("rotary", kind)
        check_rotary(head_dim)
        self.convention, self.head_dim = CONVENTIONS[kind], head_dim
        self.prefix_tokens, self.reference = prefix_tokens, reference
        self.frequencies = nn.Parameter(torch.empty(2, depth, num_heads, head_dim // 2)) if kind == "mixed" else None
        turned = kind == "mlcd" and prefix_tokens > 0
        self.class_angles = nn.Parameter(torch.empty(1, head_dim // 2)) if turned else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.frequencies is not None:
            initialization.rotary_(self.frequencies, self.convention.base)
        if self.class_angles is not None:
            initialization.zeros_(self.class_angles)

    def for_blocks(self, grid: Grid, device: torch.device | None = None) -> EncoderPositions:
        """Returns the rotations inside the encoder's blocks; fixed ones are computed once for all."""
        if self.frequencies is None:
            rotation = self._rotation(self.angles(grid, device=device))
            return lambda block: rotation
        return lambda block: self._rotation(self.angles(grid, block, device))

    def angles(self, grid: Grid, block: int = 0, device: torch.device | None = None) -> Tensor:
        """Computes the angle of each pair of numbers: (heads) tokens D_h/2, zero for prefix tokens."""
        c, (rows, columns) = self.convention, grid
        row, column = (self._coordinates(axis, grid[axis], device) for axis in (0, 1))
        row, column = row.repeat_interleave(columns)[:, None], column.repeat(rows)[:, None]  # patches 1
        first, second = (column, row) if c.columns_first else (row, column)
        if self.frequencies is None:
            quarter = self.head_dim // 4
            frequencies = c.base ** -(torch.arange(quarter, device=device) / quarter)
            angles = torch.cat([first * frequencies, second * frequencies], dim=-1)
        else:
            of_first, of_second = self.frequencies[:, block, :, None].float()  # heads 1 D_h/2
            angles = first * of_first + second * of_second
        if self.class_angles is not None:
            return torch.cat([self.class_angles.float(), F.pad(angles, (0, 0, self.prefix_tokens - 1, 0))])
        return F.pad(angles, (0, 0, self.prefix_tokens, 0))

    def _coordinates(self, axis: int, count: int, device: torch.device | None) -> Tensor:
        place = torch.arange(count, dtype=torch.float32, device=device)
        if self.convention.centered:
            return (2 * (place + 0.5) / count - 1) * 2 * math.pi
        place = place + self.convention.offset
        return place if self.reference is None else place / count * self.reference[axis]

    def _rotation(self, angles: Tensor) -> "Rotation":
        halves = self.convention.halves
        angles = torch.cat([angles, angles], dim=-1) if halves else angles.repeat_interleave(2, dim=-1)
        return Rotation(angles.cos(), angles.sin(), halves)


@dataclass(frozen=True)
class Rotation(BlockPositions):
    """The rotation inside one block, for a grid: a cosine and a sine for each token and number of a head."""

    cos: Tensor
    sin: Tensor
    halves: bool

    def rotate(self, q: QueryHeads, k: Heads) -> tuple[QueryHeads, Heads]:
        return self._turned(q), self._turned(k)

    def _turned(self, x: QueryHeads) -> QueryHeads:
        if self.halves:
            first, second = x.chunk(2, dim=-1)
            partner = torch.cat([-second, first], dim=-1)
        else:
            partner = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
        cos, sin = (wave[..., : x.shape[2], :].to(x.dtype) for wave in (self.cos, self.sin))
        return x * cos + partner * sin
