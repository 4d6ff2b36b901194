"""A small classifier with random weights, for tests."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from vitreous.checkpoints.store import StoredModel
from vitreous.classifier import Classifier
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.model.initialization import fill_at_random
from vitreous.model.vit import VisionTransformer

CLASSES = ("cat", "dog", "fox")


def small_classifier(class_names: Sequence[str] | None = CLASSES, **overrides: object) -> Classifier:
    """A classifier of two blocks for 16×16 images in 4×4 patches; without class names it has no head."""
    fields: dict = {"width": 24, "depth": 2, "mlp_dim": 32, "num_heads": 3, "image_size": 16, "patch_size": 4}
    config = ViTConfig(**fields | {"num_classes": len(class_names or ())} | overrides)
    model = VisionTransformer(config)
    fill_at_random(model)
    gray = (0.5,) * config.channels
    preprocessing = Preprocessing(config.image_size, mean=gray, std=gray, channels=config.channels)
    names = None if class_names is None else tuple(class_names)
    return Classifier(StoredModel(model, preprocessing, names, {"source": "at random"}))


def changed(classifier: Classifier, **fields: object) -> Classifier:
    """The same model with another preprocessing, other class names or metadata."""
    return Classifier(replace(classifier.stored, **fields))


def write_photos(folder: Path) -> list[str]:
    """Five different photos of different sizes; returns their paths."""
    noise = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        Image.fromarray(noise.integers(0, 256, (20 + i, 30 - i, 3), dtype=np.uint8)).save(path)
    return [str(path) for path in paths]
