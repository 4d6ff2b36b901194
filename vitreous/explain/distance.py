"""Mean attention distance: how far each head looks, in pixels (Figures 7 right and 11, appendix D.7).

The class token and other prefix tokens have no place, so attention to them has no distance. There are two conventions:

- "paper", that of the authors' published code for the figures: the weights are those of A, and what goes to the prefix
  tokens counts as distance 0. A head that looks at the class token alone has distance 0.
- "patches": the weights on the patches are divided by their sum. Such a head then has the distance of whatever little
  attention it leaves to the patches.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.inspection.mode import evaluation_mode
from vitreous.model.shapes import Grid, Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import unknown

Convention = Literal["paper", "patches"]
CONVENTIONS: dict[Convention, str] = {
    "paper": "attention to prefix tokens counts as distance 0, as in the paper's figures",
    "patches": "attention to prefix tokens is left out, and the rest divided by its sum",
}


def attention_distance(
    model: VisionTransformer, images: Images, convention: Convention = "paper"
) -> Float[Tensor, "batch blocks heads"]:
    """Computes how far the patches look on average, in pixels, for every head of every block.

    Args:
        model: any.
        images: normalized.
        convention: "paper", or "patches" to divide the weights by their sum over the patches; without prefix tokens
            both are the same.

    Returns:
        Under "patches", NaN for a head in which no patch attends to any patch.

    Raises:
        InputError: there is no such convention.
    """
    if convention not in CONVENTIONS:
        raise unknown("convention", convention, [*CONVENTIONS])
    grid, stride = model.grid(images), model.config.token_stride
    prefix = model.config.prefix_tokens
    with torch.no_grad(), evaluation_mode(model):
        maps = (weights()[:, :, prefix:, prefix:] for _, weights, _ in model.watch(images))
        return torch.stack([mean_distance(weights, grid, stride, convention) for weights in maps], dim=1)


def mean_distance(
    weights: Float[Tensor, "batch heads patches patches"],
    grid: Grid,
    stride: tuple[int, int],
    convention: Convention = "paper",
) -> Float[Tensor, "batch heads"]:
    """Computes the attention-weighted distance from each patch to all others, averaged over the patches.

    Args:
        weights: attention between patches; a row sums to 1 less the weight of the prefix tokens.
        grid: (rows, columns) of the patches.
        stride: (height, width) from a patch to the next, in pixels.
        convention: under "patches", rows are divided by their sums, and rows of zeros are left out.
    """
    weights = weights.float()
    # A plain sum would allocate "batch heads patches patches" again.
    far = torch.einsum("bhqp,qp->bhq", weights, distances(grid, stride, weights.device))
    return far.mean(dim=-1) if convention == "paper" else (far / weights.sum(dim=-1)).nanmean(dim=-1)


def distances(
    grid: Grid, stride: tuple[int, int], device: torch.device | None = None
) -> Float[Tensor, "patches patches"]:
    """Computes the distances between the centers of all patches, in pixels and raster order."""
    y, x = (torch.arange(n, device=device) * float(step) for n, step in zip(grid, stride, strict=True))
    places = torch.cartesian_prod(y, x)
    return (places[:, None] - places).norm(dim=-1)
