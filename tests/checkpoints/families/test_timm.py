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
from vitreous.checkpoints.families.reading import Reading
from vitreous.checkpoints.families.timm import Timm
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
    "registers": ({"reg_tokens": 4, "no_embed_class": True}, {}),
    "no row for the class token": ({"no_embed_class": True}, {}),
    "LayerScale": ({"init_values": 0.1}, {}),
    "norm before the encoder": ({"architecture": "vit_base_patch16_clip_224"}, {}),
    "quick GELU": ({"architecture": "vit_base_patch16_clip_quickgelu_224"}, {"gelu": "quick"}),
    "tanh GELU": ({"act_layer": "gelu_tanh"}, {"gelu": "tanh"}),
    "SwiGLU": ({"architecture": "vit_giant_patch14_dinov2", "mlp_ratio": 4.0}, {}),
    "distillation": ({"architecture": "deit_base_distilled_patch16_224"}, {}),
    "no head": ({"num_classes": 0}, {}),
    "no positions": ({"pos_embed": "none"}, {"image_size": (32, 32)}),
    "rectangles": ({"img_size": (32, 48), "patch_size": (8, 16)}, {"image_size": (32, 48)}),
    "one channel": ({"in_chans": 1}, {}),
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
        ("hybrid", {}, "a ResNet stem"),
        ("relative", {}, "relative positions, positions inside the encoder"),
        ("learned at every layer", {}, "positions inside the encoder"),
        ("the paper's", {"norm_eps": 1e-12}, "eps 1e-12"),
        ("the paper's", {"norm_eps": 1e-5}, "eps 1e-05"),
        ("the paper's", {"pre_norm": True, "norm_eps": 1e-5}, "a bias of the patch projection with a norm before"),
        ("attention pooling", {"class_token": True}, "attention pooling over a class token"),
        ("distillation", {"registers": 2}, "registers with a distillation token"),
    ],
)
def test_unsupported_parts_are_named(switch, changes, named, tmp_path):
    ours = small_model(switch, **changes)
    with pytest.raises(InputError, match="timm cannot hold") as caught:
        export_model(StoredModel(ours, Preprocessing(ours.config.image_size)), "timm", tmp_path / "folder")
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_hubs_config_has_preprocessing_and_class_names(tmp_path):
    export_model(through_a_file(peer().state_dict(), tmp_path, num_heads=4), "timm", tmp_path / "folder")
    path = tmp_path / "folder" / "config.json"
    config = json.loads(path.read_text())
    changes = {
        "crop_pct": 0.95,
        "crop_mode": "center",
        "interpolation": "bilinear",
        "mean": [0.1, 0.2, 0.3],
        "std": [1, 2, 3],
    }
    config["pretrained_cfg"] |= changes | {"label_names": list("abcdefg")}
    path.write_text(json.dumps(config))
    read = load_checkpoint(tmp_path / "folder")
    expected = Preprocessing((32, 32), "crop", 0.95, "bilinear", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    assert (read.preprocessing, read.class_names) == (expected, tuple("abcdefg"))
    config["pretrained_cfg"]["mean"] = "gray"
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="pretrained_cfg does not describe a preprocessing"):
        load_checkpoint(tmp_path / "folder")


def test_every_architecture_is_read_as_timm_builds_it():
    """Heads, GELU, eps and pooling of each ViT that we support, which only the names record."""
    wrong, checked = [], 0
    for name in timm.list_models("*vit_*", module="vision_transformer") + timm.list_models("deit*"):
        with torch.device("meta"):
            model = timm.create_model(name)
        shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        known = {
            f"blocks.0.{part}"
            for part in ("norm1.weight", "norm1.bias", "attn.qkv.bias", "attn.proj.bias", "norm2.bias")
        }
        if not known <= shapes.keys() or any("q_norm" in key or "embed.norm" in key for key in shapes):
            continue
        if model.global_pool == "map" and model.num_prefix_tokens:  # refused; it has a test of its own
            continue
        checked += 1
        config = read_config(shapes, {"architecture": name, "global_pool": model.global_pool})
        block = model.blocks[0]
        gelu = {"GELU": "exact", "GELUTanh": "tanh", "QuickGELU": "quick", "SiLU": config.gelu}[
            type(block.mlp.act).__name__
        ]
        pooling = {"token": "class_token", "avg": "mean", "map": "attention"}[model.global_pool]
        found = config.num_heads, config.gelu, config.norm_eps, config.pooling
        if found != (block.attn.num_heads, gelu, block.norm1.eps, pooling):
            wrong.append((name, found))
    assert wrong == []
    assert checked > 100


def read_config(shapes, config_json):
    family = Timm()
    reading = Reading(family.fields_from(config_json))
    family.read(shapes, reading)
    return reading.config()


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


