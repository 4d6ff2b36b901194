"""What a family cannot hold, a type cannot hold or a folder would mix up is refused, and every change is told."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.peers import assert_same_tensors
from tests.model.models import small_model
from vitreous.checkpoints.convert import OURS
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.files.tensors import read_tensors
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.adapt import adapt
from vitreous.support.errors import InputError


def stored(model) -> StoredModel:
    return StoredModel(model, Preprocessing(model.config.image_size))


def test_what_exists_is_not_replaced_unless_told(tmp_path):
    sample = stored(small_model("exact GELU"))
    (tmp_path / "m.safetensors").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    for name in ("m.safetensors", "folder"):
        with pytest.raises(InputError, match="exists already"):
            export_model(sample, "timm", tmp_path / name)
    assert (tmp_path / "m.safetensors").read_text() == "mine"
    export_model(sample, "timm", tmp_path / "m.safetensors", overwrite=True)
    assert load_checkpoint(tmp_path / "m.safetensors", num_heads=3).metadata["family"] == "timm"


@pytest.mark.parametrize(
    ("to", "name", "told"),
    [
        ("tim", "m.safetensors", "there is no family 'tim'; did you mean 'timm'"),
        ("timm", "m.npz", "timm keeps no weights in .npz files; valid are .safetensors, .pth"),
        ("google", "m.safetensors", "keeps no weights in .safetensors files; valid are .npz"),
        ("vitreous", "m.pth", "our own files are safetensors"),
    ],
)
def test_what_cannot_be_written_is_told(to, name, told, tmp_path):
    with pytest.raises(InputError, match=told):
        export_model(stored(small_model("exact GELU" if to != "google" else "the paper's")), to, tmp_path / name)
    assert not list(tmp_path.iterdir())


# ---- the types of numbers


def in_type(folder, dtype, switch="exact GELU"):
    """A timm file in some type."""
    export_model(stored(small_model(switch)), "timm", folder / "plain.safetensors")
    save_file({k: v.to(dtype) for k, v in load_file(folder / "plain.safetensors").items()}, folder / "in.safetensors")
    return load_checkpoint(folder / "in.safetensors", num_heads=3), load_file(folder / "in.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_numbers_go_out_in_the_type_they_came_in_by_way_of_ours_too(dtype, tmp_path):
    read, before = in_type(tmp_path, dtype)
    name = str(dtype).removeprefix("torch.")
    assert {p.dtype for p in read.model.parameters()} == {torch.float32}
    cast = f"numbers of {name} are held in float32, exactly"
    assert (cast in read.report.notes) == (dtype != torch.float32)
    report = export_model(read, "timm", tmp_path / "out.safetensors")
    assert report.dtype == name
    assert report.to_dict()["dtype"] == name
    assert str(report).partition("\n")[0].endswith(f"(timm, {name})")
    assert_same_tensors(load_file(tmp_path / "out.safetensors"), before)
    for wish in (None, torch.float32):
        export_model(read, OURS, tmp_path / "ours", dtype=wish, overwrite=True)
        expected = wish or dtype
        assert {t.dtype for t in load_file(tmp_path / "ours/model.safetensors").values()} == {expected}
        export_model(load_checkpoint(tmp_path / "ours"), "timm", tmp_path / "again.safetensors", overwrite=True)
        assert_same_tensors(
            load_file(tmp_path / "again.safetensors"), {key: tensor.to(expected) for key, tensor in before.items()}
        )


def test_several_types_and_float64_become_float32_and_both_reports_tell(tmp_path):
    _, halves = in_type(tmp_path, torch.float16)
    key = "blocks.0.attn.proj.weight"
    save_file(halves | {key: torch.rand(48, 48, dtype=torch.float64)}, tmp_path / "in.safetensors")
    read = load_checkpoint(tmp_path / "in.safetensors", num_heads=3)
    assert "numbers of float16 are held in float32, exactly" in read.report.notes
    assert "numbers of float64 are rounded to float32" in read.report.notes
    assert export_model(read, "timm", tmp_path / "out.safetensors").dtype == "float32"
    told = export_model(read, "timm", tmp_path / "half.safetensors", dtype=torch.bfloat16)
    assert "the numbers are rounded to bfloat16" in told.notes


def test_halves_that_were_changed_go_out_in_float32_and_it_is_told(tmp_path):
    read, _ = in_type(tmp_path, torch.float16)
    larger, _ = adapt(read.model, image_size=48)
    changed = StoredModel(larger, Preprocessing((48, 48)), None, read.metadata)
    report = export_model(changed, "timm", tmp_path / "out.safetensors")
    assert report.dtype == "float32"
    assert "float16, which they came in, does not hold the numbers as they are now; float32 does" in report.notes


def test_npz_has_no_bfloat16_and_it_is_told(tmp_path):
    model = small_model("the paper's").bfloat16().float()
    sample = StoredModel(model, Preprocessing(model.config.image_size), None, {"source_dtype": "bfloat16"})
    report = export_model(sample, "google", tmp_path / "m.npz")
    assert report.dtype == "float32"
    assert "npz has no bfloat16: its numbers are written as float32, exactly" in report.notes
    with read_tensors(tmp_path / "m.npz") as tensors:
        assert {t.dtype for t in tensors.values()} == {torch.float32}


@pytest.mark.parametrize("to", ["timm", OURS])
def test_numbers_that_a_type_cannot_hold_are_refused_by_the_tensors_name(to, tmp_path):
    model = small_model("exact GELU")
    with torch.no_grad():
        model.encoder.blocks[1].mlp.fc1.weight[0, 0] = 70_000
    with pytest.raises(InputError, match=r"float16 ends at 65,504; .*blocks\.1\.mlp\.fc1\.weight; write float32"):
        export_model(stored(model), to, tmp_path / "new", dtype=torch.float16)
    with torch.no_grad():
        model.encoder.blocks[1].mlp.fc1.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"not finite are .*blocks\.1\.mlp\.fc1\.weight"):
        export_model(stored(model), to, tmp_path / "new")
    for dtype in (torch.int8, torch.complex64, torch.float8_e4m3fn):
        with pytest.raises(InputError, match=r"weights are not written in .*; valid are float32, float16, bfloat16"):
            export_model(stored(small_model("exact GELU")), to, tmp_path / "new", dtype=dtype)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [3, "int8", ["float16"]])
def test_a_header_with_an_unknown_type_is_refused(name, tmp_path):
    sample = stored(small_model("exact GELU"))
    odd = StoredModel(sample.model, sample.preprocessing, None, {"source_dtype": name})
    with pytest.raises(InputError, match="a type of numbers that is not known"):
        export_model(odd, "timm", tmp_path / "m.safetensors")
    assert export_model(odd, "timm", tmp_path / "m.safetensors", dtype=torch.float32).dtype == "float32"


# ---- folders


@pytest.mark.parametrize("to", ["timm", OURS])
def test_a_suffix_that_no_weights_have_is_a_folders(to, tmp_path):
    out = tmp_path / "vit_tiny_patch16_224.mine"
    report = export_model(stored(small_model("exact GELU")), to, out)
    assert report.files[0] == str(out / "model.safetensors")
    assert load_checkpoint(out).model.config.depth == small_model("exact GELU").config.depth


@pytest.mark.parametrize("to", ["timm", "dino"])  # a bare file of the second is read as timm's
def test_another_models_config_beside_a_file_is_refused(to, tmp_path):
    headless = {"num_classes": 0}
    export_model(stored(small_model("exact GELU", num_heads=6, **headless)), "timm", tmp_path / "hub")
    before = {path.name: path.read_bytes() for path in (tmp_path / "hub").iterdir()}
    with pytest.raises(InputError, match=r"config\.json in .*hub' would be read as if mine\.pth were theirs"):
        export_model(stored(small_model("exact GELU", **headless)), to, tmp_path / "hub" / "mine.pth")
    assert {path.name: path.read_bytes() for path in (tmp_path / "hub").iterdir()} == before


def test_an_unrelated_config_beside_a_file_is_no_matter(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"name": "my site"}))
    export_model(stored(small_model("exact GELU")), "timm", tmp_path / "m.safetensors")
    assert load_checkpoint(tmp_path / "m.safetensors", num_heads=3).metadata["family"] == "timm"


def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_is_written(tmp_path):
    model = stored(small_model("exact GELU"))
    export_model(model, "timm", tmp_path / "hub")
    (tmp_path / "hub/config.json").unlink()
    (tmp_path / "hub/config.json").mkdir()
    before = (tmp_path / "hub/model.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"config\.json': it is not a file"):
        export_model(stored(small_model("exact GELU", num_heads=6)), "timm", tmp_path / "hub", overwrite=True)
    assert (tmp_path / "hub/model.safetensors").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == ["config.json", "model.safetensors"]
