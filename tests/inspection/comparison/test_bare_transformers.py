"""Bare models of transformers return tokens and a vector for each image."""

import copy

import pytest
import torch
import transformers

from vitreous.checkpoints.load import load_checkpoint
from vitreous.inspection.comparison.compare import compare
from vitreous.model.initialization import fill_at_random

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def bare(kind, **changes):
    config = getattr(transformers, f"{kind}Config")(**SIZES | changes)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    fill_at_random(model)
    return model


@pytest.mark.parametrize(
    ("kind", "changes"), [("Dinov2", {}), ("DINOv3ViT", {"intermediate_size": 48}), ("ViT", {"intermediate_size": 48})]
)
def test_the_pooler_s_output_is_compared_with_our_vector(kind, changes, tmp_path):
    theirs = bare(kind, **changes)
    theirs.save_pretrained(tmp_path)
    ours = load_checkpoint(tmp_path).model.eval()
    assert ours(X).std(dim=0).min() > 1e-3
    for one, other in ((theirs, ours), (ours, theirs)):
        result = compare(one, other, X)
        assert result.equal, str(result)
        assert result.note == f"The pooler_output of {kind}Model was compared."
    mine = copy.deepcopy(theirs)
    next(m for name, m in mine.named_modules() if name in ("layernorm", "norm")).eps = 1e-3
    result = compare(mine, ours, X)
    assert not result.equal
    assert result.first_difference.stage == "encoder.norm"
    assert result.first_difference.kind == "value"


def test_two_bare_models_are_compared_in_all_tokens():
    reference = bare("Dinov2")
    mine = copy.deepcopy(reference)
    mine.layernorm.register_forward_hook(lambda module, args, output: output + (torch.arange(17)[:, None] > 0))
    result = compare(mine, reference, X)
    assert torch.equal(mine(X).pooler_output, reference(X).pooler_output)
    assert not result.equal
