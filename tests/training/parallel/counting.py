"""What modules hold and save, counted without a GPU and without memory: tensors that have only shapes."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.testing._internal.distributed.fake_pg import FakeStore

from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.objectives.classification import Classification, CrossEntropy

OBJECTIVE = Classification(CrossEntropy())


def flash_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: None = None) -> Tensor:
    """The kernel that a GPU takes in 16 bits."""
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]


def efficient_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: None = None) -> Tensor:
    """The kernel that a GPU takes in float32."""
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)[0]


@contextmanager
def gpu(half: bool) -> Iterator[None]:
    """A GPU's choices: the kernel of attention and, in 16 bits, autocast, which torch refuses where there is no GPU."""
    kernel = mock.patch.object(F, "scaled_dot_product_attention", flash_attention if half else efficient_attention)
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    with kernel:
        torch.set_autocast_enabled("cuda", half)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        torch.autocast_increment_nesting()
        try:
            yield
        finally:
            if torch.autocast_decrement_nesting() == 0:
                torch.clear_autocast_cache()
            torch.set_autocast_enabled("cuda", before[0])
            torch.set_autocast_dtype("cuda", before[1])


def fake_model(config: ViTConfig, device: str, checkpointing: bool = False) -> VisionTransformer:
    """A model in training; inside FakeTensorMode."""
    undrawn = mock.patch("torch.nn.init._no_grad_trunc_normal_", lambda tensor, *args, **options: tensor)
    with torch.device(device), undrawn:
        model = VisionTransformer(config).train()
    model.encoder.checkpoint_activations = checkpointing
    return model


def fake_batch(config: ViTConfig, device: str, size: int) -> tuple[Tensor, Tensor]:
    """Images and labels; inside FakeTensorMode."""
    images = torch.empty(size, config.channels, *config.image_size, device=device)
    return images, torch.zeros(size, dtype=torch.int64, device=device)


def saved_on_gpu(config: ViTConfig, half: bool, checkpointing: bool = False) -> tuple[int, int]:
    """Bytes that a forward pass saves for the backward pass: for each image, and beside them for any batch."""
    few, many = (_saved(config, half, checkpointing, size) for size in (2, 6))
    return (many - few) // 4, few - 2 * (many - few) // 4


def _saved(config: ViTConfig, half: bool, checkpointing: bool, size: int) -> int:
    with FakeTensorMode():
        model = fake_model(config, "cuda", checkpointing)
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        saved: dict[int, torch.UntypedStorage] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                saved[storage._cdata] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), gpu(half):
            verdict = OBJECTIVE(model, *fake_batch(config, "cuda", size))
        del verdict
        return sum(storage.nbytes() for storage in saved.values())


def peak_bytes(
    config: ViTConfig, images: int, micro_batches: int, mesh: DeviceMesh | None = None, checkpointing: bool = False
) -> int:
    """The peak of an update in float32 on a CPU, after the first one; sharded over a mesh, if there is one."""
    with FakeTensorMode():
        model = fake_model(config, "cpu", checkpointing)
        if mesh is not None:
            sharded(model, mesh)
        optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
        tracker = MemTracker() if mesh is None else FSDPMemTracker(model, optimizer)
        if mesh is None:
            tracker.track_external(model, optimizer)
        batch = fake_batch(config, "cpu", images)
        with tracker:
            for _ in range(2):
                for number in range(micro_batches):
                    if mesh is not None:
                        model.set_requires_gradient_sync(number == micro_batches - 1)
                    OBJECTIVE(model, *batch).loss.backward()
                    tracker.reset_mod_stats()
                optimizer.step()
                optimizer.zero_grad()
        [device] = tracker.get_tracker_snapshot("peak").values()
        return device["Total"]


def sharded(model: VisionTransformer, mesh: DeviceMesh) -> nn.Module:
    """The model under FSDP2, one unit for each block and one for the rest."""
    for block in model.encoder.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


@contextmanager
def fake_ranks(ranks: int) -> Iterator[DeviceMesh]:
    """A process group in which this process is the first of so many, and nothing is sent."""
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        yield init_device_mesh("cpu", (ranks,))
    finally:
        torch.distributed.destroy_process_group()
