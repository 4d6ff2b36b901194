"""How batches go through a model: here in one process; replicas.py and shards.py are for several."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Result = TypeVar("Result")


class Together(nn.Module):
    """The modules that are trained, as one: any function of them runs inside its forward, and so inside its hooks."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.trained = nn.ModuleList(modules)

    def forward(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """Calls the function with the inputs."""
        return function(*inputs)


class Passes:
    """How a function of the trained modules runs, forward and backward; here in one process.

    Attributes:
        size: processes that share each batch, whose gradients are averaged.
        in_shards: whether each process has a part of every tensor.
    """

    size = 1
    in_shards = False

    def __call__(self, function: Callable[..., Result], *inputs: Any) -> Result:
        """What the function of the modules returns for the inputs, and through which their gradients will flow."""
        return function(*inputs)

    def accumulating(self, is_last: bool) -> AbstractContextManager[object]:
        """Around the forward and backward pass of a micro-batch: only those of the last one exchange gradients."""
        return nullcontext()

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """The norm of all gradients of all processes together."""
        return nn.utils.get_total_norm(gradients)

    def total(self, *sums: Tensor) -> tuple[Tensor, ...]:
        """The sums over the processes."""
        return sums

    def gathered(self, *modules: nn.Module) -> list[nn.Module]:
        """Whole copies of modules that are in shards."""
        return [*modules]


class Several(Passes):
    """Passes of several processes, on the default process group."""

    def __init__(self) -> None:
        self.size = dist.get_world_size()

    def total(self, *sums: Tensor) -> tuple[Tensor, ...]:
        everything = torch.stack(sums)
        dist.all_reduce(everything)
        return everything.unbind()


ONE_PROCESS = Passes()


def is_shard(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether a tensor is one process's part of a larger one; does not import what makes them, which takes a second."""
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(tensor, tensors.DTensor)


def local(tensor: Tensor) -> Tensor:
    """What this process has of a tensor."""
    return tensor.to_local() if is_shard(tensor) else tensor
