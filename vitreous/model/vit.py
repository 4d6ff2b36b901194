"""The Vision Transformer (Figure 1): patches, positions, encoder, head."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import nn

from vitreous.model import head, initialization
from vitreous.model.config import BlockOptions, ViTConfig, grid_of
from vitreous.model.encoder import Encoder, EncoderPositions
from vitreous.model.norm import norm
from vitreous.model.patch_embedding import PatchDropout, PatchEmbedding, check_images
from vitreous.model.position_embedding import Learned2DPosition, LearnedPosition, PositionEmbedding, SinCos2DPosition
from vitreous.model.relative_position import RelativeBias, RelativePosition
from vitreous.model.resnet_stem import ResNetStem
from vitreous.model.rotary_position import RotaryPosition
from vitreous.model.shapes import (
    AttentionMap,
    Grid,
    Images,
    Logits,
    PatchMask,
    PatchOrder,
    Queries,
    Representation,
    Tokens,
)
from vitreous.model.variants import variant
from vitreous.support.errors import InputError


class VisionTransformer(nn.Module):
    """A Vision Transformer: the boxes of Figure 1, assembled from a config.

    Args:
        config: every architectural choice.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = c = config
        self.stem = nn.Identity()
        if c.stem_blocks is not None:
            self.stem = ResNetStem(c.stem_blocks, c.stem_width, c.channels, c.stem_eps)
        patch_norm = norm(c.width if c.embedding_norm else None, c)
        self.patch_embedding = PatchEmbedding(c.patch_size, c.width, c.stem_channels, c.patch_bias, patch_norm)
        self.class_token = token(c.class_token, c.width)
        self.distillation_token = token(c.distillation_token, c.width)
        self.registers = token(c.registers, c.width)
        self.mask_token = token(c.mask_token, c.width)
        self.position_embedding = position_embedding(c)
        self.rotary = None
        if c.rotary != "none":
            self.rotary = RotaryPosition(c.rotary, c.num_heads, c.head_dim, c.depth, c.prefix_tokens, c.rotary_grid)
        self.dropout = nn.Dropout(c.dropout)
        self.patch_dropout = PatchDropout(c.patch_dropout, c.prefix_tokens)
        self.encoder = Encoder(
            *(c.width, c.depth, c.num_heads, c.mlp_dim, c.dropout, c.stochastic_depth),
            *(c, c.pre_norm, c.final_norm and not c.norm_after_pooling),
        )
        norm_after = norm(c.width, c) if c.final_norm and c.norm_after_pooling else None
        self.head = head.Head(
            c.width * (2 if c.pooling == "class_token_and_mean" else 1), c.num_classes, pooling(c), norm_after,
            c.hidden_dim, c.classifier_bias, c.distillation_token,
        )  # fmt: skip
        self.reset_parameters()

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> Self:
        """Builds a model with fresh weights from a name such as "B/16"; see `variant`."""
        return cls(variant(name, **overrides))

    def reset_parameters(self) -> None:
        """Draws the initial learned tokens; each layer draws its own weights."""
        initialization.tokens_(self.class_token, self.distillation_token, self.registers, self.mask_token)

    def forward(self, images: Images) -> Logits:
        """Classifies images of any size that the patch divides.

        Args:
            images: normalized as the weights expect ([-1, 1] in the paper's code).

        Raises:
            InputError: the patch does not divide the image; the hint names the nearest sizes.
        """
        return self.head(self.encode(images))

    def representation(self, images: Images) -> Representation:
        """Computes y = LN(z_L^0) (equation 4), or the result of another pooling."""
        return self.head.representation(self.encode(images))

    def encode(self, images: Images) -> Queries:
        """Computes the encoder's output for the tokens that the head reads."""
        x = self.patch_dropout(self.embed(images))
        return self.encoder(x, self.positions(self.grid(images)), self.head.read)

    def embed(self, images: Images, hidden: PatchMask | None = None, swapped: PatchOrder | None = None) -> Tokens:
        """Computes z_0 = [x_class; x_p1 E; …; x_pN E] + E_pos (equation 1).

        Args:
            images: as for `forward`.
            hidden: True for patches to replace by the mask token (appendix B.1.2); None for no patch.
            swapped: for each patch, the index of the patch whose x_p E replaces its own; positions stay. Hidden patches
                are not affected. None for no swap.

        Raises:
            InputError: `hidden` is given, but the model has no mask token.
        """
        grid = self.grid(images)
        x = self.patch_embedding(self.stem(images))
        if swapped is not None:
            x = x.gather(1, swapped[:, :, None].expand_as(x))
        if hidden is not None:
            if self.mask_token is None:
                raise InputError("this model has no mask token", "set mask_token=True in the config")
            x = torch.where(hidden[:, :, None], self.mask_token.to(x.dtype), x)
        prefix = [t for t in (self.class_token, self.distillation_token, self.registers) if t is not None]
        if prefix:
            x = torch.cat([*(t.to(x.dtype).expand(x.shape[0], -1, -1) for t in prefix), x], dim=1)
        return self.dropout(self.position_embedding(x, grid))

    def tokens(self, images: Images, blocks: Sequence[int]) -> list[Tokens]:
        """Returns all tokens after each of the blocks (z_l, before any final norm), in the given order.

        Args:
            images: as for `forward`.
            blocks: from 0; negative numbers count from the end.

        Raises:
            InputError: there is no such block.
        """
        numbers = self.encoder.block_indices(blocks)
        outputs = {i: x for i, _, x in self.watch(images) if i in numbers}
        return [outputs[i] for i in numbers]

    def attention_weights(self, images: Images, blocks: Sequence[int] | None = None) -> dict[int, AttentionMap]:
        """Computes the attention maps A of some blocks, or of all.

        Returns:
            One map per block, "batch heads tokens tokens"; every row sums to 1.

        Raises:
            InputError: there is no such block.
        """
        numbers = self.encoder.block_indices(range(self.config.depth) if blocks is None else blocks)
        maps = {i: weights() for i, weights, _ in self.watch(images) if i in numbers}
        return {i: maps[i] for i in numbers}

    def watch(self, images: Images) -> Iterator[tuple[int, Callable[[], AttentionMap], Tokens]]:
        """Runs images through the blocks lazily, with every token.

        Returns:
            An iterator over the blocks: number, a call that computes the attention map A, and the output z_l.
        """
        return self.encoder.watch(self.embed(images), self.positions(self.grid(images)))

    def positions(self, grid: Grid) -> EncoderPositions:
        """Returns the positions inside the encoder for a grid of patches."""
        if self.rotary is None:
            return self.position_embedding.for_blocks(grid)
        return self.rotary.for_blocks(grid, self.patch_embedding.projection.weight.device)

    def grid(self, images: Images) -> Grid:
        """Counts the patches of the images, (rows, columns)."""
        check_images(images, self.config.channels)
        return grid_of((images.shape[2], images.shape[3]), self.config.token_stride)


