"""What the tests of all families share: random models of the peers, and what "equal" means."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import StoredModel
from vitreous.model.config import ViTConfig

EQUAL = 1e-5  # logits and representations in float32
TINY = {"width": 64, "depth": 3, "num_heads": 4, "mlp_dim": 256}
TI = {"width": 192, "depth": 12, "num_heads": 3, "mlp_dim": 768}


def filled(model: nn.Module, seed: int = 0) -> nn.Module:
    """A peer's model in evaluation mode with random parameters, so that each affects the logits."""
    generator = torch.Generator().manual_seed(seed)
    names = ("LayerNorm", "GroupNorm", "GroupNormAct", "RMSNorm", "RmsNorm")
    gains = {id(m.weight) for m in model.modules() if type(m).__name__.endswith(names)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if id(parameter) in gains or "gamma" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.ndim > 1 and name.endswith("weight"):
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
            else:
                parameter.copy_(0.3 * noise)
    return model.eval()


def images_of(config: ViTConfig, batch: int = 4) -> Tensor:
    """Random images of the config's size."""
    return torch.randn(batch, config.channels, *config.image_size, generator=torch.Generator().manual_seed(1))


def is_varied(outputs: Tensor) -> bool:
    """Whether the outputs differ from image to image, far more than rounding could."""
    return outputs.std(dim=0).mean().item() > 0.02


@torch.no_grad()
def assert_same_function(theirs: Callable[[Tensor], Tensor], ours: Callable[[Tensor], Tensor], images: Tensor) -> None:
    """Both give the same outputs, and these differ from image to image."""
    expected, found = theirs(images), ours(images)
    assert is_varied(expected)
    assert found.shape == expected.shape
    difference = (found - expected).abs().max().item()
    assert difference < EQUAL, difference


def assert_same_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """The same keys, shapes, types and bits."""
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].shape == tensor.shape, key
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor), key


def through_a_file(tensors: Mapping[str, Tensor], folder: Path, **fields: Any) -> StoredModel:
    """Writes tensors to a file and reads it."""
    path = folder / "theirs.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return load_checkpoint(path, **fields)
