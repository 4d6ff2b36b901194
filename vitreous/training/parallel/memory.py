"""The memory of one device in training, by formula: what decides between replicas (DDP) and shards (FSDP2).

The formulas hold for the paper's architecture on a GPU, with fused attention, which never stores its maps. In 16 bits,
matrix products and what they save are in 16 bits, and a norm saves its input in float32. Weights, gradients, moments
and average are always float32. Left out are the device's context, workspaces of kernels, and gaps between allocations.
"""

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["ddp", "fsdp"]

FLOAT, HALF, MASK = 4, 2, 1  # bytes of a number, and of an entry of a dropout mask
SHARE = 0.5  # of a device's memory that the state of a replica may fill; the rest is for activations
STATISTICS = 2 * FLOAT  # of a norm, for each token: mean and reciprocal deviation
GATHERED_BLOCKS = 3  # the block that computes, the next one, and the buffer that the next one arrives in


@dataclass(frozen=True)
class Shape:
    """The numbers of a Vision Transformer that its memory depends on.

    Args:
        width: D.
        depth: L.
        mlp_dim: width of the MLP's hidden layer.
        num_heads: k.
        patches: N, of an image.
        patch_values: P² C, numbers in a flattened patch.
        num_classes: K.
        prefix_tokens: tokens before the patches.
        hidden_dim: width of the head's hidden layer; 0 for none.
        reads: tokens that the head reads, all that the last block computes; None for all.
    """

    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    patches: int
    patch_values: int
    num_classes: int
    prefix_tokens: int = 1
    hidden_dim: int = 0
    reads: int | None = 1

    @property
    def tokens(self) -> int:
        """T, the length of the sequence."""
        return self.prefix_tokens + self.patches

    @property
    def queries(self) -> int:
        """Tokens that the last block computes."""
        return self.tokens if self.reads is None else self.reads

    @property
    def block_parameters(self) -> int:
        """Of one encoder block: qkv and output of attention, two dense layers, two norms, all with biases."""
        d, m = self.width, self.mlp_dim
        return (4 * d * d + 4 * d) + (2 * d * m + m + d) + 4 * d

    @property
    def other_parameters(self) -> int:
        """Of patches, tokens, positions, the last norm and the head."""
        d = self.width
        embedding = d * (self.patch_values + 1) + d * self.prefix_tokens + d * self.tokens
        hidden = (d + 1) * self.hidden_dim
        return embedding + 2 * d + hidden + ((self.hidden_dim or d) + 1) * self.num_classes

    @property
    def unsplit_parameters(self) -> int:
        """Of tokens and positions: their first axis has length 1, so that FSDP leaves them whole, to the first rank."""
        return self.width * (self.prefix_tokens + self.tokens)

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        return self.depth * self.block_parameters + self.other_parameters


@dataclass(frozen=True)
class Memory:
    """Bytes of one device in training, by what they hold."""

    weights: int
    gradients: int
    moments: int
    average: int
    copies: int  # of the weights in 16 bits
    buffers: int  # gathered blocks, and gradients on their way (FSDP)
    activations: int
    evaluation: int  # a full copy of the weights, at a time without copies, buffers and activations (FSDP)

    @property
    def state(self) -> int:
        """What stays from step to step."""
        return self.weights + self.gradients + self.moments + self.average

    @property
    def total(self) -> int:
        """The most at any time."""
        return self.state + max(self.copies + self.buffers + self.activations, self.evaluation)


def state_bytes(parameters: int, moments: int = 2, average: bool = False) -> int:
    """Bytes that a replica keeps from step to step: float32 weights, gradients, moments, and perhaps an average.

    Args:
        parameters: that are trained.
        moments: of the optimizer for each parameter: 2 for AdamW and Adam, 1 for SGD with momentum.
        average: whether an average of the weights is kept.
    """
    return FLOAT * parameters * (2 + moments + average)


def fits_replicated(state_bytes: int, device_bytes: int) -> bool:
    """Whether a replica's state leaves enough of a device's memory for activations."""
    return state_bytes <= SHARE * device_bytes


