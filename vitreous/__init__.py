"""vitreous: Vision Transformers to see through.

The public names. A name's module, and torch with it, is imported on first access; `import X as X` shows type checkers
what is public.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitreous.classifier import Classifier as Classifier
    from vitreous.classifier import load as load
    from vitreous.classifier import train as train
    from vitreous.data.check.check import check as check
    from vitreous.explain.attention_maps import attention_map as attention_map
    from vitreous.explain.attention_maps import attention_maps as attention_maps
    from vitreous.explain.deletion import deletion_curve as deletion_curve
    from vitreous.explain.distance import attention_distance as attention_distance
    from vitreous.explain.embeddings import embedding_filters as embedding_filters
    from vitreous.explain.embeddings import patch_colors as patch_colors
    from vitreous.explain.embeddings import position_similarity as position_similarity
    from vitreous.explain.relevance import gradient_attention as gradient_attention
    from vitreous.explain.relevance import relevance as relevance
    from vitreous.explain.rollout import attention_rollout as attention_rollout
    from vitreous.inspection.comparison.compare import compare as compare
    from vitreous.inspection.trace import inspect as inspect
    from vitreous.model.adapt import adapt as adapt
    from vitreous.model.attention import SelfAttention as SelfAttention
    from vitreous.model.config import BlockOptions as BlockOptions
    from vitreous.model.config import ViTConfig as ViTConfig
    from vitreous.model.encoder import Encoder as Encoder
    from vitreous.model.encoder import EncoderBlock as EncoderBlock
    from vitreous.model.head import AttentionPooling as AttentionPooling
    from vitreous.model.head import ClassTokenAndMeanPooling as ClassTokenAndMeanPooling
    from vitreous.model.head import ClassTokenPooling as ClassTokenPooling
    from vitreous.model.head import Head as Head
    from vitreous.model.head import MeanPooling as MeanPooling
    from vitreous.model.mlp import MLP as MLP
    from vitreous.model.mlp import SwiGLU as SwiGLU
    from vitreous.model.patch_embedding import PatchEmbedding as PatchEmbedding
    from vitreous.model.position_embedding import Learned2DPosition as Learned2DPosition
    from vitreous.model.position_embedding import LearnedPosition as LearnedPosition
    from vitreous.model.position_embedding import PositionEmbedding as PositionEmbedding
    from vitreous.model.position_embedding import SinCos2DPosition as SinCos2DPosition
    from vitreous.model.relative_position import RelativeBias as RelativeBias
    from vitreous.model.relative_position import RelativePosition as RelativePosition
    from vitreous.model.resnet_stem import ResNetStem as ResNetStem
    from vitreous.model.rotary_position import RotaryPosition as RotaryPosition
    from vitreous.model.variants import variant as variant
    from vitreous.model.vit import VisionTransformer as VisionTransformer
    from vitreous.support.errors import InputError as InputError
    from vitreous.training.recipe.recipe import Recipe as Recipe

__version__ = "0.1.0"

_MODULES = {
    name: f"vitreous.{module}"
    for module, names in {
        "classifier": "Classifier load train",
        "data.check.check": "check",
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
        "model.config": "BlockOptions ViTConfig",
        "model.encoder": "Encoder EncoderBlock",
        "model.head": "AttentionPooling ClassTokenAndMeanPooling ClassTokenPooling Head MeanPooling",
        "model.mlp": "MLP SwiGLU",
        "model.patch_embedding": "PatchEmbedding",
        "model.position_embedding": "Learned2DPosition LearnedPosition PositionEmbedding SinCos2DPosition",
        "model.relative_position": "RelativeBias RelativePosition",
        "model.resnet_stem": "ResNetStem",
        "model.rotary_position": "RotaryPosition",
        "model.variants": "variant",
        "model.vit": "VisionTransformer",
        "support.errors": "InputError",
        "training.recipe.recipe": "Recipe",
    }.items()
    for name in names.split()
}
__all__ = sorted(_MODULES)


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
