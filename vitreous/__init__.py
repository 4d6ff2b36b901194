"""vitreous: Vision Transformers to see through.

The public names. A name's module, and torch with it, is imported on first access.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitreous.classifier import Classifier, load, train
    from vitreous.explain.attention_maps import attention_map, attention_maps
    from vitreous.explain.deletion import deletion_curve
    from vitreous.explain.distance import attention_distance
    from vitreous.explain.embeddings import embedding_filters, patch_colors, position_similarity
    from vitreous.explain.relevance import gradient_attention, relevance
    from vitreous.explain.rollout import attention_rollout
    from vitreous.inspection.comparison.compare import compare
    from vitreous.inspection.trace import inspect
    from vitreous.model.adapt import adapt
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
    "adapt",
    "attention_distance",
    "attention_map",
    "attention_maps",
    "attention_rollout",
    "compare",
    "deletion_curve",
    "embedding_filters",
    "gradient_attention",
    "inspect",
    "load",
    "patch_colors",
    "position_similarity",
    "relevance",
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
    "adapt": "vitreous.model.adapt",
    "attention_distance": "vitreous.explain.distance",
    "attention_map": "vitreous.explain.attention_maps",
    "attention_maps": "vitreous.explain.attention_maps",
    "attention_rollout": "vitreous.explain.rollout",
    "compare": "vitreous.inspection.comparison.compare",
    "deletion_curve": "vitreous.explain.deletion",
    "embedding_filters": "vitreous.explain.embeddings",
    "gradient_attention": "vitreous.explain.relevance",
    "inspect": "vitreous.inspection.trace",
    "load": "vitreous.classifier",
    "patch_colors": "vitreous.explain.embeddings",
    "position_similarity": "vitreous.explain.embeddings",
    "relevance": "vitreous.explain.relevance",
    "train": "vitreous.classifier",
    "variant": "vitreous.model.variants",
}


def __getattr__(name: str) -> object:
    """Imports a public name on first access (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value  # later accesses bypass this function
    return value


def __dir__() -> list[str]:
    """All names, imported or not, for completion."""
    return sorted({*globals(), *__all__})
