"""Meta's files: DeiT, DeiT-III, DINO, DINOv2 and MAE, in every shape they are published in.

The models are timm's of the same architectures; timm's own reader of these files confirms the names.
"""

import argparse

import pytest
import timm
import torch
from timm.models import vision_transformer as timm_vit

from tests.checkpoints.families.test_timm import peer
from tests.checkpoints.peers import TI, TINY, assert_same_function, assert_same_tensors, images_of
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.files.tensors import read_tensors, write_tensors
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError

HEADS = {"num_heads": TINY["num_heads"]}


def saved(folder, nested):
    """A checkpoint as the authors' training scripts save it."""
    path = folder / "checkpoint.pth"
    torch.save(nested, path)
    return path


def heads_of(theirs):
    """The heads, which no file records, unless the width is a published one."""
    return {} if theirs.embed_dim == TI["width"] else HEADS


def vit(**arguments):
    return peer(**arguments).state_dict()


def deit3(tensors):
    """DeiT-III's names of LayerScale."""
    return {key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): t for key, t in tensors.items()}


def dinov2(model, chunk=0):
    """The authors' keys of a timm model: a row for the class token, a mask token, registers, SwiGLU, chunks."""
    tensors, width = {}, model.embed_dim
    for key, tensor in model.state_dict().items():
        name = key.replace("reg_token", "register_tokens")
        if isinstance(model.blocks[0].mlp, timm.layers.GluMlp):
            name = name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        if chunk and name.startswith("blocks."):
            i = int(name.split(".")[1])
            name = name.replace(f"blocks.{i}.", f"blocks.{i // chunk}.{i}.")
        tensors[name] = tensor
    if model.no_embed_class:
        tensors["pos_embed"] = torch.cat([torch.full((1, 1, width), 0.25), tensors["pos_embed"]], dim=1)
        tensors["cls_token"] = tensors["cls_token"] - 0.25
    return tensors | {"mask_token": torch.linspace(-1, 1, width)[None]}


DEIT_DISTILLED = {"architecture": "deit_base_distilled_patch16_224"}
DINOV2 = {"init_values": 0.1, "num_classes": 0}
GIANT = DINOV2 | {"architecture": "vit_giant_patch14_dinov2", "mlp_ratio": 4.0}
REGISTERS = {"reg_tokens": 4, "no_embed_class": True}
MAE_HEAD = {"global_pool": "avg"}

# Family, timm's model, and the checkpoint as its authors save it.
CASES = {
    "DeiT": ("deit", peer(), lambda m: {"model": m.state_dict(), "epoch": 3, "args": argparse.Namespace(lr=1.0)}),
    "DeiT, distilled": ("deit", peer(**DEIT_DISTILLED), lambda m: {"model": m.state_dict()}),
    "DeiT-III": ("deit", peer(init_values=0.1, no_embed_class=True), lambda m: {"model": deit3(m.state_dict())}),
    "DINO, full": (
        "dino",
        peer(num_classes=0),
        lambda m: {
            "student": {f"module.backbone.{k}": t + 1 for k, t in m.state_dict().items()}
            | {"module.head.mlp.0.weight": torch.ones(2, 2)},
            "teacher": {f"backbone.{k}": t for k, t in m.state_dict().items()}
            | {"head.last_layer.weight": torch.ones(2, 2)},
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
            "dino_loss": {"center": torch.zeros(1, 3)},
            "epoch": 100,
            "args": argparse.Namespace(arch="vit_small"),
        },
    ),
    "DINO, the student alone": (
        "dino",
        peer(num_classes=0),
        lambda m: {"student": {f"module.backbone.{k}": t for k, t in m.state_dict().items()}},
    ),
    "DINOv2": ("dinov2", peer(**DINOV2), dinov2),
    "DINOv2, registers": ("dinov2", peer(**DINOV2, **REGISTERS), dinov2),
    "DINOv2, giant": ("dinov2", peer(**GIANT), dinov2),
    "DINOv2, giant with registers": ("dinov2", peer(**GIANT, **REGISTERS), dinov2),
    "DINOv2, chunked": ("dinov2", peer(**DINOV2, depth=4), lambda m: dinov2(m, chunk=2)),
    "DINOv2, chunked unevenly": ("dinov2", peer(**DINOV2, depth=5), lambda m: dinov2(m, chunk=2)),
    "DINOv2, a teacher's checkpoint": (
        "dinov2",
        peer(**DINOV2),
        lambda m: {
            "teacher": {f"backbone.{k}": t for k, t in dinov2(m).items()} | {"dino_head.mlp.0.weight": torch.ones(2, 2)}
        },
    ),
    "MAE, pre-training": (
        "mae",
        peer(num_classes=0),
        lambda m: {
            "model": m.state_dict()
            | {"mask_token": torch.ones(1, 1, 8), "decoder_embed.weight": torch.ones(8, 64)}
            | {"decoder_pos_embed": torch.ones(1, 17, 8), "decoder_blocks.0.attn.qkv.weight": torch.ones(24, 8)},
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
        },
    ),
    "MAE, the encoder alone": ("mae", peer(num_classes=0), lambda m: {"model": m.state_dict()}),
    "DeiT, Ti": ("deit", peer(size=TI), lambda m: {"model": m.state_dict()}),
    "DINO, Ti": ("dino", peer(size=TI, num_classes=0), lambda m: {"teacher": m.state_dict()}),
    "DINOv2, Ti": ("dinov2", peer(size=TI, **DINOV2), dinov2),
    "MAE, Ti": ("mae", peer(size=TI, num_classes=0), lambda m: {"model": m.state_dict()}),
    "MAE, fine-tuned": ("mae", peer(**MAE_HEAD), lambda m: {"model": m.state_dict()}),
}


