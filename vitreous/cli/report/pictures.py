"""Small pictures inside a page: what a model sees of an image, and where it looks, as data URIs."""

from base64 import b64encode
from io import BytesIO

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

CRISP = 64  # pixels of a side up to which each pixel is shown as a square, and kept exactly
LARGEST = 224  # pixels of a side that a photo has in the page
HEAT = (255, 122, 0)
STRONGEST = 0.82  # opacity of the most attended patch: the image is still seen below


def photo(pixels: UInt8[ndarray, "channels height width"]) -> str:
    """An image as a data URI: PNG where pixels are to be seen, else JPEG."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if max(image.size) <= CRISP:
        return data_uri(image, "png")
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return data_uri(image, "jpeg")


def heat(weights: Float[ndarray, "rows columns"]) -> str:
    """Attention as a data URI: a pixel for each patch, of one colour, the more opaque the more it is attended to."""
    opacity = weights / max(weights.max(), 1e-12) * (STRONGEST * 255)
    colour = np.broadcast_to(np.array(HEAT, np.uint8), (*weights.shape, 3))
    return data_uri(Image.fromarray(np.dstack([colour, opacity.round().astype(np.uint8)])), "png")


def data_uri(image: Image.Image, kind: str) -> str:
    """The file of an image as a URI."""
    file = BytesIO()
    if kind == "png":
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=85)
    return f"data:image/{kind};base64,{b64encode(file.getvalue()).decode('ascii')}"
