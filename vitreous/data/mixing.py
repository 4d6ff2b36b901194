"""MixUp and CutMix: each image of a batch is mixed with another, and so are their labels."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vitreous.data.loading.shares import Part
from vitreous.support.errors import InputError

MAX_ALPHA = 100.0


@dataclass(frozen=True)
class Mixing:
    """MixUp (Zhang et al., arXiv 1710.09412) and CutMix (Yun et al., arXiv 1905.04899) of a batch with itself.

    The partner of each image is drawn by a permutation of the batch, so it may be the image itself. MixUp blends all
    pixels, CutMix pastes a box of the partner into the image; each label is weighted by its share of the pixels. An
    image whose partner is broken stays as it is. Broken images take part in the draws, and all draws are for the whole
    batch, so that the number of ranks changes nothing.

    Args:
        mixup: MixUp's alpha; the share of an image is drawn from Beta(alpha, alpha). 0 turns MixUp off.
        cutmix: CutMix's alpha, for the share outside the box before the box is clipped at the edges. 0 turns CutMix
            off. If both are on, each draw uses one of them, with equal probability.
        per_sample: whether every sample has its own draw, or the batch shares one.

    Raises:
        InputError: a field has an invalid value.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    per_sample: bool = False

    def __post_init__(self) -> None:
        for name, value in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if not 0 <= value <= MAX_ALPHA:
                raise InputError(f"{name} is {value}", f"set it from 0 (off) to {MAX_ALPHA:g}")

    @property
    def is_on(self) -> bool:
        """Whether images are mixed at all."""
        return bool(self.mixup or self.cutmix)

    def __call__(
        self,
        images: Float[Tensor, "batch channels height width"],
        targets: Float[Tensor, "batch classes"],
        generator: np.random.Generator,
        part: Part | None = None,
        borrowed: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, "batch classes"]]:
        """The mixed images and targets, on their devices; does not synchronize if it is one device.

        Args:
            images: of a whole batch, or of a part.
            targets: of these images.
            generator: of the whole batch.
            part: which images of the whole batch these are; None for all of them.
            borrowed: images and targets of the part's borrowed positions, if it has any.
        """
        if not self.is_on:
            return images, targets
        count, _, height, width = images.shape
        part = part or Part.whole(count)
        draws = self.draw(part.size, height, width, generator)
        rows = part.rows_of(draws.partners)
        drawn = (part.cut(values) if self.per_sample else values for values in draws[1:])
        uncut, shares, boxes = (_moved(values, images.device) for values in drawn)
        shares = shares.to(images.dtype).view(-1, 1, 1)
        # With a box, the weight of the image is 0 inside and 1 outside; without one, it is the share everywhere.
        weights = torch.where(uncut.view(-1, 1, 1), shares, (~_inside(boxes, height, width)).to(images.dtype))
        lent_images, lent_targets = borrowed or (images[:0], targets[:0])
        mixed = torch.lerp(_gathered(images, lent_images, rows), images, weights.unsqueeze(1))
        shares = shares.to(targets.device, targets.dtype).view(-1, 1)
        return mixed, torch.lerp(_gathered(targets, lent_targets, rows), targets, shares)

    def partners(self, count: int, generator: np.random.Generator) -> Int64[np.ndarray, " batch"]:
        """Draws the partners of a batch of `count` images, which `draw` does first."""
        return generator.permutation(count)

    def draw(self, count: int, height: int, width: int, generator: np.random.Generator) -> "Draws":
        """Draws the mixing of a batch of `count` images of height x width."""
        rows = count if self.per_sample else 1
        partners = self.partners(count, generator)
        choice, centers = generator.random(rows), generator.random((rows, 2))
        blended = generator.beta(self.mixup, self.mixup, rows) if self.mixup else np.ones(rows)
        outside = generator.beta(self.cutmix, self.cutmix, rows) if self.cutmix else np.ones(rows)
        uncut = choice < 0.5 if self.mixup and self.cutmix else np.full(rows, not self.cutmix)
        sides = np.array((height, width))
        halves = np.floor(sides * np.sqrt(1 - outside)[:, None]).astype(np.int64) // 2
        middles = np.floor(sides * centers).astype(np.int64)
        start, end = np.maximum(middles - halves, 0), np.minimum(middles + halves, sides)
        kept = 1 - (end - start).prod(axis=1) / (height * width)
        return Draws(partners, uncut, np.where(uncut, blended, kept), np.concatenate((start, end), axis=1))


class Draws(NamedTuple):
    """The mixing drawn for a batch; "rows" is its length, or 1 if it shares one draw.

    Args:
        partners: the index of each image's partner.
        uncut: whether the row is blended by MixUp, without a box.
        shares: each image's share of its pixels, in [0, 1].
        boxes: top, left, bottom, right (both exclusive) of each partner's box.
    """

    partners: Int64[np.ndarray, " batch"]
    uncut: Bool[np.ndarray, " rows"]
    shares: Float[np.ndarray, " rows"]
    boxes: Int64[np.ndarray, "rows 4"]


def _inside(boxes: Int64[Tensor, "rows 4"], height: int, width: int) -> Bool[Tensor, "rows height width"]:
    """Whether each pixel is inside the box of the row."""
    top, left, bottom, right = boxes.view(-1, 4, 1, 1).unbind(1)
    down = torch.arange(height, device=boxes.device).view(1, -1, 1)
    along = torch.arange(width, device=boxes.device).view(1, 1, -1)
    return (down >= top) & (down < bottom) & (along >= left) & (along < right)


def _gathered(x: Tensor, borrowed: Tensor, rows: np.ndarray) -> Tensor:
    """The rows of a part and, after them, of what it borrows; a copy."""
    lent = np.flatnonzero(rows >= len(x))
    if not len(lent):
        return x[_moved(rows, x.device)]
    gathered = x[_moved(np.where(rows < len(x), rows, 0), x.device)]
    return gathered.index_copy_(0, _moved(lent, x.device), borrowed[_moved(rows[lent] - len(x), x.device)])


def _moved(values: np.ndarray, device: torch.device) -> Tensor:
    """The values on the device, copied asynchronously; floats as float32, since some devices lack float64."""
    tensor = torch.from_numpy(values.astype(np.float32) if values.dtype == np.float64 else values)
    return tensor.to(device, non_blocking=True)
