"""Noise photos for the tests of commands that read images."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.classifiers import small_classifier

IN_ORDER = ["new/1.png", "new/2.png", "new/10.png", "new/deeper/3.png"]


def photo(seed: int, size: tuple[int, int] = (12, 20)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def fill(folder: Path, run: str = ".") -> None:
    """Writes a model to the `run` folder in the current folder, and photos to new/."""
    (folder / run).mkdir(exist_ok=True)
    small_classifier().save(folder / run / "model.safetensors")
    (folder / "new/deeper").mkdir(parents=True)
    for place, name in enumerate(IN_ORDER):
        photo(place).save(folder / name)
