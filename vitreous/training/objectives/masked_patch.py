"""Masked patch prediction: self-supervision by hidden patches (appendix B.1.2)."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.data.loading.batches import Batch
from vitreous.data.loading.shares import Part
from vitreous.data.sampling import masking_generator
from vitreous.model import initialization
from vitreous.model.config import ViTConfig, grid_of
from vitreous.model.shapes import Images, Patches, PatchMask, PatchOrder
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.objectives.objective import (
    MOST_VIEWS,
    Objective,
    Setup,
    Targets,
    Verdict,
    View,
    at_least_float32,
)
from vitreous.training.objectives.section import MaskedTarget

Codes = Int64[Tensor, "batch patches"] | Int64[Tensor, "batch patches 16"]

HIDDEN, SWAPPED = 0.8, 0.1  # of the corrupted patches; the rest are kept
LEVELS = 8  # of a color channel: 3 bits
BYTES = 256
SMALL = 4  # cells along a side of a patch in "small_colors"
GRAY = 0.87  # of a hidden patch in the picture, from black 0 to white 1


@dataclass(frozen=True, eq=False)
class MaskedPatches:
    """How the patches of a batch are corrupted, and what should be predicted for them.

    Args:
        corrupted: the patches to predict, the same number in each image.
        hidden: those of them that the mask token replaces.
        swapped: for each patch, the patch that stands in its place; its own number if it stays or is hidden.
        expected: for every patch, by the kind of target: the code of its mean color, the codes of its 16 cells in
            reading order, or its normalized pixels.
    """

    corrupted: PatchMask
    hidden: PatchMask
    swapped: PatchOrder
    expected: Codes | Patches

    def split(self, size: int, /) -> "tuple[MaskedPatches, ...]":
        """Parts of `size` images; the last one may have fewer."""
        fields = (self.corrupted, self.hidden, self.swapped, self.expected)
        return tuple(MaskedPatches(*part) for part in zip(*(field.split(size) for field in fields), strict=True))


class MaskedPatchPrediction(Objective):
    """Corrupts a share of the patch embeddings and predicts what the corrupted patches show (appendix B.1.2).

    The decoder is one linear layer, drawn like any dense layer and not zero like a classifier: there is no earlier
    knowledge to protect from its noise, and the encoder has a gradient from the first step.

    Args:
        config: of the model, with a mask token and without patch dropout.
        target: "mean_color", the paper's choice: the mean color of the patch in 3 bits per channel, one of 8^C
            classes; "small_colors": the same for each cell of the patch shrunk to 4x4; "pixels": the patch itself, by
            its squared error.
        fraction: of an image's patches that are corrupted; 0.5 in the paper.

    Raises:
        ValueError: the model has no mask token.
        InputError: the model has patch dropout, which would drop patches that are to be predicted.
    """

    classifies = False
    mask_token = True
    unused = ("teacher", "class_weights")

    def __init__(self, config: ViTConfig, target: MaskedTarget, fraction: float) -> None:
        super().__init__()
        if not config.mask_token:
            raise InputError("this model has no mask token", "set mask_token=True in the config")
        if config.patch_dropout:
            cause = f"patch_dropout is {config.patch_dropout}, which masked patch prediction does not allow"
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

    @classmethod
    def make(cls, setup: Setup) -> Self:
        """The objective that the recipe describes, with a fresh decoder."""
        return cls(setup.config, setup.options.masked_target, setup.options.masked_fraction)

    def prepare(self, batch: Batch, setup: Setup, epoch: int, number: int) -> tuple[Images, Targets]:
        """Draws the masks of a batch; validation has the same ones each time."""
        pixels = batch.images.to(setup.device, non_blocking=True)
        images = setup.preprocessing.normalize(pixels)
        return images, self.targets(pixels, images, masking_generator(setup.seed, epoch, number), batch.part)

    def targets(
        self,
        pixels: UInt8[Tensor, "batch channels image_height image_width"],
        images: Images,
        generator: np.random.Generator,
        part: Part | None = None,
    ) -> MaskedPatches:
        """Draws which patches of a batch are corrupted, and computes what to predict, on the device of the images.

        Args:
            pixels: of the batch, on the device; colors are computed from them.
            images: the same, normalized; pixel targets are theirs.
            generator: of the whole batch, see `masking_generator`.
            part: which images of the whole batch these are, so that their masks do not depend on the number of ranks;
                None for all of them.
        """
        grid = grid_of((images.shape[2], images.shape[3]), self.patch)
        part = part or Part.whole(len(images))
        masks = draw_masks(part.size, math.prod(grid), self.fraction, generator, part)
        corrupted, swapped, hidden = (torch.from_numpy(m).to(images.device, non_blocking=True) for m in masks)
        match self.target:
            case "mean_color":
                expected = color_codes(pixels, self.patch, cells=1).squeeze(2)
            case "small_colors":
                expected = color_codes(pixels, self.patch, cells=SMALL)
            case "pixels":
                expected = F.unfold(images, self.patch, stride=self.patch).mT  # batch patches values
        return MaskedPatches(corrupted, hidden, swapped, expected)

    def forward(self, model: VisionTransformer, images: Images, targets: Targets) -> Verdict:
        """Scores the corrupted patches alone; an image's loss and correctness are means over them.

        Args:
            model: its patches are read after the final norm.
            images: normalized.
            targets: MaskedPatches.

        Returns:
            Sums over the images: the cross-entropy in nats, or the squared error of normalized pixels; and the share of
            correct codes, which is 0 for pixels.
        """
        assert isinstance(targets, MaskedPatches), "masked patch targets must be MaskedPatches"
        x = model.embed(images, targets.hidden, targets.swapped)
        x = model.encoder(x, model.positions(model.grid(images)))[:, self.prefix_tokens :]
        places = self._places(targets.corrupted)
        output = at_least_float32(self.decoder(model.head.norm(x.take_along_dim(places, dim=1))))
        if self.target == "pixels":
            expected = targets.expected.take_along_dim(places, dim=1)
            error = F.mse_loss(output, expected, reduction="sum")
            return Verdict(error / expected[0].numel(), error.new_zeros(()))
        expected = targets.expected.view(*x.shape[:2], -1).take_along_dim(places, dim=1)  # batch corrupted cells
        logits = output.unflatten(-1, (-1, self.codes))  # batch corrupted cells codes
        loss = F.cross_entropy(logits.flatten(0, 2), expected.flatten(), reduction="sum")
        correct = (logits.argmax(-1) == expected).sum()
        return Verdict(loss / expected[0].numel(), correct / expected[0].numel())

    def views(self, images: Images, targets: Targets, setup: Setup) -> list[View]:
        """The first images, each next to itself with its hidden patches covered."""
        assert isinstance(targets, MaskedPatches), "masked patch targets must be MaskedPatches"
        pixels = setup.pixels(images[: MOST_VIEWS // 2])
        grid = grid_of(pixels.shape[1:3], self.patch)
        masks = targets.hidden[: MOST_VIEWS // 2].cpu().numpy().reshape(-1, *grid)
        masks = masks.repeat(self.patch[0], axis=1).repeat(self.patch[1], axis=2)
        views: list[View] = []
        for view, mask in zip(pixels, masks, strict=True):
            covered = np.where(mask[..., None], np.float32(GRAY), view)
            views += [(view, ""), (covered, f"{100 * mask.mean():.0f} % hidden")]
        return views

    def _places(self, corrupted: PatchMask) -> Int64[Tensor, "batch corrupted 1"]:
        """The numbers of each image's corrupted patches; how many is known without waiting for the device."""
        count = corrupted_count(corrupted.shape[1], self.fraction)
        return corrupted.byte().argsort(dim=1, descending=True, stable=True)[:, :count, None]


