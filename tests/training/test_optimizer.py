import re

import pytest
import torch

from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.optimizer import adamw, decayed

TINY = {"width": 16, "depth": 2, "mlp_dim": 24, "num_heads": 2, "image_size": 8, "patch_size": 4, "num_classes": 3}

BLOCK = r"encoder\.blocks\.\d+\."
KERNELS = [
    r"patch_embedding\.projection\.weight",
    BLOCK + r"attention\.(qkv|out)\.weight",
    BLOCK + r"mlp\.fc[12]\.weight",
    r"head\.(hidden|classifier|distillation)\.weight",
    r"head\.pooling\.attention\.(qkv|out)\.weight",
    r"head\.pooling\.mlp\.fc[12]\.weight",
    r"stem\.conv\.weight",
    r"stem\.stages\.\d+\.\d+\.conv[123]\.weight",
    r"stem\.stages\.\d+\.\d+\.shortcut\.conv\.weight",
]
OTHERS = [
    r"class_token",
    r"distillation_token",
    r"registers",
    r"position_embedding\.(embedding|x|y|class_slot|offset_keys|prefix_keys)",
    r"patch_embedding\.projection\.bias",
    r"encoder\.(pre_norm|norm)\.(weight|bias)",
    BLOCK + r"(attention_norm|mlp_norm)\.(weight|bias)",
    BLOCK + r"attention\.(qkv|out)\.bias",
    BLOCK + r"mlp\.fc[12]\.bias",
    BLOCK + r"(attention|mlp)_scale\.gamma",
    r"head\.norm\.(weight|bias)",
    r"head\.(hidden|classifier|distillation)\.bias",
    r"head\.pooling\.probe",
    r"head\.pooling\.norm\.(weight|bias)",
    r"head\.pooling\.attention\.(qkv|out)\.bias",
    r"head\.pooling\.mlp\.fc[12]\.bias",
    r"stem\.norm\.(weight|bias)",
    r"stem\.stages\.\d+\.\d+\.norm[123]\.(weight|bias)",
    r"stem\.stages\.\d+\.\d+\.shortcut\.norm\.(weight|bias)",
]
CONFIGS = {
    "the paper's": {},
    "everything": {
        "registers": 2,
        "layer_scale": 0.1,
        "pre_norm": True,
        "mlp": "swiglu",
        "pooling": "attention",
        "norm_after_pooling": True,
        "hidden_dim": 5,
        "position_embedding": "learned_2d",
    },
    "distillation": {"distillation_token": True},
    "relative": {"position_embedding": "relative", "position_site": "every_layer"},
    "hybrid": {"stem_blocks": (1, 1), "stem_width": 32, "patch_size": 1},
}


def one_of(patterns: list[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=list(CONFIGS))
def test_kernels_decay_and_nothing_else(fields: dict):
    model = VisionTransformer(ViTConfig.from_dict(TINY | fields))
    names = {name for name, _ in model.named_parameters()}
    assert [name for name in names if one_of(KERNELS, name) == one_of(OTHERS, name)] == []
    assert decayed(model) == {name for name in names if one_of(KERNELS, name)}


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=list(CONFIGS))
def test_a_step_without_gradient_shrinks_the_kernels_by_lr_times_decay(fields: dict):
    model = VisionTransformer(ViTConfig.from_dict(TINY | fields))
    before = {name: p.detach().clone().fill_(2.0) for name, p in model.named_parameters()}
    model.load_state_dict(before)
    optimizer = adamw(model, lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if one_of(KERNELS, name) else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, msg=name)


def test_frozen_parameters_are_left_out():
    model = VisionTransformer(ViTConfig.from_dict(TINY))
    model.patch_embedding.requires_grad_(False)
    held = [p for group in adamw(model, lr=0.1, weight_decay=0.5).param_groups for p in group["params"]]
    assert len(held) == len(list(model.parameters())) - 2