def deit(model):
    tensors = model.state_dict()
    return wrapped(deit3(tensors) if "blocks.0.ls1.gamma" in tensors else tensors)


def wrapped(tensors):
    return {f"model/{key}": tensor for key, tensor in tensors.items()}


# The usual layout of each family, which export writes whatever the layout of the file was.
USUAL = {
    "deit": deit,
    "dino": lambda m: m.state_dict(),
    "dinov2": dinov2,
    "mae": lambda m: wrapped(m.state_dict()),
}


@pytest.mark.parametrize("case", CASES)
def test_a_published_shape_is_equal_and_exports_to_the_same_tensors(case, tmp_path):
    family, theirs, nest = CASES[case]
    read = load_checkpoint(saved(tmp_path, nest(theirs)), **heads_of(theirs))
    assert read.metadata["family"] == family
    assert_same_function(theirs, read.model, images_of(read.model.config))
    export_model(read, family, tmp_path / "out.pth")
    with read_tensors(tmp_path / "out.pth") as written:
        assert_same_tensors(dict(written), USUAL[family](theirs))


def test_bare_weights_of_deit3_need_their_family(tmp_path):
    """timm's models with rotary positions and a table have exactly these keys."""
    theirs = peer(init_values=0.1, no_embed_class=True)
    path = saved(tmp_path, deit3(theirs.state_dict()))
    with pytest.raises(InputError, match=r"keys of DeiT-III .* set the family to deit"):
        load_checkpoint(path, **HEADS)
    read = load_checkpoint(path, family="deit", **HEADS)
    assert_same_function(theirs, read.model, images_of(read.model.config))


OTHER_MODELS = {
    "rotary, norm before the blocks": {"architecture": "vit_pe_spatial_base_patch16_512", "num_classes": 0},
    "norms after": {"architecture": "vit_base_patch16_rpn_224"},
    "DINOv3": {"architecture": "vit_base_patch16_dinov3"},
    "registers": {"reg_tokens": 4},
    "no row for the class token": {"no_embed_class": True, "num_classes": 0},
    "RMS norms": {"norm_layer": "rmsnorm", "num_classes": 0},
    "LayerScale": {"init_values": 0.1, "num_classes": 0},
    "no final norm": {"final_norm": False, "num_classes": 0},
    "no class token": {"class_token": False, "global_pool": "avg", "num_classes": 0},
    "norms of query and key": {"qk_norm": True},
    "SwiGLU": {"architecture": "vit_giant_patch14_dinov2", "mlp_ratio": 4.0},
}


def outcome(path, images):
    """What loading a file gives: the family and the output, or the error's cause and hint."""
    try:
        read = load_checkpoint(path, image_size=(32, 32), **HEADS)
    except InputError as error:
        return error.cause, error.hint
    with torch.no_grad():
        return read.metadata["family"], read.model.representation(images).flatten().tolist()