def corrupted_count(patches: int, fraction: float) -> int:
    """How many of an image's patches are corrupted: the nearest whole number, at least 1."""
    return max(1, round(fraction * patches))


def draw_masks(
    count: int, patches: int, fraction: float, generator: np.random.Generator, part: Part | None = None
) -> tuple[Bool[np.ndarray, "batch patches"], Int64[np.ndarray, "batch patches"], Bool[np.ndarray, "batch patches"]]:
    """Draws which patches are corrupted, and how; the same for the same state of the generator.

    Exactly `corrupted_count` patches of each image are corrupted. Each is drawn independently: hidden with 80 %,
    swapped with 10 %, kept with 10 %. The paper gives these as shares of the corrupted patches and refers to BERT
    (arXiv 1810.04805), which draws each token independently; exact counts would swap and keep none where few patches
    are corrupted.

    Args:
        count: images of the whole batch.
        patches: of each image, N.
        fraction: of them that are corrupted.
        generator: to draw from.
        part: which images to return, all drawn for the whole batch; None for all of them.

    Returns:
        corrupted: the same number in each image.
        swapped: for each patch its own number, or that of another patch of the image, all equally likely; an only
            patch stays.
        hidden: those that the mask token replaces.
    """
    part = part or Part.whole(count)
    chosen = np.arange(patches) < corrupted_count(patches, fraction)
    corrupted = part.cut(generator.permuted(np.tile(chosen, (count, 1)), axis=1))
    fate = part.cut(generator.random((count, patches)))
    steps = part.cut(generator.integers(1, max(2, patches), (count, patches)))  # to another patch, around the end
    own = np.arange(patches)
    moved = corrupted & (fate >= HIDDEN) & (fate < HIDDEN + SWAPPED)
    return corrupted, np.where(moved, (own + steps) % patches, own), corrupted & (fate < HIDDEN)


def color_codes(
    pixels: UInt8[Tensor, "batch channels height width"], patch: tuple[int, int], cells: int
) -> Int64[Tensor, "batch patches {cells}*{cells}"]:
    """The mean colors of the cells of each patch, in reading order, as one number each.

    A mean has 3 bits per channel, floor(mean / 32), red the highest: r·64 + g·8 + b. A cell is an exact part of the
    patch; a pixel on the border of two counts in both with its share. All arithmetic is in integers, so that every
    device gives the same code.

    Args:
        pixels: bytes.
        patch: (height, width) in pixels.
        cells: along each side of a patch.
    """
    rows, columns = grid_of((pixels.shape[2], pixels.shape[3]), patch)
    for dim, side in zip((2, 3), patch, strict=True):  # repeat pixels until cells are whole pixels
        pixels = pixels.repeat_interleave(cells // math.gcd(cells, side), dim)
    # batch channels rows cells cell_height columns cells cell_width
    parts = pixels.unflatten(3, (columns, cells, -1)).unflatten(2, (rows, cells, -1))
    area = parts.shape[4] * parts.shape[7]
    levels = parts.sum((4, 7), dtype=torch.int64) // (area * (BYTES // LEVELS))
    weights = LEVELS ** torch.arange(pixels.shape[1] - 1, -1, -1, device=pixels.device)
    codes = (levels * weights.view(-1, 1, 1, 1, 1)).sum(1)  # batch rows cells columns cells
    return codes.transpose(2, 3).flatten(3).flatten(1, 2)
