import copy
from functools import partial

import pytest
import torch

from tests.training.optimization.test_step import CONFIG, LABELS
from vitreous.model.initialization import fill_at_random
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.objectives.classification import Classification, CrossEntropy
from vitreous.training.optimization.memory import MicroBatch, largest_fit, parameter_bytes, saved_bytes
from vitreous.training.optimization.optimizer import make_optimizer
from vitreous.training.optimization.step import train_step


class Device(Classification):
    """A device that holds so many images at once, and fails in the middle of a batch."""

    def __init__(self, fits: int) -> None:
        super().__init__(CrossEntropy())
        self.fits = fits

    def forward(self, model, images, targets):
        if len(images) > self.fits:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(model, images, targets)


def test_the_micro_batch_halves_and_the_update_is_the_same():
    model = VisionTransformer(CONFIG)
    fill_at_random(model)
    other, images = copy.deepcopy(model), torch.randn(6, 3, 8, 8)
    lines = []
    micro_batch = MicroBatch(6, lines.append)
    optimizer = make_optimizer(model, lr=1e-2, weight_decay=0.1)
    fields = {"lr": 1e-2, "clip_norm": 1.0}
    step = partial(train_step, model, optimizer, Device(fits=2), images, LABELS, **fields)
    assert micro_batch.run(step, optimizer.zero_grad).count == 6
    assert micro_batch.size == 2
    assert len(lines) == 2
    assert "2 images at once" in lines[-1]
    micro_batch.run(step, optimizer.zero_grad)
    assert len(lines) == 2, "it starts with what fits"
    plain = make_optimizer(other, lr=1e-2, weight_decay=0.1)
    for _ in range(2):
        train_step(other, plain, Classification(CrossEntropy()), images, LABELS, **fields, micro_batch=2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_not_even_one_image_fits():
    model = VisionTransformer(CONFIG)
    optimizer = make_optimizer(model, lr=1e-2, weight_decay=0.1)
    images = torch.randn(6, 3, 8, 8)
    step = partial(train_step, model, optimizer, Device(fits=0), images, LABELS, lr=1e-2, clip_norm=1.0)
    with pytest.raises(InputError, match="one image of this size does not fit"):
        MicroBatch(6, print).run(step, optimizer.zero_grad)


@pytest.mark.parametrize(
    ("size", "kept", "weights", "free", "fits"),
    [
        (128, 1000, 0, None, 128),
        (128, 1000, 0, 10**9, 128),
        (128, 1000, 0, 128 * 1500 * 10 // 8, 128),
        (128, 1000, 0, 128 * 1500 * 10 // 8 - 10, 64),
        (128, 1000, 10**6, 5_060_000, 32),
        (100, 10**6, 0, 10**7, 4),
        (64, 10**9, 0, 10**6, 1),
        (64, 10, 10**9, 10**6, 1),
    ],
)
def test_as_many_images_as_fit(size: int, kept: int, weights: int, free: int | None, fits: int):
    assert largest_fit(size, kept, weights, free) == fits


def test_what_an_image_keeps_is_counted_and_nothing_is_drawn():
    model = VisionTransformer(CONFIG.replace(dropout=0.1)).train()
    objective = Classification(CrossEntropy())
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    few, many = (
        saved_bytes(
            model, objective, torch.randn(n, 3, 8, 8, generator=torch.Generator()), LABELS.repeat(9)[:n], "float32"
        )
        for n in (4, 32)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    tokens, width = 5, 16
    assert many > CONFIG.depth * 8 * tokens * width * 4, "at least eight tensors of all tokens for each block"
    assert many < CONFIG.depth * 40 * tokens * width * 4
    assert many == pytest.approx(few, rel=0.3), "an image's share hardly depends on the others"
    deeper = VisionTransformer(CONFIG.replace(depth=4)).train()
    assert saved_bytes(deeper, objective, torch.randn(32, 3, 8, 8), LABELS.repeat(9)[:32], "float32") > 1.5 * many
    assert parameter_bytes(model) == 4 * sum(parameter.numel() for parameter in model.parameters())


def test_a_cpu_out_of_memory_is_recognized_by_its_message():
    calls = []

    def step(micro_batch: int) -> int:
        calls.append(micro_batch)
        if micro_batch > 2:
            raise RuntimeError(
                "[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return micro_batch

    assert MicroBatch(8, lambda line: None).run(step) == 2
    assert calls == [8, 4, 2]
    with pytest.raises(RuntimeError, match="something else"):
        MicroBatch(8, print).run(lambda micro_batch: (_ for _ in ()).throw(RuntimeError("something else")))


def test_checkpointed_activations_keep_a_block_at_a_time():
    model = VisionTransformer(CONFIG.replace(depth=6)).train()
    objective = Classification(CrossEntropy())
    images, labels = torch.randn(8, 3, 8, 8), LABELS.repeat(2)[:8]
    whole = saved_bytes(model, objective, images, labels, "float32")
    model.encoder.checkpoint_activations = True
    kept = saved_bytes(model, objective, images, labels, "float32")
    assert model.encoder.checkpoint_activations
    assert whole / 6 < kept < whole / 2
