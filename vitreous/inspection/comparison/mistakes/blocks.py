"""Mistakes in how a block is put together, and in the norms around the blocks."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitreous.inspection.comparison.mistakes.mistake import Mistake, Modules, assigned, each, first_of, put, together
from vitreous.model.attention import NO_POSITIONS, BlockPositions
from vitreous.model.encoder import Encoder, EncoderBlock, LayerScale
from vitreous.model.mlp import SwiGLU


class Parts(NamedTuple):
    """What a block is made of."""

    norm1: Callable[[Tensor], Tensor]
    attention: Callable[[Tensor], Tensor]
    norm2: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]


Build = Callable[[Parts, Tensor], Tensor]


def post_norm(b: Parts, x: Tensor) -> Tensor:
    """As in the first Transformer."""
    x = b.norm1(x + b.attention(x))
    return b.norm2(x + b.mlp(x))


def norm_behind_branches(b: Parts, x: Tensor) -> Tensor:
    """Norms what a branch gives."""
    x = x + b.norm1(b.attention(x))
    return x + b.norm2(b.mlp(x))


def normed_skips(b: Parts, x: Tensor) -> Tensor:
    """Overwrites x with its norm."""
    x = b.norm1(x)
    x = b.norm2(x + b.attention(x))
    return x + b.mlp(x)


def no_first_skip(b: Parts, x: Tensor) -> Tensor:
    """Forgets equation 2's sum."""
    x = b.attention(b.norm1(x))
    return x + b.mlp(b.norm2(x))


def no_second_skip(b: Parts, x: Tensor) -> Tensor:
    """Forgets equation 3's sum."""
    x = x + b.attention(b.norm1(x))
    return b.mlp(b.norm2(x))


def no_skips(b: Parts, x: Tensor) -> Tensor:
    """Forgets both sums."""
    return b.mlp(b.norm2(b.attention(b.norm1(x))))


def first_input_again(b: Parts, x: Tensor) -> Tensor:
    """Adds the block's input instead of the first sum in equation 3."""
    return x + b.mlp(b.norm2(x + b.attention(b.norm1(x))))


def side_by_side(b: Parts, x: Tensor) -> Tensor:
    """Both branches read the block's input."""
    return x + b.attention(b.norm1(x)) + b.mlp(b.norm2(x))


def no_first_norm(b: Parts, x: Tensor) -> Tensor:
    """Attention without its norm."""
    x = x + b.attention(x)
    return x + b.mlp(b.norm2(x))


def no_second_norm(b: Parts, x: Tensor) -> Tensor:
    """MLP without its norm."""
    x = x + b.attention(b.norm1(x))
    return x + b.mlp(x)


def no_norms(b: Parts, x: Tensor) -> Tensor:
    """Neither norm."""
    x = x + b.attention(x)
    return x + b.mlp(x)


def swapped_norms(b: Parts, x: Tensor) -> Tensor:
    """Each norm where the other belongs."""
    x = x + b.attention(b.norm2(x))
    return x + b.mlp(b.norm1(x))


def mlp_first(b: Parts, x: Tensor) -> Tensor:
    """The branches in the other order."""
    x = x + b.mlp(b.norm2(x))
    return x + b.attention(b.norm1(x))


FIRST, SECOND = "x = x + attention(norm1(x))", "x = x + mlp(norm2(x))"
BOTH = f"{FIRST}, then {SECOND}"
BLOCKS: tuple[tuple[Build, str, str], ...] = (
    (post_norm, "norms after each sum (post-norm)", f"Norm before each branch: {BOTH}"),
    (norm_behind_branches, "norms what each branch gives, not what it takes", f"Norm before it: {BOTH}"),
    (normed_skips, "adds the normed tokens in its skip connections", f"Keep x as it was before the norm: {BOTH}"),
    (no_first_skip, "has no skip connection (residual) around the attention", f"Write {FIRST}"),
    (no_second_skip, "has no skip connection (residual) around the MLP", f"Write {SECOND}"),
    (no_skips, "has no skip connections (residuals)", f"Write {BOTH}"),
    (first_input_again, "adds the block's input behind the MLP, where the first sum belongs", f"Write {BOTH}"),
    (side_by_side, "runs attention and MLP side by side", f"Run one after the other: {BOTH}"),
    (no_first_norm, "has no norm before the attention", f"Write {FIRST}"),
    (no_second_norm, "has no norm before the MLP", f"Write {SECOND}"),
    (no_norms, "has no norms in its blocks", f"Write {BOTH}"),
    (swapped_norms, "has the two norms of each block swapped", f"Write {BOTH}"),
    (mlp_first, "runs the MLP before the attention", f"Write {BOTH}"),
)


def blocks(modules: Modules) -> Iterator[Mistake]:
    """Mistakes in the blocks and around them."""
    if first_of(EncoderBlock, modules):
        for build, says, hint in BLOCKS:
            change = each(EncoderBlock, partial(rebuild, build=build))
            yield Mistake(says, "follows equations 2 and 3", hint, change)
        bare = together(each(EncoderBlock, partial(rebuild, build=post_norm)), assigned(Encoder, norm=nn.Identity()))
        says = "norms after each sum (post-norm), and has no final norm"
        yield Mistake(says, "follows equations 2 to 4", f"Norm before each branch: {BOTH}; and at the end", bare)
    encoder = first_of(Encoder, modules)
    for name, where in (("norm", "behind the last block"), ("pre_norm", "before the first block")):
        if encoder is not None and not isinstance(getattr(encoder, name), nn.Identity):
            change = assigned(Encoder, **{name: nn.Identity()})
            yield Mistake(f"has no norm {where}", "has one", f"Add one more layer norm {where}", change)
    if first_of(LayerScale, modules):
        change = each(LayerScale, lambda scale: put(scale, "gamma", torch.ones_like(scale.gamma)))
        yield Mistake("has no LayerScale", "has one behind each branch", "Multiply each branch by gamma", change)
    if first_of(SwiGLU, modules):
        hint = "Write fc2(silu(first half) * second half)"
        yield Mistake("swaps gate and value in SwiGLU", "has the gate first", hint, each(SwiGLU, swap_gate))


def rebuild(block: EncoderBlock, build: Build) -> None:
    """Puts a block together in another way."""

    def forward(x: Tensor, positions: BlockPositions = NO_POSITIONS, read: int | None = None) -> Tensor:
        def attend(z: Tensor) -> Tensor:
            return block.attention_scale(block.attention(z, None, positions))

        parts = Parts(block.attention_norm, attend, block.mlp_norm, lambda z: block.mlp_scale(block.mlp(z)))
        return build(parts, x)

    block.forward = forward


def swap_gate(mlp: SwiGLU) -> None:
    """Exchanges the halves of fc1."""
    for name, tensor in list(mlp.fc1.named_parameters()):
        put(mlp.fc1, name, torch.cat(tensor.chunk(2)[::-1]))
