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
    name: f"vitreous.{module}"
    for module, names in {
        "classifier": "Classifier load train",
        "explain.attention_maps": "attention_map attention_maps",
        "explain.deletion": "deletion_curve",
        "explain.distance": "attention_distance",
        "explain.embeddings": "embedding_filters patch_colors position_similarity",
        "explain.relevance": "gradient_attention relevance",
        "explain.rollout": "attention_rollout",
        "inspection.comparison.compare": "compare",
        "inspection.trace": "inspect",
        "model.adapt": "adapt",
        "model.attention": "SelfAttention",
        "model.config": "ViTConfig",
        "model.encoder": "Encoder EncoderBlock",
        "model.head": "AttentionPooling ClassTokenPooling Head MeanPooling",
        "model.mlp": "MLP SwiGLU",
        "model.patch_embedding": "PatchEmbedding",
        "model.position_embedding": "Learned2DPosition LearnedPosition PositionEmbedding SinCos2DPosition",
        "model.relative_position": "RelativePosition",
        "model.resnet_stem": "ResNetStem",
        "model.variants": "variant",
        "model.vit": "VisionTransformer",
        "support.errors": "InputError",
        "training.recipe.recipe": "Recipe",
    }.items()
    for name in names.split()
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
