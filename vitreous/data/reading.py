"""Images of every kind, read a batch at a time by as many threads as there are cores."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vitreous.data.images import BadImage, decode_image, upright_rgb
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.host import usable_cores

AnyImage = str | Path | bytes | Image.Image
Pixels = UInt8[Tensor, "channels height width"]


def as_list(images: AnyImage | Sequence[AnyImage]) -> Sequence[AnyImage]:
    """One image as a list of one; a list as it is."""
    return [images] if isinstance(images, str | Path | bytes | Image.Image) else images


def read_batches(
    images: Sequence[AnyImage], preprocessing: Preprocessing, batch_size: int
) -> Iterator[tuple[list[str | BadImage], list[Pixels]]]:
    """Reads any number of images, in their order; one that cannot be read comes as its error, and stops no other.

    Args:
        images: paths, bytes of image files, or PIL images.
        preprocessing: whose size and crop the pixels get; they are not normalized.
        batch_size: images that are read, and held, at once.

    Yields:
        For each image of a batch its name, or its number in the list where it came without one, or its error; and the
        pixels of those that could be read.
    """

    def read(image: AnyImage, index: int) -> tuple[str | BadImage, Pixels | None]:
        name = str(image) if isinstance(image, str | Path) else f"image {index}"
        try:
            decoded = upright_rgb(image, name) if isinstance(image, Image.Image) else decode_image(image)
        except BadImage as error:
            return error, None
        return name, preprocessing.pixels(decoded)

    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(images), batch_size):
            chunk = images[start : start + batch_size]
            batch = list(pool.map(read, chunk, range(start, start + len(chunk))))
            yield [label for label, _ in batch], [pixels for _, pixels in batch if pixels is not None]


def read_or_raise(
    images: Sequence[AnyImage], preprocessing: Preprocessing, batch_size: int
) -> Iterator[tuple[list[str], list[Pixels]]]:
    """Reads images as `read_batches` does, where all must be good: their names and their pixels.

    Raises:
        BadImage: an image cannot be read; where its batch is asked for.
    """
    for labels, pixels in read_batches(images, preprocessing, batch_size):
        names = []
        for label in labels:
            if isinstance(label, BadImage):
                raise label
            names.append(label)
        yield names, pixels
