"""The Transformer encoder: blocks of attention and MLP, each with a norm before it and a skip connection."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitreous.model import initialization
from vitreous.model.attention import NO_POSITIONS, BlockPositions, SelfAttention
from vitreous.model.config import PAPER, BlockOptions, check_rate
from vitreous.model.mlp import MLP, SwiGLU
from vitreous.model.norm import norm
from vitreous.model.shapes import AttentionMap, Queries, Tokens
from vitreous.support.errors import InputError

EncoderPositions = Callable[[int], BlockPositions]  # a block's number -> the positions inside it


def no_positions(block: int) -> BlockPositions:
    """The usual EncoderPositions: positions were added before the encoder, none inside."""
    return NO_POSITIONS


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch (arXiv 2103.17239)."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.initial = initial
        self.gamma = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        initialization.constant_(self.gamma, self.initial)

    def forward(self, x: Queries) -> Queries:
        return x * self.gamma


class StochasticDepth(nn.Module):
    """Drops the residual branch of random images in a batch, in training (arXiv 1603.09382).

    The branches kept are scaled by 1 / (1 - rate), which preserves the expectation.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        check_rate("stochastic_depth", rate)
        self.rate = rate

    def forward(self, x: Queries) -> Queries:
        if not self.training or self.rate == 0:
            return x
        kept = torch.empty(x.shape[0], 1, 1, dtype=x.dtype, device=x.device).bernoulli_(1 - self.rate)
        return x * (kept / (1 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class EncoderBlock(nn.Module):
    """One pre-norm block of the Transformer encoder (equations 2 and 3).

    Args:
        width: D, numbers in each token.
        num_heads: k, attention heads.
        mlp_dim: width of the MLP's hidden layer.
        dropout: rate after each dense layer but qkv, in training (appendix B.1).
        stochastic_depth: rate at which either branch is dropped, in training.
        options: the choices inside.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_dim: int,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        options: BlockOptions = PAPER,
    ) -> None:
        super().__init__()
        scale = options.layer_scale
        self.attention_norm = norm(width, options)
        self.attention = SelfAttention(width, num_heads, dropout, options)
        self.attention_scale = nn.Identity() if scale is None else LayerScale(width, scale)
        self.mlp_norm = norm(width, options)
        self.mlp = (SwiGLU if options.mlp == "swiglu" else MLP)(width, mlp_dim, dropout, options)
        self.mlp_scale = nn.Identity() if scale is None else LayerScale(width, scale)
        self.drop_path = StochasticDepth(stochastic_depth)

    def forward(self, x: Tokens, positions: BlockPositions = NO_POSITIONS, read: int | None = None) -> Queries:
        """Maps z_{l-1} to z_l.

        Args:
            x: all tokens.
            positions: for the attention.
            read: compute only the first `read` tokens, which attend to all; None computes all.
        """
        normed = self.attention_norm(x)
        queries = None
        if read is not None:
            x, queries = x[:, :read], normed[:, :read]
        attended = self.attention(normed, queries, positions)
        x = x + self.drop_path(self.attention_scale(attended))  # equation 2
        return x + self.drop_path(self.mlp_scale(self.mlp(self.mlp_norm(x))))  # equation 3

    def attention_weights(self, x: Tokens, positions: BlockPositions = NO_POSITIONS) -> AttentionMap:
        """Computes A for the block's input (equation 6)."""
        return self.attention.weights(self.attention_input(x), positions)

    def attention_input(self, x: Tokens) -> Tokens:
        """Returns what the block's attention reads."""
        return self.attention_norm(x)


class PostNormBlock(EncoderBlock):
    """A block whose norms come after the branches, before the skip connections (arXiv 2111.09883)."""

    def forward(self, x: Tokens, positions: BlockPositions = NO_POSITIONS, read: int | None = None) -> Queries:
        """Maps z_{l-1} to z_l; see EncoderBlock."""
        queries = None if read is None else x[:, :read]
        attended = self.attention_norm(self.attention(x, queries, positions))
        x = (x if queries is None else queries) + self.drop_path(self.attention_scale(attended))
        return x + self.drop_path(self.mlp_scale(self.mlp_norm(self.mlp(x))))

    def attention_input(self, x: Tokens) -> Tokens:
        return x


class Encoder(nn.Module):
    """L blocks in sequence and the final norm (equations 2 to 4).

    Args:
        width: D.
        depth: L.
        num_heads: k.
        mlp_dim, dropout, options: see EncoderBlock.
        stochastic_depth: rate of the last block; rates grow linearly from 0 at the first.
        pre_norm: a norm before the first block.
        final_norm: a norm after the last.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        num_heads: int,
        mlp_dim: int,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        options: BlockOptions = PAPER,
        pre_norm: bool = False,
        final_norm: bool = True,
    ) -> None:
        super().__init__()
        block = EncoderBlock if options.norm_site == "before" else PostNormBlock
        rates = [stochastic_depth * i / max(1, depth - 1) for i in range(depth)]
        self.pre_norm = norm(width if pre_norm else None, options)
        self.blocks = nn.ModuleList(block(width, num_heads, mlp_dim, dropout, rate, options) for rate in rates)
        self.norm = norm(width if final_norm else None, options)
        self.checkpoint_activations = False  # True trades a second forward pass for memory in training

    def forward(self, x: Tokens, positions: EncoderPositions = no_positions, read: int | None = None) -> Queries:
        """Maps z_0 to LN(z_L); of the last block only the first `read` tokens, if given."""
        last = len(self.blocks) - 1
        x = self.pre_norm(x)
        for i, block in enumerate(self.blocks):
            inside = positions(i)
            x = self._run(block, inside.tokens(x), inside, read if i == last else None)
        return self.norm(x)

    def watch(
        self, x: Tokens, positions: EncoderPositions = no_positions
    ) -> Iterator[tuple[int, Callable[[], AttentionMap], Tokens]]:
        """Runs the blocks one by one; yields each one's number, a call that computes its attention map, its output."""
        x = self.pre_norm(x)
        for i, block in enumerate(cast("list[EncoderBlock]", self.blocks)):
            inside = positions(i)
            x = inside.tokens(x)
            weights = partial(block.attention_weights, x, inside)
            x = self._run(block, x, inside)
            yield i, weights, x

    def block_indices(self, blocks: Sequence[int]) -> list[int]:
        """Resolves block numbers; negative ones count from the end.

        Raises:
            InputError: there is no such block.
        """
        depth = len(self.blocks)
        for i in blocks:
            if not -depth <= i < depth:
                raise InputError(f"there is no block {i}", f"this model has blocks 0 to {depth - 1}")
        return [i % depth for i in blocks]

    def _run(self, block: nn.Module, x: Tensor, positions: BlockPositions, read: int | None = None) -> Tensor:
        if self.checkpoint_activations and torch.is_grad_enabled():
            return checkpoint(block, x, positions, read, use_reentrant=False)
        return block(x, positions, read)
