"""Image to tokens: the linear projection of flattened patches (equation 1)."""

from torch import nn

from vitreous.model import initialization
from vitreous.model.config import as_pair, check_count, grid_of
from vitreous.model.shapes import FeatureMap, Grid, Patches, Tokens
from vitreous.support.errors import InputError


class PatchEmbedding(nn.Module):
    """Cuts an image into patches, flattens each, and projects it to the width D: x_p E (equation 1).

    Args:
        patch_size: P, height and width of a patch in pixels; one number for a square.
        width: D, numbers in each token.
        channels: C, channels of the image (or of the hybrid's feature map).
        bias: whether the projection has one.
    """

    def __init__(self, patch_size: int | tuple[int, int], width: int, channels: int = 3, bias: bool = True) -> None:
        super().__init__()
        self.patch_size = as_pair("patch_size", patch_size)
        check_count("width", width)
        check_count("channels", channels)
        # E: (P² C) × D, stored D × (P² C) as every nn.Linear
        self.projection = nn.Linear(channels * self.patch_size[0] * self.patch_size[1], width, bias=bias)
        self.channels = channels
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the first weights."""
        initialization.dense_(self.projection)

    def grid(self, images: FeatureMap) -> Grid:
        """Counts the patches of the images, (rows, columns)."""
        return grid_of((images.shape[2], images.shape[3]), self.patch_size)

    def patches(self, images: FeatureMap) -> Patches:
        """Returns x_p: the patches in reading order, each flattened channel by channel, row by row.

        Raises:
            InputError: the number of channels differs, or the patch does not divide the image.
        """
        if images.shape[1] != self.channels:
            raise InputError(f"the image has {images.shape[1]} channels", f"this model takes {self.channels}")
        (rows, columns), (height, width) = self.grid(images), self.patch_size
        batch = images.shape[0]
        cut = images.reshape(batch, self.channels, rows, height, columns, width)
        cut = cut.permute(0, 2, 4, 1, 3, 5)  # batch rows columns channels height width
        return cut.reshape(batch, rows * columns, self.channels * height * width)

    def forward(self, images: FeatureMap) -> Tokens:
        """Embeds a batch of images: N = HW / P² tokens each."""
        return self.projection(self.patches(images))
