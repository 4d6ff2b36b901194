"""Files of timm's Eva module: equal to timm itself, exported unchanged, and what decides where keys do not."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models import save_for_hf

from tests.checkpoints.peers import (
    assert_same_function,
    assert_same_tensors,
    filled,
    images_of,
    through_a_file,
)
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.families.shared.reading import Reading
from vitreous.checkpoints.families.timm.eva import TimmEva
from vitreous.checkpoints.families.timm.family import BEIT, EVA, PLAIN, TimmModules, module_named, module_of
from vitreous.checkpoints.load import load_checkpoint
from vitreous.support.errors import InputError

SMALL = {"img_size": (32, 24), "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 4, "num_classes": 7}

# An architecture of each kind, with arguments that differ from its own.
CASES = {
    "EVA": ("eva_giant_patch14_224", {}),
    "EVA-CLIP": ("eva_giant_patch14_clip_224", {}),
    "EVA-02 with packed layers": ("eva02_tiny_patch14_224", {}),
    "EVA-02 with an inner norm": ("eva02_base_patch14_224", {}),
    "EVA-02-CLIP": ("eva02_base_patch16_clip_224", {}),
    "EVA-02-CLIP, norms after the branches": ("eva02_enormous_patch14_clip_224", {}),
    "rotary, registers, mean": ("vit_betwixt_patch16_rope_reg4_gap_256", {}),
    "rotary, registers, no biases": ("vit_mediumd_patch16_rope_reg1_gap_256", {}),
    "axial": ("vit_base_patch16_rope_224", {}),
    "axial and a table": ("vit_base_patch16_rope_ape_224", {}),
    "mixed": ("vit_base_patch16_rope_mixed_224", {}),
    "mixed and a table": ("vit_base_patch16_rope_mixed_ape_224", {}),
    "Perception Encoder, core": ("vit_pe_core_base_patch16_224", {}),
    "Perception Encoder, core, as many heads to pool": (
        "vit_pe_core_base_patch16_224",
        {"attn_pool_num_heads": 4},
    ),
    "Perception Encoder, core, heads to pool by default": (
        "vit_pe_core_base_patch16_224",
        {"attn_pool_num_heads": None},
    ),
    "Perception Encoder, core, two heads to pool": ("vit_pe_core_base_patch16_224", {"attn_pool_num_heads": 2}),
    "attention pooling, no rotary positions": (
        "vit_pe_core_base_patch16_224",
        {"use_rot_pos_emb": False, "qk_norm": True, "attn_pool_num_heads": 2, "attn_pool_mlp_ratio": 2.0},
    ),
    "attention pooling, SwiGLU, no rotary positions": (
        "vit_pe_core_base_patch16_224",
        {"use_rot_pos_emb": False, "swiglu_mlp": True, "qkv_bias": False},
    ),
    "Perception Encoder, core, without class token": ("vit_pe_core_gigantic_patch14_448", {}),
    "gated, with attention pooling": (
        "eva02_base_patch14_224",
        {"global_pool": "map", "attn_pool_num_heads": 4, "attn_pool_mlp_ratio": 2.0},
    ),
    "Perception Encoder, language": ("vit_pe_lang_large_patch14_448", {}),
    "Perception Encoder, spatial": ("vit_pe_spatial_tiny_patch16_512", {}),
    "Perception Encoder, spatial, without class token": ("vit_pe_spatial_gigantic_patch14_448", {}),
    "DINOv3": ("vit_base_patch16_dinov3", {}),
    "DINOv3, biases of q and v": ("vit_base_patch16_dinov3_qkvb", {}),
    "DINOv3, gated": ("vit_huge_plus_patch16_dinov3", {"mlp_ratio": 2.6}),
    "DINOv3, gated, biases of q and v": ("vit_small_plus_patch16_dinov3_qkvb", {}),
    "DINOv3, class token": ("vit_small_patch16_dinov3", {"global_pool": "token"}),
    "DINOv3, features": ("vit_7b_patch16_dinov3", {"num_classes": 0}),
    "LingBot-Vision": ("vit_small_patch16_lingbot", {}),
    "LingBot-Vision, gated": ("vit_giant_patch16_lingbot", {}),
}
KNOWN_BY_KEYS = {  # what decides is in the keys; the rest is given
    "EVA-02 with packed layers": {},
    "EVA-02 with an inner norm": {},
    "rotary, registers, mean": {},
    "rotary, registers, no biases": {},
    "mixed": {},
    "mixed and a table": {},
    "DINOv3": {},
    "DINOv3, biases of q and v": {},
    "DINOv3, gated": {},
    "DINOv3, gated, biases of q and v": {},
    "DINOv3, class token": {"pooling": "class_token"},
    "LingBot-Vision": {"pooling": "class_token"},
}
GIVEN = {  # what the keys leave open
    "EVA": {"norm_site": "before"},
    "EVA-CLIP": {"norm_site": "before"},
    "EVA-02-CLIP, norms after the branches": {"norm_site": "after"},
    "axial": {"rotary": "axial"},
    "Perception Encoder, core": {"rotary": "perception", "rotary_grid": (14, 14)},
    "Perception Encoder, core, without class token": {"rotary": "perception_giant", "rotary_grid": 32},
    "Perception Encoder, spatial": {"rotary": "perception", "rotary_grid": 32},
}


def peer(case):
    """A small model of timm's, every parameter at random."""
    name, arguments = CASES[case]
    return filled(timm.create_model(name, **(SMALL | arguments)))


