"""timm's files: equal to timm itself, in and out bit for bit, and what timm cannot hold."""

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
from vitreous.checkpoints.convert import Beside, read_model
from vitreous.checkpoints.export import export_model
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


# timm's arguments, and what its keys do not say.
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
def test_a_model_of_timm_is_equal_and_goes_out_as_it_came(case, tmp_path):
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
    """Nothing but the folder is told: the config.json says what the keys do not, to timm and to us."""
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


def test_rows_of_registers_are_folded_into_them(tmp_path):
    """Our registers have no rows in the table of positions: adding them to the tokens is the same function."""
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
        ("the paper's", {"pre_norm": True, "norm_eps": 1e-5}, "a bias of the patch projection beside a norm before"),
        ("attention pooling", {"class_token": True}, "attention pooling over a class token"),
        ("distillation", {"registers": 2}, "registers beside a distillation token"),
    ],
)
def test_what_timm_cannot_hold_is_refused_by_name(switch, changes, named, tmp_path):
    ours = small_model(switch, **changes)
    with pytest.raises(InputError, match="timm cannot hold") as caught:
        export_model(StoredModel(ours, Preprocessing(ours.config.image_size)), "timm", tmp_path / "folder")
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_hubs_config_tells_preprocessing_and_class_names(tmp_path):
    export_model(through_a_file(peer().state_dict(), tmp_path, num_heads=4), "timm", tmp_path / "folder")
    path = tmp_path / "folder" / "config.json"
    config = json.loads(path.read_text())
    told = {
        "crop_pct": 0.95,
        "crop_mode": "center",
        "interpolation": "bilinear",
        "mean": [0.1, 0.2, 0.3],
        "std": [1, 2, 3],
    }
    config["pretrained_cfg"] |= told | {"label_names": list("abcdefg")}
    path.write_text(json.dumps(config))
    read = load_checkpoint(tmp_path / "folder")
    expected = Preprocessing((32, 32), "crop", 0.95, "bilinear", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    assert (read.preprocessing, read.class_names) == (expected, tuple("abcdefg"))
    config["pretrained_cfg"]["mean"] = "gray"
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="pretrained_cfg makes no preprocessing"):
        load_checkpoint(tmp_path / "folder")


def test_every_architecture_is_read_as_timm_builds_it():
    """What the names say and the keys do not: heads, GELU, eps and pooling of each ViT that we can hold."""
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
        if model.global_pool == "map" and model.num_prefix_tokens:  # refused, as its own test says
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


def read_config(shapes, belongings):
    from vitreous.checkpoints.families.family import Reading

    family = Timm()
    reading = Reading(given=family.fields_from(belongings))
    family.read(shapes, reading)
    return reading.config()


