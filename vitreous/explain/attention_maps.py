"""Where a token looks: attention over the patches, for any block, head and query, and for what the head reads.

The model's own pass keeps its fused attention; each map A (equation 6) is computed beside it, one at a time.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from vitreous.model.config import ViTConfig
from vitreous.model.shapes import Grid, Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError

Query = int | tuple[int, int] | None  # a token in front of the patches, a patch (row, column), or what the head reads


def readout(model: VisionTransformer, images: Images) -> Float[Tensor, "batch tokens"]:
    """Computes the share of each token in what the head reads, so that models without a class token have an answer.

    Args:
        model: any.
        images: as the model takes them; only attention pooling looks at more than their size.

    Returns:
        Rows that sum to 1. All is at the class token, or half of it at the distillation token where its classifier
        is read too; under mean pooling each of N patches has 1 / N; under attention pooling a token has what the
        probe's attention gives it, the mean of its heads.
    """
    config, (rows, columns) = model.config, model.grid(images)
    if config.pooling == "attention":
        with torch.no_grad(), at_rest(model):
            x = model.encode(images)
            with ExplicitAttention() as explicit:
                model.head.pooling(x)
        return explicit.maps[0].float().mean(dim=1)[:, 0]
    shares = torch.zeros(len(images), config.prefix_tokens + rows * columns, device=images.device)
    shares[:, slice(config.prefix_tokens, None) if config.pooling == "mean" else slice(model.head.read)] = 1
    return shares / shares.sum(dim=1, keepdim=True)


def readout_name(config: ViTConfig) -> str:
    """Names what the head reads, for captions."""
    if config.pooling == "attention":
        return "the probe of the attention pooling"
    if config.pooling == "mean":
        return "the mean of the patches"
    if config.distillation_token and config.num_classes:
        return "the class and the distillation token"
    return "the class token"


def attention(
    model: VisionTransformer, images: Images, block: int = -1, head: int | None = None, query: Query = None
) -> Float[Tensor, "batch rows columns"]:
    """Computes where a token looks in one block, over the patches.

    Args:
        model: any.
        images: as the model takes them.
        block: its number from 0; a negative one counts from the end.
        head: its number from 0; None for the mean of all heads.
        query: a patch (row, column), or the number of a token in front of the patches; None for what the head reads
            (`readout`), where that is several tokens their rows of A, each by its share.

    Returns:
        The query's row of A at the patches, as it is: with what it gives to the tokens in front it sums to 1.

    Raises:
        InputError: there is no such block, head or query.
    """
    if head is not None and not 0 <= head < model.config.num_heads:
        raise InputError(f"there is no head {head}", f"this model has heads 0 to {model.config.num_heads - 1}")
    maps = attention_of_heads(model, images, [block], query)[:, 0]
    return maps.mean(dim=1) if head is None else maps[:, head]


def attention_of_heads(
    model: VisionTransformer, images: Images, blocks: Sequence[int] | None = None, query: Query = None
) -> Float[Tensor, "batch blocks heads rows columns"]:
    """Computes where a token looks in every head of some blocks, over the patches; see `attention`.

    Args:
        model: any.
        images: as the model takes them.
        blocks: their numbers, in the order in which they are wanted; None for all.
        query: as for `attention`.

    Raises:
        InputError: there is no such block or query.
    """
    wanted = block_numbers(model, range(model.config.depth) if blocks is None else blocks)
    with torch.no_grad(), at_rest(model):
        shares = query_shares(model, images, query)[:, None, None]  # batch 1 1 tokens
        steps = itertools.islice(model.watch(images), max(wanted) + 1)
        found = {i: (shares @ weights().float()).squeeze(2) for i, weights, _ in steps if i in wanted}
    return over_patches(model, images, torch.stack([found[i] for i in wanted], dim=1))


def over_patches(
    model: VisionTransformer, images: Images, x: Float[Tensor, "*rest tokens"]
) -> Float[Tensor, "*rest rows columns"]:
    """Leaves out the tokens in front and lays the patches out as a grid."""
    return x[..., model.config.prefix_tokens :].unflatten(-1, model.grid(images))


def block_numbers(model: VisionTransformer, blocks: Sequence[int]) -> list[int]:
    """Reads block numbers, negative ones from the end.

    Raises:
        InputError: there is no such block, or none is named.
    """
    depth = model.config.depth
    there_are = f"this model has blocks 0 to {depth - 1}"
    if not blocks:
        raise InputError("no block is named", there_are)
    for i in blocks:
        if not -depth <= i < depth:
            raise InputError(f"there is no block {i}", there_are)
    return model.encoder.block_indices(blocks)


def query_shares(model: VisionTransformer, images: Images, query: Query) -> Float[Tensor, "batch tokens"]:
    """Computes the share of each token in a query: all of it at one token, or as the head reads them.

    Raises:
        InputError: there is no such query.
    """
    if query is None:
        return readout(model, images)
    grid = model.grid(images)
    shares = torch.zeros(len(images), model.config.prefix_tokens + grid[0] * grid[1], device=images.device)
    shares[:, token_number(model.config, grid, query)] = 1
    return shares


def token_number(config: ViTConfig, grid: Grid, query: int | tuple[int, int]) -> int:
    """Finds a query among the tokens.

    Args:
        config: of the model.
        grid: (rows, columns) of the images' patches.
        query: a patch (row, column), or the number of a token in front of the patches.

    Raises:
        InputError: there is no such patch or token.
    """
    prefix, (rows, columns) = config.prefix_tokens, grid
    if isinstance(query, int):
        if 0 <= query < prefix:
            return query
        there_are = f"0 to {prefix - 1} stand in front of the patches" if prefix else "none stands before the patches"
        raise InputError(f"there is no token {query}", f"{there_are}; a patch is named by (row, column)")
    row, column = query
    if not (0 <= row < rows and 0 <= column < columns):
        valid = f"rows go from 0 to {rows - 1}, columns from 0 to {columns - 1}"
        raise InputError(f"there is no patch ({row}, {column})", valid)
    return prefix + row * columns + column


@contextmanager
def at_rest(model: VisionTransformer) -> Iterator[None]:
    """Puts a model into evaluation mode for a while, and has its encoder keep activations where gradients are asked."""
    training = [module for module in model.modules() if module.training]
    checkpointing = model.encoder.checkpoint_activations
    try:
        for module in training:
            module.training = False
        model.encoder.checkpoint_activations = False
        yield
    finally:
        for module in training:
            module.training = True
        model.encoder.checkpoint_activations = checkpointing


class ExplicitAttention(TorchFunctionMode):
    """While it is entered, attention is computed in steps instead of fused (equations 6 and 7), and A is kept.

    Attributes:
        maps: A of each attention in the order in which they ran, "batch heads queries tokens"; where gradients are
            on, one can be asked for with respect to each, also if all parameters are frozen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = self.attend if func is F.scaled_dot_product_attention else func
        return call(*args, **(kwargs or {}))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Computes softmax(q kᵀ / √D_h + mask) v."""
        logits = q @ k.mT / math.sqrt(q.shape[-1])
        if attn_mask is not None:
            logits = logits + attn_mask
        weights = logits.softmax(dim=-1)
        if torch.is_grad_enabled() and not weights.requires_grad:
            weights.requires_grad_()
        self.maps.append(weights)
        return weights @ v
