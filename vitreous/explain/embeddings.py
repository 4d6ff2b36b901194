"""What the embeddings have learned: positions alike (Figure 7 center), filters (Figure 7 left), patches as colors."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vitreous.model.resnet_stem import STANDARD_EPS, ResNetStem
from vitreous.model.shapes import Grid
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError

LOW, HIGH = 0.01, 0.99  # what patch_colors takes for black and for full color, as shares of the patches


def position_similarity(
    model: VisionTransformer, grid: Grid | None = None
) -> Float[Tensor, "rows columns other_rows other_columns"]:
    """Computes the cosine similarity of each patch's position embedding with those of all others (Figure 7 center).

    Args:
        model: one that adds position embeddings to its tokens; where every block has its own, those of the first.
        grid: (rows, columns) of patches that the positions are resampled to; None for those of the model's image size.

    Raises:
        InputError: the model has no table of positions.
    """
    grid = model.config.grid if grid is None else grid
    with torch.no_grad():
        table = model.position_embedding.table(grid)
        if table is None:
            kind = model.config.position_embedding
            hint = "similarity is for the kinds learned, learned_2d and sincos_2d, which add a vector to each patch"
            raise InputError(f"this model has no table of positions: its position embedding is {kind!r}", hint)
        patches = F.normalize(table[model.config.prefix_tokens :].float(), dim=-1)
        return (patches @ patches.mT).unflatten(1, grid).unflatten(0, grid)


@dataclass(frozen=True)
class Filters:
    """Principal components of filters, the one that explains most first.

    Attributes:
        components: as pictures, each of norm 1.
        explained: the share of the filters' variance that each explains.
    """

    components: Float[Tensor, "filters channels height width"]
    explained: Float[Tensor, " filters"]


def embedding_filters(model: VisionTransformer, count: int = 28) -> Filters:
    """Computes the principal components of the filters that look at the image's pixels (Figure 7 left).

    These are the rows of E (equation 1), D filters of the size of a patch; in a hybrid, whose patch embedding sees
    feature maps, those of the first convolution of its stem, each with mean 0 and standard deviation 1 as there.

    Args:
        model: any.
        count: of components; fewer come back if there are not so many.

    Returns:
        On the CPU. The sign of a component means nothing; here the value farthest from 0 is positive.

    Raises:
        InputError: the count is below 1.
    """
    if count < 1:
        raise InputError(f"{count} filters cannot be shown", "the count must be 1 or more")
    with torch.no_grad():
        filters = pixel_filters(model).cpu().double()
        flat = filters.flatten(1)
        _, sizes, components = torch.linalg.svd(flat - flat.mean(dim=0), full_matrices=False)
        explained = sizes**2 / (sizes**2).sum().clamp_min(torch.finfo(sizes.dtype).tiny)
        pictures = signed(components[:count]).unflatten(1, filters.shape[1:])
        return Filters(pictures.float(), explained[:count].float())


def pixel_filters(model: VisionTransformer) -> Float[Tensor, "filters channels height width"]:
    """Returns the filters of the first layer that sees pixels, as it uses them."""
    if isinstance(model.stem, ResNetStem):
        weight = model.stem.conv.weight.float()
        std, mean = torch.std_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
        return (weight - mean) / (std + STANDARD_EPS)
    embedding = model.patch_embedding
    return embedding.projection.weight.unflatten(1, (embedding.channels, *embedding.patch_size))


def patch_colors(
    tokens_of_patches: Float[Tensor, "batch rows columns width"],
) -> Float[Tensor, "batch rows columns 3"]:
    """Turns representations of patches into colors: patches that are alike get like colors, in all images.

    Their first three principal components, over the patches of all images together, become red, green and blue.
    In each, all but the lowest and the highest hundredth spread over [0, 1]; what lies beyond is cut off. A
    component in which all are alike becomes ½.

    Args:
        tokens_of_patches: from any block, without the tokens in front; their width is 3 or more.
    """
    flat = tokens_of_patches.flatten(0, 2).cpu().double()
    flat = flat - flat.mean(dim=0)
    _, vectors = torch.linalg.eigh(flat.mT @ flat)  # the largest eigenvalue comes last
    values = flat @ signed(vectors.mT[-3:].flip(0)).mT
    low, high = values.quantile(LOW, dim=0), values.quantile(HIGH, dim=0)
    spread = high - low
    flatness = torch.finfo(torch.float32).eps * flat.abs().max()
    scaled = torch.where(spread > flatness, (values - low) / spread, 0.5).clamp(0, 1)
    return scaled.float().to(tokens_of_patches.device).unflatten(0, tokens_of_patches.shape[:3])


def signed(components: Float[Tensor, "components values"]) -> Float[Tensor, "components values"]:
    """Gives each component the sign with which its value farthest from 0 is positive."""
    farthest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    return torch.where(farthest < 0, -components, components)
