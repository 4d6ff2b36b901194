"""A small classifier with random weights, for tests."""

from collections.abc import Sequence

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
    return Classifier(model, preprocessing, class_names, {"source": "at random"})
