"""Google's and big_vision's files: read, exported unchanged, and refused if they do not fit.

tests/test_equality.py shows that the loaded models equal the authors'.
"""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from tests.checkpoints.peers import TI, assert_same_function, assert_same_tensors, images_of
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.families.jax import BLOCK, SCANNED, Google, JaxNaming
from vitreous.checkpoints.families.shared.key_map import to_ours
from vitreous.checkpoints.files.tensors import read_tensors, write_tensors
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError

REFERENCE = Path(__file__).parents[2] / "reference"
NAMES = sorted(path.name.removesuffix(".expected.npz") for path in REFERENCE.glob("*.expected.npz"))
WEIGHTS = {name: REFERENCE / f"{name.removesuffix('_at_48px')}.npz" for name in NAMES}


def stored(switch, **overrides):
    model = small_model(switch, **overrides)
    return StoredModel(model, Preprocessing(model.config.image_size))


def family_of(name):
    return "big_vision" if name.startswith("big_vision") else "google"


@pytest.mark.parametrize("name", NAMES)
def test_export_is_the_inverse_bit_for_bit(name, tmp_path):
    read = load_checkpoint(WEIGHTS[name])
    assert read.metadata["family"] == family_of(name)
    export_model(read, family_of(name), tmp_path / "out.npz")
    before, after = np.load(WEIGHTS[name]), np.load(tmp_path / "out.npz")
    assert set(before.files) == set(after.files)
    for key in before.files:
        assert before[key].dtype == after[key].dtype
        np.testing.assert_array_equal(before[key], after[key], err_msg=key, strict=True)


HELD = {
    "google": [
        "the paper's",
        "hidden layer",
        "mean pooling",
        "hybrid",
        "hybrid root",
        "rectangles",
        "one channel",
        "no classes",
    ],
    "big_vision": [
        "the paper's",
        "hidden layer",
        "mean pooling",
        "attention pooling",
        "sincos",
        "learned without class slot",
        "no classes",
    ],
}


@pytest.mark.parametrize(("family", "switch"), [(family, switch) for family in HELD for switch in HELD[family]])
def test_supported_models_come_back(family, switch, tmp_path):
    model = stored(switch)
    export_model(model, family, tmp_path / "model.npz")
    again = load_checkpoint(tmp_path / "model.npz", **{"image_size": model.model.config.image_size})
    assert again.metadata["family"] == family
    slot = again.model.config.position_class_slot  # has no effect without a class token
    assert again.model.config == model.model.config.replace(position_class_slot=slot)
    assert_same_tensors(again.model.state_dict(), model.model.state_dict())


def test_siglip_comes_back_without_its_text_tower(tmp_path):
    model = stored("attention pooling", num_classes=0)
    export_model(model, "siglip", tmp_path / "model.npz")
    tensors = dict(read_tensors(tmp_path / "model.npz"))
    assert "params/img/MAPHead_0/probe" in tensors
    write_tensors(tmp_path / "both.npz", tensors | {"params/txt/head/bias": torch.ones(2), "params/t": torch.ones(1)})
    again = load_checkpoint(tmp_path / "both.npz")
    assert again.metadata["family"] == "siglip"
    assert again.report.dropped == dict.fromkeys(("params/txt/head/bias", "params/t"), "the text tower")
    assert_same_tensors(again.model.state_dict(), model.model.state_dict())


@pytest.mark.parametrize("prefix", ["params/", ""])
def test_scanned_blocks_are_read_from_one_tensor(prefix, tmp_path):
    """All blocks along a leading axis: the stack of every block's tensors."""
    model = stored("mean pooling")
    export_model(model, "big_vision", tmp_path / "apart.npz")
    apart = dict(read_tensors(tmp_path / "apart.npz"))
    scanned = {}
    for key, tensor in apart.items():
        plain = prefix + key.removeprefix("params/")
        if BLOCK.format(0) in plain:
            parts = [apart[key.replace(BLOCK.format(0), BLOCK.format(i))] for i in range(3)]
            scanned[plain.replace(BLOCK.format(0), SCANNED)] = torch.stack(parts)
        elif "encoderblock_" not in plain:
            scanned[plain] = tensor
    write_tensors(tmp_path / "scanned.npz", scanned)
    again = load_checkpoint(tmp_path / "scanned.npz")
    assert_same_tensors(again.model.state_dict(), model.model.state_dict())
    export_model(again, "big_vision", tmp_path / "again.npz")
    assert_same_tensors(dict(read_tensors(tmp_path / "again.npz")), apart)


