"""Shards of a model: each process has a part of every tensor (FSDP2, arXiv 2304.11277)."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from vitreous.model.encoder import EncoderBlock
from vitreous.training.parallel.passes import Several, Together

Result = TypeVar("Result")


class Shards(Several):
    """Passes that gather a block's weights only while it runs; gradients are averaged into shards.

    Args:
        modules: that are trained; they become shards.
        device: of this process.
        precision: of gathered weights; None for float32. Shards and sums of gradients have float32.
    """

    in_shards = True

    def __init__(self, *modules: nn.Module, device: torch.device, precision: torch.dtype | None) -> None:
        super().__init__()
        self.device = device
        self.mesh = init_device_mesh(device.type, (self.size,))
        self.policy = MixedPrecisionPolicy(precision, torch.float32, cast_forward_inputs=False)
        # A module without parameters is whole anyway, and may have another model inside.
        self.wholes = [_outline(module) if _learns(module) else None for module in modules]
        self.together = self.shard(*modules)

    def shard(self, *modules: nn.Module) -> Together:
        """Turns modules into shards, each block for itself; what is in no block stays gathered during a pass."""
        together = Together(*modules)
        for block in together.modules():
            if isinstance(block, EncoderBlock):
                fully_shard(block, mesh=self.mesh, mp_policy=self.policy)
        fully_shard(together, mesh=self.mesh, mp_policy=self.policy)
        return together

    def __call__(self, function: Callable[..., Result], *inputs: Any) -> Result:
        return self.together(function, *inputs)

    def accumulating(self, is_last: bool) -> AbstractContextManager[object]:
        assert isinstance(self.together, FSDPModule)
        self.together.set_requires_gradient_sync(is_last)
        return nullcontext()

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        norm = super().norm(gradients)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    @torch.no_grad()
    def gathered(self, *modules: nn.Module) -> list[nn.Module]:
        """Whole copies of modules of the same kinds, on this process's device."""
        pairs = zip(self.wholes, modules, strict=True)
        return [module if whole is None else self._fill(whole, module) for whole, module in pairs]

    def _fill(self, whole: nn.Module, module: nn.Module) -> nn.Module:
        """A copy of `whole`, with the tensors of a sharded module."""
        whole = deepcopy(whole).to_empty(device=self.device)
        shards = dict(chain(module.named_parameters(), module.named_buffers()))
        for name, tensor in chain(whole.named_parameters(), whole.named_buffers()):
            shard = shards[name]
            tensor.copy_(shard.full_tensor() if isinstance(shard, DTensor) else shard)
        return whole


def _outline(module: nn.Module) -> nn.Module:
    """A copy of a module whose tensors have no memory."""
    tensors = chain(module.parameters(), module.buffers())
    return deepcopy(module, {id(tensor): _on_meta(tensor) for tensor in tensors})


def _on_meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _learns(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
