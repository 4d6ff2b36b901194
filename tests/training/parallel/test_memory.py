"""The formulas of memory against counts of real modules, of which most have shapes and no memory."""

import math

import pytest
import torch

from docs.scale_tables import shape_of
from tests.training.parallel.counting import OBJECTIVE, fake_ranks, peak_bytes, saved_on_gpu, sharded
from vitreous.model.config import ViTConfig
from vitreous.model.cost import on_meta, parameter_count
from vitreous.model.variants import HYBRIDS, NAMES, variant
from vitreous.model.vit import VisionTransformer
from vitreous.training.optimization.averaging import WeightAverage
from vitreous.training.optimization.memory import saved_bytes
from vitreous.training.optimization.optimizer import groups, make_optimizer
from vitreous.training.parallel.memory import (
    HALF,
    activation_bytes,
    block_bytes,
    device_memory,
    fits_replicated,
    state_bytes,
)

PLAIN = [name for name in NAMES if name not in HYBRIDS]
DOCUMENTED = ("B/16", "L/16", "g/14")
OTHERS = {
    "pre-training": variant("B/16", hidden_dim=768, num_classes=21843, dropout=0.1),
    "mean": variant("S/32", pooling="mean"),
    "no prefix": variant("B/16", image_size=384, class_token=False, pooling="mean"),
    "small": variant("Ti/16", image_size=64, depth=3, num_classes=10),
}
CONFIGS = {name: variant(name) for name in DOCUMENTED} | OTHERS
configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@pytest.mark.parametrize("name", PLAIN)
def test_parameters(name: str):
    assert shape_of(variant(name)).parameters == parameter_count(variant(name))


@configs
def test_parameters_of_a_block_and_beside_them(config: ViTConfig):
    model, shape = on_meta(config), shape_of(config)
    assert shape.block_parameters == sum(p.numel() for p in model.encoder.blocks[0].parameters())
    assert shape.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", DOCUMENTED)
def test_adamw_keeps_two_moments(name: str):
    model, config = on_meta(variant(name)), variant(name)
    optimizer = torch.optim.AdamW(groups(model, weight_decay=0.1), lr=1e-3, foreach=False)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    memory = device_memory("ddp", 1, shape_of(config), 0)
    assert memory.moments == bytes_of(optimizer)
    assert memory.gradients == sum(parameter.grad.nbytes for parameter in model.parameters())


