"""Evaluation mode leaves no trace, even after an error."""

import pytest
import torch

from tests.model.models import small_model
from vitreous.inspection.mode import evaluation_mode


def test_a_model_is_evaluated_and_then_restored():
    model = small_model(dropout=0.5)
    model.encoder.blocks[1].train()
    model.encoder.checkpoint_activations = True
    before = [module.training for module in model.modules()]
    assert set(before) == {True, False}
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
        assert not model.encoder.checkpoint_activations
    with pytest.raises(ValueError, match="nearest sizes"), evaluation_mode(model):
        model(torch.randn(1, 3, 30, 30))
    assert [module.training for module in model.modules()] == before
    assert model.encoder.checkpoint_activations
