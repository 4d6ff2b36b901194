"""Mistakes in single layers: activation, eps, a transposed weight, a missing bias, a softmax at the end."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from vitreous.inspection.comparison.mistakes.mistake import Mistake, Modules, assigned, each, first_of, last_name, put
from vitreous.model.head import Head
from vitreous.model.mlp import QuickGELU

ACTIVATIONS = {
    "the exact GELU": (nn.GELU, "nn.GELU()"),
    "the tanh approximation of GELU": (partial(nn.GELU, approximate="tanh"), 'nn.GELU(approximate="tanh")'),
    "the quick GELU, x · sigmoid(1.702 x)": (QuickGELU, "x * torch.sigmoid(1.702 * x)"),
    "ReLU": (nn.ReLU, "nn.ReLU()"),
    "no activation": (nn.Identity, "nn.Identity()"),
}
GELUS = (nn.GELU, QuickGELU)
EPSILONS = (1e-5, 1e-6, 1e-12, 1e-3)


def activation_name(module: nn.Module) -> str:
    """The key of ACTIVATIONS for a GELU."""
    exact, tanh, quick, *_ = ACTIVATIONS
    if isinstance(module, QuickGELU):
        return quick
    return tanh if isinstance(module, nn.GELU) and module.approximate == "tanh" else exact


def activations(modules: Modules) -> Iterator[Mistake]:
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
    """Replaces every GELU."""
    places = [(m, name) for _, m in modules for name, child in m.named_children() if isinstance(child, GELUS)]
    for module, name in places:
        setattr(module, name, build().eval())
    return bool(places)


def epsilons(modules: Modules) -> Iterator[Mistake]:
    """Another eps in the norms."""
    if (known := first_of(nn.LayerNorm, modules) or first_of(nn.RMSNorm, modules)) is None or known.eps is None:
        return
    kind = type(known)
    name = "layer norms" if kind is nn.LayerNorm else "RMS norms"
    for eps in EPSILONS:
        if not math.isclose(eps, known.eps):
            default = "PyTorch's default is 1e-05: write" if kind is nn.LayerNorm else "Write"
            hint = f"{default} nn.{kind.__name__}(width, eps={known.eps:g})"
            change = assigned(kind, eps=eps)
            yield Mistake(f"has eps = {eps:g} in its {name}", f"has {known.eps:g}", hint, change)


def transposed(modules: Modules) -> Iterator[Mistake]:
    """A square weight read as (in, out) instead of (out, in); of a joint qkv, each part."""
    hint = "PyTorch stores (out, in), JAX (in, out): transpose the kernel when you copy it"
    linear = [(last_name(path), m) for path, m in modules if isinstance(m, nn.Linear) and path]
    for parts in (1, 3):
        for name in dict.fromkeys(name for name, m in linear if m.out_features == parts * m.in_features):
            change = each(nn.Linear, partial(transpose, parts=parts), name)
            yield Mistake(f"has the weight of {name} transposed", "has (out, in)", hint, change)


def transpose(layer: nn.Linear, parts: int) -> None:
    """Transposes each square part of a weight."""
    put(layer, "weight", torch.cat([part.mT for part in layer.weight.chunk(parts)]))


def biases(modules: Modules) -> Iterator[Mistake]:
    """Layers and norms without their bias."""
    layers = (nn.Linear, nn.Conv2d, nn.LayerNorm)
    biased = [last_name(path) for path, m in modules if isinstance(m, layers) and m.bias is not None and path]
    for name in dict.fromkeys(biased):
        change = each(layers, remove_bias, name)
        yield Mistake(f"has no bias in {name}", "has one", f"Give {name} bias=True, and copy it", change)


def remove_bias(layer: nn.Module) -> None:
    """Sets the bias to zero."""
    if isinstance(layer.bias, Tensor):
        put(layer, "bias", torch.zeros_like(layer.bias))


def outputs(modules: Modules) -> Iterator[Mistake]:
    """A softmax on the logits."""
    head = first_of(Head, modules)
    if head is None or head.classifier is None or head.distillation is not None:
        return
    hint = "Return the logits; the loss takes the softmax itself"
    yield Mistake("returns the softmax of the logits", "returns the logits", hint, each(Head, append_softmax))


def append_softmax(head: Head) -> None:
    """Puts a softmax after the classifier."""
    assert head.classifier is not None
    head.register_module("classifier", nn.Sequential(head.classifier, nn.Softmax(-1)))
