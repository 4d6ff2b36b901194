"""A folder of photos and settings of a run of a second."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
QUICK = {
    "variant": "mu/4", "image_size": 8, "epochs": 2, "warmup_epochs": 1, "batch_size": 16, "device": "cpu",
    "threads": 1, "workers": 0, "crop_scale": [0.5, 1.0], "mixup": 0.0, "cutmix": 0.0, "patch_dropout": 0.0,
}  # fmt: skip


@pytest.fixture
def quick() -> dict:
    """Settings of a run of a second."""
    return dict(QUICK)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Noisy pictures of three colors, 12 each to train and 4 to test."""
    noise = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name, color in CLASSES.items():
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = noise.normal(color, 30, (12, 10, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"