def device_memory(
    kind: Kind,
    ranks: int,
    shape: Shape,
    images: int,
    *,
    half: bool = True,
    moments: int = 2,
    average: bool = False,
    checkpointing: bool = False,
    dropout: bool = False,
    accumulating: bool = False,
) -> Memory:
    """The memory of one device; under FSDP the first, which has the most.

    Args:
        kind: "ddp" for a replica on each device, "fsdp" for a shard.
        ranks: devices.
        shape: of the model.
        images: that go through a device's model at once.
        half: whether activations are in 16 bits.
        moments: of the optimizer for each parameter.
        average: whether an average of the weights is kept.
        checkpointing: whether activations are computed again in the backward pass.
        dropout: whether its rate is above 0.
        accumulating: whether an update takes several micro-batches; under FSDP the gradients are then whole on each
            device until the last of them.
    """
    whole = FLOAT * shape.parameters
    activations = images * activation_bytes(shape, half=half, checkpointing=checkpointing, dropout=dropout)
    if kind == "ddp":
        copies = HALF * shape.parameters if half else 0
        return Memory(whole, whole, moments * whole, average * whole, copies, 0, activations, 0)
    shard = FLOAT * (shape.unsplit_parameters + math.ceil((shape.parameters - shape.unsplit_parameters) / ranks))
    buffers = gathered_bytes(shape, half) + (whole if accumulating else 0)
    return Memory(shard, shard, moments * shard, average * shard, 0, buffers, activations, whole)


def gathered_bytes(shape: Shape, half: bool = True) -> int:
    """Bytes of what FSDP gathers and reduces at a time.

    All parameters outside the blocks, some blocks, and the gradients of one unit: as they were computed, and in float32
    for the sum over the ranks, of which one more is on its way.
    """
    size = HALF if half else FLOAT
    unit = max(shape.block_parameters, shape.other_parameters)
    gathered = size * (GATHERED_BLOCKS * shape.block_parameters + shape.other_parameters)
    return gathered + (size + 2 * FLOAT) * unit


def activation_bytes(shape: Shape, *, half: bool = True, checkpointing: bool = False, dropout: bool = False) -> int:
    """Bytes that one image saves for the backward pass.

    Args:
        shape: of the model.
        half: whether activations are in 16 bits.
        checkpointing: whether only the inputs of the blocks are saved; one block is then computed again at a time.
        dropout: whether its rate is above 0, so that masks are saved.
    """
    size = HALF if half else FLOAT
    whole_block = block_bytes(shape, shape.tokens, half, dropout)
    if checkpointing:
        blocks = shape.depth * shape.tokens * shape.width * size + whole_block
    else:
        blocks = (shape.depth - 1) * whole_block + block_bytes(shape, shape.queries, half, dropout)
    patches = shape.patches * shape.patch_values * size
    masks = shape.tokens * shape.width * MASK if dropout else 0
    norm = shape.queries * (shape.width * FLOAT + STATISTICS)
    head = (shape.width + shape.hidden_dim) * size + shape.num_classes * FLOAT
    return patches + masks + blocks + norm + head


def block_bytes(shape: Shape, queries: int, half: bool, dropout: bool) -> int:
    """Bytes that one encoder block saves for an image, if it computes the first `queries` of the tokens.

    Two norms save their input and statistics; qkv, the output of attention and both dense layers save theirs; attention
    saves q, k, v and the logarithm of each row's sum; GELU saves its input.
    """
    size, d, m, t = HALF if half else FLOAT, shape.width, shape.mlp_dim, shape.tokens
    normed = d * FLOAT + STATISTICS
    every_token = normed + 3 * d * size  # first norm; qkv's input; k and v
    every_query = d * size + d * size + shape.num_heads * FLOAT  # q; attention's output; logarithms of sums
    every_query += normed + d * size + 2 * m * size  # second norm; first layer's input; GELU's input; second layer's
    if half and queries < t:
        every_query += d * size  # q's input, cut out before it is rounded
    if dropout:
        every_query += (2 * d + m) * MASK
    return t * every_token + queries * every_query
