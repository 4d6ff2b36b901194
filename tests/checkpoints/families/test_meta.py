"""Meta's files: DeiT, DeiT-III, DINO, DINOv2 and MAE, in every shape they are published in.

The models are timm's of the same architectures, and timm's own reader of these files is the judge of their names.
"""

import argparse

import pytest
import timm
import torch
from tests.checkpoints.test_timm import peer
from timm.models import vision_transformer as timm_vit

from tests.checkpoints.peers import TI, TINY, assert_same_function, assert_same_tensors, images_of
from tests.model.models import small_model
from vitreous.checkpoints.convert import Beside, read_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.files.tensors import read_tensors, write_tensors
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError

HEADS = {"num_heads": TINY["num_heads"]}


def saved(folder, nested):
    """A checkpoint as the authors' training scripts save it."""
    path = folder / "checkpoint.pth"
    torch.save(nested, path)
    return path


def told(theirs):
    """What no file says: the heads, but where the width is a published size's."""
    return Beside(fields={} if theirs.embed_dim == TI["width"] else HEADS)


def vit(**arguments):
    return peer(**arguments).state_dict()


def third(tensors):
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

# Family, timm's model, what the checkpoint holds of it, and which keys of it are dropped.
CASES = {
    "DeiT": ("deit", peer(), lambda m: {"model": m.state_dict(), "epoch": 3, "args": argparse.Namespace(lr=1.0)}),
    "DeiT, distilled": ("deit", peer(**DEIT_DISTILLED), lambda m: {"model": m.state_dict()}),
    "DeiT-III": ("deit", peer(init_values=0.1, no_embed_class=True), lambda m: {"model": third(m.state_dict())}),
    "DeiT-III, bare": ("deit", peer(init_values=0.1, no_embed_class=True), lambda m: third(m.state_dict())),
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


@pytest.mark.parametrize("case", CASES)
def test_a_published_shape_is_equal_and_goes_out_as_it_came(case, tmp_path):
    family, theirs, nest = CASES[case]
    path = saved(tmp_path, nest(theirs))
    read = read_model(path, told(theirs))
    assert read.metadata["family"] == family
    assert_same_function(theirs, read.model, images_of(read.model.config))
    export_model(read, family, tmp_path / "out.pth")
    with read_tensors(path) as before, read_tensors(tmp_path / "out.pth") as after:
        kept = {key: tensor for key, tensor in before.items() if key not in read.report.dropped}
        assert_same_tensors(dict(after), kept)


@pytest.mark.parametrize("case", CASES)
def test_a_safetensors_file_holds_the_same_without_the_nesting(case, tmp_path):
    family, theirs, nest = CASES[case]
    read = read_model(saved(tmp_path, nest(theirs)), told(theirs))
    export_model(read, family, tmp_path / "out.safetensors")
    again = read_model(tmp_path / "out.safetensors", Beside(fields=told(theirs).fields, family=family))
    assert "/" not in "".join(read_tensors(tmp_path / "out.safetensors"))
    assert_same_tensors(again.model.state_dict(), read.model.state_dict())


@pytest.mark.parametrize(
    ("case", "whys"),
    [
        ("DeiT", {"no tensor"}),
        (
            "DINO, full",
            {
                "the student; the teacher is the model",
                "the projection head of self-supervised training",
                "state of a training run",
                "no tensor",
            },
        ),
        ("DINO, the student alone", set()),
        ("DINOv2", set()),
        (
            "MAE, pre-training",
            {"the decoder, which pre-training alone needs", "the decoder's mask token", "state of a training run"},
        ),
    ],
)
def test_what_is_dropped_is_listed_with_its_rule(case, whys, tmp_path):
    _, theirs, nest = CASES[case]
    read = read_model(saved(tmp_path, nest(theirs)), told(theirs))
    assert set(read.report.dropped.values()) == whys
    for why in whys:
        assert why in str(read.report)


def training_run(weights, mean, theirs):
    """What a training script saves: the weights, their running mean, and its own state."""
    tensors = theirs.state_dict()
    running = {key: tensor + 1 for key, tensor in tensors.items()}
    state = {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "amp_scaler": {"scale": torch.ones(1)}}
    return {mean: running, weights: tensors, "epoch": 3, "arch": "vit_base_patch16_224"} | state


@pytest.mark.parametrize(
    ("weights", "mean", "family"),
    [("state_dict", "state_dict_ema", "timm"), ("model", "ema", "deit"), ("model", "model_ema", "deit")],
)
def test_a_training_run_is_read_without_the_running_mean_of_its_weights(weights, mean, family, tmp_path):
    theirs = peer()
    read = read_model(saved(tmp_path, training_run(weights, mean, theirs)), told(theirs))
    assert read.metadata["family"] == family
    assert_same_function(theirs, read.model, images_of(read.model.config))
    whys = {key.partition("/")[0]: why for key, why in read.report.dropped.items()}
    assert whys[mean] == "the running mean of the weights; those that were trained are the model"
    assert whys["optimizer"] == whys["amp_scaler"] == "state of a training run"


def test_a_running_mean_alone_is_read(tmp_path):
    theirs = peer()
    read = read_model(saved(tmp_path, {"state_dict_ema": theirs.state_dict()}), told(theirs))
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
            read_model(saved(tmp_path, nest(theirs)), told(theirs)).model.config.position_resampling
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
        ("deit", "distillation", {"layer_scale": 0.1}, "LayerScale beside a distillation token"),
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
def test_what_a_family_cannot_hold_is_refused_by_name(family, switch, changes, named, tmp_path):
    ours = small_model(switch, **changes)
    with pytest.raises(InputError, match="cannot hold") as caught:
        export_model(StoredModel(ours, Preprocessing(ours.config.image_size)), family, tmp_path / "m.pth")
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_mask_token_without_a_place_is_left_out_and_told(tmp_path):
    ours = small_model("no classes", gelu="exact", mask_token=True)
    report = export_model(StoredModel(ours, Preprocessing((32, 32))), "dino", tmp_path / "m.pth")
    assert report.dropped == {"mask_token": "it has no place there, and no part in the function"}
    again = read_model(tmp_path / "m.pth", Beside(family="dino", fields={"num_heads": 3}))
    assert_same_function(again.model, ours, images_of(ours.config))


def test_a_wrapped_file_of_the_wrong_depth_is_refused(tmp_path):
    tensors = {f"model/{key}": tensor for key, tensor in vit().items() if "blocks.1.attn.proj" not in key}
    write_tensors(tmp_path / "m.pth", tensors)
    with pytest.raises(InputError, match=r"model/blocks.1.attn.proj.weight is missing"):
        read_model(tmp_path / "m.pth", Beside(fields=HEADS))
