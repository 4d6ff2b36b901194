"""Small pictures inside a page: what a model sees of an image, and where it looks, as data URIs."""

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

from vitreous.explain.inline import CRISP, HEAT, encoded, picture, uri

LARGEST = 224  # pixels of a side that a photo has in the page
STRONGEST = 0.82  # opacity of the most attended patch: the image is still seen below


def photo(pixels: UInt8[ndarray, "channels height width"]) -> str:
    """An image as a data URI: PNG where pixels are to be seen, else JPEG."""
    image = picture(pixels)
    if max(image.size) <= CRISP:
        return uri(encoded(image, "png"), "png")
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return uri(encoded(image, "jpeg"), "jpeg")


def heat(weights: Float[ndarray, "rows columns"]) -> str:
    """Attention as a data URI: a pixel for each patch, of one color, the more opaque the more it is attended to."""
    opacity = weights / max(weights.max(), 1e-12) * (STRONGEST * 255)
    color = np.broadcast_to(np.array(HEAT, np.uint8), (*weights.shape, 3))
    return uri(encoded(Image.fromarray(np.dstack([color, opacity.round().astype(np.uint8)])), "png"), "png")
