"""The pictures of the pages as data URIs: photos, patches, filters, attention maps and strips of numbers."""

from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from vitreous.explain.inline import CRISP, HEAT, encoded, overlay, uri
from vitreous.support.figures import visible

COLD = (43, 123, 222)  # values below 0
LEVELS = 15  # the steps from 0 to the top value of a map; the page's script draws the same steps
ZERO = 7  # the level of 0 for signed values: level 0 is -1, level 14 is 1
CLIPPED = 0.995  # the share of the values inside a signed scale
LOSSLESS = 700_000  # bytes up to which the model's input is kept as PNG
STRIP = 96  # numbers in a row of a strip


class Strip(NamedTuple):
    """A picture of a vector, one pixel per number; `scale` is the size at which colors are full."""

    picture: str
    columns: int
    rows: int
    scale: float


def as_image(pixels: UInt8[ndarray, "channels height width"]) -> Image.Image:
    """A gray or RGB image; of other channels, the mean in gray."""
    pixels = visible(pixels)
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def png(image: Image.Image) -> str:
    """An image without loss."""
    return uri(encoded(image, "png"), "png")


def photo(image: Image.Image, side: int) -> str:
    """A photo of at most `side` pixels; a tiny one keeps every pixel."""
    if max(image.size) <= CRISP:
        return png(image)
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return uri(encoded(image, "jpeg"), "jpeg")


def model_input(pixels: UInt8[ndarray, "channels height width"]) -> str:
    """What the model sees, pixel by pixel; a JPEG if a PNG would be too large."""
    image = as_image(pixels)
    file = encoded(image, "png")
    return uri(file, "png") if len(file) <= LOSSLESS else uri(encoded(image, "jpeg"), "jpeg")


def backdrop(pixels: UInt8[ndarray, "channels height width"]) -> Image.Image:
    """The photo in dim gray, to lay maps on."""
    return as_image(pixels).convert("L").point(lambda value: round(20 + 0.5 * value))


def filter_picture(weights: Float[Tensor, "channels height width"]) -> str:
    """A filter: gray is 0, black or white the value farthest from it."""
    values = weights.detach().float().cpu().numpy()
    scaled = 127.5 + 127.5 * values / max(np.abs(values).max(), 1e-12)
    return png(as_image(visible(scaled).round().astype(np.uint8)))


def channel_picture(values: Float[Tensor, "height width"]) -> str:
    """A channel of a feature map, from black, its least value, to white."""
    shown = values.float().cpu().numpy()
    scaled = (shown - shown.min()) / max(float(np.ptp(shown)), 1e-12) * 255
    return png(as_image(scaled.round().astype(np.uint8)[None]))


def attention_picture(opacity: Float[ndarray, "rows columns"]) -> str:
    """A map of opacities in [0, 1], one pixel per patch."""
    return png(Image.fromarray(overlay(np.nan_to_num(opacity).clip(0, 1))))


def level_picture(steps: UInt8[Tensor, "rows columns"]) -> str:
    """A map of levels, one pixel per patch."""
    return attention_picture(steps.numpy() / np.float32(LEVELS))


def strip(values: Float[Tensor, " numbers"]) -> Strip:
    """A vector as a strip with a scale of its own."""
    scale, steps = signed_levels(values)
    return strip_of_levels(steps, scale)


def strip_of_levels(steps: UInt8[Tensor, " numbers"], scale: float) -> Strip:
    """Signed levels as a strip: orange above 0, blue below."""
    rows = ceil(len(steps) / STRIP)
    columns = ceil(len(steps) / rows)
    values = np.zeros(rows * columns, np.float32)
    values[: len(steps)] = (steps.numpy() - np.float32(ZERO)) / ZERO
    color = np.where(values[:, None] < 0, np.array(COLD, np.uint8), np.array(HEAT, np.uint8))
    alpha = (np.abs(values) * 255).round().astype(np.uint8)[:, None]
    pixels = np.concatenate([color, alpha], axis=1).reshape(rows, columns, 4)
    return Strip(png(Image.fromarray(pixels)), columns, rows, scale)


def signed_levels(values: Tensor) -> tuple[float, UInt8[Tensor, "..."]]:
    """The scale of some values, and their levels around ZERO; values beyond the scale are clipped."""
    sizes = values.abs().flatten().sort().values
    scale = float(sizes[round((len(sizes) - 1) * CLIPPED)]) or 1.0
    steps = (values / scale * ZERO).round().clamp(-ZERO, ZERO) + ZERO
    return scale, steps.nan_to_num(ZERO).to(torch.uint8)


def levels(shares: Float[Tensor, "*maps rows columns"]) -> UInt8[Tensor, "*maps rows columns"]:
    """Shares of a total as levels: the largest of each map is LEVELS, the others follow the square root."""
    steps = (shares / shares.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-30)).sqrt() * LEVELS
    return steps.round().nan_to_num().to(torch.uint8)
