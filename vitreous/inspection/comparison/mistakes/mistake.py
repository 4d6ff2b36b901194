"""A mistake: a change to a model that may explain how another one differs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Modules = Sequence[tuple[str, nn.Module]]  # those to change, with their paths
Change = Callable[[Modules], bool]  # returns whether it applied to any of them


@dataclass(frozen=True)
class Mistake:
    """One thing that is easily done wrong.

    Attributes:
        wrong: what a model with the mistake does: "Yours <wrong>, …".
        right: what a model without it does: "… where the reference <right>".
        hint: what to write instead.
        change: makes the mistake in a copy.
        inside: name of the module that makes it, such as "attention", where all its parts may be equal.
    """

    wrong: str
    right: str
    hint: str
    change: Change
    inside: str = ""


def copy_sharing_weights(module: nn.Module, copied: dict[nn.Module, nn.Module] | None = None) -> nn.Module:
    """Copies the modules but not the tensors, so copying is instant.

    Args:
        module: the root of what to copy.
        copied: copies made so far, by original, so that a shared module stays shared.
    """
    copied = {} if copied is None else copied
    if module not in copied:
        twin = copied[module] = object.__new__(type(module))
        twin.__dict__ = {k: v.copy() if isinstance(v, dict) else v for k, v in vars(module).items()}
        for name, child in twin._modules.items():
            twin._modules[name] = None if child is None else copy_sharing_weights(child, copied)
    return copied[module]


def each(kind: type | tuple[type, ...], change: Callable[[Any], object], name: str = "") -> Change:
    """A change of every module of a class; with `name` only of those with this attribute name, such as "fc1"."""

    def apply(modules: Modules) -> bool:
        matching = [m for path, m in modules if isinstance(m, kind) and (not name or last_name(path) == name)]
        for module in matching:
            change(module)
        return bool(matching)

    return apply


def together(*changes: Change) -> Change:
    """Several changes at once."""

    def apply(modules: Modules) -> bool:
        return all(change(modules) for change in changes)

    return apply


def assigned(kind: type, **values: Any) -> Change:
    """Sets attributes of every module of a class."""

    def assign(module: nn.Module) -> None:
        for name, value in values.items():
            setattr(module, name, value)

    return each(kind, assign)


def first_of(kind: type, modules: Modules) -> Any:
    """The first module of a class, or None."""
    return next((module for _, module in modules if isinstance(module, kind)), None)


def put(layer: nn.Module, name: str, tensor: Tensor) -> None:
    """Gives a copy a parameter of its own."""
    setattr(layer, name, nn.Parameter(tensor.detach().clone(), requires_grad=False))


def last_name(path: str) -> str:
    """The attribute name at the end of a path."""
    return path.rpartition(".")[2]
