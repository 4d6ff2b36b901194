import copy
from functools import partial

import pytest
import torch

from tests.training.test_step import CONFIG, LABELS
from vitreous.model.initialization import fill_at_random
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.memory import MicroBatch
from vitreous.training.objective import Classification, CrossEntropy
from vitreous.training.optimizer import adamw
from vitreous.training.step import train_step


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
    said = []
    micro_batch = MicroBatch(6, said.append)
    optimizer = adamw(model, lr=1e-2, weight_decay=0.1)
    fields = {"lr": 1e-2, "clip_norm": 1.0}
    step = partial(train_step, model, optimizer, Device(fits=2), images, LABELS, **fields)
    assert micro_batch.run(step, optimizer.zero_grad).count == 6
    assert micro_batch.size == 2
    assert len(said) == 2
    assert "2 images at once" in said[-1]
    micro_batch.run(step, optimizer.zero_grad)
    assert len(said) == 2, "it starts with what fitted"
    plain = adamw(other, lr=1e-2, weight_decay=0.1)
    for _ in range(2):
        train_step(other, plain, Classification(CrossEntropy()), images, LABELS, **fields, micro_batch=2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_not_even_one_image_fits():
    model = VisionTransformer(CONFIG)
    optimizer = adamw(model, lr=1e-2, weight_decay=0.1)
    images = torch.randn(6, 3, 8, 8)
    step = partial(train_step, model, optimizer, Device(fits=0), images, LABELS, lr=1e-2, clip_norm=1.0)
    with pytest.raises(InputError, match="one image of this size does not fit"):
        MicroBatch(6, print).run(step, optimizer.zero_grad)
