"""The cost of a model: parameters, and multiply-adds both nominal (by formula) and executed (of an actual pass).

A multiply-add is two FLOPs, as in PyTorch's counter and the scaling papers.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from vitreous.model.config import ViTConfig, grid_of
from vitreous.model.vit import VisionTransformer


class NoRandomInit(TorchFunctionMode):
    """Skips random initializers: meta tensors have no values, and torch would import its compiler for each."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def on_meta(config: ViTConfig) -> VisionTransformer:
    """Builds a model without memory for its weights."""
    with torch.device("meta"), NoRandomInit():
        return VisionTransformer(config).eval()


def parameter_count(config: ViTConfig) -> int:
    """Counts the parameters: those of a model with one block, and of the other blocks, which are alike."""
    model = on_meta(config.replace(depth=1))
    in_block = [*model.encoder.blocks.parameters()]
    if config.position_site == "every_layer":
        in_block += model.position_embedding.parameters()
    if model.rotary is not None and model.rotary.frequencies is not None:
        in_block.append(model.rotary.frequencies)
    return sum(p.numel() for p in model.parameters()) + (config.depth - 1) * sum(p.numel() for p in in_block)


def nominal_multiply_adds(config: ViTConfig, image_size: tuple[int, int] | None = None) -> int:
    """Counts the multiply-adds of one image by formula, every token through every block.

    N P²C D + L (4 T D² + 2 T² D + 2 T D M) + D K, with T tokens of which N are patches, and M the MLP's width;
    plus SwiGLU's third matrix, hidden layer, attention pooling, second classifier and a hybrid's convolutions. The
    image has the config's size, unless another (height, width) is given.
    """
    c = config
    rows, columns = grid_of(image_size or c.image_size, c.token_stride)
    n, d, m, k = rows * columns, c.width, c.mlp_dim, c.num_classes
    t = n + c.prefix_tokens
    matrices = 3 if c.mlp == "swiglu" else 2
    patches = n * math.prod(c.patch_size) * c.stem_channels * d
    blocks = c.depth * (4 * t * d**2 + 2 * t**2 * d + matrices * t * d * m)
    features = c.hidden_dim or c.feature_width
    head = (c.hidden_dim or 0) * c.feature_width + features * k * (1 + c.distillation_token)
    if c.pooling == "attention":
        head += 2 * d**2 + 2 * t * d**2 + 2 * t * d + 2 * d * (c.pooling_mlp_dim or m)
    return stem_multiply_adds(c, image_size or c.image_size) + patches + blocks + head


def stem_multiply_adds(config: ViTConfig, image_size: tuple[int, int]) -> int:
    """Counts the multiply-adds of a hybrid's convolutions; 0 without a stem."""
    if config.stem_blocks is None:
        return 0
    pixels = image_size[0] * image_size[1] // 4
    total = pixels * 7 * 7 * config.channels * config.stem_width
    pixels, channels = pixels // 4, config.stem_width
    for stage, units in enumerate(config.stem_blocks):
        features = config.stem_width * 2**stage
        for unit in range(units):
            before = pixels
            if stage and unit == 0:
                pixels //= 4
            total += before * channels * features + pixels * (9 * features**2 + 4 * features**2)
            if unit == 0:
                total += pixels * channels * 4 * features
            channels = 4 * features
    return total


def executed_multiply_adds(config: ViTConfig, image_size: tuple[int, int] | None = None) -> int:
    """Counts the multiply-adds of the matrix products and convolutions in one image's forward pass.

    Less than the nominal count if the last block computes only the tokens that the head reads.
    """
    from torch.utils.flop_counter import FlopCounterMode  # a slow import that on_meta does not need

    height, width = image_size or config.image_size
    model = on_meta(config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, config.channels, height, width, device="meta"))
    return counter.get_total_flops() // 2
