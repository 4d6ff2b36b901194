"""The ResNet of a hybrid (section 3.1): BiT's, with weight-standardized convolutions and group norm."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.model import initialization
from vitreous.model.config import StemEps
from vitreous.model.patch_embedding import check_images
from vitreous.model.shapes import FeatureMap, Images

GROUPS = 32
NORM_EPS, TIMM_NORM_EPS = 1e-6, 1e-5  # the authors' code; timm, PyTorch's default
STANDARD_EPS, TIMM_VARIANCE_EPS = 1e-5, 1e-8  # added to a filter's standard deviation; in timm to its variance


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pads like TensorFlow's SAME: ceil(size / stride) outputs, the odd pixel at the bottom and right."""
    height, width = ((-(-n // stride) - 1) * stride + kernel - n for n in x.shape[2:])
    height, width = max(0, height), max(0, width)
    if not height and not width:
        return x
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2), value=value)


class StandardizedConv(nn.Conv2d):
    """A convolution with filters of mean 0 and standard deviation 1 (arXiv 1903.10520) and SAME padding."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, bias=False)
        self.eps: StemEps = "google"

    def reset_parameters(self) -> None:
        initialization.dense_(self)

    def filters(self) -> Tensor:
        """Returns the standardized filters."""
        std, mean = torch.std_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        std = std + STANDARD_EPS if self.eps == "google" else (std.square() + TIMM_VARIANCE_EPS).sqrt()
        return (self.weight - mean) / std

    def forward(self, input: FeatureMap) -> Tensor:
        padded = pad_same(input, self.kernel_size[0], self.stride[0])
        return F.conv2d(padded, self.filters(), stride=self.stride)


class Bottleneck(nn.Module):
    """A residual unit of 1×1, 3×3 and 1×1 convolutions; the second has the stride, the last four times the width."""

    EXPANSION = 4

    def __init__(self, in_channels: int, features: int, stride: int) -> None:
        super().__init__()
        out_channels = features * self.EXPANSION
        self.conv1 = StandardizedConv(in_channels, features, 1)
        self.norm1 = nn.GroupNorm(GROUPS, features, eps=NORM_EPS)
        self.conv2 = StandardizedConv(features, features, 3, stride)
        self.norm2 = nn.GroupNorm(GROUPS, features, eps=NORM_EPS)
        self.conv3 = StandardizedConv(features, out_channels, 1)
        self.norm3 = nn.GroupNorm(GROUPS, out_channels, eps=NORM_EPS)
        self.shortcut = nn.Identity()
        if in_channels != out_channels or stride != 1:
            self.shortcut = nn.Sequential()
            self.shortcut.conv = StandardizedConv(in_channels, out_channels, 1, stride)
            self.shortcut.norm = nn.GroupNorm(GROUPS, out_channels, eps=NORM_EPS)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zeros the last norm's scale, so that the unit starts as its shortcut."""
        initialization.zeros_(self.norm3.weight)

    def forward(self, x: FeatureMap) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.shortcut(x) + self.norm3(self.conv3(y)))


class ResNetStem(nn.Module):
    """A root (7×7 convolution and pooling, stride 4) and stages of bottleneck units.

    Args:
        blocks: units per stage; every stage but the first halves the map. () for the root alone.
        width: features of the root; they double with each stage.
        channels: C, channels of the image.
        eps: of the group norms and of the standardized filters: the authors' or timm's.
    """

    def __init__(self, blocks: Sequence[int], width: int = 64, channels: int = 3, eps: StemEps = "google") -> None:
        super().__init__()
        self.conv = StandardizedConv(channels, width, 7, stride=2)
        self.norm = nn.GroupNorm(GROUPS, width, eps=NORM_EPS)
        stages = [width, *(width * 2**s * Bottleneck.EXPANSION for s in range(len(blocks)))]
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    Bottleneck(before if unit == 0 else after, width * 2**s, 2 if s and unit == 0 else 1)
                    for unit in range(blocks[s])
                )
            )
            for s, (before, after) in enumerate(itertools.pairwise(stages))
        )
        for module in self.modules() if eps == "timm" else ():
            if isinstance(module, StandardizedConv):
                module.eps = eps
            elif isinstance(module, nn.GroupNorm):
                module.eps = TIMM_NORM_EPS

    def forward(self, images: Images) -> FeatureMap:
        """Turns images into a feature map.

        Raises:
            InputError: the number of channels differs.
        """
        check_images(images, self.conv.in_channels)
        x = F.relu(self.norm(self.conv(images)))
        x = F.max_pool2d(pad_same(x, 3, 2, value=-torch.inf), kernel_size=3, stride=2)
        for stage in self.stages:
            x = stage(x)
        return x