@pytest.mark.parametrize("wrapper", ["model", "teacher", "student"])
@pytest.mark.parametrize("kind", OTHER_MODELS)
def test_no_wrapper_changes_what_another_model_is_read_as(kind, wrapper, tmp_path):
    tensors, images = peer(**OTHER_MODELS[kind]).state_dict(), torch.randn(2, 3, 32, 32)
    bare = outcome(saved(tmp_path, tensors), images)
    assert outcome(saved(tmp_path, {wrapper: tensors, "optimizer": {}, "epoch": 1}), images) == bare


@pytest.mark.parametrize("case", CASES)
def test_a_safetensors_file_holds_the_same_without_nesting(case, tmp_path):
    family, theirs, nest = CASES[case]
    read = load_checkpoint(saved(tmp_path, nest(theirs)), **heads_of(theirs))
    export_model(read, family, tmp_path / "out.safetensors")
    again = load_checkpoint(tmp_path / "out.safetensors", family=family, **heads_of(theirs))
    assert "/" not in "".join(read_tensors(tmp_path / "out.safetensors"))
    assert_same_tensors(again.model.state_dict(), read.model.state_dict())


@pytest.mark.parametrize(
    ("case", "reasons"),
    [
        ("DeiT", {"not a tensor"}),
        (
            "DINO, full",
            {
                "the student; the teacher is the model",
                "the projection head of self-supervised training",
                "state of a training run",
                "not a tensor",
            },
        ),
        ("DINO, the student alone", set()),
        ("DINOv2", set()),
        (
            "MAE, pre-training",
            {"the pre-training decoder", "the decoder's mask token", "state of a training run"},
        ),
    ],
)
def test_dropped_keys_are_listed_with_their_reasons(case, reasons, tmp_path):
    _, theirs, nest = CASES[case]
    read = load_checkpoint(saved(tmp_path, nest(theirs)), **heads_of(theirs))
    assert set(read.report.dropped.values()) == reasons
    for reason in reasons:
        assert reason in str(read.report)


def training_run(weights, mean, theirs):
    """What a training script saves: the weights, their average, and its own state."""
    tensors = theirs.state_dict()
    running = {key: tensor + 1 for key, tensor in tensors.items()}
    state = {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "amp_scaler": {"scale": torch.ones(1)}}
    return {mean: running, weights: tensors, "epoch": 3, "arch": "vit_base_patch16_224"} | state


def test_of_timms_training_run_the_averaged_weights_are_read_and_that_is_said(tmp_path):
    theirs = peer()
    read = load_checkpoint(saved(tmp_path, training_run("state_dict_ema", "state_dict", theirs)), **heads_of(theirs))
    assert read.metadata["family"] == "timm"
    assert_same_function(theirs, read.model, images_of(read.model.config))
    reasons = {key.partition("/")[0]: why for key, why in read.report.dropped.items()}
    assert reasons["state_dict"] == "the last weights; their average, state_dict_ema, is the model, as in timm"
    assert reasons["optimizer"] == reasons["amp_scaler"] == "state of a training run"
    last = load_checkpoint(tmp_path / "checkpoint.pth", part="state_dict", **heads_of(theirs))
    assert torch.equal(last.model.class_token, theirs.cls_token + 1)


@pytest.mark.parametrize("mean", ["ema", "model_ema"])
def test_of_other_averages_the_caller_chooses(mean, tmp_path):
    theirs = peer()
    path = saved(tmp_path, training_run("model", mean, theirs))
    with pytest.raises(InputError, match="holds 2 models") as caught:
        load_checkpoint(path, **heads_of(theirs))
    assert caught.value.hint == f"choose one: --part {mean} or --part model (part= in Python)"
    read = load_checkpoint(path, part="model", **heads_of(theirs))
    assert read.metadata["family"] == "deit"
    assert_same_function(theirs, read.model, images_of(read.model.config))
    assert f"another model, which part {mean!r} takes" in str(read.report)


def test_averaged_weights_alone_are_read(tmp_path):
    theirs = peer()
    read = load_checkpoint(saved(tmp_path, {"state_dict_ema": theirs.state_dict()}), **heads_of(theirs))
    assert read.report.dropped == {}
    assert_same_function(theirs, read.model, images_of(read.model.config))


JUDGED = {
    "deit": {"the paper's": {}, "exact GELU": {}, "distillation": {}, "SwiGLU and LayerScale": {"mlp": "mlp"}},
    "dino": {"no classes": {}},
    "dinov2": {
        "SwiGLU and LayerScale": {"num_classes": 0},
        "registers": {"num_classes": 0, "layer_scale": 0.1, "mask_token": True},
    },
    "mae": {"no classes": {}, "mean pooling beside a class token, norm after": {}, "exact GELU": {}},
}