@pytest.mark.parametrize(("algorithm", "moments"), [("adamw", 2), ("adam", 2), ("sgd", 1)])
def test_the_optimizers_of_a_run(algorithm: str, moments: int):
    config = CONFIGS["small"]
    model = VisionTransformer(config)
    optimizer = make_optimizer(model, algorithm=algorithm, lr=1e-3, weight_decay=0.1)
    OBJECTIVE(model, torch.zeros(2, 3, 64, 64), torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    assert device_memory("ddp", 1, shape_of(config), 0, moments=moments).moments == bytes_of(optimizer)


def bytes_of(optimizer: torch.optim.Optimizer) -> int:
    """What an optimizer keeps of the size of a parameter; the number of its steps is not counted."""
    return sum(
        value.nbytes
        for parameter, state in optimizer.state.items()
        for value in state.values()
        if value.shape == parameter.shape
    )


def test_the_average_is_one_more_copy():
    model = on_meta(variant("B/16"))
    average = WeightAverage(model, 0.999, OBJECTIVE)
    assert device_memory("ddp", 1, shape_of(variant("B/16")), 0, average=True).average == sum(
        parameter.nbytes for parameter in average.parameters()
    )


@configs
@pytest.mark.parametrize("half", [False, True], ids=["float32", "16 bits"])
def test_activations_on_a_gpu(config: ViTConfig, half: bool):
    """Within 0.2 %: kernels pad a few numbers of an image."""
    shape, dropout = shape_of(config), config.dropout > 0
    each, once = saved_on_gpu(config, half)
    assert activation_bytes(shape, half=half, dropout=dropout) == pytest.approx(each, rel=2e-3)
    copies = device_memory("ddp", 1, shape, 0, half=half).copies
    assert 0.85 * copies <= once <= copies + 1000
    each, _ = saved_on_gpu(config, half, checkpointing=True)
    each += block_bytes(shape, shape.tokens, half, dropout)  # the one that is computed again
    assert activation_bytes(shape, half=half, dropout=dropout, checkpointing=True) == pytest.approx(each, rel=2e-3)


@pytest.mark.parametrize(("name", "size"), [("Ti/16", 96), ("S/32", 224), ("mu/16", 224)])
def test_activations_as_a_run_measures_them(name: str, size: int):
    config = variant(name, image_size=size, depth=12, num_classes=10)
    model, shape = VisionTransformer(config).train(), shape_of(config)
    batch = torch.zeros(4, 3, size, size), torch.zeros(4, dtype=torch.int64)
    measured = saved_bytes(model, OBJECTIVE, *batch, "float32")
    assert activation_bytes(shape, half=False) == pytest.approx(measured, rel=0.002)
    model.encoder.checkpoint_activations = True
    measured = saved_bytes(model, OBJECTIVE, *batch, "float32")
    assert activation_bytes(shape, half=False, checkpointing=True) == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize(("name", "images"), [("Ti/16", 16), ("S/32", 16), ("B/32", 2)])
def test_the_peak_of_a_replica(name: str, images: int):
    """With whole gradients, which DDP and micro-batches have."""
    config = variant(name)
    memory = device_memory("ddp", 2, shape_of(config), images, half=False)
    counted = peak_bytes(config, images, micro_batches=2)
    assert memory.total == pytest.approx(counted, rel=0.03)


def test_the_peak_with_activation_checkpointing():
    config = variant("B/16", depth=6)
    memory = device_memory("ddp", 2, shape_of(config), 16, half=False, checkpointing=True)
    assert memory.total == pytest.approx(peak_bytes(config, 16, 2, checkpointing=True), rel=0.05)


@pytest.mark.parametrize("ranks", [8, 64])
def test_a_shard_is_what_the_first_rank_has(ranks: int):
    """To the byte, if every first axis can be divided."""
    config = variant("B/16")
    with fake_ranks(ranks) as mesh:
        model = sharded(on_meta(config), mesh)
        shard = sum(parameter.to_local().nbytes for parameter in model.parameters())
    uneven = [p for p in model.parameters() if p.shape[0] > 1 and p.shape[0] % ranks]  # 1,000 classes on 64 ranks
    padding = 4 * sum(math.prod(p.shape[1:]) for p in uneven)
    assert bool(padding) == (ranks == 64)
    memory = device_memory("fsdp", ranks, shape_of(config), 0)
    assert shard - padding <= memory.weights <= shard
    assert memory.gradients == memory.weights
    assert memory.moments == 2 * memory.weights


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_peak_of_a_shard(micro_batches: int):
    """The formula also has the next block on its way, which the count lacks."""
    config = variant("B/16", depth=6)
    with fake_ranks(8) as mesh:
        counted = peak_bytes(config, 16, micro_batches, mesh)
    memory = device_memory("fsdp", 8, shape_of(config), 16, half=False, accumulating=micro_batches > 1)
    assert counted <= memory.total <= 1.1 * counted


def test_evaluation_holds_a_copy_when_activations_are_gone():
    shape = shape_of(variant("g/14"))
    training, larger = (device_memory("fsdp", 64, shape, images) for images in (0, 64))
    assert training.total == training.state + 4 * shape.parameters
    assert larger.total == larger.state + larger.buffers + larger.activations


def test_the_state_of_a_replica():
    assert state_bytes(10) == 160
    assert state_bytes(10, moments=1) == 120
    assert state_bytes(10, moments=0, average=True) == 120
    shape = shape_of(variant("L/16"))
    memory = device_memory("ddp", 8, shape, 32, average=True)
    assert memory.state == state_bytes(shape.parameters, average=True)
    assert memory.copies == HALF * shape.parameters
    assert device_memory("ddp", 8, shape, 32, half=False).copies == 0


def test_a_replica_fits_if_half_the_device_stays_free():
    assert fits_replicated(40, 80)
    assert not fits_replicated(41, 80)
    gigabytes = 10**9
    b, g = (state_bytes(parameter_count(variant(name))) for name in ("B/16", "g/14"))
    assert fits_replicated(b, 8 * gigabytes)
    assert not fits_replicated(g, 24 * gigabytes)
    assert fits_replicated(g, 80 * gigabytes)
