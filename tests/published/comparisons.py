"""Downloads published checkpoints and compares them with their own library: `make published`, where there is a network.

A photo goes through both preprocessings and both models, real weights at full size. What cannot be reached is skipped
with the reason. No figure is kept here: the peer computes what is expected, from the same weights.
"""

import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

import vitreous
from tests.published.checkpoints import PUBLISHED, Published
from vitreous.checkpoints.load import locate
from vitreous.support.errors import InputError

EQUAL = 1e-4  # relative to the largest output, after up to 48 blocks
UNREACHABLE = ("cannot reach", "cannot download", "requires accepting its terms", "HF_HUB_OFFLINE")


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: f"{published.title}: {published.name}")
@torch.inference_mode()
def test_real_weights_give_the_outputs_of_their_own_library(published: Published, tmp_path: Path):
    source = downloaded(published.name, tmp_path) if published.name.startswith("https:") else published.name
    try:
        clf = vitreous.load(source, device="cpu", **published.fields)
    except InputError as error:
        if any(part in error.cause for part in UNREACHABLE):
            pytest.skip(f"{published.name}: {error.cause}")
        raise
    photos = sample_photos()
    pixels = clf.preprocessing(photos)
    found = clf.model(pixels)
    expected = PEERS[published.peer](published, photos, pixels, source)
    assert found.shape == expected.shape
    scale = expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 0.01 * scale, "two photos, two outputs"
    assert (found - expected).abs().max() < EQUAL * scale
    assert found.argmax(dim=1).equal(expected.argmax(dim=1))


def sample_photos() -> list[Image.Image]:
    """scikit-learn's two photos, a temple and a flower."""
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(values) for values in load_sample_images().images]


def downloaded(address: str, folder: Path) -> str:
    """A file without a published checksum, in a folder of the test."""
    path = folder / address.rpartition("/")[2]
    try:
        torch.hub.download_url_to_file(address, str(path), progress=False)
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        pytest.skip(f"cannot reach {address}: {error}")
    return str(path)


def by_timm(published: Published, photos: list[Image.Image], pixels: Tensor, source: str) -> Tensor:
    """timm's model of a name, with timm's preprocessing; ours for a file of somebody else's."""
    model = timm.create_model(published.model, pretrained=True, **published.arguments).eval()
    if not published.name.startswith("timm:"):
        return model(pixels)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    return model(torch.stack([transform(photo) for photo in photos]))


def by_timm_from_the_file(published: Published, photos: list[Image.Image], pixels: Tensor, source: str) -> Tensor:
    """timm's reader of the very file that vitreous has read."""
    path = locate(source).path
    overlay = {"file": str(path), "custom_load": path.suffix == ".npz"}
    model = timm.create_model(
        published.model, pretrained=True, pretrained_cfg_overlay=overlay, **published.arguments
    ).eval()
    return model(pixels)


def by_transformers(published: Published, photos: list[Image.Image], pixels: Tensor, source: str) -> Tensor:
    """transformers' classifier or features, with its image processor."""
    import transformers

    processor = transformers.AutoImageProcessor.from_pretrained(published.model)
    config = transformers.AutoConfig.from_pretrained(published.model)
    name = (getattr(config, "architectures", None) or [""])[0]
    kind: Any = getattr(transformers, VISION_TOWERS.get(name, name))
    model = kind.from_pretrained(published.model).eval()
    outputs = model(**processor(images=photos, return_tensors="pt"))
    if published.output == "class token":
        return outputs.last_hidden_state[:, 0]
    return outputs.logits if "logits" in outputs else outputs[published.output]


# The image tower of an image-text model.
VISION_TOWERS = {"CLIPModel": "CLIPVisionModelWithProjection", "SiglipModel": "SiglipVisionModel"}


def by_torchvision(published: Published, photos: list[Image.Image], pixels: Tensor, source: str) -> Tensor:
    """torchvision's model with its transforms."""
    from torchvision.models import get_model, get_model_weights

    name, _, weights_name = published.model.partition(".")
    weights = get_model_weights(name)[weights_name]
    transform = weights.transforms()
    return get_model(name, weights=weights).eval()(torch.stack([transform(photo) for photo in photos]))


PEERS: dict[str, Callable[[Published, list[Image.Image], Tensor, str], Tensor]] = {
    "timm": by_timm,
    "timm, this file": by_timm_from_the_file,
    "transformers": by_transformers,
    "torchvision": by_torchvision,
}
