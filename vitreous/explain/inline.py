"""Images as data URIs for HTML pages, and the colors of attention maps."""

from base64 import b64encode
from io import BytesIO
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

Kind = Literal["png", "jpeg"]

HEAT = (255, 122, 0)  # the color of attention
STRONGEST = 0.82  # opacity of the most attended patch, so that the photo stays visible below
CRISP = 64  # images up to this side are kept exactly, and shown with square pixels
QUALITY = 88  # of a JPEG


def overlay(opacity: Float[ndarray, "rows columns"]) -> UInt8[ndarray, "rows columns 4"]:
    """A map of opacities in [0, 1] as RGBA in the color of attention."""
    alpha = (opacity * (STRONGEST * 255)).round().astype(np.uint8)
    return np.dstack([np.broadcast_to(np.array(HEAT, np.uint8), (*alpha.shape, 3)), alpha])


def encoded(image: Image.Image, kind: Kind) -> bytes:
    """The image as the bytes of a file."""
    file, options = BytesIO(), {"optimize": True} if kind == "png" else {"quality": QUALITY}
    image.save(file, kind, **options)
    return file.getvalue()


def uri(content: bytes, kind: Kind) -> str:
    """The bytes of an image file as a data URI."""
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"
