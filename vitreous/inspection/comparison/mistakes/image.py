"""Mistakes from the image to the tokens, and from the tokens to one vector."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from vitreous.inspection.comparison.mistakes.mistake import Mistake, Modules, assigned, each, first_of, put, together
from vitreous.model.config import CHOICES
from vitreous.model.encoder import Encoder
from vitreous.model.head import ClassTokenPooling, Head, MeanPooling
from vitreous.model.patch_embedding import PatchEmbedding
from vitreous.model.position_embedding import PositionEmbedding
from vitreous.model.relative_position import RelativeBias, RelativePosition
from vitreous.model.shapes import Grid
from vitreous.model.vit import VisionTransformer

AXES = ("channel", "height", "width")


def patches(modules: Modules) -> Iterator[Mistake]:
    """The image cut or flattened in another way."""
    if not first_of(PatchEmbedding, modules):
        return
    for order in itertools.islice(itertools.permutations(range(3)), 1, None):
        axes = ", ".join(AXES[i] for i in order)
        hint = "Flatten each patch as (channel, height, width), the order of a Conv2d's weight"
        change = each(PatchEmbedding, partial(reorder_patch, order=order))
        yield Mistake(f"flattens each patch as ({axes})", "flattens it as (channel, height, width)", hint, change)
    hint = "Go through the rows first: rearrange to (batch, rows * columns, …)"
    change = each(PatchEmbedding, read_by_column)
    wrong = "numbers the patches column by column"
    yield Mistake(wrong, "numbers them row by row", hint, change, inside="patch_embedding")
    wrong = "reshapes the image without moving axes, which mixes the patches"
    hint = "Split height and width, move the axes (permute), then reshape"
    yield Mistake(wrong, "moves them", hint, each(PatchEmbedding, reshape_only))
    wrong = "reshapes the convolution's output to tokens without moving axes, which mixes the patches"
    hint = "Write conv(images).flatten(2).transpose(1, 2)"
    change = each(PatchEmbedding, reshape_map)
    yield Mistake(wrong, "moves them", hint, change, inside="patch_embedding")
    hint = "Give the channels as red, green, blue"
    yield Mistake("takes the channels in reverse (BGR)", "takes RGB", hint, each(PatchEmbedding, reverse_channels))


def reorder_patch(embedding: PatchEmbedding, order: Sequence[int]) -> None:
    """Applies the weight to patches flattened in another order."""
    sizes = (embedding.channels, *embedding.patch_size)
    kernel = embedding.projection.weight.unflatten(1, [sizes[i] for i in order])
    kernel = kernel.permute(0, *(order.index(i) + 1 for i in range(3)))
    put(embedding.projection, "weight", kernel.flatten(1))


def reverse_channels(embedding: PatchEmbedding) -> None:
    """Reverses the order of the channels."""
    kernel = embedding.projection.weight.unflatten(1, (embedding.channels, -1))
    put(embedding.projection, "weight", kernel.flip(1).flatten(1))


def read_by_column(embedding: PatchEmbedding) -> None:
    """Transposes the grid of patches."""

    def forward(images: Tensor) -> Tensor:
        x = embedding.projection(embedding.patches(images))
        return embedding.norm(x.unflatten(1, embedding.grid(images)).transpose(1, 2).flatten(1, 2))

    embedding.forward = forward


def reshape_only(embedding: PatchEmbedding) -> None:
    """Cuts the image's memory into pieces of a patch's length."""

    def forward(images: Tensor) -> Tensor:
        patches = images.reshape(len(images), -1, embedding.projection.in_features)
        return embedding.norm(embedding.projection(patches))

    embedding.forward = forward


def reshape_map(embedding: PatchEmbedding) -> None:
    """Reads a feature map, "batch width patches", as if it were "batch patches width"."""

    def forward(images: Tensor) -> Tensor:
        x = embedding.projection(embedding.patches(images))
        return embedding.norm(x.mT.reshape(x.shape))

    embedding.forward = forward


def tokens(modules: Modules) -> Iterator[Mistake]:
    """The class token and the positions."""
    model, known = first_of(VisionTransformer, modules), first_of(PositionEmbedding, modules)
    if model is None or known is None:
        return
    if model.config.class_token:
        hint = "Put it first: torch.cat([class_token, patches], dim=1)"
        for reads, index in (("and reads the last token", -1), ("but reads the first token", 0)):
            change = together(each(PositionEmbedding, class_token_last), assigned(Head, pooling=TokenPooling(index)))
            yield Mistake(f"puts the class token after the patches, {reads}", "puts it first", hint, change)
        change = assigned(Head, pooling=TokenPooling(-1))
        yield Mistake("reads the last token, which is a patch", "reads the class token", "Read x[:, 0]", change)
    if model.rotary is not None:
        hint = "Rotate the queries and keys of the patches by their positions, in every block"
        yield Mistake("does not rotate q and k", "does (RoPE)", hint, assigned(VisionTransformer, rotary=None))
    if type(known) is PositionEmbedding:  # it adds nothing
        return
    if isinstance(known, RelativeBias | RelativePosition):
        wrong, hint = "does not add relative positions to the attention's logits", "Add them before the softmax"
        yield Mistake(wrong, "does", hint, each(type(known), without_bias))
        return
    if known.site == "stem":
        change = each(PositionEmbedding, partial(add_positions, to_patches=False))
        yield Mistake("adds no positions", "follows equation 1", "Add position_embedding to the tokens", change)
    if known.site == "stem" and model.config.class_token:
        wrong = "adds the positions before the class token joins, so that it has none"
        change = each(PositionEmbedding, partial(add_positions, to_patches=True))
        hint = "Join the class token first, then add all N + 1 positions"
        yield Mistake(wrong, "follows equation 1", hint, change)
    resampling = getattr(known, "resampling", None)
    for method in CHOICES["position_resampling"] if resampling else ():
        if method != resampling:
            change = assigned(PositionEmbedding, resampling=method)
            hint = f"Interpolate the grid of positions as {resampling!r} does, without the class token's row"
            yield Mistake(f"resamples the positions by {method!r}", f"uses {resampling!r}", hint, change)


def without_bias(embedding: PositionEmbedding) -> None:
    """Adds nothing to the attention's logits."""
    embedding.bias = lambda grid, layer, q: None


