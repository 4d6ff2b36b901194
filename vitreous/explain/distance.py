"""Mean attention distance: how far each head looks, in pixels (Figures 7 right and 11, appendix D.7)."""

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.explain.attention_maps import at_rest
from vitreous.model.shapes import Grid, Images
from vitreous.model.vit import VisionTransformer


def attention_distance(model: VisionTransformer, images: Images) -> Float[Tensor, "batch blocks heads"]:
    """Computes how far the patches look on average, in every head of every block, in pixels of the image.

    Tokens in front of the patches have no place: they are left out, as queries and as what is looked at, and the
    weights on the patches are divided by their sum.

    Args:
        model: any.
        images: as the model takes them.
    """
    grid, stride = model.grid(images), model.config.token_stride
    prefix = model.config.prefix_tokens
    with torch.no_grad(), at_rest(model):
        maps = (weights()[:, :, prefix:, prefix:] for _, weights, _ in model.watch(images))
        return torch.stack([mean_distance(weights, grid, stride) for weights in maps], dim=1)


def mean_distance(
    weights: Float[Tensor, "batch heads patches patches"], grid: Grid, stride: tuple[int, int]
) -> Float[Tensor, "batch heads"]:
    """Computes the distance from each patch to all, weighted by its attention, as a mean over the patches.

    Args:
        weights: attention between patches; each row is divided by its sum. A row of zeros is left out.
        grid: (rows, columns) of the patches.
        stride: pixels from a patch to the one below and to the one on its right.
    """
    weights = weights.float()
    # The plain sum would build "batch heads patches patches" once more.
    far = torch.einsum("bhqp,qp->bhq", weights, distances(grid, stride, weights.device))
    return (far / weights.sum(dim=-1)).nanmean(dim=-1)


def distances(
    grid: Grid, stride: tuple[int, int], device: torch.device | None = None
) -> Float[Tensor, "patches patches"]:
    """Computes the distances between the centers of all patches, in pixels; patches in reading order.

    Args:
        grid: (rows, columns).
        stride: pixels from a patch to the one below and to the one on its right.
        device: where they are wanted.
    """
    y, x = (torch.arange(n, device=device) * float(step) for n, step in zip(grid, stride, strict=True))
    places = torch.cartesian_prod(y, x)
    return (places[:, None] - places).norm(dim=-1)