@pytest.mark.parametrize(
    ("switch", "family"),
    [
        ("the paper's", "google"),
        ("mean pooling", "big_vision"),
        ("attention pooling", "big_vision"),
        ("hidden layer", "google"),
        ("attention pooling", "siglip"),
        ("learned without class slot", "big_vision"),
    ],
)
@pytest.mark.parametrize("size", [{}, TI], ids=["tiny", "Ti"])
def test_timm_reads_what_we_write(switch, family, size, tmp_path):
    """An independent reader of these files: timm's own, which ignores the hidden layer."""
    model = stored(switch, hidden_dim=None, **size, **({"num_classes": 0} if family == "siglip" else {}))
    c = model.model.config
    export_model(model, family, tmp_path / "model.npz")
    pool = {"class_token": "token", "mean": "avg", "attention": "map"}[c.pooling]
    peer = timm.create_model(
        "vit_base_patch16_224", img_size=32, patch_size=8, embed_dim=c.width, depth=c.depth, num_heads=c.num_heads,
        mlp_ratio=c.mlp_dim / c.width, num_classes=c.num_classes, global_pool=pool, fc_norm=False,
        class_token=c.class_token, act_layer="gelu_tanh", no_embed_class=not c.position_class_slot,
    )  # fmt: skip
    peer.load_pretrained(str(tmp_path / "model.npz"))
    assert_same_function(peer.eval(), model.model, images_of(c))


def test_newer_numbering_is_read(tmp_path):
    """Linen's numbering: LayerNorm_1 where there was LayerNorm_2, MultiHeadDotProductAttention_0, MlpBlock_0."""
    numbers = {"LayerNorm_2": "LayerNorm_1", "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0"}
    numbers |= {"MlpBlock_3": "MlpBlock_0"}
    newer = dict(read_tensors(WEIGHTS["vit_class_token"]))
    for old, new in numbers.items():
        newer = {key.replace(old, new): tensor for key, tensor in newer.items()}
    write_tensors(tmp_path / "newer.npz", newer)
    read = load_checkpoint(tmp_path / "newer.npz")
    assert_same_tensors(read.model.state_dict(), load_checkpoint(WEIGHTS["vit_class_token"]).model.state_dict())
    export_model(read, "google", tmp_path / "again.npz")
    assert_same_tensors(dict(read_tensors(tmp_path / "again.npz")), dict(read_tensors(WEIGHTS["vit_class_token"])))


def test_a_grid_that_is_not_square_must_be_given(tmp_path):
    export_model(stored("rectangles", image_size=(32, 40)), "google", tmp_path / "model.npz")
    with pytest.raises(InputError, match="do not make a square grid; set image_size"):
        load_checkpoint(tmp_path / "model.npz")


@pytest.mark.parametrize("size", [(24, 16), (16, 32), (24, 24)])
def test_a_given_size_decides_about_the_class_row(size, tmp_path):
    """3×2 patches and a class token without a row are 6 positions, with a row 7; either is big_vision's."""
    for switch in ("learned without class slot", "the paper's"):
        model = stored(switch, image_size=size)
        export_model(model, "big_vision", tmp_path / f"{switch}.npz")
        again = load_checkpoint(tmp_path / f"{switch}.npz", image_size=size)
        assert again.model.config.position_class_slot == (switch == "the paper's")
        assert_same_function(again.model, model.model, images_of(model.model.config))


def test_a_google_file_without_positions_is_refused(tmp_path):
    export_model(stored("sincos"), "big_vision", tmp_path / "model.npz")
    with pytest.raises(InputError, match="the file has no position table"):
        load_checkpoint(tmp_path / "model.npz", family="google")


def test_old_group_norms_and_prefixes_are_read(tmp_path):
    source = dict(read_tensors(WEIGHTS["hybrid_two_stages"]))
    old = {f"opt/target/{k}": v[None, None, None] if "/gn" in f"/{k}" and v.ndim == 1 else v for k, v in source.items()}
    write_tensors(tmp_path / "old.npz", old)
    read = load_checkpoint(tmp_path / "old.npz")
    export_model(read, "google", tmp_path / "again.npz")
    assert_same_tensors(dict(read_tensors(tmp_path / "again.npz")), source)


