"""The small pictures of the page, as data URIs: the photo, patches, filters, maps and strips of numbers."""

from math import ceil

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from vitreous.explain.inline import CRISP, HEAT, encoded, picture, uri
from vitreous.pages.walk.packing import ZERO

COLD = (43, 123, 222)  # values below 0, where there is a sign
STRONGEST = 0.86  # opacity of a map's strongest patch: the photo is still seen below
GRAY_SIDE = 224  # pixels of a side of the gray photo that lies below the maps
ORIGINAL_SIDE = 480  # of the photo as it was given
MOST_BYTES = 700_000  # of the photo without loss
STRIP = 96  # numbers in a row of a strip


def photo(pixels: UInt8[ndarray, "channels height width"]) -> str:
    """What the model sees, pixel for pixel; a large one as JPEG."""
    image = picture(pixels)
    file = encoded(image, "png")
    return uri(file, "png") if len(file) <= MOST_BYTES else uri(encoded(image, "jpeg"), "jpeg")


def gray(pixels: UInt8[ndarray, "channels height width"]) -> str:
    """The same, gray, dimmed and small: what maps are laid on."""
    image = picture(pixels).convert("L").point(lambda value: round(20 + 0.5 * value))
    if max(image.size) <= CRISP:
        return uri(encoded(image, "png"), "png")
    image.thumbnail((GRAY_SIDE, GRAY_SIDE), Image.Resampling.LANCZOS)
    return uri(encoded(image, "jpeg"), "jpeg")


def original(image: Image.Image) -> str:
    """The photo as it was given, made small."""
    small = image.convert("RGB")
    if max(small.size) <= CRISP:
        return uri(encoded(small, "png"), "png")
    small.thumbnail((ORIGINAL_SIDE, ORIGINAL_SIDE), Image.Resampling.LANCZOS)
    return uri(encoded(small, "jpeg"), "jpeg")


def crop(pixels: UInt8[ndarray, "channels height width"], place: tuple[int, int], patch: tuple[int, int]) -> str:
    """One patch (row, column) of the photo."""
    (row, column), (height, width) = place, patch
    part = pixels[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
    return uri(encoded(picture(part), "png"), "png")


def filter_picture(weights: Float[Tensor, "channels height width"]) -> str:
    """A filter: middle gray is 0, and the value farthest from it is black or white."""
    values = weights.detach().float().cpu().numpy()
    scaled = 127.5 + 127.5 * values / max(np.abs(values).max(), 1e-12)
    shown = scaled if len(scaled) in (1, 3) else scaled.mean(axis=0, keepdims=True)
    return uri(encoded(picture(shown.round().astype(np.uint8)), "png"), "png")


def channel_picture(values: Float[Tensor, "height width"]) -> str:
    """One channel of a feature map, from its least value, black, to its largest."""
    shown = values.float().cpu().numpy()
    scaled = (shown - shown.min()) / max(float(np.ptp(shown)), 1e-12) * 255
    return uri(encoded(picture(scaled.round().astype(np.uint8)[None]), "png"), "png")


def heat(opacity: Float[Tensor, "rows columns"]) -> str:
    """Values in [0, 1] as a pixel each, of one color, the higher the more opaque."""
    alpha = (opacity.nan_to_num().clamp(0, 1).cpu().numpy() * (STRONGEST * 255)).round().astype(np.uint8)
    color = np.broadcast_to(np.array(HEAT, np.uint8), (*alpha.shape, 3))
    return uri(encoded(Image.fromarray(np.dstack([color, alpha])), "png"), "png")


def strip(steps: Float[Tensor, " numbers"]) -> str:
    """Numbers in signed steps (`packing.signed`) as a pixel each, 96 to a row: orange above 0, blue below."""
    columns, rows = strip_size(len(steps))
    filled = np.full(rows * columns, ZERO, np.float32)
    filled[: len(steps)] = steps.nan_to_num(ZERO).cpu().numpy()
    values = (filled - ZERO) / ZERO
    color = np.where(values[:, None] < 0, np.array(COLD, np.uint8), np.array(HEAT, np.uint8))
    alpha = (np.abs(values) * 255).round().astype(np.uint8)[:, None]
    image = np.concatenate([color, alpha], axis=1).reshape(rows, columns, 4)
    return uri(encoded(Image.fromarray(image), "png"), "png")


def strip_size(count: int) -> tuple[int, int]:
    """(columns, rows) of a strip of so many numbers: rows as even as can be."""
    rows = ceil(count / STRIP)
    return ceil(count / rows), rows