@pytest.mark.parametrize("case", CASES)
def test_a_folder_of_timms_is_equal_and_exports_unchanged(case, tmp_path):
    theirs = peer(case)
    save_for_hf(theirs, tmp_path / "theirs", safe_serialization=True)
    read = load_checkpoint(tmp_path / "theirs")
    assert read.metadata["family"] == "timm"
    assert read.report.dropped == {}
    assert_same_function(theirs, read.model, images_of(read.model.config))
    export_model(read, "timm", tmp_path / "out.safetensors")
    assert_same_tensors(load_file(tmp_path / "out.safetensors"), theirs.state_dict())


@pytest.mark.parametrize("case", CASES)
def test_timm_builds_our_folder_by_its_config(case, tmp_path):
    theirs = peer(case)
    save_for_hf(theirs, tmp_path / "theirs", safe_serialization=True)
    read = load_checkpoint(tmp_path / "theirs")
    export_model(read, "timm", tmp_path / "folder")
    again = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    assert_same_function(again, theirs, images_of(read.model.config))
    ours = load_checkpoint(tmp_path / "folder")
    assert ours.model.config == read.model.config
    assert ours.preprocessing == read.preprocessing


@pytest.mark.parametrize("case", KNOWN_BY_KEYS)
def test_keys_alone_decide_where_they_can(case, tmp_path):
    theirs = peer(case)
    fields = {"num_heads": 4, "image_size": (32, 24)} | KNOWN_BY_KEYS[case]
    read = through_a_file(theirs.state_dict(), tmp_path, **fields)
    assert read.metadata["family"] == "timm"
    assert_same_function(theirs, read.model, images_of(read.model.config))


@pytest.mark.parametrize("case", GIVEN)
def test_what_keys_leave_open_must_be_given(case, tmp_path):
    theirs = peer(case)
    fields = {"num_heads": 4, "image_size": (32, 24)}
    with pytest.raises(InputError) as caught:
        through_a_file(theirs.state_dict(), tmp_path, family="timm", **fields)
    assert f"set {next(iter(GIVEN[case]))} to" in caught.value.hint
    pooling = theirs.global_pool.replace("token", "class_token").replace("avg", "mean").replace("map", "attention")
    fields |= GIVEN[case] | {"pooling": pooling}
    read = through_a_file(theirs.state_dict(), tmp_path, family="timm", **fields)
    assert_same_function(theirs, read.model, images_of(read.model.config))


def test_the_place_of_evas_norms_is_that_of_its_published_widths(tmp_path):
    for name, width, site in (
        ("eva_giant_patch14_224", 1408, "before"),
        ("eva02_enormous_patch14_clip_224", 1792, "after"),
    ):
        with torch.device("meta"):
            shapes = {key: t.shape for key, t in timm.create_model(name, depth=1).state_dict().items()}
        reading = Reading()
        TimmModules().read(shapes, reading)
        config = reading.config()
        assert (config.width, config.norm_site, config.num_heads) == (width, site, 16)
        assert {"norm_site", "num_heads"} <= {guess.field for guess in reading.guesses}


def test_other_image_sizes_are_rotated_as_in_timm(tmp_path):
    theirs = peer("DINOv3, biases of q and v")  # takes images of any size
    read = through_a_file(theirs.state_dict(), tmp_path, num_heads=4, image_size=(32, 24))
    for size in ((24, 56), (48, 16)):
        images = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(2))
        assert_same_function(theirs, read.model, images)


def rotary_of(model):
    """The kind of a timm model's rotary positions, from its modules."""
    rope = model.rope
    match type(rope).__name__:
        case "NoneType":
            return "none", None
        case "RotaryEmbeddingMixed":
            return "mixed", None
        case "RotaryEmbeddingDinoV3":
            return "dinov3", None
    grid = None if rope.ref_feat_shape is None else tuple(rope.ref_feat_shape)
    if rope.grid_indexing == "ij":
        return "eva02", grid
    if rope.temperature == 100.0:
        return "axial", grid
    return ("perception" if rope.grid_offset else "perception_giant"), grid


