"""One recorded pass of an image, and what follows from the tensors it kept. To be called without gradients."""

import itertools
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.explain.attention_maps import ExplicitAttention
from vitreous.inspection.recording import Recorder
from vitreous.inspection.stages import Stage, Statistics, build_stages, measure
from vitreous.inspection.trace import Trace
from vitreous.model.attention import BlockPositions
from vitreous.model.encoder import EncoderBlock
from vitreous.model.head import AttentionPooling
from vitreous.model.shapes import AttentionMap, Grid, Images
from vitreous.model.vit import VisionTransformer


@dataclass(frozen=True, eq=False)
class Walk:
    """One image's pass through a model, with the output of every stage."""

    model: VisionTransformer
    images: Images  # a batch of one
    trace: Trace  # the stages as a tree
    stages: dict[str, Stage]  # all of them by path, with the statistics of their outputs

    @property
    def grid(self) -> Grid:
        """Patches, (rows, columns)."""
        return self.model.grid(self.images)

    @property
    def prefix(self) -> int:
        """The number of prefix tokens."""
        return self.model.config.prefix_tokens

    def value(self, path: str) -> Tensor:
        """The output of a stage for the one image, as float32 on the CPU."""
        value = self.stages[path].value
        assert value is not None
        return value[0].float().cpu()

    def block(self, number: int) -> tuple[EncoderBlock, Tensor, BlockPositions]:
        """A block, the tokens that its attention reads, and the positions inside it."""
        module, positions = self.model.encoder.blocks[number], self.model.positions(self.grid)(number)
        assert isinstance(module, EncoderBlock)
        if number:
            before = self.stages[f"encoder.blocks.{number - 1}"]
        else:
            outside = itertools.takewhile(lambda box: box.path != "encoder", self.trace.boxes)
            before = self.stages.get("encoder.pre_norm") or [*outside][-1]
        assert before.value is not None
        return module, module.attention_input(positions.tokens(before.value)), positions


def record(model: VisionTransformer, images: Images) -> Walk:
    """Runs the model once on a batch of one and keeps the output of every stage."""
    recorder = Recorder(model, observe=torch.Tensor.detach)
    output = recorder.run(images)
    boxes = build_stages(recorder, keep=True)
    stages: dict[str, Stage] = {}
    collect(boxes, stages)
    return Walk(model, images, Trace(type(model).__name__, boxes, output, 1, model.training), stages)


def collect(nested: tuple[Stage, ...], stages: dict[str, Stage]) -> None:
    """Adds stages and their parts to a dict by path; the outer one wins if a path comes twice."""
    for stage in nested:
        stages.setdefault(stage.path, replace(stage, statistics=statistics(stage)))
        collect(stage.parts, stages)


def statistics(stage: Stage) -> Statistics | None:
    """The statistics of a stage's output; None if it has no values."""
    if stage.value is None or (measured := measure(stage.value)) is None:
        return None
    *rest, norm = measured.tolist()
    return Statistics(*rest, token_norm=norm)


def block_attention(walk: Walk, block: int) -> AttentionMap:
    """A of one block (equation 6) for every token, computed from the block's input."""
    module, x, positions = walk.block(block)
    return module.attention.weights(x, positions).float().cpu()


def position_table(walk: Walk) -> Float[Tensor, "tokens width"] | None:
    """E_pos for this image, one row per token, or None if nothing is added; the first block's, if there are several."""
    table = walk.model.position_embedding.table(walk.grid)
    return None if table is None else table.float().cpu()


def probe_attention(walk: Walk) -> Float[Tensor, "heads tokens"] | None:
    """The attention of the probe of attention pooling, by head; None for other poolings."""
    pooling = walk.model.head.pooling
    if not isinstance(pooling, AttentionPooling):
        return None
    with ExplicitAttention() as explicit:
        pooling(walk.stages["encoder"].value)
    return explicit.maps[0][0, :, 0].float().cpu()


def probabilities(walk: Walk) -> Float[Tensor, " classes"] | None:
    """The probability of each class; None for a model without a classifier."""
    if walk.model.head.classifier is None:
        return None
    return walk.trace.output[0].float().softmax(dim=-1).cpu()