def token(count: int, width: int) -> nn.Parameter | None:
    """Allocates learned tokens; None for a count of 0."""
    return nn.Parameter(torch.empty(1, count, width)) if count else None


def position_embedding(c: ViTConfig) -> PositionEmbedding:
    """Builds the config's position embedding."""
    slots = c.class_token + c.distillation_token if c.position_class_slot else 0
    learned = (c.grid, c.width, slots, c.position_resampling, c.depth, c.position_site, c.prefix_tokens)
    match c.position_embedding:
        case "learned":
            return LearnedPosition(*learned)
        case "learned_2d":
            return Learned2DPosition(*learned)
        case "sincos_2d":
            return SinCos2DPosition(c.width, c.sincos_exponent, c.position_site, c.prefix_tokens)
        case "relative":
            return RelativePosition(c.grid, c.width, c.num_heads, c.depth, c.position_site, c.prefix_tokens)
        case "relative_bias":
            return RelativeBias(c.grid, c.num_heads, c.depth, c.position_site, c.prefix_tokens, c.position_resampling)
        case "none":
            return PositionEmbedding()


def pooling(c: ViTConfig) -> nn.Module:
    """Builds the config's pooling."""
    match c.pooling:
        case "class_token":
            return head.ClassTokenPooling()
        case "mean":
            return head.MeanPooling(c.prefix_tokens)
        case "class_token_and_mean":
            return head.ClassTokenAndMeanPooling(c.prefix_tokens)
        case "attention":
            heads, mlp_dim = c.pooling_heads or c.num_heads, c.pooling_mlp_dim or c.mlp_dim
            return head.AttentionPooling(c.width, heads, mlp_dim, BlockOptions(gelu=c.gelu, norm_eps=c.norm_eps))
