"""All initializers, with the distributions of the paper's code.

Linear and convolution weights are stored output-first here and input-first in the authors' code; the distributions
are stated per layer and hold for either layout.
"""

import math

import torch
from torch import Tensor, nn

POSITION_STD = 0.02  # the original model's, class slot included
MLP_BIAS_STD = 1e-6
DISTILLATION_STD = 0.02  # DeiT (arXiv 2012.12877)
REGISTER_STD = 1e-6  # arXiv 2309.16588's code
TRUNCATED_STD = 0.87962566103423978  # standard deviation of a unit normal cut at two standard deviations

constant_, zeros_ = nn.init.constant_, nn.init.zeros_


def lecun_normal_(weight: Tensor) -> None:
    """LeCun-normal weight: variance 1 / fan-in, cut at two standard deviations."""
    std = math.sqrt(1 / weight[0].numel()) / TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def dense_(layer: nn.Linear | nn.Conv2d) -> None:
    """Default dense layer or convolution: LeCun-normal weight, zero bias."""
    lecun_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def mlp_(layer: nn.Linear) -> None:
    """Dense layer of the MLP: Xavier-uniform weight, bias N(0, 1e-6)."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.normal_(layer.bias, std=MLP_BIAS_STD)


def stacked_(layer: nn.Linear, parts: int) -> None:
    """Dense layers stored as one, such as q, k, v: each part Xavier-uniform with its own fan-out, zero bias."""
    for part in layer.weight.chunk(parts):
        nn.init.xavier_uniform_(part)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def position_(table: Tensor, class_slot: bool) -> None:
    """Learned positions: N(0, 0.02) with a class slot (the paper's code), N(0, 1/√D) without (big_vision)."""
    nn.init.normal_(table, std=POSITION_STD if class_slot else 1 / math.sqrt(table.shape[-1]))


@torch.no_grad()
def rotary_(frequencies: Tensor, base: float) -> None:
    """Learned frequencies of rotary positions: two directions at right angles, drawn for each block and head."""
    quarter = torch.arange(frequencies.shape[-1] // 2, device=frequencies.device) / (frequencies.shape[-1] // 2)
    angles = 2 * math.pi * torch.rand((*frequencies.shape[1:3], 1), device=frequencies.device)
    x, y = (base**-quarter * wave for wave in (angles.cos(), angles.sin()))
    frequencies.copy_(torch.stack([torch.cat([x, -y], dim=-1), torch.cat([y, x], dim=-1)]))


def tokens_(
    class_token: Tensor | None, distillation_token: Tensor | None, registers: Tensor | None, mask_token: Tensor | None
) -> None:
    """Learned tokens: class and mask zero, distillation truncated normal (DeiT), registers normal and all but zero."""
    if class_token is not None:
        nn.init.zeros_(class_token)
    if distillation_token is not None:
        nn.init.trunc_normal_(distillation_token, std=DISTILLATION_STD)
    if registers is not None:
        nn.init.normal_(registers, std=REGISTER_STD)
    if mask_token is not None:
        nn.init.zeros_(mask_token)


def probe_(probe: Tensor) -> None:
    """Probe of the attention pooling: Xavier-uniform."""
    nn.init.xavier_uniform_(probe)


@torch.no_grad()
def fill_at_random(model: nn.Module, seed: int = 0) -> None:
    """Fills every parameter with random values in place, so that an equality test cannot pass on zeros.

    Matrices get variance 1 / fan-in, scales are near 1, everything else has standard deviation 0.3: activations stay
    around 1, and logits vary across images. The values come from a generator with this seed; torch's global one is
    untouched.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
    scales = {id(m.weight) for m in model.modules() if isinstance(m, norms) and m.weight is not None}
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if id(parameter) in scales or name.endswith("gamma"):
            filled = 1 + 0.2 * noise
        elif name.endswith("weight") and parameter.ndim > 1:
            filled = noise / math.sqrt(parameter[0].numel())
        else:
            filled = 0.3 * noise
        parameter.copy_(filled)
