"""The numbers of the page: one recorded pass, and what is computed from the tensors that it kept.

To be called without gradients, as `walk_page` does.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vitreous.inspection.recording import Recorder
from vitreous.inspection.stages import Stage, Statistics, build_stages, measure
from vitreous.inspection.trace import Trace
from vitreous.model.encoder import EncoderBlock
from vitreous.model.head import AttentionPooling
from vitreous.model.shapes import AttentionMap, Grid, Heads, Images, Logits
from vitreous.model.vit import VisionTransformer

MOST_ACTIVE = 5  # hidden units that are named


@dataclass(frozen=True, eq=False)
class Walk:
    """One image's pass through a model, with every stage's output.

    Attributes:
        model: as it was.
        images: a batch of one.
        trace: the stages; those of each level sum to the model's parameters and multiply-adds.
        stages: all of them by path, at whatever depth.
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
    def tokens(self) -> int:
        """T, with the tokens in front of the patches."""
        rows, columns = self.grid
        return self.model.config.prefix_tokens + rows * columns

    @property
    def logits(self) -> Logits:
        """What the pass returned."""
        return self.trace.output

    def value(self, path: str) -> Tensor:
        """A stage's output, of the one image, as float32 on the CPU."""
        value = self.stages[path].value
        assert value is not None
        return value[0].float().cpu()


@dataclass(frozen=True, eq=False)
class BlockValues:
    """What one block does to each token.

    Where the head reads only the first few tokens, the last block's pass computes no others; the tensors over
    "computed" are then as short.

    Attributes:
        norms: L2 norms of z_{l-1}, of what attention adds, of z'_l, of what the MLP adds, and of z_l.
        active: the share of the MLP's hidden units that are above 0 (whose gate is, in SwiGLU).
        units: the hidden units that are largest, by number.
        heights: their values.
    """

    norms: Float[Tensor, "computed 5"]
    active: Float[Tensor, " computed"]
    units: Int64[Tensor, "computed most"]
    heights: Float[Tensor, "computed most"]


def record(model: VisionTransformer, images: Images) -> Walk:
    """Runs the model once, in the mode it is in and without gradients, and keeps what every stage made.

    Args:
        model: it is as before when the pass is over.
        images: a batch of one, as the model takes it.
    """
    recorder = Recorder(model, observe=torch.Tensor.detach)
    output = recorder.run(images)
    boxes = build_stages(recorder, keep=True)
    trace = Trace(type(model).__name__, boxes, output, images=1, training=model.training)
    stages: dict[str, Stage] = {}
    collect(boxes, stages)
    return Walk(model, images, trace, stages)


def collect(found: tuple[Stage, ...], stages: dict[str, Stage]) -> None:
    """Puts stages and all their parts into a dict by path; of a path that comes twice, the outer one."""
    for stage in found:
        stages.setdefault(stage.path, stage)
        collect(stage.parts, stages)


def statistics(stage: Stage) -> Statistics | None:
    """The statistics of a stage's output; None where it has no values."""
    measured = None if stage.value is None else measure(stage.value)
    if measured is None:
        return None
    *rest, norm = measured.tolist()
    return Statistics(*rest, token_norm=norm)


def attention_map(walk: Walk, block: int) -> AttentionMap:
    """A of one block (equation 6), from the tokens that the pass made; computed beside it, for every token."""
    normed = walk.stages[f"encoder.blocks.{block}.attention_norm"].value
    positions = walk.model.position_embedding.for_blocks(walk.grid)
    assert normed is not None
    return block_of(walk, block).attention.weights(normed, positions(block))


def first_head(walk: Walk, block: int) -> tuple[Heads, Heads, Heads]:
    """The queries, keys and values of every token in head 0 of one block (equation 5)."""
    normed = walk.stages[f"encoder.blocks.{block}.attention_norm"].value
    assert normed is not None
    q, k, v = block_of(walk, block).attention.project(normed)
    return q[:, :1], k[:, :1], v[:, :1]


def block_of(walk: Walk, block: int) -> EncoderBlock:
    """The module."""
    module = walk.model.encoder.blocks[block]
    assert isinstance(module, EncoderBlock)
    return module


def block_values(walk: Walk, block: int) -> BlockValues:
    """Sums up what one block does to each token."""
    path = f"encoder.blocks.{block}"
    between, after = walk.value(f"{path}:add"), walk.value(f"{path}:add.2")
    attention, mlp = (walk.value(branch(walk, path, name)) for name in ("attention", "mlp"))
    before = between - attention  # z_{l-1} of the tokens that are computed
    norms = torch.stack([x.norm(dim=-1) for x in (before, attention, between, mlp, after)], dim=-1)
    gated = f"{path}.mlp:mul" in walk.stages
    hidden = walk.value(f"{path}.mlp:mul" if gated else f"{path}.mlp.activation")
    opened = walk.value(f"{path}.mlp:silu") if gated else hidden
    heights, units = hidden.topk(min(MOST_ACTIVE, hidden.shape[-1]), dim=-1)
    return BlockValues(norms, (opened > 0).float().mean(dim=-1), units, heights)


def branch(walk: Walk, path: str, name: str) -> str:
    """The path of a residual branch's last stage: its LayerScale, where it has one."""
    scaled = f"{path}.{name}_scale"
    return scaled if scaled in walk.stages else f"{path}.{name}"


def position_table(walk: Walk) -> Float[Tensor, "tokens width"] | None:
    """E_pos for this image, one row for each token, or None where none is added; the first block's, if several."""
    table = walk.model.position_embedding.table(walk.grid)
    return None if table is None else table.float().cpu()


def probe_attention(walk: Walk) -> Float[Tensor, "heads tokens"] | None:
    """Where the probe of attention pooling looks, head by head; None for another pooling."""
    pooling = walk.model.head.pooling
    if not isinstance(pooling, AttentionPooling):
        return None
    tokens = walk.stages["encoder"].value
    assert tokens is not None
    q, k, _ = pooling.attention.project(tokens, pooling.probe.to(tokens.dtype))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
    return weights[0, :, 0].float().cpu()


def probabilities(walk: Walk) -> Float[Tensor, " classes"] | None:
    """The share that softmax gives each class; None for a model without a classifier."""
    if walk.model.head.classifier is None:
        return None
    return walk.logits[0].float().softmax(dim=-1).cpu()
