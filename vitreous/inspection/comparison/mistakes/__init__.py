"""The usual mistakes in a Vision Transformer, each of which can be made in a copy of a model.

A mistake explains another model if the copy with it gives the other model's values. Mistakes that docs/paper or
examples/build_it_yourself name are here, and those that people ask about when they convert weights.
"""

from collections.abc import Iterator

from torch import nn

from vitreous.inspection.comparison.mistakes.attention import attention, head_counts
from vitreous.inspection.comparison.mistakes.blocks import blocks, shared_layers
from vitreous.inspection.comparison.mistakes.image import patches, pooling, tokens
from vitreous.inspection.comparison.mistakes.layers import activations, biases, epsilons, outputs, transposed
from vitreous.inspection.comparison.mistakes.mistake import Mistake

KINDS = {  # the most common first, each with words in the paths of the stages where it shows
    activations: ("activation",),
    epsilons: ("norm",),
    attention: ("scaled_dot", "qkv", "out"),
    blocks: ("norm", "add", "mlp"),
    shared_layers: ("norm",),
    head_counts: ("scaled_dot",),
    patches: ("patch_embedding",),
    tokens: ("class_token", "position_embedding"),
    pooling: ("head",),
    transposed: ("qkv", "out"),
    biases: ("qkv", "out", "fc", "norm", "projection", "classifier"),
    outputs: ("output",),
}


def mistakes_in(model: nn.Module, near: str = "") -> Iterator[list[Mistake]]:
    """Yields the mistakes that can be made in a model, kind by kind; first those likely at the stage of path `near`."""
    modules = list(model.named_modules())
    for kind in sorted(KINDS, key=lambda kind: not any(word in (near or "output") for word in KINDS[kind])):
        yield list(kind(modules))
