"""Images read in batches: their order, their names and unreadable ones."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.data.decoding.images import BadImage
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.reading import AnyImage, as_list, read_batches, read_or_raise

SMALL = Preprocessing((4, 6))


def photo(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8))


def kinds(folder: Path) -> list[AnyImage]:
    """Readable images as a string, a path, bytes and PIL; and two unreadable ones."""
    for number in (0, 1):
        photo(number).save(folder / f"{number}.png")
    file = BytesIO()
    photo(2).save(file, "PNG")
    return [str(folder / "0.png"), folder / "1.png", b"my notes", file.getvalue(), photo(3), folder / "missing.png"]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 9])
def test_images_keep_their_order(tmp_path, batch_size: int):
    batches = list(read_batches(kinds(tmp_path), SMALL, batch_size))
    assert [len(labels) for labels, _ in batches][:-1] == [batch_size] * (len(batches) - 1)
    labels = [label for labels, _ in batches for label in labels]
    assert [isinstance(label, BadImage) for label in labels] == [False, False, True, False, False, True]
    good = [label for label in labels if not isinstance(label, BadImage)]
    assert good == [str(tmp_path / "0.png"), str(tmp_path / "1.png"), "image 3", "image 4"]
    pixels = [pixels for _, found in batches for pixels in found]
    assert len(pixels) == 4
    for number, found in enumerate(pixels):
        assert (found == SMALL.pixels(photo(number))).all()


def test_read_or_raise_raises_the_first_bad_image(tmp_path):
    images = kinds(tmp_path)
    batches = read_or_raise(images, SMALL, 2)
    names, pixels = next(batches)
    assert names == [str(tmp_path / "0.png"), str(tmp_path / "1.png")]
    assert len(pixels) == 2
    with pytest.raises(BadImage, match="is not a JPEG"):
        next(batches)


def test_no_images_give_no_batches():
    assert list(read_batches([], SMALL, 4)) == []
    assert as_list("a.png") == ["a.png"]
    assert as_list(["a.png"]) == ["a.png"]


def test_numbers_are_refused_with_what_to_do(fresh_process):
    """In a process without beartype, which would refuse them first."""
    code = """
import numpy as np, torch
from vitreous.data.reading import as_list
pixels = np.zeros((8, 8, 3), np.uint8)
for images in (pixels, torch.zeros(2, 3, 8, 8), [pixels], ["a.jpg", torch.zeros(3, 8, 8)]):
    try:
        as_list(images)
    except ValueError as error:
        print(error)
"""
    lines = fresh_process(code).stdout.splitlines()
    expected = "images are paths, bytes of image files, or PIL images, not tensors or arrays; pass PIL.Image.fromarray"
    assert len(lines) == 4
    assert all(line.startswith(expected) for line in lines)
