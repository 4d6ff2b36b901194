"""Replicas of a model: each process has all of it, and they average their gradients (DDP)."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vitreous.training.parallel.passes import Several, Together

Result = TypeVar("Result")


class Replicas(Several):
    """Passes through a replica; gradients are averaged in buckets, while others are still computed.

    Args:
        modules: that are trained, on this process's device; the first process's weights replace those of the others.
        has_unused: whether some parameters get no gradient.
    """

    def __init__(self, *modules: nn.Module, has_unused: bool) -> None:
        super().__init__()
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")  # of single images
        self.replica = DistributedDataParallel(
            Together(*modules),
            gradient_as_bucket_view=True,
            find_unused_parameters=has_unused,
        )

    def __call__(self, function: Callable[..., Result], *inputs: Any) -> Result:
        return self.replica(function, *inputs)

    def accumulating(self, is_last: bool) -> AbstractContextManager[object]:
        return nullcontext() if is_last else self.replica.no_sync()
