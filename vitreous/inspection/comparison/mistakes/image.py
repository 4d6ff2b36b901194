"""Mistakes on the way from the image to the tokens, and from the tokens to one vector."""

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
from vitreous.model.shapes import Grid
from vitreous.model.vit import VisionTransformer

AXES = ("channel", "height", "width")


def patches(modules: Modules) -> Iterator[Mistake]:
    """The image cut, flattened or projected in another way."""
    if not first_of(PatchEmbedding, modules):
        return
    for order in itertools.islice(itertools.permutations(range(3)), 1, None):
        named = ", ".join(AXES[i] for i in order)
        hint = "Flatten each patch as (channel, height, width), the order of a Conv2d's weight"
        flatten = each(PatchEmbedding, partial(permute_kernel, order=order, inverse=True))
        yield Mistake(f"flattens each patch as ({named})", "goes (channel, height, width)", hint, flatten)
        hint = "Permute the kernel to (width, channel, height, width of the patch), then flatten it"
        kernel = each(PatchEmbedding, partial(permute_kernel, order=order, inverse=False))
        says = f"has its patch kernel flattened as ({named})"
        yield Mistake(says, "has (channel, height, width)", hint, kernel)
    hint = "Go through the rows first: rearrange to (batch, rows * columns, …)"
    by_column = each(PatchEmbedding, read_by_column)
    yield Mistake("numbers the patches column by column", "goes row by row", hint, by_column)
    hint = "Split height and width, move the axes (permute), then reshape"
    mixed = each(PatchEmbedding, reshape_only)
    yield Mistake("reshapes the image without moving axes, which mixes the patches", "moves them", hint, mixed)
    hint = "Give the channels as red, green, blue"
    yield Mistake("takes the channels in reverse (BGR)", "takes RGB", hint, each(PatchEmbedding, reverse_channels))


def kernel_of(embedding: PatchEmbedding) -> Tensor:
    """The projection's weight as width × channels × height × width."""
    return embedding.projection.weight.unflatten(1, (embedding.channels, *embedding.patch_size))


def permute_kernel(embedding: PatchEmbedding, order: Sequence[int], inverse: bool) -> None:
    """Reorders the values of each patch, or (inverse) reads patches so ordered with the old kernel."""
    sizes = (embedding.channels, *embedding.patch_size)
    if inverse:
        back = sorted(range(3), key=lambda i: order[i])
        kernel = embedding.projection.weight.unflatten(1, [sizes[i] for i in order])
        kernel = kernel.permute(0, *(i + 1 for i in back))
    else:
        kernel = kernel_of(embedding).permute(0, *(i + 1 for i in order))
    put(embedding.projection, "weight", kernel.flatten(1))


def reverse_channels(embedding: PatchEmbedding) -> None:
    """Takes the first channel for the last."""
    put(embedding.projection, "weight", kernel_of(embedding).flip(1).flatten(1))


def read_by_column(embedding: PatchEmbedding) -> None:
    """Transposes the grid of patches."""

    def forward(images: Tensor) -> Tensor:
        x = embedding.projection(embedding.patches(images))
        return x.unflatten(1, embedding.grid(images)).transpose(1, 2).flatten(1, 2)

    embedding.forward = forward


def reshape_only(embedding: PatchEmbedding) -> None:
    """Cuts the image's memory into pieces of the right length."""

    def forward(images: Tensor) -> Tensor:
        return embedding.projection(images.reshape(len(images), -1, embedding.projection.in_features))

    embedding.forward = forward


def tokens(modules: Modules) -> Iterator[Mistake]:
    """The class token and the positions."""
    model = first_of(VisionTransformer, modules)
    known = first_of(PositionEmbedding, modules)
    if model is None or known is None:
        return
    if model.config.class_token:
        yield from class_tokens()
    if known.site == "stem":
        yield from stem_positions(model.config.class_token)
    resampling = getattr(known, "resampling", None)
    for method in CHOICES["position_resampling"] if resampling else ():
        if method != resampling:
            change = assigned(PositionEmbedding, resampling=method)
            hint = f"Interpolate the grid of positions as {resampling!r} does, the class token's row apart"
            yield Mistake(f"resamples the positions by {method!r}", f"does by {resampling!r}", hint, change)


