"""Mistakes in the structure of a block, and in the norms around the blocks."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from vitreous.inspection.comparison.mistakes.mistake import Mistake, Modules, assigned, each, first_of, together
from vitreous.model.attention import NO_POSITIONS, BlockPositions
from vitreous.model.encoder import Encoder, EncoderBlock


class Parts(NamedTuple):
    """The parts of a block."""

    norm1: Callable[[Tensor], Tensor]
    attention: Callable[[Tensor], Tensor]
    norm2: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]


Build = Callable[[Parts, Tensor], Tensor]


def post_norm(b: Parts, x: Tensor) -> Tensor:
    """As in the original Transformer."""
    x = b.norm1(x + b.attention(x))
    return b.norm2(x + b.mlp(x))


def normed_skips(b: Parts, x: Tensor) -> Tensor:
    """Overwrites x with its norm."""
    x = b.norm1(x)
    x = b.norm2(x + b.attention(x))
    return x + b.mlp(x)


def no_first_skip(b: Parts, x: Tensor) -> Tensor:
    """Forgets the sum of equation 2."""
    x = b.attention(b.norm1(x))
    return x + b.mlp(b.norm2(x))


def no_second_skip(b: Parts, x: Tensor) -> Tensor:
    """Forgets the sum of equation 3."""
    x = x + b.attention(b.norm1(x))
    return b.mlp(b.norm2(x))


def no_skips(b: Parts, x: Tensor) -> Tensor:
    """Forgets both sums."""
    return b.mlp(b.norm2(b.attention(b.norm1(x))))


def no_first_norm(b: Parts, x: Tensor) -> Tensor:
    """Attention without its norm."""
    x = x + b.attention(x)
    return x + b.mlp(b.norm2(x))


def no_second_norm(b: Parts, x: Tensor) -> Tensor:
    """MLP without its norm."""
    x = x + b.attention(b.norm1(x))
    return x + b.mlp(x)


FIRST, SECOND = "x = x + attention(norm1(x))", "x = x + mlp(norm2(x))"
BOTH = f"{FIRST}, then {SECOND}"
BLOCKS: tuple[tuple[Build, str, str], ...] = (
    (post_norm, "norms after each sum (post-norm)", f"Norm before each branch: {BOTH}"),
    (normed_skips, "adds the normed tokens in its skip connections", f"Keep x as it was before the norm: {BOTH}"),
    (no_first_skip, "has no skip connection (residual) around the attention", f"Write {FIRST}"),
    (no_second_skip, "has no skip connection (residual) around the MLP", f"Write {SECOND}"),
    (no_skips, "has no skip connections (residuals)", f"Write {BOTH}"),
    (no_first_norm, "has no norm before the attention", f"Write {FIRST}"),
    (no_second_norm, "has no norm before the MLP", f"Write {SECOND}"),
)


def blocks(modules: Modules) -> Iterator[Mistake]:
    """Mistakes in the blocks and around them."""
    if first_of(EncoderBlock, modules):
        for build, wrong, hint in BLOCKS:
            yield Mistake(wrong, "follows equations 2 and 3", hint, each(EncoderBlock, partial(rebuild, build=build)))
        bare = together(each(EncoderBlock, partial(rebuild, build=post_norm)), assigned(Encoder, norm=nn.Identity()))
        wrong = "norms after each sum (post-norm), and has no final norm"
        yield Mistake(wrong, "follows equations 2 to 4", f"Norm before each branch: {BOTH}; and at the end", bare)
    encoder = first_of(Encoder, modules)
    for name, where in (("norm", "after the last block"), ("pre_norm", "before the first block")):
        if encoder is not None and not isinstance(getattr(encoder, name), nn.Identity):
            change = assigned(Encoder, **{name: nn.Identity()})
            yield Mistake(f"has no norm {where}", "has one", f"Add a layer norm {where}", change)


def rebuild(block: EncoderBlock, build: Build) -> None:
    """Wires the parts of a block in another way."""

    def forward(x: Tensor, positions: BlockPositions = NO_POSITIONS, read: int | None = None) -> Tensor:
        def attend(z: Tensor) -> Tensor:
            return block.attention_scale(block.attention(z, None, positions))

        parts = Parts(block.attention_norm, attend, block.mlp_norm, lambda z: block.mlp_scale(block.mlp(z)))
        return build(parts, x)

    block.forward = forward
