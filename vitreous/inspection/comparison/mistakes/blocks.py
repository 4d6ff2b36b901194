"""Mistakes in the structure of a block, and in the norms around the blocks."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn

from vitreous.inspection.comparison.mistakes.mistake import Mistake, Modules, assigned, each, first_of, together
from vitreous.model.attention import NO_POSITIONS, BlockPositions
from vitreous.model.encoder import Encoder, EncoderBlock

FIRST, SECOND = "x = x + attention(norm1(x))", "x = x + mlp(norm2(x))"
BOTH = f"{FIRST}, then {SECOND}"
BLOCKS: tuple[tuple[str, str, dict[str, Any]], ...] = (  # wrong, hint, arguments of rebuild
    ("normalizes after each sum (post-norm)", f"Normalize first: {BOTH}", {"norms": (False, False), "post": True}),
    ("adds normalized tokens in its skip connections", f"Keep x as it was before the norm: {BOTH}", {"normed": True}),
    ("has no skip connection (residual) around the attention", f"Write {FIRST}", {"skips": (False, True)}),
    ("has no skip connection (residual) around the MLP", f"Write {SECOND}", {"skips": (True, False)}),
    ("has no skip connections (residuals)", f"Write {BOTH}", {"skips": (False, False)}),
    ("has no norm before the attention", f"Write {FIRST}", {"norms": (False, True)}),
    ("has no norm before the MLP", f"Write {SECOND}", {"norms": (True, False)}),
)


def blocks(modules: Modules) -> Iterator[Mistake]:
    """Mistakes in the blocks and around them."""
    if first_of(EncoderBlock, modules):
        for wrong, hint, options in BLOCKS:
            change = each(EncoderBlock, partial(rebuild, **options))
            yield Mistake(wrong, "follows equations 2 and 3", hint, change)
        post_norm = each(EncoderBlock, partial(rebuild, **BLOCKS[0][2]))
        wrong, hint = "normalizes after each sum (post-norm), and has no final norm", f"{BLOCKS[0][1]}; and at the end"
        bare = together(post_norm, assigned(Encoder, norm=nn.Identity()))
        yield Mistake(wrong, "follows equations 2 to 4", hint, bare)
    encoder = first_of(Encoder, modules)
    for name, where in (("norm", "after the last block"), ("pre_norm", "before the first block")):
        if encoder is not None and not isinstance(getattr(encoder, name), nn.Identity):
            change = assigned(Encoder, **{name: nn.Identity()})
            yield Mistake(f"has no norm {where}", "has one", f"Add a layer norm {where}", change)


def rebuild(
    block: EncoderBlock,
    norms: tuple[bool, bool] = (True, True),
    skips: tuple[bool, bool] = (True, True),
    normed: bool = False,
    post: bool = False,
) -> None:
    """Wires the parts of a block in another way.

    Args:
        block: to change.
        norms: whether attention and MLP have a norm before them.
        skips: whether attention and MLP have a skip connection.
        normed: whether the skip connections start after the norms.
        post: whether a norm follows each sum.
    """

    def forward(x: Tensor, positions: BlockPositions = NO_POSITIONS, read: int | None = None) -> Tensor:
        def attend(z: Tensor) -> Tensor:
            return block.attention_scale(block.attention(z, None, positions))

        def transform(z: Tensor) -> Tensor:
            return block.mlp_scale(block.mlp(z))

        branches = ((block.attention_norm, attend), (block.mlp_norm, transform))
        for (norm, branch), has_norm, has_skip in zip(branches, norms, skips, strict=True):
            z = norm(x) if has_norm else x
            x = (z if normed else x) + branch(z) if has_skip else branch(z)
            x = norm(x) if post else x
        return x

    block.forward = forward