def test_every_architecture_is_read_as_timm_builds_it():
    wrong, checked = [], 0
    for name in timm.list_models(module="eva"):
        if "sapiens2" in name:  # refused; it has a test of its own
            continue
        with torch.device("meta"):
            model = timm.create_model(name, depth=2)
        checked += 1
        shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        family = TimmModules()
        reading = Reading(family.fields_from({"architecture": name}))
        family.read(shapes, reading)
        c, block = reading.config(), model.blocks[0]
        pooling = {"token": "class_token", "avg": "mean", "map": "attention"}[model.global_pool]
        heads = model.attn_pool.num_heads if model.attn_pool else None
        expected = {
            "num_heads": block.attn.num_heads,
            "norm_eps": block.norm1.eps,
            "norm_site": "after" if type(block).__name__ == "EvaBlockPostNorm" else "before",
            "pooling": pooling,
            "pooling_heads": heads,
            "position_embedding": "none" if model.pos_embed is None else "learned",
            "layer_scale": block.gamma_1 is not None if hasattr(block, "gamma_1") else False,
        }
        found = {field: getattr(c, field) for field in expected} | {"layer_scale": c.layer_scale is not None}
        if found != expected or (c.rotary, c.rotary_grid) != rotary_of(model):
            wrong.append((name, found, expected, rotary_of(model)))
    assert wrong == []
    assert checked > 50


def test_the_module_of_every_architecture_is_known():
    modules = {"eva": EVA, "beit": BEIT, "vision_transformer": PLAIN}
    for name, module in modules.items():
        for architecture in timm.list_models(module=name):
            assert module_named(architecture) is module, architecture


def test_the_keys_of_a_plain_model_are_those_of_the_plain_module():
    with torch.device("meta"):
        for name in ("vit_base_patch16_224", "vit_base_patch16_clip_224", "vit_small_patch14_reg4_dinov2"):
            shapes = {key: t.shape for key, t in timm.create_model(name, depth=1).state_dict().items()}
            assert module_of(shapes, {}) is PLAIN


@pytest.mark.parametrize("name", ["vit_base_patch16_sapiens2", "vit_large_patch16_sapiens2"])
def test_grouped_query_attention_is_refused(name, tmp_path):
    theirs = filled(timm.create_model(name, img_size=(32, 24), patch_size=8, embed_dim=64, depth=2, num_heads=4,
                                      num_kv_heads=2))  # fmt: skip
    with pytest.raises(InputError, match="as Sapiens2 has"):
        through_a_file(theirs.state_dict(), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
    with pytest.raises(InputError, match=f"architecture '{name}', which has grouped-query attention"):
        load_checkpoint(tmp_path / "theirs.safetensors")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"rope_type": "mrope"}, "rope_type='mrope'"),
        ({"rope_temperature": 50.0}, "rope_temperature=50.0"),
        ({"rope_grid_indexing": "xy"}, "supported are those of eva02, axial"),
        ({"num_heads": "4"}, "num_heads is '4'; it must be an integer"),
        ({"global_pool": "max"}, "global_pool 'max'; supported are token, avg, map"),
        ({"attn_only_layer_scale": True}, "unsupported model_args entry attn_only_layer_scale=True"),
        ({"num_kv_heads": 2}, "unsupported model_args entry num_kv_heads=2"),
        ({"norm_layer": "rmsnorm"}, "norm_layer='rmsnorm'"),
    ],
)
def test_unsupported_arguments_are_named(arguments, named):
    config = {"architecture": "vit_base_patch16_dinov3", "model_args": {"rope_rotate_half": True}}
    assert TimmEva().fields_from(config)["rotary"] == "dinov3"
    with pytest.raises(InputError, match=named):
        TimmEva().fields_from(config | {"model_args": config["model_args"] | arguments})


def test_a_reference_grid_is_a_pair():
    config = {"architecture": "eva02_base_patch14_224", "model_args": {"ref_feat_shape": [1, 2, 3]}}
    with pytest.raises(InputError, match=r"ref_feat_shape is \[1, 2, 3\]"):
        TimmEva().fields_from(config)


def test_a_null_overrides_the_architectures_own_value():
    config = {"architecture": "eva02_base_patch14_224"}
    assert TimmEva().fields_from(config)["rotary_grid"] == (16, 16)
    assert TimmEva().fields_from(config | {"model_args": {"ref_feat_shape": None}})["rotary_grid"] is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"norm_site": "after", "layer_scale": 0.1}, "LayerScale with norms after attention and MLP"),
        ({"rotary": "dinov3", "rotary_grid": (4, 4)}, "DINOv3's rotary positions scaled to a grid"),
        ({"norm_eps": 1e-12}, "eps 1e-12"),
        ({"patch_bias": True, "pre_norm": True}, "a bias of the patch projection with a norm before the encoder"),
    ],
)
def test_unsupported_parts_are_named(changes, named):
    config = small_model("exact GELU").config
    assert not TimmEva().unsupported(config)
    assert named in TimmEva().unsupported(config.replace(**changes))
