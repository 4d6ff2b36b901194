"""What the tests of `vitreous export` share: models, files, and the command."""

from pathlib import Path

import numpy as np
import timm
from PIL import Image
from safetensors.torch import save_file

from tests.checkpoints.peers import filled
from tests.classifiers import changed, small_classifier
from vitreous.classifier import Classifier
from vitreous.cli.app import run
from vitreous.data.preprocessing import Preprocessing

NAMES = ("cat", "L'été à la mer", 'a/b: "c"', "猫 🐈", "---")


SQUASH = Preprocessing((32, 32), "squash", 1.0, "bicubic", True, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


CROP = Preprocessing((32, 32), "crop", 0.875, "bilinear", True, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def peer(**changes):
    """A random timm model."""
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 192, "depth": 2, "num_heads": 3, "num_classes": 5}
    return filled(timm.create_model("vit_base_patch16_224", **(arguments | {"act_layer": "gelu_tanh"} | changes)))


def ours(**changes) -> Classifier:
    """A classifier that most families can hold."""
    fields = {"width": 64, "num_heads": 4, "image_size": 32, "patch_size": 8, "gelu": "exact"} | changes
    classifier = small_classifier(NAMES[: fields.get("num_classes", len(NAMES))] or None, **fields)
    preprocessing = classifier.preprocessing.adapted((32, 32), fields.get("channels", 3))
    return changed(classifier, preprocessing=preprocessing)


def export(*arguments: str) -> None:
    assert run(["export", *arguments]) == 0


def contents(folder: Path) -> dict[str, bytes | None]:
    """All that is below a folder, with what it holds."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def photos(count: int = 4) -> list[Image.Image]:
    noise = np.random.default_rng(0)
    return [Image.fromarray(noise.integers(0, 256, (40 + i, 50 - i, 3), dtype=np.uint8)) for i in range(count)]


def write_models(folder: Path) -> None:
    """Writes theirs.safetensors (timm) and ours.safetensors."""
    save_file(peer().state_dict(), folder / "theirs.safetensors")
    ours().save(folder / "ours.safetensors")