@pytest.mark.parametrize(("family", "switch"), [(family, switch) for family in JUDGED for switch in JUDGED[family]])
def test_timm_reads_what_we_write(family, switch, tmp_path):
    """timm's reader of the authors' files gives the same function from ours."""
    ours = small_model(switch, **({"gelu": "exact"} | JUDGED[family][switch]))
    c = ours.config
    export_model(StoredModel(ours, Preprocessing(c.image_size)), family, tmp_path / "m.pth")
    written = torch.load(tmp_path / "m.pth", weights_only=True)
    architecture = "vit_base_patch16_224"
    if c.distillation_token:
        architecture = "deit_base_distilled_patch16_224"
    elif c.mlp == "swiglu":
        architecture = "vit_giant_patch14_dinov2"
    theirs = timm.create_model(
        architecture, img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=3, num_classes=c.num_classes,
        mlp_ratio=4 if c.mlp == "swiglu" else 2, init_values=c.layer_scale, reg_tokens=c.registers,
        no_embed_class=c.registers > 0 or (family == "deit" and c.layer_scale is not None),
        global_pool="avg" if c.pooling == "mean" else "token",
    ).eval()  # fmt: skip
    if family == "deit":
        tensors = timm_vit.checkpoint_filter_fn(written, theirs, adapt_layer_scale=True)
    else:
        tensors = timm_vit.checkpoint_filter_fn(written, theirs)
    theirs.load_state_dict(tensors, strict=True)
    assert_same_function(theirs, ours, images_of(c))


def test_positions_are_resampled_as_the_authors_do(tmp_path):
    ways = {}
    for case, (family, theirs, nest) in CASES.items():
        ways.setdefault((family, "registers" in case), set()).add(
            load_checkpoint(saved(tmp_path, nest(theirs)), **heads_of(theirs)).model.config.position_resampling
        )
    assert ways == {
        ("deit", False): {"bicubic"},
        ("dino", False): {"bicubic_offset"},
        ("dinov2", False): {"bicubic_offset"},
        ("dinov2", True): {"bicubic_antialias"},
        ("mae", False): {"bicubic"},
    }


@pytest.mark.parametrize(
    ("family", "switch", "changes", "named"),
    [
        ("deit", "the paper's", {}, "tanh GELU"),
        ("deit", "exact GELU", {"pooling": "mean"}, "mean pooling"),
        ("deit", "distillation", {"layer_scale": 0.1}, "LayerScale with a distillation token"),
        ("deit", "registers", {}, "registers"),
        ("dino", "exact GELU", {}, "a classifier"),
        ("dinov2", "no classes", {}, "tanh GELU, no LayerScale"),
        ("dinov2", "rectangles", {"num_classes": 0}, "images of 32×48 in patches of 8×4"),
        ("mae", "mean pooling", {}, "no class token"),
        (
            "mae",
            "mean pooling beside a class token, norm after",
            {"norm_after_pooling": False},
            "the final norm before mean",
        ),
    ],
)
def test_unsupported_parts_are_named(family, switch, changes, named, tmp_path):
    ours = small_model(switch, **changes)
    with pytest.raises(InputError, match="cannot hold") as caught:
        export_model(StoredModel(ours, Preprocessing(ours.config.image_size)), family, tmp_path / "m.pth")
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_mask_token_without_a_place_is_left_out_and_reported(tmp_path):
    ours = small_model("no classes", gelu="exact", mask_token=True)
    report = export_model(StoredModel(ours, Preprocessing((32, 32))), "dino", tmp_path / "m.pth")
    assert report.dropped == {"mask_token": "the format has no place for it, and it does not affect the output"}
    again = load_checkpoint(tmp_path / "m.pth", family="dino", num_heads=3)
    assert_same_function(again.model, ours, images_of(ours.config))


def test_a_nested_file_with_a_missing_key_is_refused(tmp_path):
    tensors = {f"model/{key}": tensor for key, tensor in vit().items() if "blocks.1.attn.proj" not in key}
    write_tensors(tmp_path / "m.pth", tensors)
    with pytest.raises(InputError, match=r"model/blocks.1.attn.proj.weight is missing"):
        load_checkpoint(tmp_path / "m.pth", **HEADS)
