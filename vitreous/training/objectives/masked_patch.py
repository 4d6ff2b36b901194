"""Masked patch prediction: self-supervision by hidden patches (appendix B.1.2)."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.model import initialization
from vitreous.model.config import ViTConfig, grid_of
from vitreous.model.shapes import Images, Patches, PatchMask, PatchOrder
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.objectives.objective import Objective, Targets, Verdict

MaskedTarget = Literal["mean_color", "small_colors", "pixels"]
Codes = Int64[Tensor, "batch patches"] | Int64[Tensor, "batch patches 16"]

HIDDEN, SWAPPED = 0.8, 0.1  # of the corrupted patches; the rest are kept
LEVELS = 8  # of a channel of a color: 3 bits
BYTES = 256
SMALL = 4  # cells along a side of a patch that was made small


@dataclass(frozen=True, eq=False)
class MaskedPatches:
    """What is done to the patches of a batch, and what is to be said of them.

    Args:
        corrupted: the patches that are asked for, as many of each image.
        hidden: those of them in whose place the mask token stands.
        swapped: for each patch, which one stands in its place; its own number if it stays or is hidden.
        wanted: of every patch, by the kind of target: the code of its mean color, the codes of its 16 cells in
            reading order, or its normalized pixels.
    """

    corrupted: PatchMask
    hidden: PatchMask
    swapped: PatchOrder
    wanted: Codes | Patches

    def split(self, size: int, /) -> "tuple[MaskedPatches, ...]":
        """Parts of so many images, the last one perhaps of fewer."""
        fields = (self.corrupted, self.hidden, self.swapped, self.wanted)
        return tuple(MaskedPatches(*part) for part in zip(*(field.split(size) for field in fields), strict=True))


class MaskedPatchPrediction(Objective):
    """Corrupts a part of the patch embeddings and asks what the corrupted patches show (appendix B.1.2).

    The decoder is one linear layer. It is drawn as any dense layer is, not set to zero as a classifier: nothing that
    was learned before is to be kept from its noise, and the encoder has a gradient from the first step on.

    Args:
        config: of the model, with a mask token and without patch dropout.
        target: "mean_color", the paper's choice: the mean color of the patch in 3 bits for each channel, one of 8^C
            classes; "small_colors": the same for each cell of the patch made 4x4 small; "pixels": the patch itself,
            by its squared error.
        fraction: of the patches of an image, that are corrupted; 0.5 in the paper.

    Raises:
        ValueError: the model has no mask token.
        InputError: the model has patch dropout, which would take away patches that are asked for.
    """

    def __init__(self, config: ViTConfig, target: MaskedTarget, fraction: float) -> None:
        super().__init__()
        if not config.mask_token:
            raise ValueError("this model has no mask token; set mask_token=True in the config")
        if config.patch_dropout:
            cause = f"patch_dropout is {config.patch_dropout}, which masked patch prediction cannot have"
            raise InputError(cause, "set patch_dropout=0")
        self.target, self.fraction = target, fraction
        self.patch, self.prefix_tokens = config.token_stride, config.prefix_tokens
        self.codes = LEVELS**config.channels
        outputs = {
            "mean_color": self.codes,
            "small_colors": SMALL**2 * self.codes,
            "pixels": math.prod(self.patch) * config.channels,
        }
        self.decoder = nn.Linear(config.width, outputs[target])
        initialization.dense_(self.decoder)

    def targets(
        self,
        pixels: UInt8[Tensor, "batch channels image_height image_width"],
        images: Images,
        generator: np.random.Generator,
    ) -> MaskedPatches:
        """Draws what is corrupted in a batch, and computes what is wanted on the device of the images.

        Args:
            pixels: of the batch, on the device; the colors are theirs.
            images: the same, normalized; the pixels wanted are theirs.
            generator: of this batch, see `masking_generator`.
        """
        grid = grid_of((images.shape[2], images.shape[3]), self.patch)
        masks = draw_masks(len(images), math.prod(grid), self.fraction, generator)
        corrupted, swapped, hidden = (torch.from_numpy(m).to(images.device, non_blocking=True) for m in masks)
        match self.target:
            case "mean_color":
                wanted = color_codes(pixels, self.patch, cells=1).squeeze(2)
            case "small_colors":
                wanted = color_codes(pixels, self.patch, cells=SMALL)
            case "pixels":
                wanted = F.unfold(images, self.patch, stride=self.patch).mT  # batch patches values
        return MaskedPatches(corrupted, hidden, swapped, wanted)

    def forward(self, model: VisionTransformer, images: Images, targets: Targets) -> Verdict:
        """Judges the corrupted patches alone: an image's loss and correctness are means over what is asked of it.

        Args:
            model: gives all its patches, behind its final norm.
            images: normalized.
            targets: MaskedPatches.

        Returns:
            Sums over the images: of the cross-entropy in nats, or the squared error of normalized pixels; and of the
            share of codes that are right, which for pixels is 0.
        """
        assert isinstance(targets, MaskedPatches), "masked patches are told by MaskedPatches"
        x = model.embed(images, targets.hidden, targets.swapped)
        x = model.encoder(x, model.position_embedding.for_blocks(model.grid(images)))[:, self.prefix_tokens :]
        places = self._places(targets.corrupted)
        said = self.decoder(model.head.norm(x.take_along_dim(places, dim=1)))
        said = said.to(torch.promote_types(said.dtype, torch.float32))
        if self.target == "pixels":
            wanted = targets.wanted.take_along_dim(places, dim=1)
            error = F.mse_loss(said, wanted, reduction="sum")
            return Verdict(error / wanted[0].numel(), error.new_zeros(()))
        wanted = targets.wanted.view(*x.shape[:2], -1).take_along_dim(places, dim=1)  # batch corrupted cells
        logits = said.unflatten(-1, (-1, self.codes))  # batch corrupted cells codes
        loss = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), reduction="sum")
        correct = (logits.argmax(-1) == wanted).sum()
        return Verdict(loss / wanted[0].numel(), correct / wanted[0].numel())

    def _places(self, corrupted: PatchMask) -> Int64[Tensor, "batch corrupted 1"]:
        """The numbers of the corrupted patches of each image; how many is known without asking the device."""
        count = corrupted_count(corrupted.shape[1], self.fraction)
        return corrupted.byte().argsort(dim=1, descending=True, stable=True)[:, :count, None]


def corrupted_count(patches: int, fraction: float) -> int:
    """How many of an image's patches are corrupted: the nearest whole number, at least 1."""
    return max(1, round(fraction * patches))


