"""Images from paths, bytes or PIL, read in batches by one thread per core."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from PIL import Image

from vitreous.data.decoding.bands import Bands
from vitreous.data.decoding.images import MAX_PIXELS, BadImage, Decoding, remarks, upright_rgb
from vitreous.data.decoding.picture import decode_picture
from vitreous.data.preprocessing import Pixels, Preprocessing
from vitreous.support.errors import InputError
from vitreous.support.host import usable_cores
from vitreous.support.threads import in_order

AnyImage = str | Path | bytes | Image.Image | Bands


Batches = Iterator[tuple[list[str | BadImage], list[Pixels]]]


@dataclass
class Reading:
    """How image files are read, and what was noticed.

    Args:
        max_pixels: of an image.
        remarks: gets the name of an image and what was repaired in its file or cut off from its values.
    """

    max_pixels: int = MAX_PIXELS
    remarks: list[tuple[str, str]] = field(default_factory=list)


def as_list(images: AnyImage | Sequence[AnyImage]) -> Sequence[AnyImage]:
    """A single image as a list of one; a list unchanged.

    Raises:
        InputError: numbers, as a tensor or an array; the hint says what to do with them.
    """
    if isinstance(images, AnyImage):
        return [images]
    if hasattr(images, "shape") or any(hasattr(image, "shape") for image in images):
        cause = "images are paths, bytes of image files, or PIL images, not tensors or arrays"
        raise InputError(cause, "pass PIL.Image.fromarray(pixels), or a batch of normalized pixels to .model(images)")
    return images


def read_batches(
    images: Sequence[AnyImage], preprocessing: Preprocessing, batch_size: int, reading: Reading | None = None
) -> Batches:
    """Reads images in order, in batches; an unreadable one gives its error instead of its name.

    Args:
        images: paths, bytes of image files, or PIL images.
        preprocessing: resizes and crops; the pixels are not normalized.
        batch_size: images read, and held in memory, at once.
        reading: the limits of files; gets remarks on them.

    Yields:
        The path or number of each image of a batch, or its error; and the pixels of the readable ones.
    """
    reading = reading or Reading()
    decoding = Decoding(reading.max_pixels, preprocessing.max_value, channels=preprocessing.channels)

    def read(numbered: tuple[int, AnyImage]) -> tuple[str | BadImage, Pixels | None, tuple[str, ...]]:
        index, image = numbered
        name = str(image) if isinstance(image, str | Path) else f"image {index}"
        try:
            if isinstance(image, Bands):
                decoded = image
            elif isinstance(image, Image.Image):
                decoded = upright_rgb(image, name, decoding)
            else:
                decoded = decode_picture(image, name, decoding)
            return name, preprocessing.pixels(decoded), remarks(decoded)
        except BadImage as error:
            return BadImage(name, error.reason, error.hint), None, ()

    with closing(in_order(read, enumerate(images), usable_cores())) as results:
        while batch := list(islice(results, batch_size)):
            reading.remarks += [(str(name), remark) for name, _, remarked in batch for remark in remarked]
            yield [result for result, _, _ in batch], [pixels for _, pixels, _ in batch if pixels is not None]


def read_or_raise(
    images: Sequence[AnyImage], preprocessing: Preprocessing, batch_size: int
) -> Iterator[tuple[list[str], list[Pixels]]]:
    """Reads images as `read_batches` does, but raises the error of an unreadable one.

    Raises:
        BadImage: an image cannot be read; raised when its batch is reached.
    """
    for results, pixels in read_batches(images, preprocessing, batch_size):
        for result in results:
            if isinstance(result, BadImage):
                raise result
        yield [str(name) for name in results], pixels
