"""AdamW, Adam and SGD, with weight decay on matrices only."""

from typing import Literal

import torch
from torch import nn

Algorithm = Literal["adamw", "adam", "sgd"]
MATRICES = (nn.Linear, nn.Conv2d)  # layers with what the authors' code calls a kernel


def decayed(model: nn.Module) -> set[str]:
    """Names of the parameters that decay: the matrices.

    Never biases, norms, tokens, registers, positions, LayerScale, or the pooling's probe.
    """
    return {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, MATRICES)}


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """The trainable parameters in two groups, with decay and without."""
    matrices = decayed(model)
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    return [
        {"params": [p for name, p in trained if name in matrices], "weight_decay": weight_decay},
        {"params": [p for name, p in trained if name not in matrices], "weight_decay": 0.0},
    ]


def adamw(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101); each step takes lr · weight_decay off the matrices.

    Fused: one pass over the weights, the fastest on every device, and it can be told to skip a step
    (see step.py).

    Args:
        model: whose parameters it moves.
        lr: the learning rate, where no schedule sets another.
        weight_decay: of the matrices.
        betas: decay rates of the two moments.
        eps: added to the root of the second moment.
    """
    return torch.optim.AdamW(groups(model, weight_decay), lr=lr, betas=betas, eps=eps, fused=True)


def adam(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.Adam:
    """Adam (arXiv 1412.6980), whose decay is added to the gradients of the matrices; see `adamw`."""
    return torch.optim.Adam(groups(model, weight_decay), lr=lr, betas=betas, eps=eps, fused=True)


def sgd(model: nn.Module, *, lr: float, weight_decay: float, momentum: float = 0.9) -> torch.optim.SGD:
    """SGD with momentum, whose decay is added to the gradients of the matrices; fused, see `adamw`.

    Args:
        model: whose parameters it moves.
        lr: the learning rate, where no schedule sets another.
        weight_decay: of the matrices.
        momentum: the share of the last update that stays.
    """
    optimizer = torch.optim.SGD(groups(model, weight_decay), lr=lr, momentum=momentum, fused=True)
    # Made here and not at the first step: where that one is skipped, torch would leave them uninitialised.
    for group in optimizer.param_groups if momentum else ():
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
