import math

import numpy as np
import pytest
import torch

from vitreous.training.objectives.classification import CrossEntropy, balanced_weights


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


LOGITS = torch.tensor([[0.3, -1.2, 2.0], [1.0, 0.1, -0.4]])


def test_sigmoid_takes_each_class_by_itself():
    target = torch.tensor([[0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3], [0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]])
    yes = torch.sigmoid(LOGITS)
    expected = -(target * yes.log() + (1 - target) * (1 - yes).log()).sum()
    torch.testing.assert_close(CrossEntropy(0.1, "sigmoid")(LOGITS, torch.tensor([2, 0])), expected)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_shares_that_are_whole_are_class_numbers(loss, weights):
    objective = CrossEntropy(0.1, loss, weights)
    whole = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(objective(LOGITS, whole), objective(LOGITS, torch.tensor([2, 0])))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_the_loss_of_mixed_images_is_the_mix_of_the_losses(loss):
    objective = CrossEntropy(0.0, loss)
    first, second = (objective(LOGITS[:1], torch.tensor([label])) for label in (2, 0))
    torch.testing.assert_close(objective(LOGITS[:1], torch.tensor([[0.3, 0.0, 0.7]])), 0.7 * first + 0.3 * second)


def test_weights_scale_each_class_s_terms():
    doubled = CrossEntropy(0.0, "softmax", torch.tensor([2.0, 1.0, 1.0]))
    plain = CrossEntropy()
    torch.testing.assert_close(doubled(LOGITS[1:], torch.tensor([0])), 2 * plain(LOGITS[1:], torch.tensor([0])))
    torch.testing.assert_close(doubled(LOGITS[:1], torch.tensor([2])), plain(LOGITS[:1], torch.tensor([2])))


def test_balanced_weights_make_classes_count_alike():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = balanced_weights(labels, 3)
    torch.testing.assert_close(weights, torch.tensor([10 / 18, 10 / 9, 10 / 3]))
    assert weights[torch.from_numpy(labels)].mean().item() == pytest.approx(1)
