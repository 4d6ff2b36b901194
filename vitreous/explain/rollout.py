"""Attention rollout: how the patches mix through all blocks (Figures 6 and 14, appendix D.8)."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.explain.attention_maps import over_patches, readout
from vitreous.inspection.mode import evaluation_mode
from vitreous.model.shapes import AttentionMap, Images
from vitreous.model.vit import VisionTransformer


def attention_rollout(model: VisionTransformer, images: Images) -> Float[Tensor, "batch rows columns"]:
    """Computes how much of each patch reaches what the head reads, by attention rollout (appendix D.8).

    This is the row of `roll` for the class token, as in the paper, or in general the mean of the rows of the tokens
    that the head reads, weighted by `readout`.

    Args:
        model: any.
        images: normalized.

    Returns:
        Shares of the patches; with those of the prefix tokens they sum to 1.
    """
    with torch.no_grad(), evaluation_mode(model):
        rolled = roll(weights() for _, weights, _ in model.watch(images))
        shares = readout(model, images)[:, None] @ rolled  # batch 1 tokens
    return over_patches(model, images, shares.squeeze(1))


def roll(maps: Iterable[AttentionMap]) -> Float[Tensor, "batch tokens tokens"]:
    """Multiplies the attention of all blocks, each averaged with I for the skip connection (arXiv 2005.00928).

    For each block: the mean over heads, ½A + ½I, rows normalized; then the product of all, later blocks on the left.

    Args:
        maps: A of every block in order, "batch heads tokens tokens"; may be a generator.

    Returns:
        R: row i holds the shares of the input tokens in token i of the output; it sums to 1.

    Raises:
        ValueError: there is no map.
    """
    rolled = None
    for weights in maps:
        mixed = weights.float().mean(dim=1)
        mixed = (mixed + torch.eye(mixed.shape[-1], device=mixed.device)) / 2
        mixed = mixed / mixed.sum(dim=-1, keepdim=True)
        rolled = mixed if rolled is None else mixed @ rolled
    if rolled is None:
        raise ValueError("there is no attention map to roll out")
    return rolled
