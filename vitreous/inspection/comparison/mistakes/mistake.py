"""A mistake: a change of a known model that may explain another one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Modules = Sequence[tuple[str, nn.Module]]  # those that may be changed, with their paths
Change = Callable[[Modules], bool]


@dataclass(frozen=True)
class Mistake:
    """What one model may do otherwise than another, and how to find out.

    Attributes:
        says: what a model with the mistake does, after "yours".
        does: what the model without it does, after "the reference".
        hint: what to write instead.
        change: makes the mistake in a copy; tells whether there was anything to change.
    """

    says: str
    does: str
    hint: str
    change: Change


def copy_sharing_weights(module: nn.Module, copied: dict[nn.Module, nn.Module] | None = None) -> nn.Module:
    """Copies the modules but not the tensors, so that even a large model is copied at once.

    Args:
        module: what to copy, with all below it.
        copied: the copies there are, by original, so that a shared module stays one.
    """
    copied = {} if copied is None else copied
    if module not in copied:
        twin = copied[module] = object.__new__(type(module))
        twin.__dict__ = {k: v.copy() if isinstance(v, dict) else v for k, v in vars(module).items()}
        for name, child in twin._modules.items():
            twin._modules[name] = None if child is None else copy_sharing_weights(child, copied)
    return copied[module]


def each(kind: type | tuple[type, ...], change: Callable[[Any], object]) -> Change:
    """A change of all modules of some class."""

    def apply(modules: Modules) -> bool:
        found = [module for _, module in modules if isinstance(module, kind)]
        for module in found:
            change(module)
        return bool(found)

    return apply


def together(*changes: Change) -> Change:
    """Several changes at once."""

    def apply(modules: Modules) -> bool:
        return all(change(modules) for change in changes)

    return apply


def assigned(kind: type, **values: Any) -> Change:
    """Sets attributes of all modules of some class."""

    def assign(module: nn.Module) -> None:
        for name, value in values.items():
            setattr(module, name, value)

    return each(kind, assign)


def first_of(kind: type, modules: Modules) -> Any:
    """The first module of a class, None if there is none."""
    return next((module for _, module in modules if isinstance(module, kind)), None)


def put(layer: nn.Module, name: str, tensor: Tensor) -> None:
    """Gives a copy a parameter of its own."""
    setattr(layer, name, nn.Parameter(tensor.detach().clone(), requires_grad=False))


def last_names(modules: Modules, kind: type | tuple[type, ...]) -> Sequence[str]:
    """The attribute names of the modules of some class: qkv, out, fc1."""
    return list(dict.fromkeys(path.rpartition(".")[2] for path, m in modules if isinstance(m, kind) and path))
