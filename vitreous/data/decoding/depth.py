"""Images of more than 8 bits per pixel: 16- and 32-bit integers and floats, scaled to 8 bits.

What white is, the file does not say: a 12-bit camera stores 0..4095 in 16 bits. The largest value is therefore a
setting, taken from the training images by default.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vitreous.support.errors import InputError

MAX_VALUE = 65_535  # of 16 bits
RANGES = (255, 1023, 4095, 16_383, MAX_VALUE)  # of 8, 10, 12, 14 and 16 bits
BELOW_ZERO = 0.01  # of the range of floats: as far as resampling may have pushed black


def is_deep(mode: str) -> bool:
    """Whether images of a Pillow mode have more than 8 bits: "I;16", "I", "F"."""
    return mode.startswith(("I", "F"))


def largest_value(image: Image.Image) -> int | float:
    """The largest finite value of a loaded deep image: a float if its values are, so that 1.0 is not 1."""
    return largest_of(np.asarray(image))


def largest_of(values: np.ndarray) -> int | float:
    """The largest finite value, or 0: a float if the values are."""
    if values.dtype.kind != "f":
        return int(values.max(initial=0))
    return float(values.max(initial=0, where=np.isfinite(values)))


def range_of(maxima: Sequence[int | float]) -> int:
    """The smallest common range that holds the largest values of some images; 1 for floats in [0, 1]."""
    largest = max(maxima, default=0)
    if largest <= 0:  # nothing but black is known
        return MAX_VALUE
    if largest <= 1 and all(isinstance(value, float) for value in maxima):
        return 1
    return next((most for most in RANGES if largest <= most), MAX_VALUE)


def eight_bits(image: Image.Image, max_value: int = MAX_VALUE) -> tuple[Image.Image, str | None]:
    """Scales a deep image to 8 bits, rounded, so that max_value becomes 255.

    If max_value is that of 16 bits, which is also the default, floats are scaled by the smallest of 1, 255 and 65,535
    that holds them.

    Returns:
        The image in mode "L", and a remark if values above max_value were cut off, or some are NaN.

    Raises:
        InputError: values are negative, or above 65,535 without a smaller max_value.
    """
    values = np.asarray(image)
    scaled, remark = scaled_to_bytes(values, max_value)
    if image.mode != "F":
        scaled[values == image.info.get("transparency", -1)] = 255  # a PNG may declare one gray transparent
    return Image.fromarray(scaled), remark


def scaled_to_bytes(values: np.ndarray, max_value: int) -> tuple[np.ndarray, str | None]:
    """Integers or floats of any shape as bytes, as `eight_bits` scales those of an image."""
    largest, is_float, remarks = largest_of(values), values.dtype.kind == "f", []
    if is_float:
        if np.isnan(values).any():
            remarks.append("values that are NaN are read as 0")
        values = np.nan_to_num(values, nan=0.0)
        if max_value == MAX_VALUE:
            max_value = next((most for most in (1, 255) if largest <= most), MAX_VALUE)
    smallest, least = values.min(initial=0), -BELOW_ZERO * max_value if is_float else 0
    if smallest < least or (largest > max_value == MAX_VALUE):
        cause = f"has values from {smallest:,.4g} to {largest:,.4g}, outside 0 to {max_value:,}"
        raise InputError(cause, "rescale it to 8 or 16 bits")
    if is_float:
        scaled = np.rint(values.clip(0, max_value) * (255 / max_value)).astype(np.uint8)
    else:
        scaled = ((values.clip(0, max_value).astype(np.uint32) * 255 + max_value // 2) // max_value).astype(np.uint8)
    if largest > max_value:
        remarks.append(f"values up to {largest:,.6g} are cut off at max_value, {max_value:,}")
    return scaled, "; ".join(remarks) or None


def own_channels(image: Image.Image) -> Image.Image:
    """The image with the channels that its file has, as bytes: a palette as colors, transparency kept."""
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image


def to_rgb(image: Image.Image, max_value: int = MAX_VALUE) -> Image.Image:
    """The image in mode "RGB", from any mode: 16 bits scaled to 8, transparency on white. Errors as `eight_bits`."""
    if is_deep(image.mode):
        image, _ = eight_bits(image, max_value)
    if image.has_transparency_data:
        transparent = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(transparent, mask=transparent)
    return image if image.mode == "RGB" else image.convert("RGB")
