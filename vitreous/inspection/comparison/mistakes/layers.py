"""Mistakes in the plain layers: activation, eps, a weight the wrong way round, a bias left away."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitreous.inspection.comparison.mistakes.mistake import (
    Change,
    Mistake,
    Modules,
    assigned,
    each,
    first_of,
    last_names,
    put,
)
from vitreous.model.head import Head
from vitreous.model.mlp import QuickGELU

ACTIVATIONS = {
    "the exact GELU": (nn.GELU, "nn.GELU()"),
    "the tanh approximation of GELU": (partial(nn.GELU, approximate="tanh"), 'nn.GELU(approximate="tanh")'),
    "the quick GELU, x · sigmoid(1.702 x)": (QuickGELU, "x * torch.sigmoid(1.702 * x)"),
    "ReLU": (nn.ReLU, "nn.ReLU()"),
    "SiLU": (nn.SiLU, "nn.SiLU()"),
    "no activation": (nn.Identity, "nn.Identity()"),
}
GELUS = (nn.GELU, QuickGELU)


def activation_name(module: nn.Module) -> str:
    """The key of ACTIVATIONS that a GELU is."""
    if isinstance(module, QuickGELU):
        return "the quick GELU, x · sigmoid(1.702 x)"
    approximate = isinstance(module, nn.GELU) and module.approximate == "tanh"
    return "the tanh approximation of GELU" if approximate else "the exact GELU"


def gelus(modules: Modules) -> Iterator[Mistake]:
    """Another activation in the MLP."""
    known = first_of(nn.GELU, modules) or first_of(QuickGELU, modules)
    if known is None:
        return
    has = activation_name(known)
    for name, (build, _) in ACTIVATIONS.items():
        if name != has:
            change = partial(replace_activations, build=build)
            yield Mistake(f"uses {name} in the MLP", f"uses {has}", f"Use {ACTIVATIONS[has][1]}", change)


def replace_activations(modules: Modules, build: Callable[[], nn.Module]) -> bool:
    """Puts another activation in the place of every GELU."""
    places = [(m, name) for _, m in modules for name, child in m.named_children() if isinstance(child, GELUS)]
    for module, name in places:
        setattr(module, name, build().eval())
    return bool(places)


def epsilons(modules: Modules) -> Iterator[Mistake]:
    """Another eps in the norms."""
    known = first_of(nn.LayerNorm, modules)
    if known is None:
        return
    for eps in (1e-5, 1e-6, 1e-12, 1e-8, 1e-3, 0.0):
        if not math.isclose(eps, known.eps):
            change = assigned(nn.LayerNorm, eps=eps)
            hint = f"PyTorch's default is 1e-05: write nn.LayerNorm(width, eps={known.eps:g})"
            yield Mistake(f"has eps = {eps:g} in its layer norms", f"has {known.eps:g}", hint, change)


def transposed(modules: Modules) -> Iterator[Mistake]:
    """A square weight that was read as (in, out) instead of (out, in)."""
    square = [(p, m) for p, m in modules if isinstance(m, nn.Linear) and m.in_features == m.out_features]
    joint = [(p, m) for p, m in modules if isinstance(m, nn.Linear) and m.out_features == 3 * m.in_features]
    for found, parts in ((square, 1), (joint, 3)):
        for name in last_names(found, nn.Linear):
            says = f"has the weight of {name} transposed"
            hint = "PyTorch stores (out, in), JAX (in, out): transpose the kernel when you copy it"
            yield Mistake(says, "has (out, in)", hint, named_layers(name, partial(transpose, parts=parts)))


def transpose(layer: nn.Linear, parts: int) -> None:
    """Transposes each square part of a weight."""
    put(layer, "weight", torch.cat([part.mT for part in layer.weight.chunk(parts)]))


def without(modules: Modules) -> Iterator[Mistake]:
    """Layers without their bias, norms without their scale and shift."""
    layers = (nn.Linear, nn.Conv2d, nn.LayerNorm)
    biased = [(path, m) for path, m in modules if isinstance(m, layers) and m.bias is not None]
    for name in last_names(biased, layers):
        change = named_layers(name, unbias)
        yield Mistake(f"has no bias in {name}", "has one", f"Give {name} bias=True, and copy it", change)
    for name in last_names(modules, nn.LayerNorm):
        says = f"has no learned scale and shift in {name}"
        change = named_layers(name, plain_norm)
        yield Mistake(says, "has both", "Leave elementwise_affine on, and copy weight and bias", change)


def unbias(layer: nn.Module) -> None:
    """Takes the bias away."""
    if isinstance(layer.bias, Tensor):
        put(layer, "bias", torch.zeros_like(layer.bias))


def plain_norm(norm: nn.Module) -> None:
    """Takes scale and shift away."""
    if isinstance(norm, nn.LayerNorm) and norm.elementwise_affine:
        put(norm, "weight", torch.ones_like(norm.weight))
        put(norm, "bias", torch.zeros_like(norm.bias))


def named_layers(name: str, change: Callable[[Any], None]) -> Change:
    """A change of the layers whose attribute name it is."""

    def apply(modules: Modules) -> bool:
        layers = (nn.Linear, nn.Conv2d, nn.LayerNorm)
        found = [m for path, m in modules if path.rpartition(".")[2] == name and isinstance(m, layers)]
        for module in found:
            change(module)
        return bool(found)

    return apply


def outputs(modules: Modules) -> Iterator[Mistake]:
    """Something done to the logits."""
    head = first_of(Head, modules)
    if head is None or head.classifier is None or head.distillation is not None:
        return
    for says, layer in (("softmax", nn.Softmax(-1)), ("log-softmax", nn.LogSoftmax(-1)), ("sigmoid", nn.Sigmoid())):
        change = each(Head, partial(append, layer=layer))
        hint = "Return the logits; the loss takes the softmax itself"
        yield Mistake(f"returns the {says} of the logits", "returns the logits", hint, change)
    if head.hidden is not None:
        change = assigned(Head, hidden=nn.Identity())
        if head.hidden.in_features == head.hidden.out_features:
            yield Mistake("has no hidden layer in its head", "has one", "Add tanh(hidden(y))", change)


def append(head: Head, layer: nn.Module) -> None:
    """Puts a layer behind the classifier."""
    assert head.classifier is not None
    head.register_module("classifier", nn.Sequential(head.classifier, layer))
