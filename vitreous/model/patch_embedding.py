"""Image to tokens: the linear projection of flattened patches (equation 1), and patch dropout."""

import torch
from torch import nn

from vitreous.model import initialization
from vitreous.model.config import as_pair, check_count, check_rate, grid_of
from vitreous.model.shapes import FeatureMap, Grid, Patches, Queries, Size, Tokens
from vitreous.support.errors import InputError


def check_images(images: FeatureMap, channels: int) -> None:
    """Checks that images are "batch channels height width".

    Raises:
        InputError: one image without a batch axis, channels last, or another number of channels; the hint says what to
            type.
    """
    if images.ndim == 4 and images.shape[1] == channels:
        return
    size = "×".join(map(str, images.shape))
    if images.ndim == 3:
        image = "image" if images.shape[0] == channels or images.shape[2] != channels else "image.permute(2, 0, 1)"
        raise InputError(f"one image of {size}, without a batch axis", f"add the axis: {image}[None]")
    if images.ndim != 4:
        raise InputError(f"images of {size}", "their axes must be batch, channels, height, width")
    if images.shape[3] == channels:
        raise InputError(f"images of {size}, with the channels last", "move them first: images.permute(0, 3, 1, 2)")
    raise InputError(f"the image has {images.shape[1]} channels", f"this model takes {channels}")


class PatchEmbedding(nn.Module):
    """Cuts images into patches, flattens each, and projects them to the width D: x_p E (equation 1).

    Args:
        patch_size: P, (height, width) of a patch in pixels; one number for a square.
        width: D, numbers in each token.
        channels: C, channels of the image (or of the hybrid's feature map).
        bias: whether the projection has a bias.
        norm: of the projected patches, if any.
    """

    def __init__(
        self, patch_size: Size, width: int, channels: int = 3, bias: bool = True, norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.patch_size = as_pair("patch_size", patch_size)
        check_count("width", width)
        check_count("channels", channels)
        # E: (P² C) × D, stored D × (P² C) as every nn.Linear
        self.projection = nn.Linear(channels * self.patch_size[0] * self.patch_size[1], width, bias=bias)
        self.norm = nn.Identity() if norm is None else norm
        self.channels = channels
        self.reset_parameters()

    def reset_parameters(self) -> None:
        initialization.dense_(self.projection)

    def grid(self, images: FeatureMap) -> Grid:
        """Counts the patches of the images, (rows, columns)."""
        return grid_of((images.shape[2], images.shape[3]), self.patch_size)

    def patches(self, images: FeatureMap) -> Patches:
        """Returns x_p: the patches in raster order, each flattened channel by channel, row by row.

        Raises:
            InputError: the number of channels differs, or the patch does not divide the image.
        """
        check_images(images, self.channels)
        (rows, columns), (height, width) = self.grid(images), self.patch_size
        batch = images.shape[0]
        cut = images.reshape(batch, self.channels, rows, height, columns, width)
        cut = cut.permute(0, 2, 4, 1, 3, 5)  # batch rows columns channels height width
        return cut.reshape(batch, rows * columns, self.channels * height * width)

    def forward(self, images: FeatureMap) -> Tokens:
        """Embeds a batch of images: N = HW / P² tokens per image."""
        return self.norm(self.projection(self.patches(images)))


class PatchDropout(nn.Module):
    """Keeps a random subset of each image's patches, in training (arXiv 2208.07220); all of them in evaluation.

    It comes after the positions, so each remaining patch keeps its own.

    Args:
        rate: share of the patches to drop; at least one patch is kept.
        prefix_tokens: tokens before the patches, always kept.
    """

    def __init__(self, rate: float, prefix_tokens: int = 0) -> None:
        super().__init__()
        check_rate("patch_dropout", rate)
        self.rate = rate
        self.prefix_tokens = prefix_tokens

    def forward(self, x: Tokens) -> Queries:
        """Returns the prefix tokens and round((1 - rate) N) random patches per image, in raster order."""
        if not self.training or self.rate == 0:
            return x
        batch, tokens, width = x.shape
        patches = tokens - self.prefix_tokens
        count = max(1, round(patches * (1 - self.rate)))
        kept = torch.rand(batch, patches, device=x.device).topk(count, dim=1).indices.sort(dim=1).values
        front = torch.arange(self.prefix_tokens, device=x.device).expand(batch, -1)
        rows = torch.cat([front, kept + self.prefix_tokens], dim=1)
        return x.gather(1, rows[:, :, None].expand(-1, -1, width))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