def draw_masks(
    count: int, patches: int, fraction: float, generator: np.random.Generator
) -> tuple[
    Bool[np.ndarray, "batch patches"],
    Int64[np.ndarray, "batch patches"],
    Bool[np.ndarray, "batch patches"],
]:
    """Draws which patches are corrupted, and how; the same for the same state of the generator.

    Exactly `corrupted_count` patches of each image are corrupted. What happens to one of them is drawn for it alone:
    it is hidden with 80 %, swapped with 10 %, kept with 10 %. The paper gives these as shares of the corrupted patches
    and refers to BERT (arXiv 1810.04805), which draws so for each token; exact counts would swap and keep none where
    only few patches are corrupted.

    Args:
        count: images.
        patches: of each image, N.
        fraction: of them, that are corrupted.
        generator: drawn from.

    Returns:
        corrupted: as many for each image.
        swapped: for each patch its own number, or that of another one of the image, all others as likely; an only
            patch stays.
        hidden: those in whose place the mask token stands.
    """
    chosen = np.arange(patches) < corrupted_count(patches, fraction)
    corrupted = generator.permuted(np.tile(chosen, (count, 1)), axis=1)
    fate = generator.random((count, patches))
    steps = generator.integers(1, max(2, patches), (count, patches))  # to another patch, around the end
    own = np.arange(patches)
    moved = corrupted & (fate >= HIDDEN) & (fate < HIDDEN + SWAPPED)
    return corrupted, np.where(moved, (own + steps) % patches, own), corrupted & (fate < HIDDEN)


def color_codes(
    pixels: UInt8[Tensor, "batch channels height width"], patch: tuple[int, int], cells: int
) -> Int64[Tensor, "batch patches {cells}*{cells}"]:
    """The mean colors of the cells of each patch, in reading order, as one number each.

    A mean has 3 bits for each channel, floor(mean / 32), red the highest: r·64 + g·8 + b. A cell is an exact part of
    the patch; a pixel on the border of two counts in both with its share. Whole numbers all along, so that every
    device gives the same code.

    Args:
        pixels: bytes.
        patch: (height, width) in pixels.
        cells: along each side of a patch.
    """
    rows, columns = grid_of((pixels.shape[2], pixels.shape[3]), patch)
    for dim, side in zip((2, 3), patch, strict=True):  # each pixel so often that cells are of whole pixels
        pixels = pixels.repeat_interleave(cells // math.gcd(cells, side), dim)
    # batch channels rows cells cell_height columns cells cell_width
    parts = pixels.unflatten(3, (columns, cells, -1)).unflatten(2, (rows, cells, -1))
    area = parts.shape[4] * parts.shape[7]
    levels = parts.sum((4, 7), dtype=torch.int64) // (area * (BYTES // LEVELS))
    weights = LEVELS ** torch.arange(pixels.shape[1] - 1, -1, -1, device=pixels.device)
    codes = (levels * weights.view(-1, 1, 1, 1, 1)).sum(1)  # batch rows cells columns cells
    return codes.transpose(2, 3).flatten(3).flatten(1, 2)
