from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.model.models import SWITCHES, images_for, small_model
from vitreous.explain.attention_maps import readout
from vitreous.explain.rollout import attention_rollout, roll


def test_three_tokens_by_hand():
    """Two blocks of two heads; every number is worked out here in fractions."""
    first_head = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    other_head = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    half = Fraction(1, 2)
    # Block 0: the mean of the heads is ½ on the diagonal and ½ beside it; with the skip ¾ and ¼.
    first = [[3 * half / 2, half / 2, 0], [0, 3 * half / 2, half / 2], [half / 2, 0, 3 * half / 2]]
    # Block 1: both heads look at token 0 alone; with the skip ½ there and ½ at itself, 1 for token 0.
    second = [[1, 0, 0], [half, half, 0], [half, 0, half]]
    product = [[sum(second[i][k] * first[k][j] for k in range(3)) for j in range(3)] for i in range(3)]
    assert product == [
        [Fraction(3, 4), Fraction(1, 4), 0],
        [Fraction(3, 8), Fraction(1, 2), Fraction(1, 8)],
        [Fraction(1, 2), Fraction(1, 8), Fraction(3, 8)],
    ]
    maps = [[first_head, other_head], [[[1, 0, 0]] * 3] * 2]
    result = roll(torch.tensor([block], dtype=torch.float32) for block in maps)
    np.testing.assert_allclose(result[0].numpy(), np.array(product, dtype=float), atol=1e-7)


def test_rows_that_do_not_sum_to_1_are_renormalized():
    result = roll([torch.full((1, 1, 2, 2), 0.25)])  # ½A + ½I is ⅝ and ⅛
    np.testing.assert_allclose(result[0], [[5 / 6, 1 / 6], [1 / 6, 5 / 6]], rtol=1e-6)


def test_without_maps_there_is_no_rollout():
    with pytest.raises(ValueError, match="no attention map"):
        roll([])


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_model_is_rolled_out_from_what_its_head_reads(switch):
    model = small_model(switch)
    images = images_for(model.config)
    weights = model.attention_weights(images)
    whole = roll(weights.values())
    torch.testing.assert_close(whole.sum(dim=-1), torch.ones(whole.shape[:2]))
    result = attention_rollout(model, images)
    for image in range(3):
        expected = readout(model, images)[image].numpy()
        for block in (2, 1, 0):  # the later one first, as a row vector
            mean = weights[block][image].detach().numpy().mean(axis=0)
            expected = expected @ (mean + np.eye(len(mean))) / 2
        np.testing.assert_allclose(result[image].flatten(), expected[model.config.prefix_tokens :], rtol=1e-4)
    assert not torch.allclose(result[0], result[1], rtol=1e-3)
