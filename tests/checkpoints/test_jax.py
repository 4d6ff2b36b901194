"""Google's and big_vision's files: in, out again bit for bit, and refused where they do not fit.

That the loaded models equal the authors' is in tests/test_equality.py.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model.models import small_model
from vitreous.checkpoints import jax
from vitreous.checkpoints.key_map import to_ours
from vitreous.support.errors import InputError

REFERENCE = Path(__file__).parents[1] / "reference"
NAMES = sorted(path.name.removesuffix(".expected.npz") for path in REFERENCE.glob("*.expected.npz"))
WEIGHTS = {name: REFERENCE / f"{name.removesuffix('_at_48px')}.npz" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_export_is_the_inverse_bit_for_bit(name, tmp_path):
    model, dialect = jax.load_npz(WEIGHTS[name])
    jax.save_npz(tmp_path / "out.npz", model, dialect)
    before, after = np.load(WEIGHTS[name]), np.load(tmp_path / "out.npz")
    assert set(before.files) == set(after.files)
    for key in before.files:
        assert before[key].dtype == after[key].dtype
        np.testing.assert_array_equal(before[key], after[key], err_msg=key, strict=True)


@pytest.mark.parametrize(
    "switch",
    [
        *(
            "the paper's",
            "hidden layer",
            "mean pooling",
            "attention pooling",
            "sincos",
            "hybrid",
            "hybrid root",
        ),
        *("rectangles", "one channel", "no classes", "learned without class slot"),
    ],
)
def test_what_the_format_can_hold_comes_back(switch, tmp_path):
    model = small_model(switch)
    jax.save_npz(tmp_path / "model.npz", model)
    again, _ = jax.load_npz(tmp_path / "model.npz", model.config.image_size)
    assert again.config == model.config.replace(
        position_class_slot=again.config.position_class_slot  # means nothing without a class token
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_missing_grid_is_asked_for(tmp_path):
    model = small_model("rectangles", image_size=(32, 40))
    jax.save_npz(tmp_path / "model.npz", model)
    with pytest.raises(InputError, match="no square grid; give image_size"):
        jax.load_npz(tmp_path / "model.npz")


def test_old_group_norms_and_prefixes_are_read_and_written_back(tmp_path):
    source = jax.read_npz(WEIGHTS["hybrid_two_stages"])
    old = {f"opt/target/{k}": v[None, None, None] if "/gn" in f"/{k}" and v.ndim == 1 else v for k, v in source.items()}
    jax.write_npz(tmp_path / "old.npz", old)
    model, dialect = jax.load_npz(tmp_path / "old.npz")
    assert dialect == jax.Dialect("opt/target/", norm_ones=3)
    jax.save_npz(tmp_path / "again.npz", model, dialect)
    again = jax.read_npz(tmp_path / "again.npz")
    assert {k: v.shape for k, v in again.items()} == {k: v.shape for k, v in old.items()}
    assert all(torch.equal(again[k], v) for k, v in old.items())


@pytest.mark.parametrize(
    ("switch", "named"),
    [
        ("exact GELU", "exact GELU"),
        ("SwiGLU and LayerScale", "LayerScale, SwiGLU"),
        ("distillation", "a distillation token"),
        ("registers", "registers"),
        ("2-D", "learned_2d positions"),
        ("learned at every layer", "positions inside the encoder"),
        ("class token, norm after", "the norm after pooling"),
        ("MAE's sincos with a class token", "mae's sincos exponent"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_by_name(switch, named, tmp_path):
    with pytest.raises(InputError, match="cannot hold") as caught:
        jax.save_npz(tmp_path / "model.npz", small_model(switch))
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_nothing_is_loaded_in_part(tmp_path):
    source = jax.read_npz(WEIGHTS["vit_class_token"])
    del source["Transformer/encoderblock_1/LayerNorm_0/bias"]
    source["decoder/kernel"] = torch.zeros(2)
    source["Transformer/encoderblock_2/MlpBlock_3/Dense_1/kernel"] = torch.zeros(5, 48)
    jax.write_npz(tmp_path / "broken.npz", source)
    with pytest.raises(InputError) as caught:
        jax.load_npz(tmp_path / "broken.npz")
    message = str(caught.value)
    assert "Transformer/encoderblock_1/LayerNorm_0/bias is missing" in message
    assert "decoder/kernel has no place" in message
    assert "encoder.blocks.2.mlp.fc2.weight would have shape (48, 5) and not (48, 96)" in message


def test_half_precision_becomes_float32(tmp_path):
    half = {k: v.half() for k, v in jax.read_npz(WEIGHTS["vit_class_token"]).items()}
    jax.write_npz(tmp_path / "half.npz", half)
    model, _ = jax.load_npz(tmp_path / "half.npz")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_damaged_files_are_one_line(tmp_path):
    content = WEIGHTS["vit_class_token"].read_bytes()
    path = tmp_path / "damaged.npz"
    for length in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="not a readable npz file"):
            jax.load_npz(path)
    for place in range(100, len(content), len(content) // 40):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
        with pytest.raises(InputError) as caught:  # the archive's checksums find every flipped bit
            jax.load_npz(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["MultiHeadDotProductAttention_1/query/bias", "MlpBlock_3/Dense_0/bias"])
def test_a_key_that_the_shape_is_read_from_is_named_when_missing(key, tmp_path):
    source = jax.read_npz(WEIGHTS["vit_class_token"])
    del source[f"Transformer/encoderblock_0/{key}"]
    jax.write_npz(tmp_path / "m.npz", source)
    with pytest.raises(InputError, match=f"Transformer/encoderblock_0/{key}' is missing"):
        jax.load_npz(tmp_path / "m.npz")


def test_bombs_and_lying_headers_are_refused_before_they_unpack(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(2**26, np.uint8))
    with pytest.raises(InputError, match="would unpack into"):
        jax.read_npz(tmp_path / "bomb.npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": (2**40,), "fortran_order": False, "descr": "<f4"})
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(16))
    with pytest.raises(InputError, match="not the array of numbers that its header promises"):
        jax.read_npz(tmp_path / "lie.npz")


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("not an archive")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name, reason in (
        ("text", "readable npz"),
        ("objects", "readable npz"),
        ("other", "not the keys of a Google"),
    ):
        with pytest.raises(InputError, match=reason):
            jax.load_npz(tmp_path / f"{name}.npz")


def test_the_map_is_linear():
    """Gradients and averaged weights go through the same rules as weights."""
    model, dialect = jax.load_npz(WEIGHTS["vit_class_token"])
    source = jax.read_npz(WEIGHTS["vit_class_token"])
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    rules = jax.rules(model.config, dialect)
    doubled = to_ours({k: 2 * v for k, v in source.items()}, rules, shapes, "twice the weights")
    assert all(torch.equal(doubled[k], 2 * v) for k, v in model.state_dict().items())
