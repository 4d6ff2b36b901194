"""Attention rollout: how the patches mix on their way through all blocks (Figures 6 and 14, appendix D.8)."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.explain.attention_maps import at_rest, over_patches, readout
from vitreous.model.shapes import AttentionMap, Images
from vitreous.model.vit import VisionTransformer


def rollout(model: VisionTransformer, images: Images) -> Float[Tensor, "batch rows columns"]:
    """Computes how much each patch reaches what the head reads, by attention rollout (appendix D.8).

    The rows of `roll` for the tokens that the head reads, each by its share (`readout`): that of the class token, as
    in the paper, or the mean of all patches' rows under mean pooling.

    Args:
        model: any.
        images: as the model takes them.

    Returns:
        Shares of the patches, as they are: with those of the tokens in front they sum to 1.
    """
    with torch.no_grad(), at_rest(model):
        rolled = roll(weights() for _, weights, _ in model.watch(images))
        shares = readout(model, images)[:, None] @ rolled  # batch 1 tokens
    return over_patches(model, images, shares.squeeze(1))


def roll(maps: Iterable[AttentionMap]) -> Float[Tensor, "batch tokens tokens"]:
    """Multiplies the attention of all blocks, with half of each for the skip connection (arXiv 2005.00928).

    For each block: the mean over its heads, ½A + ½I, rows divided by their sums; then the product of all, the later
    block on the left.

    Args:
        maps: A of every block, "batch heads tokens tokens", from the first on; they may come one at a time.

    Returns:
        R: row i is what token i of the output is mixed of; it sums to 1.

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
