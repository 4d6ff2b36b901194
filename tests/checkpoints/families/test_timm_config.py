"""timm's config.json: arguments, preprocessing and class names, read and refused."""

import json

import pytest
import timm
import torch
from timm.models import save_for_hf

from tests.checkpoints.families.test_timm import folder_of, peer
from tests.checkpoints.peers import assert_same_function, filled, images_of, through_a_file
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.families.shared.reading import Reading
from vitreous.checkpoints.families.timm.family import TimmModules
from vitreous.checkpoints.families.timm.plain import Timm
from vitreous.checkpoints.load import load_checkpoint
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError


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


@pytest.mark.parametrize("key", ["labels", "label_names"])
def test_the_flat_config_of_older_versions_is_read_as_in_timm(key, tmp_path):
    own = {"input_size": [3, 32, 32], "crop_pct": 0.8, "interpolation": "bilinear", "crop_mode": "squash"}
    own |= {"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0], "num_classes": 7}
    folder, _ = folder_of(tmp_path, {})
    flat = {"architecture": "vit_base_patch16_224", key: list("abcdefg")} | own
    (folder / "config.json").write_text(json.dumps(flat))
    read = load_checkpoint(folder, num_heads=4)
    expected = Preprocessing((32, 32), "squash", 0.8, "bilinear", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    assert (read.preprocessing, read.class_names) == (expected, tuple("abcdefg"))
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 4, "mlp_ratio": 2}
    theirs = timm.create_model(f"local-dir:{folder}", **small).pretrained_cfg
    assert tuple(theirs["label_names"]) == read.class_names
    assert (theirs["crop_pct"], theirs["interpolation"]) == (0.8, "bilinear")


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
        slot = model.pos_embed is None or not model.no_embed_class or not model.num_prefix_tokens
        found = config.num_heads, config.gelu, config.norm_eps, config.pooling, config.position_class_slot
        if found != (block.attn.num_heads, gelu, block.norm1.eps, pooling, slot):
            wrong.append((name, found))
    assert wrong == []
    assert checked > 100


def read_config(shapes, config_json):
    family = Timm()
    reading = Reading(family.fields_from(config_json))
    family.read(shapes, reading)
    return reading.config()


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
        ({"pool_include_prefix": True, "global_pool": "avg"}, "pool_include_prefix with global_pool 'avg'"),
        ({"norm_layer": "batchnorm2d"}, "norm_layer 'batchnorm2d'; supported are layernorm, rmsnorm"),
        ({"norm_layer": "rmsnorm"}, r"blocks.0.norm1.bias is unexpected"),
        ({"embed_norm_layer": "rmsnorm"}, "unsupported model_args entry embed_norm_layer='rmsnorm'"),
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


def test_a_folder_without_pooling_and_classifier_is_read(tmp_path):
    folder, theirs = folder_of(tmp_path, {"global_pool": "", "num_classes": 0}, num_classes=0, global_pool="")
    read = load_checkpoint(folder)
    assert "pooling = class_token" in str(read.report)
    assert_same_function(lambda x: theirs(x)[:, 0], read.model, images_of(read.model.config))


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("vit_base_patch16_224", {}),
        ("eva02_tiny_patch14_224", {}),
        ("vit_base_patch16_dinov3", {}),
        ("vit_base_patch16_rope_224", {}),
        ("beit_base_patch16_224", {}),
        ("beitv2_base_patch16_224", {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}),
    ],
)
def test_a_config_that_leaves_the_pooling_open_is_read(architecture, arguments, tmp_path):
    """Features of timm's, global_pool='': which of the tokens to use is a guess, and each choice gives timm's own."""
    small = {"img_size": (32, 24), "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 4}
    small |= arguments | {"global_pool": ""}
    theirs = filled(timm.create_model(architecture, num_classes=0, **small))
    save_for_hf(theirs, tmp_path / "theirs", model_args=small, safe_serialization=True)
    read = load_checkpoint(tmp_path / "theirs")
    [guess] = [guess for guess in read.report.guesses if guess.field == "pooling"]
    pools = {
        "class_token": lambda x: theirs(x)[:, 0],
        "mean": lambda x: theirs(x)[:, theirs.num_prefix_tokens :].mean(1),
    }
    assert_same_function(pools[guess.value], read.model, images_of(read.model.config))
    other = next(name for name in pools if name != guess.value)
    other_read = load_checkpoint(tmp_path / "theirs", pooling=other)
    assert_same_function(pools[other], other_read.model, images_of(read.model.config))
    path = tmp_path / "theirs/config.json"
    config = json.loads(path.read_text())
    assert config["model_args"]["global_pool"] == ""
    path.write_text(json.dumps(config | {"num_classes": 7}))  # a classifier has a pooling
    with pytest.raises(InputError, match="global_pool ''; supported are token, avg, map"):
        load_checkpoint(tmp_path / "theirs")


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "eva02_tiny_patch14_224", "beit_base_patch16_224"])
def test_arguments_that_are_no_object_are_refused_by_every_module(name):
    family = TimmModules()
    for arguments in ([], "", 0, False, [{"num_heads": 3}]):
        with pytest.raises(InputError, match="they must be a JSON object"):
            family.fields_from({"architecture": name, "model_args": arguments})
    assert family.fields_from({"architecture": name, "model_args": None}) == family.fields_from({"architecture": name})


def test_an_unsupported_pooling_outside_the_arguments_is_refused(tmp_path):
    folder, _ = folder_of(tmp_path, {}, global_pool="prr")
    with pytest.raises(InputError, match="global_pool 'prr'"):
        load_checkpoint(folder)


def test_a_gated_architecture_has_its_own_activation():
    giant = {"architecture": "vit_giant_patch14_reg4_dinov2"}
    assert Timm().fields_from(giant | {"model_args": {"act_layer": "silu"}}) == Timm().fields_from(giant)
    with pytest.raises(InputError, match="act_layer 'gelu'; supported are silu"):
        Timm().fields_from(giant | {"model_args": {"act_layer": "gelu"}})


def test_an_architecture_with_rotary_positions_is_refused_by_deit(tmp_path):
    through_a_file(peer().state_dict(), tmp_path, num_heads=4)
    for name in ("vit_base_patch16_rope_224", "vit_base_patch16_rope_ape_224", "vit_pe_core_base_patch16_224"):
        assert timm.is_model(name)
        (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
        with pytest.raises(InputError, match=f"architecture '{name}', which uses rotary positions"):
            load_checkpoint(tmp_path / "theirs.safetensors", family="deit")


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


def test_a_folder_records_the_size_before_pixels_are_cut_off(tmp_path):
    folder, _ = folder_of(tmp_path, {"img_size": 34}, pretrained_cfg={"input_size": [3, 34, 34], "crop_pct": 0.9})
    read = load_checkpoint(folder)
    export_model(read, "timm", tmp_path / "ours")
    again = load_checkpoint(tmp_path / "ours")
    assert (again.model.config, again.preprocessing) == (read.model.config, read.preprocessing)
    assert timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True).patch_embed.img_size == (34, 34)
