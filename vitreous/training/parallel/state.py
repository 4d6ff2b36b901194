"""Tensors that several processes have together: written and read in parts, for any number of processes."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from vitreous.support.errors import InputError
from vitreous.training.parallel.passes import is_shard

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


class Stored(NamedTuple):
    """A tensor of a checkpoint whose parts are in several files.

    Args:
        folder: of the files.
        name: of the tensor.
    """

    folder: Path
    name: str


def writers() -> dist.ProcessGroup:
    """All processes, on the host, as a group that writes while training uses the others; all call it together."""
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup)
    return group


def save_shards(folder: Path, shards: dict[str, Tensor], group: dist.ProcessGroup) -> None:
    """Writes what this process has of each tensor, as safetensors, and flushes it; all processes call it.

    Args:
        folder: new, or empty.
        shards: by name; in the host's memory.
        group: of `writers`.

    Raises:
        CheckpointException: a process cannot write.
    """
    from torch.distributed import checkpoint

    writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    checkpoint.save(dict(shards), storage_writer=writer, process_group=group)


def host_copy(shard: "DTensor") -> "DTensor":
    """A copy of a shard in the host's memory."""
    from torch.distributed.tensor import DTensor

    mesh = shard.device_mesh
    if mesh.device_type != "cpu":
        mesh = _host_mesh(dist.group.WORLD)
    part = shard.to_local().detach()
    part = part.clone() if part.device.type == "cpu" else part.cpu()
    return DTensor.from_local(part, mesh, shard.placements, run_check=False, shape=shard.shape, stride=shard.stride())


@lru_cache(maxsize=1)
def _host_mesh(group: dist.ProcessGroup) -> "DeviceMesh":
    """All processes of a group, on the host."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", (group.size(),))


def placed(state: Any, like: Any) -> Any:
    """A state whose tensors are spread over the processes as others are, whatever they were when they were saved.

    Args:
        state: of tensors, whole or stored in parts; other values stay.
        like: the tensors at the same places, or one tensor for all at a place and inside it.
    """
    stored: dict[Stored, Tensor] = {}
    state = _placed(state, like, stored)
    by_folder: dict[Path, dict[str, Tensor]] = {}
    for (folder, name), tensor in stored.items():
        by_folder.setdefault(folder, {})[name] = tensor
    for folder, tensors in by_folder.items():
        _load_shards(folder, tensors)
    return state


def _placed(value: Any, like: Any, stored: dict[Stored, Tensor]) -> Any:
    if isinstance(value, Stored):
        assert isinstance(like, Tensor), f"there is no tensor like {value.name!r}"
        stored[value] = torch.empty_like(like, requires_grad=False)
        return stored[value]
    if isinstance(value, dict):
        return {
            key: _placed(item, like.get(key) if isinstance(like, dict) else like, stored) for key, item in value.items()
        }
    if isinstance(value, Tensor) and isinstance(like, Tensor) and is_shard(like) and value.shape == like.shape:
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(like, DTensor)
        mesh = like.device_mesh
        return distribute_tensor(value.to(mesh.device_type), mesh, like.placements, src_data_rank=None)
    return value


def _load_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Reads tensors from their parts, in place."""
    from torch.distributed import checkpoint

    reader = checkpoint.HuggingFaceStorageReader(str(folder))
    try:
        checkpoint.load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())
    except checkpoint.CheckpointException as error:
        reasons = [str(failure).partition("\n")[0] for failure, _ in error.failures.values()]
        cause = f"cannot read {str(folder)!r}: {reasons[0] if reasons else error}"
        raise InputError(cause, "check the disk, or remove this checkpoint to take an older one") from error