@pytest.mark.parametrize(
    "arguments",
    [
        {"img_size": 32},
        {"drop_path_rate": 0.1, "drop_rate": 0.2, "weight_init": "jax", "fix_init": True, "dynamic_img_size": True},
        {"act_layer": "gelu_tanh", "pool_include_prefix": False},
        {"global_pool": "avg", "fc_norm": False, "act_layer": None},
        {"reg_tokens": 4, "no_embed_class": True, "img_size": [24, 24]},
        {"pre_norm": True, "init_values": 0.1, "mlp_ratio": 2.5, "class_token": True, "pos_embed": "learn"},
    ],
)
def test_supported_arguments_are_read_as_in_timm(arguments, tmp_path):
    folder, theirs = folder_of(tmp_path, arguments)
    read = load_checkpoint(folder)
    assert_same_function(theirs, read.model, images_of(read.model.config))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"act_layer": "silu"}, "config.json has act_layer 'silu'; supported are gelu,"),
        ({"act_layer": ["gelu"]}, r"act_layer \['gelu'\]"),
        ({"global_pool": "max"}, "global_pool 'max'; supported are token, avg, map"),
        ({"global_pool": "avgmax"}, "global_pool 'avgmax'"),
        ({"global_pool": ""}, "global_pool ''"),
        ({"pool_include_prefix": True}, "unsupported model_args entry pool_include_prefix=True"),
        ({"norm_layer": "rmsnorm"}, "norm_layer='rmsnorm'"),
        ({"attn_layer": "diff"}, "attn_layer='diff'"),
        ({"rotary": {"base": 100}}, "rotary={'base': 100}"),
        ({"img_size": 5.5}, "model_args do not make a ViT: img_size is 5.5; it must be a positive integer"),
        ({"img_size": True}, "img_size is True"),
        ({"img_size": ["a", "b"]}, r"img_size is \['a', 'b'\]"),
        ({"img_size": [32]}, r"img_size is \[32\]"),
        ({"num_heads": "4"}, "num_heads is '4'; it must be an integer"),
    ],
)
def test_unsupported_arguments_are_named(arguments, named, tmp_path):
    folder, _ = folder_of(tmp_path, {})
    path = folder / "config.json"
    config = json.loads(path.read_text())
    load_checkpoint(folder)
    path.write_text(json.dumps(config | {"model_args": config["model_args"] | arguments}))
    with pytest.raises(InputError, match=named):
        load_checkpoint(folder)
    path.write_text(json.dumps(config | {"model_args": [arguments]}))
    with pytest.raises(InputError, match="they must be a JSON object"):
        load_checkpoint(folder)


def test_an_unsupported_pooling_outside_the_arguments_is_refused(tmp_path):
    folder, _ = folder_of(tmp_path, {}, global_pool="prr")
    with pytest.raises(InputError, match="global_pool 'prr'"):
        load_checkpoint(folder)


def test_a_gated_architecture_has_its_own_activation():
    giant = {"architecture": "vit_giant_patch14_reg4_dinov2"}
    assert Timm().fields_from(giant | {"model_args": {"act_layer": "silu"}}) == Timm().fields_from(giant)
    with pytest.raises(InputError, match="act_layer 'gelu'; supported are silu"):
        Timm().fields_from(giant | {"model_args": {"act_layer": "gelu"}})


@pytest.mark.parametrize("family", ["timm", "deit"])
def test_an_architecture_with_rotary_positions_is_refused(family, tmp_path):
    through_a_file(peer().state_dict(), tmp_path, num_heads=4)
    for name in ("vit_base_patch16_rope_224", "vit_base_patch16_rope_ape_224", "vit_pe_core_base_patch16_224"):
        assert timm.is_model(name)
        (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
        with pytest.raises(InputError, match=f"architecture '{name}', which uses rotary positions"):
            load_checkpoint(tmp_path / "theirs.safetensors", family=family)


def test_attention_pooling_over_the_patches_only_is_refused(tmp_path):
    tensors = peer(global_pool="map", reg_tokens=2).state_dict()
    with pytest.raises(InputError, match="attention pooling over the patches only"):
        through_a_file(tensors, tmp_path, num_heads=4)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"crop_mode": "border"}, "crop_mode 'border'; supported are center, squash"),
        ({"interpolation": "lanczos3"}, "interpolation 'lanczos3'; supported are nearest,"),
        ({"interpolation": "random"}, "interpolation 'random'"),
        ({"interpolation": ["bicubic"]}, r"interpolation \['bicubic'\]"),
    ],
)
def test_unsupported_preprocessing_is_named(changes, named):
    pretrained = {"input_size": [3, 32, 32]}
    assert Timm().preprocessing_from({"pretrained_cfg": pretrained}, {}) is not None
    with pytest.raises(InputError, match=named):
        Timm().preprocessing_from({"pretrained_cfg": pretrained | changes}, {})


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


def test_a_folder_records_the_size_before_pixels_are_cut_off(tmp_path):
    folder, _ = folder_of(tmp_path, {"img_size": 34}, pretrained_cfg={"input_size": [3, 34, 34], "crop_pct": 0.9})
    read = load_checkpoint(folder)
    export_model(read, "timm", tmp_path / "ours")
    again = load_checkpoint(tmp_path / "ours")
    assert (again.model.config, again.preprocessing) == (read.model.config, read.preprocessing)
    assert timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True).patch_embed.img_size == (34, 34)


def test_all_differences_are_listed_and_nothing_is_loaded(tmp_path):
    tensors = peer().state_dict()
    del tensors["blocks.1.norm2.bias"]
    tensors |= {"blocks.2.attn.proj.weight": torch.zeros(2, 2), "blocks.0.attn.q_norm.weight": torch.ones(16)}
    with pytest.raises(InputError) as caught:
        through_a_file(tensors, tmp_path, num_heads=4)
    message = str(caught.value)
    assert "blocks.1.norm2.bias is missing" in message
    assert "blocks.0.attn.q_norm.weight is unexpected" in message
    assert "encoder.blocks.2.attention.out.weight has shape (2, 2), expected (64, 64)" in message
    assert "nothing was loaded" in message


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


def test_a_model_without_query_key_and_value_biases_is_refused(tmp_path):
    tensors = {key: t for key, t in peer().state_dict().items() if not key.endswith("qkv.bias")}
    with pytest.raises(InputError, match="no query, key and value biases"):
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
