"""What the embeddings have learned: position similarity and filters (Figure 7), patches as colors."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vitreous.model.resnet_stem import ResNetStem
from vitreous.model.shapes import Grid
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError

NO_TABLE = {
    "rotary": "its positions are rotary, which are computed",
    "relative": "it has relative positions, inside attention",
    "relative_bias": "it has relative biases, inside attention",
}
LOW, HIGH = 0.01, 0.99  # quantiles that patch_colors maps to black and to full color


def position_similarity(
    model: VisionTransformer, grid: Grid | None = None
) -> Float[Tensor, "rows columns other_rows other_columns"]:
    """Computes the cosine similarity between the position embeddings of all patches (Figure 7 center).

    Args:
        model: one that adds position embeddings to its tokens; if every block has its own, the first block's are used.
        grid: (rows, columns) to resample the positions to; by default the grid of the model's image size.

    Raises:
        InputError: the model has no table of positions.
    """
    grid = model.config.grid if grid is None else grid
    with torch.no_grad():
        table = model.position_embedding.table(grid)
        if table is None:
            kind = "rotary" if model.rotary is not None else model.config.position_embedding
            why = NO_TABLE.get(kind, f"its position embedding is {kind!r}")
            hint = "similarity needs the kinds learned, learned_2d or sincos_2d, which add a vector to each patch"
            raise InputError(f"this model has no table of positions: {why}", hint)
        patches = F.normalize(table[model.config.prefix_tokens :].float(), dim=-1)
        return (patches @ patches.mT).unflatten(1, grid).unflatten(0, grid)


@dataclass(frozen=True)
class Filters:
    """Principal components of filters, in decreasing order of variance.

    Attributes:
        components: as pictures, each of norm 1.
        explained: share of the filters' variance.
    """

    components: Float[Tensor, "filters channels height width"]
    explained: Float[Tensor, " filters"]


def embedding_filters(model: VisionTransformer, count: int = 28) -> Filters:
    """Computes the principal components of the filters on the image's pixels (Figure 7 left).

    These are the rows of E (equation 1), D filters of the size of a patch; in a hybrid, whose patch embedding sees
    feature maps, the standardized filters of the stem's first convolution.

    Args:
        model: any.
        count: the most components to return.

    Returns:
        On the CPU. The sign of a component is arbitrary; here the value farthest from 0 is positive.

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
        pictures = with_signs(components[:count]).unflatten(1, filters.shape[1:])
        return Filters(pictures.float(), explained[:count].float())


def pixel_filters(model: VisionTransformer) -> Float[Tensor, "filters channels height width"]:
    """Returns the filters of the first layer, as it uses them."""
    if isinstance(model.stem, ResNetStem):
        return model.stem.conv.filters().float()
    embedding = model.patch_embedding
    return embedding.projection.weight.unflatten(1, (embedding.channels, *embedding.patch_size))


def patch_colors(
    tokens_of_patches: Float[Tensor, "batch rows columns width"],
) -> Float[Tensor, "batch rows columns 3"]:
    """Turns representations of patches into colors: similar patches get similar colors, in all images.

    The first three principal components over the patches of all images become red, green and blue. Each is scaled
    from its 1 % and 99 % quantiles to [0, 1] and clipped; a constant component becomes ½.

    Args:
        tokens_of_patches: from any block, without the prefix tokens; of width 3 or more.
    """
    flat = tokens_of_patches.flatten(0, 2).cpu().double()
    flat = flat - flat.mean(dim=0)
    _, vectors = torch.linalg.eigh(flat.mT @ flat)  # the largest eigenvalue comes last
    values = flat @ with_signs(vectors.mT[-3:].flip(0)).mT
    low, high = values.quantile(LOW, dim=0), values.quantile(HIGH, dim=0)
    spread = high - low
    flatness = torch.finfo(torch.float32).eps * flat.abs().max()
    scaled = torch.where(spread > flatness, (values - low) / spread, 0.5).clamp(0, 1)
    return scaled.float().to(tokens_of_patches.device).unflatten(0, tokens_of_patches.shape[:3])


def with_signs(components: Float[Tensor, "components values"]) -> Float[Tensor, "components values"]:
    """Flips each component so that its value farthest from 0 is positive."""
    farthest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    return torch.where(farthest < 0, -components, components)
