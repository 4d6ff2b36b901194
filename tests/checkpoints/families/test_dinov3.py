"""Meta's DINOv3 files. The authors' code is not at hand: timm's conversion of their layout is the judge."""

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models.eva import checkpoint_filter_fn

from tests.checkpoints.peers import assert_same_function, assert_same_tensors, filled, images_of, through_a_file
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.families.dinov3 import DINOv3
from vitreous.checkpoints.load import load_checkpoint
from vitreous.support.errors import InputError

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 4, "num_classes": 0}
CASES = {
    "biases of q and v": ("vit_small_patch16_dinov3_qkvb", {}),
    "gated, biases of q and v": ("vit_small_plus_patch16_dinov3_qkvb", {}),
    "gated, no biases": ("vit_7b_patch16_dinov3", {}),
    "no registers": ("vit_small_patch16_dinov3_qkvb", {"num_reg_tokens": 0}),
}
KEYS = (  # Meta's, timm's
    ("storage_tokens", "reg_token"),
    (".ls1.gamma", ".gamma_1"),
    (".ls2.gamma", ".gamma_2"),
    (".mlp.w1.", ".mlp.fc1_g."),
    (".mlp.w2.", ".mlp.fc1_x."),
)


def peer(case):
    """A small model of timm's, which gives the class token as Meta's code does."""
    name, arguments = CASES[case]
    return filled(timm.create_model(name, global_pool="token", **(SMALL | arguments)))


def metas(model):
    """The tensors of a timm model in Meta's layout, with those that timm does not keep."""
    tensors, width = {}, 64
    gated = hasattr(model.blocks[0].mlp, "fc1_g")
    for key, tensor in model.state_dict().items():
        if key.endswith("attn.v_bias"):
            continue
        if key.endswith("attn.q_bias"):
            block = key.removesuffix("q_bias")
            value = model.state_dict()[f"{block}v_bias"]
            ones, zeros = torch.ones(width), torch.zeros(width)
            tensors[f"{block}qkv.bias"] = torch.cat([tensor, zeros, value])
            tensors[f"{block}qkv.bias_mask"] = torch.cat([ones, zeros, ones])
            continue
        for ours, theirs in KEYS:
            key = key.replace(theirs, ours)
        tensors[key.replace(".mlp.fc2.", ".mlp.w3.") if gated else key] = tensor
    tensors["mask_token"] = torch.randn(1, width, generator=torch.Generator().manual_seed(3))
    tensors["rope_embed.periods"] = model.rope.periods.clone()
    return tensors


@pytest.mark.parametrize("case", CASES)
def test_metas_layout_is_equal_to_timm_and_exports_unchanged(case, tmp_path):
    theirs = peer(case)
    tensors = metas(theirs)
    if "storage_tokens" in tensors:  # by which timm recognizes the layout
        assert_same_tensors(checkpoint_filter_fn(dict(tensors), theirs), theirs.state_dict())
    read = through_a_file(tensors, tmp_path, image_size=32)
    assert read.metadata["family"] == "dinov3"
    assert read.model.config.num_heads == 4  # by the number of periods
    assert_same_function(theirs, read.model, images_of(read.model.config))
    export_model(read, "dinov3", tmp_path / "out.safetensors")
    assert_same_tensors(load_file(tmp_path / "out.safetensors"), tensors)


@pytest.mark.parametrize("case", CASES)
def test_it_converts_to_timm(case, tmp_path):
    theirs = peer(case)
    read = through_a_file(metas(theirs), tmp_path, image_size=32)
    export_model(read, "timm", tmp_path / "folder")
    again = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    assert_same_function(again, theirs, images_of(read.model.config))
    export_model(load_checkpoint(tmp_path / "folder"), "dinov3", tmp_path / "again.safetensors")
    again = load_file(tmp_path / "again.safetensors")
    expected = {key: tensor for key, tensor in metas(theirs).items() if key != "mask_token"}
    assert again.pop("mask_token").shape == (1, 64)
    assert_same_tensors(again, expected)


def test_periods_rounded_as_published_are_read_with_a_note(tmp_path):
    theirs = peer("biases of q and v")
    tensors = metas(theirs)
    tensors["rope_embed.periods"] = tensors["rope_embed.periods"].bfloat16().float()
    read = through_a_file(tensors, tmp_path, image_size=32)
    assert_same_function(theirs, read.model, images_of(read.model.config))
    assert "rounded to bfloat16" in str(read.report)


@pytest.mark.parametrize(
    ("key", "change", "named"),
    [
        ("rope_embed.periods", lambda t: t * 1.1, "rope_embed.periods are not those of base 100"),
        ("blocks.1.attn.qkv.bias_mask", torch.ones_like, "leaves a bias of the keys"),
    ],
)
def test_another_function_is_refused(key, change, named, tmp_path):
    tensors = metas(peer("biases of q and v"))
    tensors["blocks.1.attn.qkv.bias"] = torch.ones(3 * 64)  # that of the keys is masked
    through_a_file(tensors, tmp_path, image_size=32)
    tensors[key] = change(tensors[key])
    with pytest.raises(InputError, match=named):
        through_a_file(tensors, tmp_path, image_size=32)


def test_what_is_used_in_training_alone_is_left_out(tmp_path):
    theirs = peer("gated, no biases")
    tensors = metas(theirs) | {f"local_cls_norm.{name}": torch.ones(64) for name in ("weight", "bias")}
    read = through_a_file(tensors, tmp_path, image_size=32)
    assert len(read.report.dropped) == 2
    assert_same_function(theirs, read.model, images_of(read.model.config))


def test_the_usual_size_and_preprocessing_are_reported(tmp_path):
    read = through_a_file(metas(peer("biases of q and v")), tmp_path)
    assert read.model.config.image_size == read.preprocessing.image_size == (256, 256)
    assert {"image_size", "norm_eps", "preprocessing"} <= {guess.field for guess in read.report.guesses}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rotary": "axial"}, "axial rotary positions"),
        ({"num_classes": 3}, "a classifier"),
        ({"norm_eps": 1e-6}, "eps 1e-06"),
    ],
)
def test_unsupported_parts_are_named(changes, named):
    config = small_model("no positions", gelu="exact", layer_scale=0.1, num_classes=0, norm_eps=1e-5).config
    config = config.replace(rotary="dinov3", qkv_bias="no_key")
    assert not DINOv3().unsupported(config)
    assert named in DINOv3().unsupported(config.replace(**changes))
