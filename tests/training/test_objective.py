import math

import pytest
import torch

from vitreous.training.objective import CrossEntropy


def test_is_the_sum_over_the_batch():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]))
    loss = CrossEntropy()(logits, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(math.log(2) + math.log(5))


def test_smoothing_gives_every_class_a_share():
    probabilities = torch.tensor([[0.5, 0.3, 0.2]])
    target = torch.tensor([[0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]])
    loss = CrossEntropy(0.1)(probabilities.log(), torch.tensor([0]))
    torch.testing.assert_close(loss, -(target * probabilities.log()).sum())


def test_is_computed_in_float32():
    logits = torch.randn(4, 3, dtype=torch.bfloat16)
    assert CrossEntropy()(logits, torch.zeros(4, dtype=torch.int64)).dtype == torch.float32
