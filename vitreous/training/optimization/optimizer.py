"""AdamW, Adam and SGD: weight decay on matrices only, learning rates that fall with depth, frozen parts."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError, unknown
from vitreous.training.parallel.passes import is_shard, local

Algorithm = Literal["adamw", "adam", "sgd"]
BACKBONE, CLASSIFIERS = "backbone", ("head.classifier.", "head.distillation.")  # BACKBONE is all but CLASSIFIERS
MATRICES = (nn.Linear, nn.Conv2d)  # layers with what the authors' code calls a kernel


def decayed(model: nn.Module) -> set[str]:
    """Names of the parameters that decay: the matrices.

    Never biases, norms, tokens, registers, positions, LayerScale, or the pooling's probe.
    """
    return {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, MATRICES)}


def groups(*modules: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, object]]:
    """The trainable parameters in groups of one decay and one factor of the learning rate, "lr_scale".

    Args:
        *modules: a model, and whatever is trained along with it.
        weight_decay: of the matrices; 0 for all others.
        layer_decay: d: the factor is 1 for the head and the other modules, d for the last block, d² for the one before,
            and so on; patches, tokens and positions count as one more block (BEiT, arXiv 2106.08254).
    """
    parameters: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in modules:
        matrices = decayed(module)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                scale = layer_decay ** layers_above(name, module)
                key = (weight_decay if name in matrices else 0.0, scale)
                parameters.setdefault(key, []).append(parameter)
    return [{"params": parameters[key], "weight_decay": key[0], "lr_scale": key[1]} for key in parameters]


def layers_above(name: str, module: nn.Module) -> int:
    """How many layers lie between a parameter and the model's head; 0 inside the head."""
    if not isinstance(module, VisionTransformer):
        return 0
    depth = module.config.depth
    match name.split("."):
        case ["head", *_] | ["encoder", "norm", *_]:
            return 0
        case ["encoder", "blocks", number, *_]:
            return depth - int(number)
    return depth + 1


def freeze(model: VisionTransformer, parts: Sequence[str]) -> None:
    """Freezes parts of a model: their parameters get no gradient.

    Args:
        model: changed in place.
        parts: names of modules or parameters, such as "encoder.blocks.0"; "backbone" is all but the classifiers.

    Raises:
        InputError: there is no such part, or nothing is left to train.
    """
    names = dict(model.named_parameters())
    for part in parts:
        if part == BACKBONE:
            inside = [name for name in names if not name.startswith(CLASSIFIERS)]
        else:
            inside = [name for name in names if name == part or name.startswith(f"{part}.")]
        if not inside:
            known = [BACKBONE, *(name for name, _ in model.named_modules() if name), *names]
            raise unknown("part of the model to freeze", part, known)
        for name in inside:
            names[name].requires_grad_(False)
    if parts and not any(parameter.requires_grad for parameter in names.values()):
        raise InputError(f"frozen = {list(parts)} leaves nothing of the model to train", "freeze fewer parts")


def trained(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters that an optimizer moves, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


class FusedSGD(torch.optim.SGD):
    """SGD whose fused step takes shards too, each process its own part of them; torch's takes whole tensors alone."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Moves the parameters that have a gradient."""
        if not any(map(is_shard, trained(self))):
            super().step(closure)
            return
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            momenta = [self.state[parameter]["momentum_buffer"] for parameter in moved] if group["momentum"] else []
            torch._fused_sgd_(
                [*map(local, moved)],
                [local(parameter.grad) for parameter in moved],
                [*map(local, momenta)],
                **{
                    name: group[name]
                    for name in ("weight_decay", "momentum", "lr", "dampening", "nesterov", "maximize")
                },
                is_first_step=False,
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
            )


def make_optimizer(
    *modules: nn.Module,
    algorithm: Algorithm = "adamw",
    lr: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float = 0.9,
) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101), Adam (arXiv 1412.6980) or SGD with momentum, of the trainable parameters.

    AdamW's step takes lr · weight_decay off the matrices; the others add their decay to the gradients. All are fused:
    one pass over the weights, the fastest on every device, and able to skip a step (see step.py).

    Args:
        *modules: to train.
        algorithm: "adamw", "adam" or "sgd".
        lr: the learning rate, unless a schedule sets another.
        weight_decay: of the matrices.
        layer_decay: see `groups`; `train_step` applies it.
        betas: decay rates of Adam's two moments.
        eps: added to the root of Adam's second moment.
        momentum: the share of the last update that SGD keeps.
    """
    parts = groups(*modules, weight_decay=weight_decay, layer_decay=layer_decay)
    if algorithm != "sgd":
        make = torch.optim.AdamW if algorithm == "adamw" else torch.optim.Adam
        return make(parts, lr=lr, betas=betas, eps=eps, fused=True)
    optimizer = FusedSGD(parts, lr=lr, momentum=momentum, fused=True)
    # Made here and not at the first step: if that one is skipped, torch would leave them uninitialized.
    for group in optimizer.param_groups if momentum else ():
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