class TokenPooling(nn.Module):
    """Takes one token."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        """Returns it."""
        return x[:, self.index]


def class_token_last(embedding: PositionEmbedding) -> None:
    """Moves the first token to the end before the positions are added."""
    add = embedding.forward

    def forward(x: Tensor, grid: Grid) -> Tensor:
        return add(x.roll(-1, 1), grid)

    embedding.forward = forward


def add_positions(embedding: PositionEmbedding, to_patches: bool) -> None:
    """Adds positions to the patches only, or to no token."""

    def forward(x: Tensor, grid: Grid) -> Tensor:
        table = embedding.table(grid, 0, x.device)
        if table is None or not to_patches:
            return x
        prefix = embedding.prefix_tokens
        return x + torch.cat([torch.zeros_like(table[:prefix]), table[prefix:]])

    embedding.forward = forward


def pooling(modules: Modules) -> Iterator[Mistake]:
    """Another vector for the image, or the final norm on the other side of the pooling."""
    model, known = first_of(VisionTransformer, modules), first_of(Head, modules)
    if known is None:
        return
    prefix = model.config.prefix_tokens if model else 0
    others: dict[str, nn.Module] = {"the mean of all tokens": MeanPooling(0), "the first token": ClassTokenPooling()}
    if prefix:
        others = {"the mean of the patches": MeanPooling(prefix)} | others
    mean = type(known.pooling) is MeanPooling
    has = "the mean of the patches" if mean else "its own pooling"
    has = "the class token" if isinstance(known.pooling, ClassTokenPooling) else has
    changes = {
        name: assigned(Head, pooling=other)
        for name, other in others.items()
        if type(other) is not type(known.pooling) or getattr(other, "prefix_tokens", prefix) != prefix
    }
    for name, change in changes.items():
        yield Mistake(f"gives {name} to the classifier", f"gives {has}", f"Give it {has}", change)
    encoder = first_of(Encoder, modules)
    if encoder and not isinstance(encoder.norm, nn.Identity):
        after = together(assigned(Head, norm=encoder.norm), assigned(Encoder, norm=nn.Identity()))
        wrong, right, first = "normalizes after the pooling", "normalizes before it", "Normalize first, then pool"
    elif encoder and not isinstance(known.norm, nn.Identity):
        after = together(assigned(Encoder, norm=known.norm), assigned(Head, norm=nn.Identity()))
        wrong, right, first = "normalizes before the pooling", "normalizes after it", "Pool first, then normalize"
    else:
        return
    if mean:
        yield Mistake(wrong, right, first, after)
    for name, change in changes.items():
        if "mean" in name or mean:
            both = f"gives {name} to the classifier and {wrong}"
            yield Mistake(both, f"gives {has} and {right}", f"Give it {has}. {first}", together(change, after))