def folder_of(tmp_path, arguments, architecture=PLAIN, **told):
    """A folder as timm's users push it: the weights, the architecture and the arguments that change it."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    theirs = peer(architecture=architecture, **arguments)
    save_file(theirs.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"architecture": architecture, "model_args": {"num_heads": 4} | arguments} | told)
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
def test_arguments_that_are_known_are_read_as_timm_takes_them(arguments, tmp_path):
    folder, theirs = folder_of(tmp_path, arguments)
    read = load_checkpoint(folder)
    assert_same_function(theirs, read.model, images_of(read.model.config))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"act_layer": "silu"}, "config.json says act_layer 'silu'; those that can be read are gelu,"),
        ({"act_layer": ["gelu"]}, r"act_layer \['gelu'\]"),
        ({"global_pool": "max"}, "global_pool 'max'; those that can be read are token, avg, map"),
        ({"global_pool": "avgmax"}, "global_pool 'avgmax'"),
        ({"global_pool": ""}, "global_pool ''"),
        ({"pool_include_prefix": True}, "pool_include_prefix True in its model_args"),
        ({"norm_layer": "rmsnorm"}, "norm_layer 'rmsnorm'"),
        ({"attn_layer": "diff"}, "attn_layer 'diff'"),
        ({"rotary": {"base": 100}}, "rotary {'base': 100}"),
        ({"img_size": 5.5}, "model_args make no ViT: img_size is 5.5; it must be a positive integer"),
        ({"img_size": True}, "img_size is True"),
        ({"img_size": ["a", "b"]}, r"img_size is \['a', 'b'\]"),
        ({"img_size": [32]}, r"img_size is \[32\]"),
        ({"num_heads": "4"}, "num_heads is '4'; it must be an integer"),
    ],
)
def test_arguments_that_would_be_another_function_are_refused_by_name(arguments, named, tmp_path):
    folder, _ = folder_of(tmp_path, {})
    path = folder / "config.json"
    config = json.loads(path.read_text())
    load_checkpoint(folder)
    path.write_text(json.dumps(config | {"model_args": config["model_args"] | arguments}))
    with pytest.raises(InputError, match=named):
        load_checkpoint(folder)
    path.write_text(json.dumps(config | {"model_args": [arguments]}))
    with pytest.raises(InputError, match="they must be an object"):
        load_checkpoint(folder)


def test_a_pooling_that_the_config_names_outside_the_arguments_is_refused_too(tmp_path):
    folder, _ = folder_of(tmp_path, {}, global_pool="prr")
    with pytest.raises(InputError, match="global_pool 'prr'"):
        load_checkpoint(folder)


def test_a_gated_architecture_has_its_own_activation():
    giant = {"architecture": "vit_giant_patch14_reg4_dinov2"}
    assert Timm().fields_from(giant | {"model_args": {"act_layer": "silu"}}) == Timm().fields_from(giant)
    with pytest.raises(InputError, match="act_layer 'gelu'; those that can be read are silu"):
        Timm().fields_from(giant | {"model_args": {"act_layer": "gelu"}})


@pytest.mark.parametrize("family", ["timm", "deit"])
def test_an_architecture_with_the_same_keys_and_rotary_positions_is_refused(family, tmp_path):
    through_a_file(peer().state_dict(), tmp_path, num_heads=4)
    for name in ("vit_base_patch16_rope_224", "vit_base_patch16_rope_ape_224", "vit_pe_core_base_patch16_224"):
        assert timm.is_model(name)
        with pytest.raises(InputError, match=f"architecture '{name}', which has rotary positions"):
            read_model(tmp_path / "theirs.safetensors", Beside({"architecture": name}, family=family))


def test_attention_pooling_over_the_patches_alone_is_refused(tmp_path):
    tensors = peer(global_pool="map", reg_tokens=2).state_dict()
    with pytest.raises(InputError, match="attention pooling over the patches alone"):
        through_a_file(tensors, tmp_path, num_heads=4)


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"crop_mode": "border"}, "crop_mode 'border'; those that can be read are center, squash"),
        ({"interpolation": "lanczos3"}, "interpolation 'lanczos3'; those that can be read are nearest,"),
        ({"interpolation": "random"}, "interpolation 'random'"),
        ({"interpolation": ["bicubic"]}, r"interpolation \['bicubic'\]"),
    ],
)
def test_preprocessing_that_ours_cannot_do_is_refused_by_name(told, named):
    belongings = {"pretrained_cfg": {"input_size": [3, 32, 32]}}
    assert Timm().preprocessing_from(belongings, {}) is not None
    with pytest.raises(InputError, match=named):
        Timm().preprocessing_from({"pretrained_cfg": belongings["pretrained_cfg"] | told}, {})


def test_positions_with_two_readings_are_asked_about(tmp_path):
    """4 registers without rows and 3×3 patches are 9 positions; 5 tokens with rows and 2×2 patches are too."""
    arguments = {"reg_tokens": 4, "no_embed_class": True, "img_size": 24}
    theirs = peer(**arguments)
    with pytest.raises(InputError, match=r"say which: image_size=\(16, 16\) or image_size=\(24, 24\)"):
        through_a_file(theirs.state_dict(), tmp_path, num_heads=4)
    for told in ({"image_size": 24}, {"position_class_slot": False}):
        read = through_a_file(theirs.state_dict(), tmp_path, num_heads=4, **told)
        assert_same_function(theirs, read.model, images_of(read.model.config))
    folder, theirs = folder_of(tmp_path, arguments)
    config = {"architecture": PLAIN, "model_args": {"num_heads": 4, "no_embed_class": True}}
    (folder / "config.json").write_text(json.dumps(config))
    read = load_checkpoint(folder)
    assert read.model.config.grid == (3, 3)
    assert_same_function(theirs, read.model, images_of(read.model.config))


def test_positions_with_two_readings_may_be_the_smaller_grid(tmp_path):
    theirs = peer(reg_tokens=4, img_size=16)
    for told in ({"image_size": 16}, {"position_class_slot": True}):
        read = through_a_file(theirs.state_dict(), tmp_path, num_heads=4, **told)
        assert_same_function(theirs, read.model, images_of(read.model.config))


def test_a_folder_tells_the_size_before_pixels_that_make_no_whole_patch_are_cut_off(tmp_path):
    folder, _ = folder_of(tmp_path, {"img_size": 34}, pretrained_cfg={"input_size": [3, 34, 34], "crop_pct": 0.9})
    read = load_checkpoint(folder)
    export_model(read, "timm", tmp_path / "ours")
    again = load_checkpoint(tmp_path / "ours")
    assert (again.model.config, again.preprocessing) == (read.model.config, read.preprocessing)
    assert timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True).patch_embed.img_size == (34, 34)


def test_differences_are_all_listed_and_nothing_is_loaded(tmp_path):
    tensors = peer().state_dict()
    del tensors["blocks.1.norm2.bias"]
    tensors |= {"blocks.2.attn.proj.weight": torch.zeros(2, 2), "blocks.0.attn.q_norm.weight": torch.ones(16)}
    with pytest.raises(InputError) as caught:
        through_a_file(tensors, tmp_path, num_heads=4)
    message = str(caught.value)
    assert "blocks.1.norm2.bias is missing" in message
    assert "blocks.0.attn.q_norm.weight has no place" in message
    assert "encoder.blocks.2.attention.out.weight would have shape (2, 2) and not (64, 64)" in message
    assert "nothing was loaded" in message


def test_values_that_are_not_finite_are_refused(tmp_path):
    tensors = peer().state_dict()
    tensors["blocks.1.mlp.fc1.weight"][3, 4] = float("nan")
    with pytest.raises(InputError, match=r"encoder.blocks.1.mlp.fc1.weight holds values that are not finite"):
        through_a_file(tensors, tmp_path, num_heads=4)


def test_heads_that_cannot_be_told_are_asked_for(tmp_path):
    theirs = peer(size=TINY | {"width": 48})
    with pytest.raises(InputError, match="does not say how many heads share its width of 48; say it: num_heads=3"):
        through_a_file(theirs.state_dict(), tmp_path)
    assert through_a_file(theirs.state_dict(), tmp_path, num_heads=4).model.config.num_heads == 4


def test_guesses_are_told_and_what_is_given_is_no_guess(tmp_path):
    tensors = peer(size=TI).state_dict()
    told = str(through_a_file(tensors, tmp_path).report)
    for guess in ("num_heads = 3 (as published for Ti)", "gelu = exact", "norm_eps = 1e-06", "image_size = (32, 32)"):
        assert guess in told
    told = str(through_a_file(tensors, tmp_path, num_heads=6, gelu="tanh").report)
    assert "num_heads" not in told
    assert "gelu" not in told


def test_a_model_without_biases_of_query_key_and_value_is_refused(tmp_path):
    tensors = {key: t for key, t in peer().state_dict().items() if not key.endswith("qkv.bias")}
    with pytest.raises(InputError, match="no biases of query, key and value"):
        through_a_file(tensors, tmp_path, num_heads=4)


def test_an_unknown_family_is_told_with_the_nearest(tmp_path):
    tensors = peer().state_dict()
    renamed = {key.replace("attn.qkv", "attn.in_proj"): tensor for key, tensor in tensors.items()}
    with pytest.raises(InputError) as caught:
        through_a_file(renamed, tmp_path)
    message = str(caught.value)
    assert "of no family that is known (tried " in message
    assert "google" in message
    assert "nearest is timm" in message or "nearest is d" in message
    assert "blocks.0.attn.qkv.weight" in message


def test_fields_that_are_none_are_told(tmp_path):
    with pytest.raises(InputError, match="'num_head' is no field of a model; did you mean 'num_heads'"):
        through_a_file(peer().state_dict(), tmp_path, num_head=4)


def test_read_model_takes_the_family_it_is_told(tmp_path):
    through_a_file(peer(size=TI).state_dict(), tmp_path)
    path = tmp_path / "theirs.safetensors"
    read = read_model(path, Beside(family="dino"))
    assert read.metadata["family"] == "dino"
    assert read.model.config.position_resampling == "bicubic_offset"
    with pytest.raises(InputError, match="is no file of Google's vision_transformer"):
        read_model(path, Beside(family="google"))
