"""vitreous: Vision Transformers to see through.

The project's public names. A name's module, and torch with it, is imported when the name is first touched.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitreous.classifier import Classifier, load, train
    from vitreous.inspection.comparison.compare import compare
    from vitreous.inspection.trace import inspect
    from vitreous.model.attention import SelfAttention
    from vitreous.model.config import ViTConfig
    from vitreous.model.encoder import Encoder, EncoderBlock
    from vitreous.model.head import AttentionPooling, ClassTokenPooling, Head, MeanPooling
    from vitreous.model.mlp import MLP, SwiGLU
    from vitreous.model.patch_embedding import PatchEmbedding
    from vitreous.model.position_embedding import (
        Learned2DPosition,
        LearnedPosition,
        PositionEmbedding,
        SinCos2DPosition,
    )
    from vitreous.model.relative_position import RelativePosition
    from vitreous.model.resnet_stem import ResNetStem
    from vitreous.model.variants import variant
    from vitreous.model.vit import VisionTransformer
    from vitreous.support.errors import InputError
    from vitreous.training.recipe.recipe import Recipe

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "AttentionPooling",
    "ClassTokenPooling",
    "Classifier",
    "Encoder",
    "EncoderBlock",
    "Head",
    "InputError",
    "Learned2DPosition",
    "LearnedPosition",
    "MeanPooling",
    "PatchEmbedding",
    "PositionEmbedding",
    "Recipe",
    "RelativePosition",
    "ResNetStem",
    "SelfAttention",
    "SinCos2DPosition",
    "SwiGLU",
    "ViTConfig",
    "VisionTransformer",
    "compare",
    "inspect",
    "load",
    "train",
    "variant",
]

_MODULES = {
    "AttentionPooling": "vitreous.model.head",
    "ClassTokenPooling": "vitreous.model.head",
    "Classifier": "vitreous.classifier",
    "Encoder": "vitreous.model.encoder",
    "EncoderBlock": "vitreous.model.encoder",
    "Head": "vitreous.model.head",
    "InputError": "vitreous.support.errors",
    "Learned2DPosition": "vitreous.model.position_embedding",
    "LearnedPosition": "vitreous.model.position_embedding",
    "MLP": "vitreous.model.mlp",
    "MeanPooling": "vitreous.model.head",
    "PatchEmbedding": "vitreous.model.patch_embedding",
    "PositionEmbedding": "vitreous.model.position_embedding",
    "Recipe": "vitreous.training.recipe.recipe",
    "RelativePosition": "vitreous.model.relative_position",
    "ResNetStem": "vitreous.model.resnet_stem",
    "SelfAttention": "vitreous.model.attention",
    "SinCos2DPosition": "vitreous.model.position_embedding",
    "SwiGLU": "vitreous.model.mlp",
    "ViTConfig": "vitreous.model.config",
    "VisionTransformer": "vitreous.model.vit",
    "compare": "vitreous.inspection.comparison.compare",
    "inspect": "vitreous.inspection.trace",
    "load": "vitreous.classifier",
    "train": "vitreous.classifier",
    "variant": "vitreous.model.variants",
}


def __getattr__(name: str) -> object:
    """Imports a public name where it is first touched (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value  # the next look finds it without this function
    return value


def __dir__() -> list[str]:
    """The names there are, touched or not, for completion."""
    return sorted({*globals(), *__all__})
