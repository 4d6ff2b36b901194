"""Mistakes in the structure of a block, and in the norms around the blocks."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn

from vitreous.inspection.comparison.mistakes.mistake import Mistake, Modules, assigned, each, first_of, together
from vitreous.model.attention import NO_POSITIONS, BlockPositions, SelfAttention
from vitreous.model.encoder import Encoder, EncoderBlock, PostNormBlock
from vitreous.model.mlp import MLP, SwiGLU

FIRST, SECOND = "x = x + attention(norm1(x))", "x = x + mlp(norm2(x))"
BOTH = f"{FIRST}, then {SECOND}"
KEEP = "Keep x as it was before the norm"
BLOCKS: tuple[tuple[str, str, dict[str, Any]], ...] = (  # wrong, hint, arguments of rebuild
    ("normalizes after each sum (post-norm)", f"Normalize first: {BOTH}", {"norms": (False, False), "post": True}),
    ("adds normalized tokens in its skip connections", f"{KEEP}: {BOTH}", {"normed": (True, True)}),
    ("adds normalized tokens in the skip connection of the attention", f"{KEEP}: {FIRST}", {"normed": (True, False)}),
    ("adds normalized tokens in the skip connection of the MLP", f"{KEEP}: {SECOND}", {"normed": (False, True)}),
    ("has no skip connection (residual) around the attention", f"Write {FIRST}", {"skips": (False, True)}),
    ("has no skip connection (residual) around the MLP", f"Write {SECOND}", {"skips": (True, False)}),
    ("has no skip connections (residuals)", f"Write {BOTH}", {"skips": (False, False)}),
    ("has no norm before the attention", f"Write {FIRST}", {"norms": (False, True)}),
    ("has no norm before the MLP", f"Write {SECOND}", {"norms": (True, False)}),
)
BRANCHES = (  # kinds of module, name in a block, in words
    ((SelfAttention,), "attention", "its attention"),
    ((MLP, SwiGLU), "mlp", "its MLP"),
)
OWN_NORM = "Give each its own: self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)"


def blocks(modules: Modules) -> Iterator[Mistake]:
    """Mistakes in the blocks and around them."""
    if first_of(PostNormBlock, modules):
        wrong, hint = "normalizes before each branch (pre-norm)", "Write x = x + norm1(attention(x))"
        change = each(PostNormBlock, partial(run_as, kind=EncoderBlock))
        yield Mistake(wrong, "normalizes after it", hint, change)
    elif first_of(EncoderBlock, modules):
        yield from pre_norm_blocks()
    yield from skips_inside(modules)
    encoder = first_of(Encoder, modules)
    for name, where in (("norm", "after the last block"), ("pre_norm", "before the first block")):
        if encoder and not isinstance(getattr(encoder, name), nn.Identity):
            change = assigned(Encoder, **{name: nn.Identity()})
            yield Mistake(f"has no norm {where}", "has one", f"Add a layer norm {where}", change)


def pre_norm_blocks() -> Iterator[Mistake]:
    """Mistakes in blocks that normalize first, as the paper's."""
    for wrong, hint, options in BLOCKS:
        change = each(EncoderBlock, partial(rebuild, **options))
        yield Mistake(wrong, "follows equations 2 and 3", hint, change)
    post_norm = each(EncoderBlock, partial(rebuild, **BLOCKS[0][2]))
    wrong, hint = "normalizes after each sum (post-norm), and has no final norm", f"{BLOCKS[0][1]}; and at the end"
    bare = together(post_norm, assigned(Encoder, norm=nn.Identity()))
    yield Mistake(wrong, "follows equations 2 to 4", hint, bare)
    wrong, hint = "normalizes after each branch, before the sum", f"Normalize first: {BOTH}"
    change = each(EncoderBlock, partial(run_as, kind=PostNormBlock))
    yield Mistake(wrong, "follows equations 2 and 3", hint, change)


def run_as(block: EncoderBlock, kind: type[EncoderBlock]) -> None:
    """Gives a block the forward of another kind of block."""
    block.forward = partial(kind.forward, block)


def skips_inside(modules: Modules) -> Iterator[Mistake]:
    """A skip connection inside attention or MLP."""
    for kinds, name, words in BRANCHES:
        if any(first_of(kind, modules) for kind in kinds):
            wrong = f"adds the input of {words} inside it (a skip connection too many)"
            hint = f"Return {name}(x) alone; the skip connection belongs to the block: x = x + {name}(norm(x))"
            yield Mistake(wrong, "does not", hint, each(kinds, add_input), inside=name)


def add_input(module: nn.Module) -> None:
    """Makes a module return the sum of its input and its output."""
    branch = module.forward

    def forward(x: Tensor, queries: Tensor | None = None, *positions: BlockPositions) -> Tensor:
        y = branch(x, queries, *positions) if isinstance(module, SelfAttention) else branch(x)
        return y if queries is not None else x + y

    module.forward = forward


def shared_layers(modules: Modules) -> Iterator[Mistake]:
    """One layer in the place of several."""
    encoder = first_of(Encoder, modules)
    depth = len(encoder.blocks) if encoder else 0
    for index, which in ((-1, "last"), (0, "first")) if depth > 1 else ():
        wrong, hint = f"runs its {which} block {depth} times", "[block] * depth is one block with one set of weights"
        build = "Build each: nn.ModuleList(Block(…) for _ in range(depth))"
        change = each(Encoder, partial(repeat_block, index=index))
        yield Mistake(wrong, f"has {depth} blocks", f"{build}; {hint}", change)
    if first_of(EncoderBlock, modules):
        for one, other, wrong in (
            ("attention_norm", "attention_norm", "uses the norm of the attention before the MLP as well"),
            ("mlp_norm", "mlp_norm", "uses the norm of the MLP before the attention as well"),
            ("mlp_norm", "attention_norm", "swaps the norms of attention and MLP"),
        ):
            change = each(EncoderBlock, partial(assign_norms, one=one, other=other))
            yield Mistake(wrong, "has a norm for each", OWN_NORM, change)


def repeat_block(encoder: Encoder, index: int) -> None:
    """Puts one block in the place of all."""
    encoder.blocks = nn.ModuleList([encoder.blocks[index]] * len(encoder.blocks))


def assign_norms(block: EncoderBlock, one: str, other: str) -> None:
    """Takes these norms before attention and MLP."""
    block.attention_norm, block.mlp_norm = getattr(block, one), getattr(block, other)


def rebuild(
    block: EncoderBlock,
    norms: tuple[bool, bool] = (True, True),
    skips: tuple[bool, bool] = (True, True),
    normed: tuple[bool, bool] = (False, False),
    post: bool = False,
) -> None:
    """Wires the parts of a block in another way.

    Args:
        block: to change.
        norms: whether attention and MLP have a norm before them.
        skips: whether attention and MLP have a skip connection.
        normed: whether the skip connections of attention and MLP start after the norm.
        post: whether a norm follows each sum.
    """

    def forward(x: Tensor, positions: BlockPositions = NO_POSITIONS, read: int | None = None) -> Tensor:
        def attend(z: Tensor) -> Tensor:
            return block.attention_scale(block.attention(z, None, positions))

        def transform(z: Tensor) -> Tensor:
            return block.mlp_scale(block.mlp(z))

        branches = ((block.attention_norm, attend), (block.mlp_norm, transform))
        for (norm, branch), has_norm, has_skip, is_normed in zip(branches, norms, skips, normed, strict=True):
            z = norm(x) if has_norm else x
            x = (z if is_normed else x) + branch(z) if has_skip else branch(z)
            x = norm(x) if post else x
        return x

    block.forward = forward
