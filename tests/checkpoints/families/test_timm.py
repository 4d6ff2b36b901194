"""timm's files: equal to timm itself, exported unchanged, and what timm cannot hold."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.peers import (
    TI,
    TINY,
    assert_same_function,
    assert_same_tensors,
    filled,
    images_of,
    through_a_file,
)
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError

PLAIN = "vit_base_patch16_224"


def peer(size=TINY, architecture=PLAIN, **arguments):
    """A model of timm's, every parameter at random."""
    small = {"img_size": 32, "patch_size": 8, "embed_dim": size["width"], "depth": size["depth"]}
    small |= {"num_heads": size["num_heads"], "mlp_ratio": size["mlp_dim"] / size["width"], "num_classes": 7}
    return filled(timm.create_model(architecture, **(small | arguments)))


# timm's arguments, and the fields that its keys do not record.
CASES = {
    "class token": ({}, {}),
    "mean, norm after": ({"global_pool": "avg"}, {}),
    "mean, no class token": ({"global_pool": "avg", "class_token": False}, {}),
    "mean, norm before": ({"global_pool": "avg", "class_token": False, "fc_norm": False}, {}),
    "mean beside a class token, norm before": ({"global_pool": "avg", "fc_norm": False}, {"pooling": "mean"}),
    "class token, norm after": ({"fc_norm": True}, {"pooling": "class_token"}),
    "attention": ({"global_pool": "map", "class_token": False}, {}),
    "attention, norms of q and k": ({"global_pool": "map", "class_token": False, "qk_norm": True}, {}),
    "attention, no biases, inner norms": (
        {"global_pool": "map", "class_token": False, "qkv_bias": False, "proj_bias": False}
        | {"scale_attn_norm": True, "scale_mlp_norm": True},
        {"norm_site": "before", "norm_eps": 1e-6},
    ),
    "registers": ({"reg_tokens": 4, "no_embed_class": True}, {"image_size": (32, 32)}),
    "no row for the class token": ({"no_embed_class": True}, {"position_class_slot": False}),
    "LayerScale": ({"init_values": 0.1}, {}),
    "norm before the encoder": ({"architecture": "vit_base_patch16_clip_224"}, {}),
    "quick GELU": ({"architecture": "vit_base_patch16_clip_quickgelu_224"}, {"gelu": "quick"}),
    "tanh GELU": ({"act_layer": "gelu_tanh"}, {"gelu": "tanh"}),
    "SwiGLU": ({"architecture": "vit_giant_patch14_dinov2", "mlp_ratio": 4.0}, {}),
    "distillation": ({"architecture": "deit_base_distilled_patch16_224"}, {}),
    "no head": ({"num_classes": 0}, {}),
    "no positions": ({"pos_embed": "none"}, {"position_embedding": "none", "image_size": (32, 32)}),
    "rectangles": ({"img_size": (32, 48), "patch_size": (8, 16)}, {"image_size": (32, 48)}),
    "one channel": ({"in_chans": 1}, {}),
    "no biases of q, k and v": ({"qkv_bias": False}, {}),
    "the same, and mean": ({"qkv_bias": False, "class_token": False, "global_pool": "avg"}, {"norm_site": "before"}),
    "norms after": ({"architecture": "vit_base_patch16_rpn_224"}, {"norm_site": "after"}),
    "no final norm": ({"final_norm": False, "init_values": 0.1}, {}),
    "no final norm, mean": ({"final_norm": False, "global_pool": "avg", "class_token": False}, {}),
    "RMSNorm": ({"norm_layer": "rmsnorm", "global_pool": "avg"}, {}),
    "AIMv2": ({"architecture": "aimv2_large_patch14_224", "mlp_ratio": 4.0}, {}),
    "BEiT-3": ({"architecture": "beit3_base_patch16_224"}, {}),
    "norms of q and k": ({"qk_norm": True}, {}),
    "no biases of dense layers": ({"proj_bias": False}, {}),
    "RADIO": (
        {"architecture": "vit_base_patch16_radio_v3"},
        {"position_class_slot": False},
    ),
    "attention over all tokens": (
        {
            "global_pool": "map",
            "reg_tokens": 2,
            "class_token": False,
            "pool_include_prefix": True,
            "no_embed_class": True,
        },
        {"pooling": "attention", "position_class_slot": False},
    ),
    "three blocks of one kind, Ti": ({"size": TI}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_timm_model_is_equal_and_exports_unchanged(case, tmp_path):
    arguments, fields = CASES[case]
    theirs = peer(**arguments)
    heads = {} if arguments.get("size") == TI else {"num_heads": 4}
    read = through_a_file(theirs.state_dict(), tmp_path, **heads, **fields)
    assert read.metadata["family"] == "timm"
    assert read.report.dropped == {}
    assert_same_function(theirs, read.model, images_of(read.model.config))
    export_model(read, "timm", tmp_path / "out.safetensors")
    assert_same_tensors(load_file(tmp_path / "out.safetensors"), theirs.state_dict())


@pytest.mark.parametrize("case", CASES)
def test_timm_builds_our_folder_by_its_config(case, tmp_path):
    """The config.json records what the keys do not, for timm and for us."""
    arguments, fields = CASES[case]
    heads = {} if arguments.get("size") == TI else {"num_heads": 4}
    read = through_a_file(peer(**arguments).state_dict(), tmp_path, **heads, **fields)
    export_model(read, "timm", tmp_path / "folder")
    again = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    assert_same_function(again, read.model, images_of(read.model.config))
    ours = load_checkpoint(tmp_path / "folder")
    gelu = ours.model.config.gelu if ours.model.config.mlp == "swiglu" else read.model.config.gelu  # SwiGLU has none
    assert ours.model.config == read.model.config.replace(gelu=gelu)
    assert ours.preprocessing == read.preprocessing


def test_positions_of_registers_are_added_to_them(tmp_path):
    """Our registers have no positions: adding timm's to the tokens gives the same function."""
    theirs = peer(reg_tokens=3)
    read = through_a_file(theirs.state_dict(), tmp_path, num_heads=4)
    assert_same_function(theirs, read.model, images_of(read.model.config))
    export_model(read, "timm", tmp_path / "folder")
    again = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    assert_same_function(again, theirs, images_of(read.model.config))


HELD = [
    *(
        "exact GELU",
        "SwiGLU and LayerScale",
        "distillation",
        "registers",
        "registers without class slot",
        "mean pooling",
    ),
    *("mean pooling beside a class token, norm after", "class token, norm after", "attention pooling", "no positions"),
    *("learned without class slot", "2-D", "sincos", "MAE's sincos with a class token", "rectangles", "one channel"),
    *("five channels", "no classes", "the paper's"),
]


@pytest.mark.parametrize("switch", HELD)
def test_timm_computes_what_ours_computes(switch, tmp_path):
    ours = small_model(switch)
    channels = ours.config.channels if ours.config.channels in (1, 3) else 3
    preprocessing = Preprocessing(
        ours.config.image_size, mean=(0.5,) * channels, std=(0.5,) * channels, channels=channels
    )
    export_model(StoredModel(ours, preprocessing), "timm", tmp_path / "folder")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    assert_same_function(theirs, ours, images_of(ours.config))
    again = load_checkpoint(tmp_path / "folder")
    assert_same_function(again.model, ours, images_of(ours.config))


@pytest.mark.parametrize(
    ("switch", "changes", "named"),
    [
        ("hidden layer", {}, "a tanh hidden layer in the head"),
        ("hybrid", {}, "a ResNet stem of width"),
        ("the paper's", {"stem_blocks": (2, 2, 2, 2), "patch_size": 1}, "Google's epsilons in the stem"),
        ("relative", {}, "cannot hold relative positions; "),
        ("learned at every layer", {}, "positions inside the encoder"),
        ("the paper's", {"norm_eps": 1e-12}, "eps 1e-12"),
        (
            "SwiGLU and LayerScale",
            {"norm_eps": 1e-5, "dense_bias": False},
            "norm_eps 1e-05 in vit_giant_patch14_dinov2",
        ),
        ("the paper's", {"qkv_bias": "no_key"}, "biases of query and value but not of key"),
        ("the paper's", {"norm_site": "after", "norm_eps": 1e-5}, "norm_eps 1e-05 in vit_base_patch16_rpn_224"),
        ("RMS norms, no biases, norm of the patches", {}, "norm_eps 1e-06 in aimv2_large_patch14_224"),
        ("attention pooling", {"mlp": "swiglu"}, "attention pooling beside SwiGLU"),
        ("attention pooling", {"norm": "rms"}, "attention pooling beside RMSNorm"),
        ("the paper's", {"norm_site": "after", "layer_scale": 0.1}, "LayerScale with norms after"),
        ("the paper's", {"pre_norm": True, "norm_eps": 1e-5}, "a bias of the patch projection with a norm before"),
        ("distillation", {"registers": 2}, "registers with a distillation token"),
    ],
)
def test_unsupported_parts_are_named(switch, changes, named, tmp_path):
    ours = small_model(switch, **changes)
    with pytest.raises(InputError, match="timm cannot hold") as caught:
        export_model(StoredModel(ours, Preprocessing(ours.config.image_size)), "timm", tmp_path / "folder")
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def folder_of(tmp_path, arguments, architecture=PLAIN, **others):
    """A folder as timm's users push it: the weights, the architecture and the arguments that change it."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    theirs = peer(architecture=architecture, **arguments)
    save_file(theirs.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"architecture": architecture, "model_args": {"num_heads": 4} | arguments} | others)
    )
    return folder, theirs


def test_attention_pooling_over_the_patches_only_is_refused(tmp_path):
    tensors = peer(global_pool="map", reg_tokens=2).state_dict()
    with pytest.raises(InputError, match="attention pooling over the patches only"):
        through_a_file(tensors, tmp_path, num_heads=4)


@pytest.mark.parametrize(("height", "width"), [(16, 32), (40, 56)])
def test_a_rectangle_is_not_read_as_a_square(height, width, tmp_path):
    """2×4 patches and a class token are 9 = 3² positions, and 5×7 are 36 = 6²: either may have been meant."""
    theirs = peer(img_size=(height, width))
    square = round((height * width // 64 + 1) ** 0.5) * 8
    with pytest.raises(InputError, match=rf"set image_size=.* or image_size=\({square}, {square}\)"):
        through_a_file(theirs.state_dict(), tmp_path, num_heads=4)
    read = through_a_file(theirs.state_dict(), tmp_path, num_heads=4, image_size=(height, width))
    assert read.model.config.position_class_slot
    assert_same_function(theirs, read.model, images_of(read.model.config))
    without = peer(img_size=square, no_embed_class=True)
    read = through_a_file(without.state_dict(), tmp_path, num_heads=4, image_size=square)
    assert not read.model.config.position_class_slot
    assert_same_function(without, read.model, images_of(read.model.config))


def test_the_preprocessing_of_a_folder_decides_a_rectangle(tmp_path):
    folder, theirs = folder_of(tmp_path, {"img_size": (16, 32)})
    config = {"architecture": PLAIN, "model_args": {"num_heads": 4}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"8 positions do not make a square grid; set image_size=.*such as \(16, 32\)"):
        load_checkpoint(folder)
    (folder / "config.json").write_text(json.dumps(config | {"pretrained_cfg": {"input_size": [3, 16, 32]}}))
    read = load_checkpoint(folder)
    assert read.model.config.image_size == (16, 32)
    assert_same_function(theirs, read.model, images_of(read.model.config))


@pytest.mark.parametrize("architecture", ["vit_base_patch16_rope_224", "vit_base_patch16_rope_ape_224"])
def test_rotary_weights_without_a_config_are_refused(architecture, tmp_path):
    tensors = peer(architecture=architecture).state_dict()
    with pytest.raises(InputError, match=r"add its config\.json, or set rotary to eva02, axial"):
        through_a_file(tensors, tmp_path, num_heads=4)


def test_ambiguous_positions_must_be_decided(tmp_path):
    """4 registers without rows and 3×3 patches are 9 positions; 5 tokens with rows and 2×2 patches are too."""
    arguments = {"reg_tokens": 4, "no_embed_class": True, "img_size": 24}
    theirs = peer(**arguments)
    with pytest.raises(InputError, match=r"set image_size=\(16, 16\) or image_size=\(24, 24\)"):
        through_a_file(theirs.state_dict(), tmp_path, num_heads=4)
    for fields in ({"image_size": 24}, {"position_class_slot": False}):
        read = through_a_file(theirs.state_dict(), tmp_path, num_heads=4, **fields)
        assert_same_function(theirs, read.model, images_of(read.model.config))
    folder, theirs = folder_of(tmp_path, arguments)
    config = {"architecture": PLAIN, "model_args": {"num_heads": 4, "no_embed_class": True}}
    (folder / "config.json").write_text(json.dumps(config))
    read = load_checkpoint(folder)
    assert read.model.config.grid == (3, 3)
    assert_same_function(theirs, read.model, images_of(read.model.config))


def test_ambiguous_positions_may_be_the_smaller_grid(tmp_path):
    theirs = peer(reg_tokens=4, img_size=16)
    for fields in ({"image_size": 16}, {"position_class_slot": True}):
        read = through_a_file(theirs.state_dict(), tmp_path, num_heads=4, **fields)
        assert_same_function(theirs, read.model, images_of(read.model.config))


def test_all_differences_are_listed_and_nothing_is_loaded(tmp_path):
    tensors = peer().state_dict()
    del tensors["blocks.1.norm2.bias"]
    tensors |= {"blocks.2.attn.proj.weight": torch.zeros(2, 2), "blocks.0.attn.other.weight": torch.ones(16)}
    with pytest.raises(InputError) as caught:
        through_a_file(tensors, tmp_path, num_heads=4)
    message = str(caught.value)
    assert "blocks.1.norm2.bias is missing" in message
    assert "blocks.0.attn.other.weight is unexpected" in message
    assert "encoder.blocks.2.attention.out.weight has shape (2, 2), expected (64, 64)" in message
    assert "download the file again" in message


def test_a_table_beside_positions_of_another_kind_is_refused(tmp_path):
    tensors = peer().state_dict()
    with pytest.raises(InputError, match="pos_embed is unexpected"):
        through_a_file(tensors, tmp_path, num_heads=4, position_embedding="none")
    folder, _ = folder_of(tmp_path, {})
    config = {"architecture": PLAIN, "model_args": {"num_heads": 4, "pos_embed": "none"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="pos_embed is unexpected"):
        load_checkpoint(folder, image_size=32)
    with pytest.raises(InputError, match="position_embedding='sincos_2d', not a learned table"):
        through_a_file(tensors, tmp_path, num_heads=4, position_embedding="sincos_2d")


def test_values_that_are_not_finite_are_refused(tmp_path):
    tensors = peer().state_dict()
    tensors["blocks.1.mlp.fc1.weight"][3, 4] = float("nan")
    with pytest.raises(InputError, match=r"encoder.blocks.1.mlp.fc1.weight is not finite"):
        through_a_file(tensors, tmp_path, num_heads=4)


def test_heads_that_cannot_be_guessed_must_be_given(tmp_path):
    theirs = peer(size=TINY | {"width": 48})
    with pytest.raises(
        InputError,
        match=r"does not record the number of attention heads .*; set it, .* num_heads=3",
    ):
        through_a_file(theirs.state_dict(), tmp_path)
    assert through_a_file(theirs.state_dict(), tmp_path, num_heads=4).model.config.num_heads == 4


def test_guesses_are_reported_and_given_fields_are_not(tmp_path):
    tensors = peer(size=TI).state_dict()
    report = str(through_a_file(tensors, tmp_path).report)
    for guess in ("num_heads = 3 (as published for Ti)", "gelu = exact", "norm_eps = 1e-06", "image_size = (32, 32)"):
        assert guess in report
    report = str(through_a_file(tensors, tmp_path, num_heads=6, gelu="tanh").report)
    assert "num_heads" not in report
    assert "gelu" not in report


@pytest.mark.parametrize(
    ("arguments", "size", "guesses"),
    [
        ({"global_pool": "avg"}, TI, ["pooling = mean (there is a norm after the pooling)"]),
        ({"global_pool": "avg", "class_token": False}, TI, []),
        (
            {"architecture": "aimv2_large_patch14_224"},
            TINY | {"width": 128},
            ["num_heads = 1 (width / 128, as in AIMv2)"],
        ),
    ],
)
def test_each_guess_is_reported_once(arguments, size, guesses, tmp_path):
    read = through_a_file(peer(size=size, **arguments).state_dict(), tmp_path)
    found = [str(guess) for guess in read.report.guesses if guess.field in ("pooling", "num_heads")]
    assert [guess for guess in found if "published" not in guess] == guesses
    for guess in read.report.guesses:
        if guess.field in ("pooling", "num_heads"):
            assert getattr(read.model.config, guess.field) == guess.value


def test_the_place_of_the_norms_must_be_known(tmp_path):
    """timm's rpn models have the keys of a ViT without class token and biases of q, k and v."""
    tensors = peer(architecture="vit_base_patch16_rpn_224").state_dict()
    with pytest.raises(InputError, match="set norm_site=before or norm_site=after"):
        through_a_file(tensors, tmp_path, num_heads=4)


def test_a_block_with_a_bias_missing_is_refused(tmp_path):
    tensors = peer().state_dict()
    del tensors["blocks.1.attn.qkv.bias"]
    with pytest.raises(InputError, match=r"blocks.1.attn.qkv.bias is missing"):
        through_a_file(tensors, tmp_path, num_heads=4)
    tensors = peer().state_dict()
    del tensors["blocks.0.attn.qkv.bias"]
    with pytest.raises(InputError, match=r"blocks.1.attn.qkv.bias is unexpected"):
        through_a_file(tensors, tmp_path, num_heads=4)


def test_the_nearest_family_of_an_unknown_file_is_named(tmp_path):
    tensors = peer().state_dict()
    renamed = {key.replace("attn.qkv", "attn.in_proj"): tensor for key, tensor in tensors.items()}
    with pytest.raises(InputError) as caught:
        through_a_file(renamed, tmp_path)
    message = str(caught.value)
    assert "matches no known family (tried " in message
    assert "google" in message
    assert "nearest is timm" in message or "nearest is d" in message
    assert "blocks.0.attn.qkv.weight" in message


def test_an_unknown_field_is_named(tmp_path):
    with pytest.raises(InputError, match="there is no ViTConfig field 'num_head'; did you mean 'num_heads'"):
        through_a_file(peer().state_dict(), tmp_path, num_head=4)


def test_the_family_can_be_given(tmp_path):
    through_a_file(peer(size=TI).state_dict(), tmp_path)
    path = tmp_path / "theirs.safetensors"
    read = load_checkpoint(path, family="dino")
    assert read.metadata["family"] == "dino"
    assert read.model.config.position_resampling == "bicubic_offset"
    with pytest.raises(InputError, match="is not a checkpoint of Google's vision_transformer"):
        load_checkpoint(path, family="google")