def class_tokens() -> Iterator[Mistake]:
    """The class token in another place."""
    hint = "Put it in front: torch.cat([class_token, patches], dim=1)"
    for reads, index in (("and reads the last token", -1), ("but reads the first token", 0)):
        for shifts in (True, False):
            moved = each(PositionEmbedding, partial(class_token_last, positions_too=not shifts))
            change = together(moved, assigned(Head, pooling=TokenPooling(index)))
            kept = "" if shifts else ", each with its own position"
            says = f"puts the class token behind the patches{kept}, {reads}"
            yield Mistake(says, "puts it in front", hint, change)
    change = assigned(Head, pooling=TokenPooling(-1))
    yield Mistake("reads the last token, which is a patch", "reads the class token", "Read x[:, 0]", change)


class TokenPooling(nn.Module):
    """Takes one token."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        """Returns it."""
        return x[:, self.index]


def class_token_last(embedding: PositionEmbedding, positions_too: bool) -> None:
    """Moves the first token to the end, before or after the positions are added."""
    add = embedding.forward

    def forward(x: Tensor, grid: Grid) -> Tensor:
        return add(x, grid).roll(-1, 1) if positions_too else add(x.roll(-1, 1), grid)

    embedding.forward = forward


def stem_positions(class_token: bool) -> Iterator[Mistake]:
    """The positions added otherwise, or not at all."""
    for says, hint, rows in (
        ("adds no positions", "Add position_embedding to the tokens", "none"),
        (
            "adds positions before the class token is there, so that it has none",
            "Join the class token first, then add all N + 1 positions",
            "patches",
        ),
        (
            "adds positions before the class token is there, the class token's to the first patch",
            "Join the class token first, then add all N + 1 positions",
            "shifted",
        ),
        ("adds the positions twice", "Add them once", "twice"),
        ("adds the positions of a transposed grid", "Number the places row by row", "transposed"),
    ):
        if not class_token and rows in ("patches", "shifted"):
            continue
        change = each(PositionEmbedding, partial(add_otherwise, rows=rows))
        yield Mistake(says, "follows equation 1", hint, change)


def add_otherwise(embedding: PositionEmbedding, rows: str) -> None:
    """Changes which row of the table a token gets."""

    def forward(x: Tensor, grid: Grid) -> Tensor:
        table = embedding.table(grid, 0, x.device)
        if rows == "none" or table is None:
            return x
        prefix, places = table[: embedding.prefix_tokens], table[embedding.prefix_tokens :]
        if rows == "patches":
            table = torch.cat([torch.zeros_like(prefix), places])
        elif rows == "shifted":
            table = torch.cat([torch.zeros_like(prefix), table[: len(places)]])
        elif rows == "twice":
            table = 2 * table
        else:
            table = torch.cat([prefix, places.unflatten(0, grid).transpose(0, 1).flatten(0, 1)])
        return x + table

    embedding.forward = forward


def poolings(modules: Modules) -> Iterator[Mistake]:
    """Another vector for the image."""
    model, known = first_of(VisionTransformer, modules), first_of(Head, modules)
    if known is None:
        return
    prefix = model.config.prefix_tokens if model else 0
    others: list[tuple[str, nn.Module]] = [("the mean of all tokens", MeanPooling(0))]
    if prefix:
        others.insert(0, ("the mean of the patches", MeanPooling(prefix)))
    others.append(("the first token", ClassTokenPooling()))
    has = "the class token" if isinstance(known.pooling, ClassTokenPooling) else "its own pooling"
    if isinstance(known.pooling, MeanPooling):
        has = "the mean of the patches"
    for says, pooling in others:
        alike = type(pooling) is type(known.pooling) and getattr(pooling, "prefix_tokens", 0) == prefix
        if not alike:
            change = assigned(Head, pooling=pooling)
            yield Mistake(f"gives {says} to the classifier", f"gives {has}", f"Give it {has}", change)
    encoder = first_of(Encoder, modules)
    if encoder and isinstance(known.pooling, MeanPooling) and not isinstance(encoder.norm, nn.Identity):
        change = together(assigned(Head, norm=encoder.norm), assigned(Encoder, norm=nn.Identity()))
        yield Mistake("norms behind the pooling", "norms before it", "Norm first, then pool", change)
    elif encoder and isinstance(known.pooling, MeanPooling) and not isinstance(known.norm, nn.Identity):
        change = together(assigned(Encoder, norm=known.norm), assigned(Head, norm=nn.Identity()))
        yield Mistake("norms before the pooling", "norms behind it", "Pool first, then norm", change)