@pytest.mark.parametrize(
    ("family", "switch", "named"),
    [
        ("google", "exact GELU", "exact GELU"),
        ("google", "SwiGLU and LayerScale", "SwiGLU, LayerScale"),
        ("google", "distillation", "a distillation token"),
        ("google", "registers", "registers"),
        ("google", "attention pooling", "attention pooling"),
        ("google", "learned at every layer", "positions inside the encoder"),
        ("google", "relative", "relative positions"),
        ("big_vision", "mean pooling beside a class token, norm after", "the final norm after mean pooling"),
        ("big_vision", "hybrid", "a ResNet stem"),
        ("siglip", "mean pooling", "mean pooling, a classifier"),
    ],
)
def test_unsupported_parts_are_named(family, switch, named, tmp_path):
    with pytest.raises(InputError, match="cannot hold") as caught:
        export_model(stored(switch), family, tmp_path / "model.npz")
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "switch", ["no positions", "MAE's sincos with a class token", "2-D", "learned without class slot"]
)
def test_computed_positions_are_written_as_a_table(switch, tmp_path):
    """Another config, the same function."""
    model = stored(switch)
    export_model(model, "google", tmp_path / "model.npz")
    again = load_checkpoint(tmp_path / "model.npz")
    assert again.model.config.position_embedding == "learned"
    assert_same_function(again.model, model.model, images_of(model.model.config))


def test_nothing_is_loaded_in_part(tmp_path):
    source = dict(read_tensors(WEIGHTS["vit_class_token"]))
    del source["Transformer/encoderblock_1/LayerNorm_0/bias"]
    source["decoder/kernel"] = torch.zeros(2)
    source["Transformer/encoderblock_2/MlpBlock_3/Dense_1/kernel"] = torch.zeros(5, 48)
    write_tensors(tmp_path / "broken.npz", source)
    with pytest.raises(InputError) as caught:
        load_checkpoint(tmp_path / "broken.npz")
    message = str(caught.value)
    assert "Transformer/encoderblock_1/LayerNorm_0/bias is missing" in message
    assert "decoder/kernel is unexpected" in message
    assert "encoder.blocks.2.mlp.fc2.weight has shape (48, 5), expected (48, 96)" in message


def test_half_precision_becomes_float32_and_can_be_exported_as_half(tmp_path):
    half = {k: v.half() for k, v in read_tensors(WEIGHTS["vit_class_token"]).items()}
    write_tensors(tmp_path / "half.npz", half)
    read = load_checkpoint(tmp_path / "half.npz")
    assert {p.dtype for p in read.model.parameters()} == {torch.float32}
    export_model(read, "google", tmp_path / "again.npz", dtype=torch.float16)
    assert_same_tensors(dict(read_tensors(tmp_path / "again.npz")), half)


@pytest.mark.parametrize("key", ["MultiHeadDotProductAttention_1/query/bias", "MlpBlock_3/Dense_0/bias"])
def test_a_missing_key_that_sets_a_size_is_named(key, tmp_path):
    source = dict(read_tensors(WEIGHTS["vit_class_token"]))
    del source[f"Transformer/encoderblock_0/{key}"]
    write_tensors(tmp_path / "m.npz", source)
    with pytest.raises(InputError, match=f"Transformer/encoderblock_0/{key}' is missing"):
        load_checkpoint(tmp_path / "m.npz")


def test_a_zero_head_is_reported(tmp_path):
    source = dict(read_tensors(WEIGHTS["vit_pre_logits"]))
    source |= {key: torch.zeros_like(source[key]) for key in ("head/kernel", "head/bias")}
    write_tensors(tmp_path / "m.npz", source)
    assert "the classifier is all zero, as in the ImageNet-21k files" in str(load_checkpoint(tmp_path / "m.npz").report)
    assert "zero" not in str(load_checkpoint(WEIGHTS["vit_pre_logits"]).report)


def test_the_map_is_linear():
    """Gradients and averaged weights go through the same rules as weights."""
    read = load_checkpoint(WEIGHTS["vit_class_token"])
    source = read_tensors(WEIGHTS["vit_class_token"])
    shapes = {k: v.shape for k, v in read.model.state_dict().items()}
    rules = Google().rules(read.model.config, JaxNaming())
    doubled = to_ours({k: 2 * v for k, v in source.items()}, rules, shapes, "twice the weights")
    assert all(torch.equal(doubled[k], 2 * v) for k, v in read.model.state_dict().items())
