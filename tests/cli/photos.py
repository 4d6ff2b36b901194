"""Photos of noise, for the tests of commands that read some."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.classifiers import small_classifier

IN_ORDER = ["new/1.png", "new/2.png", "new/10.png", "new/deeper/3.png"]


def photo(seed: int, size: tuple[int, int] = (12, 20)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def fill(folder: Path) -> None:
    """Puts a model into a folder that is the current one, and new/ with photos: 1.png 2.png 10.png and deeper/3.png."""
    small_classifier().save(folder / "model.safetensors")
    (folder / "new/deeper").mkdir(parents=True)
    for place, name in enumerate(IN_ORDER):
        photo(place).save(folder / name)
