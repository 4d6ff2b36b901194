"""What usually goes wrong when a Vision Transformer is written again: each mistake, made on purpose in a copy.

A mistake explains another model if the copy that has it gives what the other model gives.
"""

from collections.abc import Iterator

from torch import nn

from vitreous.inspection.comparison.mistakes.attention import attentions, head_counts
from vitreous.inspection.comparison.mistakes.blocks import blocks
from vitreous.inspection.comparison.mistakes.image import patches, poolings, tokens
from vitreous.inspection.comparison.mistakes.layers import epsilons, gelus, outputs, transposed, without
from vitreous.inspection.comparison.mistakes.mistake import Mistake

KINDS = {  # the commonest first, with words in the paths of the stages where they show first
    gelus: ("activation",),
    epsilons: ("norm",),
    attentions: ("scaled_dot", "qkv", "out"),
    blocks: ("norm", "add", "mlp"),
    head_counts: ("scaled_dot",),
    patches: ("patch_embedding",),
    tokens: ("class_token", "position_embedding"),
    poolings: ("head",),
    transposed: ("qkv", "out"),
    without: ("qkv", "out", "fc", "norm", "projection", "classifier"),
    outputs: ("output",),
}


def mistakes_in(model: nn.Module, near: str = "") -> Iterator[list[Mistake]]:
    """Every mistake that can be made in a model, kind by kind; first those likely at the stage of path `near`."""
    modules = list(model.named_modules())
    place = near or "output"
    for kind in sorted(KINDS, key=lambda kind: not any(word in place for word in KINDS[kind])):
        yield list(kind(modules))
