import re

import pytest
import torch

from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.optimization.optimizer import decayed, freeze, groups, make_optimizer
from vitreous.training.optimization.step import step_or_skip

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
    optimizer = make_optimizer(model, lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if one_of(KERNELS, name) else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, msg=name)


def test_frozen_parameters_are_left_out():
    model = VisionTransformer(ViTConfig.from_dict(TINY))
    model.patch_embedding.requires_grad_(False)
    held = [p for group in make_optimizer(model, lr=0.1, weight_decay=0.5).param_groups for p in group["params"]]
    assert len(held) == len(list(model.parameters())) - 2


PLAIN = {
    "adamw": ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.95), "eps": 1e-6}),
    "adam": ("adam", torch.optim.Adam, {"betas": (0.8, 0.95), "eps": 1e-6}),
    "sgd": ("sgd", torch.optim.SGD, {"momentum": 0.9}),
    "sgd without momentum": ("sgd", torch.optim.SGD, {"momentum": 0.0}),
}


@pytest.mark.parametrize("name", PLAIN)
def test_ten_steps_are_torchs_plain_ones(name: str):
    """Against the unfused optimizer with one group for the matrices and one for the rest, in float64."""
    algorithm, plain, fields = PLAIN[name]
    ours, theirs = (VisionTransformer(ViTConfig.from_dict(TINY)).double() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizer = make_optimizer(ours, algorithm=algorithm, lr=0.01, weight_decay=0.1, **fields)
    matrices = decayed(theirs)
    both = [(name in matrices, parameter) for name, parameter in theirs.named_parameters()]
    groups = [
        {"params": [p for is_matrix, p in both if is_matrix == of], "weight_decay": 0.1 * of} for of in (True, False)
    ]
    reference = plain(groups, lr=0.01, foreach=False, **fields)
    for _ in range(10):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        optimizer.step()
        reference.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PLAIN)
def test_a_first_step_that_is_skipped_leaves_no_trace(name: str):
    """Momentum must not start from memory that nobody wrote."""
    algorithm, _, fields = PLAIN[name]
    skipping, clean = (VisionTransformer(ViTConfig.from_dict(TINY)) for _ in range(2))
    clean.load_state_dict(skipping.state_dict())
    gradients = [torch.randn_like(parameter) for parameter in clean.parameters()]
    for model, first in ((skipping, True), (clean, False)):
        optimizer = make_optimizer(model, algorithm=algorithm, lr=0.01, weight_decay=0.1, **fields)
        for skip in (True, False, False) if first else (False, False):
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = torch.full_like(gradient, float("nan")) if skip else gradient.clone()
            step_or_skip(optimizer, divisor=torch.tensor(1.0), healthy=torch.tensor(not skip))
    for mine, other in zip(skipping.parameters(), clean.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_a_rate_falls_with_the_layers_below_the_head():
    model = VisionTransformer(
        ViTConfig(width=8, depth=3, mlp_dim=8, num_heads=2, image_size=8, patch_size=4, num_classes=2)
    )
    decoder = torch.nn.Linear(8, 3)
    scales = {}
    for group in groups(model, decoder, weight_decay=0.1, layer_decay=0.5):
        for parameter in group["params"]:
            scales[id(parameter)] = group["lr_scale"]
    names = dict(model.named_parameters())
    expected = {
        "class_token": 1 / 16, "position_embedding.embedding": 1 / 16, "patch_embedding.projection.bias": 1 / 16,
        "encoder.blocks.0.attention.qkv.weight": 1 / 8, "encoder.blocks.1.mlp_norm.bias": 1 / 4,
        "encoder.blocks.2.mlp.fc2.weight": 1 / 2, "encoder.norm.weight": 1, "head.classifier.weight": 1,
    }  # fmt: skip
    assert {name: scales[id(names[name])] for name in expected} == expected
    assert scales[id(decoder.weight)] == scales[id(decoder.bias)] == 1
    assert len(scales) == len(names) + 2


@pytest.mark.parametrize(
    ("parts", "still"),
    [
        (("backbone",), {"head"}),
        (("head", "encoder"), {"class_token", "position_embedding", "patch_embedding"}),
        (
            ("encoder.blocks.0", "encoder.blocks.1.mlp.fc1.weight"),
            {"class_token", "position_embedding", "patch_embedding", "encoder", "head"},
        ),
    ],
)
def test_frozen_parts_stay(parts, still):
    model = VisionTransformer(
        ViTConfig(width=8, depth=2, mlp_dim=8, num_heads=2, image_size=8, patch_size=4, num_classes=2, hidden_dim=5)
    )
    freeze(model, parts)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.partition(".")[0] for name in trained} == still
    if "backbone" in parts:
        assert trained == {"head.classifier.weight", "head.classifier.bias"}
    assert not any(name == part or name.startswith(f"{part}.") for name in trained for part in parts)
    if "encoder.blocks.0" in parts:
        assert "encoder.blocks.1.mlp.fc1.bias" in trained
    held = [p for group in make_optimizer(model, lr=0.1, weight_decay=0.1).param_groups for p in group["params"]]
    assert len(held) == len(trained)


def test_what_cannot_be_frozen_is_named():
    model = VisionTransformer(
        ViTConfig(width=8, depth=2, mlp_dim=8, num_heads=2, image_size=8, patch_size=4, num_classes=2)
    )
    with pytest.raises(
        InputError, match=r"no part of the model to freeze 'encoder.block.0'.*did you mean 'encoder.blocks.0"
    ):
        freeze(model, ["encoder.block.0"])
    with pytest.raises(InputError, match="leaves nothing of the model to train"):
        freeze(model, ["backbone", "head"])
