"""One recorded pass of an image, and the numbers computed from the tensors it kept.

Call these without gradients, as `walk_page` does.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vitreous.inspection.recording import Recorder
from vitreous.inspection.stages import Stage, Statistics, build_stages, measure
from vitreous.inspection.trace import Trace
from vitreous.model.encoder import EncoderBlock
from vitreous.model.head import AttentionPooling
from vitreous.model.shapes import AttentionMap, Grid, Heads, Images
from vitreous.model.vit import VisionTransformer

MOST_ACTIVE = 5  # hidden units that are named


@dataclass(frozen=True, eq=False)
class Walk:
    """One image's pass through a model, with the output of every stage.

    Attributes:
        model: that ran.
        images: a batch of one.
        trace: the stages as a tree.
        stages: all stages by path, with the statistics of their outputs.
    """

    model: VisionTransformer
    images: Images
    trace: Trace
    stages: dict[str, Stage]

    @property
    def grid(self) -> Grid:
        """Patches, (rows, columns)."""
        return self.model.grid(self.images)

    @property
    def prefix(self) -> int:
        """The number of prefix tokens."""
        return self.model.config.prefix_tokens

    @property
    def tokens(self) -> int:
        """T, the number of tokens with the prefix."""
        rows, columns = self.grid
        return self.prefix + rows * columns

    def value(self, path: str) -> Tensor:
        """The output of a stage for the one image, as float32 on the CPU."""
        value = self.stages[path].value
        assert value is not None
        return value[0].float().cpu()


@dataclass(frozen=True, eq=False)
class BlockValues:
    """What one block does to each token.

    If the head reads only the first few tokens, the pass computes only those in the last block; the "computed"
    dimension is then that short.

    Attributes:
        norms: L2 norms of z_{l-1}, of what attention adds, of z'_l, of what the MLP adds, and of z_l.
        active: the share of the MLP's hidden units above 0 (in SwiGLU, of its gates).
        units: the indices of the largest hidden units.
        heights: their values.
    """

    norms: Float[Tensor, "computed 5"]
    active: Float[Tensor, " computed"]
    units: Int64[Tensor, "computed most"]
    heights: Float[Tensor, "computed most"]


def record(model: VisionTransformer, images: Images) -> Walk:
    """Runs the model once, without gradients, and keeps the output of every stage.

    Args:
        model: left unchanged.
        images: a batch of one.
    """
    recorder = Recorder(model, observe=torch.Tensor.detach)
    output = recorder.run(images)
    boxes = build_stages(recorder, keep=True)
    trace = Trace(type(model).__name__, boxes, output, images=1, training=model.training)
    stages: dict[str, Stage] = {}
    collect(boxes, stages)
    return Walk(model, images, trace, stages)


def collect(nested: tuple[Stage, ...], stages: dict[str, Stage]) -> None:
    """Adds stages and their parts to a dict by path; the outer one wins if a path comes twice."""
    for stage in nested:
        stages.setdefault(stage.path, replace(stage, statistics=statistics(stage)))
        collect(stage.parts, stages)


def statistics(stage: Stage) -> Statistics | None:
    """The statistics of a stage's output; None if it has no values."""
    measured = None if stage.value is None else measure(stage.value)
    if measured is None:
        return None
    *rest, norm = measured.tolist()
    return Statistics(*rest, token_norm=norm)


def attention_map(walk: Walk, block: int) -> AttentionMap:
    """A of one block (equation 6) for every token, computed from the block's input."""
    normed = walk.stages[f"encoder.blocks.{block}.attention_norm"].value
    positions = walk.model.position_embedding.for_blocks(walk.grid)
    assert normed is not None
    bias = None if positions is None else positions(block, normed)[1]
    return block_of(walk, block).attention.weights(normed, bias)


def first_head(walk: Walk, block: int) -> tuple[Heads, Heads, Heads]:
    """The queries, keys and values of every token in head 0 of one block (equation 5)."""
    normed = walk.stages[f"encoder.blocks.{block}.attention_norm"].value
    assert normed is not None
    q, k, v = block_of(walk, block).attention.project(normed)
    return q[:, :1], k[:, :1], v[:, :1]


def block_of(walk: Walk, block: int) -> EncoderBlock:
    """The module of a block."""
    module = walk.model.encoder.blocks[block]
    assert isinstance(module, EncoderBlock)
    return module


def block_values(walk: Walk, block: int) -> BlockValues:
    """Measures what one block does to each token."""
    path = f"encoder.blocks.{block}"
    between, after = walk.value(f"{path}:add"), walk.value(f"{path}:add.2")
    attention, mlp = (walk.value(branch(walk, path, name)) for name in ("attention", "mlp"))
    before = between - attention  # z_{l-1} of the computed tokens
    norms = torch.stack([x.norm(dim=-1) for x in (before, attention, between, mlp, after)], dim=-1)
    gated = f"{path}.mlp:mul" in walk.stages
    hidden = walk.value(f"{path}.mlp:mul" if gated else f"{path}.mlp.activation")
    gates = walk.value(f"{path}.mlp:silu") if gated else hidden
    heights, units = hidden.topk(min(MOST_ACTIVE, hidden.shape[-1]), dim=-1)
    return BlockValues(norms, (gates > 0).float().mean(dim=-1), units, heights)


def branch(walk: Walk, path: str, name: str) -> str:
    """The path of a residual branch's last stage: its LayerScale, if it has one."""
    scaled = f"{path}.{name}_scale"
    return scaled if scaled in walk.stages else f"{path}.{name}"


def position_table(walk: Walk) -> Float[Tensor, "tokens width"] | None:
    """E_pos for this image, one row per token, or None if nothing is added; the first block's, if there are several."""
    table = walk.model.position_embedding.table(walk.grid)
    return None if table is None else table.float().cpu()


def probe_attention(walk: Walk) -> Float[Tensor, "heads tokens"] | None:
    """The attention of the probe of attention pooling, by head; None for other poolings."""
    pooling = walk.model.head.pooling
    if not isinstance(pooling, AttentionPooling):
        return None
    tokens = walk.stages["encoder"].value
    assert tokens is not None
    q, k, _ = pooling.attention.project(tokens, pooling.probe.to(tokens.dtype))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
    return weights[0, :, 0].float().cpu()


def probabilities(walk: Walk) -> Float[Tensor, " classes"] | None:
    """The probability of each class; None for a model without a classifier."""
    if walk.model.head.classifier is None:
        return None
    return walk.trace.output[0].float().softmax(dim=-1).cpu()
