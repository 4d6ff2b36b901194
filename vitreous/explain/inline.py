"""Pictures inside a page: images as data URIs, and the look that all pages share."""

from base64 import b64encode
from io import BytesIO
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

Kind = Literal["png", "jpeg"]

HEAT = (255, 122, 0)  # the color of attention
CRISP = 64  # pixels of a side up to which each pixel is shown as a square, and kept exactly
QUALITY = 88  # of a JPEG


def picture(pixels: UInt8[ndarray, "channels height width"]) -> Image.Image:
    """Channels first to an image, gray or RGB."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def encoded(image: Image.Image, kind: Kind) -> bytes:
    """The bytes of an image's file."""
    file = BytesIO()
    if kind == "png":
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def uri(content: bytes, kind: Kind) -> str:
    """A file as a data URI."""
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"
