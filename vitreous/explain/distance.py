"""Mean attention distance: how far each head looks, in pixels (Figures 7 right and 11, appendix D.7)."""

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.inspection.mode import evaluation_mode
from vitreous.model.shapes import Grid, Images
from vitreous.model.vit import VisionTransformer


def attention_distance(model: VisionTransformer, images: Images) -> Float[Tensor, "batch blocks heads"]:
    """Computes how far the patches look on average, in pixels, for every head of every block.

    Prefix tokens have no position: they are left out as queries and keys, and the weights on the patches are
    renormalized.

    Args:
        model: any.
        images: normalized.
    """
    grid, stride = model.grid(images), model.config.token_stride
    prefix = model.config.prefix_tokens
    with torch.no_grad(), evaluation_mode(model):
        maps = (weights()[:, :, prefix:, prefix:] for _, weights, _ in model.watch(images))
        return torch.stack([mean_distance(weights, grid, stride) for weights in maps], dim=1)


def mean_distance(
    weights: Float[Tensor, "batch heads patches patches"], grid: Grid, stride: tuple[int, int]
) -> Float[Tensor, "batch heads"]:
    """Computes the attention-weighted distance from each patch to all others, averaged over the patches.

    Args:
        weights: attention between patches; rows are normalized, and rows of zeros are left out.
        grid: (rows, columns) of the patches.
        stride: (height, width) from a patch to the next, in pixels.
    """
    weights = weights.float()
    # A plain sum would allocate "batch heads patches patches" again.
    far = torch.einsum("bhqp,qp->bhq", weights, distances(grid, stride, weights.device))
    return (far / weights.sum(dim=-1)).nanmean(dim=-1)


def distances(
    grid: Grid, stride: tuple[int, int], device: torch.device | None = None
) -> Float[Tensor, "patches patches"]:
    """Computes the distances between the centers of all patches, in pixels and raster order."""
    y, x = (torch.arange(n, device=device) * float(step) for n, step in zip(grid, stride, strict=True))
    places = torch.cartesian_prod(y, x)
    return (places[:, None] - places).norm(dim=-1)
