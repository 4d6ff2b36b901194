"""Pictures and their files, for the tests of image formats."""

import io

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "HEIF")
LOSSLESS = ("PNG", "BMP", "TIFF", "PPM")


def photo(height=12, width=16, mode="RGB"):
    """An image that every turn and flip changes, and that survives JPEG."""
    rows, columns = np.mgrid[0:height, 0:width]
    values = np.stack([rows * 255 // height, columns * 255 // width, (rows * columns) % 256], axis=-1)
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    if format == "HEIF":  # which vitreous does not register with Pillow
        from pillow_heif import from_pillow

        from_pillow(image).save(file, **options)
    else:
        image.save(file, format, **options)
    return file.getvalue()


def values(image):
    return np.asarray(image).astype(int)
