"""Attention maps over the patches, for any block, head and query token, and for what the head reads.

The model's own pass keeps its fused attention; the maps A (equation 6) are computed separately, one at a time.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from vitreous.inspection.mode import evaluation_mode
from vitreous.model.config import ViTConfig
from vitreous.model.shapes import Images
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError

Query = int | tuple[int, int] | None  # index of a prefix token, a patch (row, column), or what the head reads


def readout(model: VisionTransformer, images: Images) -> Float[Tensor, "batch tokens"]:
    """Computes the weight of each token in what the head reads, defined with and without a class token.

    Args:
        model: any.
        images: normalized; only attention pooling depends on more than their size.

    Returns:
        Rows that sum to 1. The class token has all of it, or half if the distillation token is read too; under mean
        pooling each of N patches has 1 / N; of class token and mean together, either has half; under attention pooling
        a token has the probe's attention, averaged over heads.
    """
    config, (rows, columns) = model.config, model.grid(images)
    if config.pooling == "attention":
        with torch.no_grad(), evaluation_mode(model):
            x = model.encode(images)
            with ExplicitAttention() as explicit:
                model.head.pooling(x)
        return explicit.maps[0].float().mean(dim=1)[:, 0]
    shares = torch.zeros(len(images), config.prefix_tokens + rows * columns, device=images.device)
    if config.pooling in ("mean", "class_token_and_mean"):
        shares[:, config.prefix_tokens :] = 1 / (rows * columns)
    if config.pooling.startswith("class_token"):
        shares[:, : model.head.read or 1] = 1
    return shares / shares.sum(dim=1, keepdim=True)


def readout_name(config: ViTConfig) -> str:
    """What the head reads, in words for captions."""
    if config.pooling == "attention":
        return "the probe of the attention pooling"
    if config.pooling == "mean":
        return "the mean of the patches"
    if config.pooling == "class_token_and_mean":
        return "the class token and the mean of the patches"
    if config.distillation_token and config.num_classes:
        return "the class and the distillation token"
    return "the class token"


def attention_map(
    model: VisionTransformer, images: Images, block: int = -1, head: int | None = None, query: Query = None
) -> Float[Tensor, "batch rows columns"]:
    """Computes where a token looks in one block, over the patches.

    Args:
        model: any.
        images: normalized.
        block: from 0; negative numbers count from the end.
        head: from 0; None for the mean over heads.
        query: a patch (row, column), or the index of a prefix token; None for what the head reads, the mean of its
            tokens' rows weighted by `readout`.

    Returns:
        The query's row of A at the patches. It is not renormalized: the prefix tokens have the rest of the sum of 1.

    Raises:
        InputError: there is no such block, head or query.
    """
    if head is not None and not 0 <= head < model.config.num_heads:
        raise InputError(f"there is no head {head}", f"this model has heads 0 to {model.config.num_heads - 1}")
    maps = attention_maps(model, images, [block], query)[:, 0]
    return maps.mean(dim=1) if head is None else maps[:, head]


def attention_maps(
    model: VisionTransformer, images: Images, blocks: Sequence[int] | None = None, query: Query = None
) -> Float[Tensor, "batch blocks heads rows columns"]:
    """Computes where a token looks in every head of some blocks, over the patches; see `attention_map`.

    Args:
        model: any.
        images: normalized.
        blocks: their numbers, in the order of the result; None for all.
        query: as for `attention_map`.

    Raises:
        InputError: there is no such block or query.
    """
    depth = model.config.depth
    numbers = model.encoder.block_indices(range(depth) if blocks is None else blocks)
    if not numbers:
        raise InputError("no block is named", f"this model has blocks 0 to {depth - 1}")
    with torch.no_grad(), evaluation_mode(model):
        shares = query_shares(model, images, query)[:, None, None]  # batch 1 1 tokens
        steps = itertools.islice(model.watch(images), max(numbers) + 1)
        maps = {i: (shares @ weights().float()).squeeze(2) for i, weights, _ in steps if i in numbers}
    return over_patches(model, images, torch.stack([maps[i] for i in numbers], dim=1))


def over_patches(
    model: VisionTransformer, images: Images, x: Float[Tensor, "*rest tokens"]
) -> Float[Tensor, "*rest rows columns"]:
    """Drops the prefix tokens and arranges the patches as a grid."""
    return x[..., model.config.prefix_tokens :].unflatten(-1, model.grid(images))


def query_shares(model: VisionTransformer, images: Images, query: Query) -> Float[Tensor, "batch tokens"]:
    """Computes the weight of each token in a query: 1 for a single token, or as the head reads them.

    Raises:
        InputError: there is no such patch or token.
    """
    if query is None:
        return readout(model, images)
    prefix, (rows, columns) = model.config.prefix_tokens, model.grid(images)
    if isinstance(query, int):
        if not 0 <= query < prefix:
            valid = f"tokens 0 to {prefix - 1} precede the patches" if prefix else "no token precedes the patches"
            raise InputError(f"there is no token {query}", f"{valid}; name a patch as (row, column)")
        token = query
    else:
        row, column = query
        if not (0 <= row < rows and 0 <= column < columns):
            valid = f"rows go from 0 to {rows - 1}, columns from 0 to {columns - 1}"
            raise InputError(f"there is no patch ({row}, {column})", valid)
        token = prefix + row * columns + column
    shares = torch.zeros(len(images), prefix + rows * columns, device=images.device)
    shares[:, token] = 1
    return shares


class ExplicitAttention(TorchFunctionMode):
    """Replaces fused attention by the explicit formula (equations 6 and 7) and records A.

    Attributes:
        maps: A of each attention in order of execution, "batch heads queries tokens". With gradients enabled each
            requires one, even if all parameters are frozen.
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
