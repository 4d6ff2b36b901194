"""Export: what a family or a dtype cannot hold or a folder would mix up is refused, and every change is reported."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.peers import assert_same_function, assert_same_tensors, images_of
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model, unrecorded_fields
from vitreous.checkpoints.families.recognize import FAMILIES, OURS
from vitreous.checkpoints.files.tensors import read_tensors
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError


def stored(model) -> StoredModel:
    return StoredModel(model, Preprocessing(model.config.image_size))


def test_existing_files_are_replaced_only_on_request(tmp_path):
    sample = stored(small_model("exact GELU"))
    (tmp_path / "m.safetensors").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    for name in ("m.safetensors", "folder"):
        with pytest.raises(InputError, match="already exists"):
            export_model(sample, "timm", tmp_path / name)
    assert (tmp_path / "m.safetensors").read_text() == "mine"
    export_model(sample, "timm", tmp_path / "m.safetensors", overwrite=True)
    assert load_checkpoint(tmp_path / "m.safetensors", num_heads=3).metadata["family"] == "timm"


@pytest.mark.parametrize(
    ("to", "name", "message"),
    [
        ("tim", "m.safetensors", "there is no family 'tim'; did you mean 'timm'"),
        ("timm", "m.npz", "timm has no .npz files; use .safetensors, .pth"),
        ("google", "m.safetensors", "has no .safetensors files; use .npz"),
        ("vitreous", "m.pth", "vitreous files are safetensors"),
    ],
)
def test_an_impossible_target_is_refused(to, name, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export_model(stored(small_model("exact GELU" if to != "google" else "the paper's")), to, tmp_path / name)
    assert not list(tmp_path.iterdir())


# ---- dtypes


def half_file(folder, dtype):
    """A timm file in some dtype."""
    export_model(stored(small_model("exact GELU")), "timm", folder / "in.safetensors", dtype=dtype)
    return load_file(folder / "in.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_read_exactly_and_can_be_written_as_the_same_halves(dtype, tmp_path):
    before = half_file(tmp_path, dtype)
    read = load_checkpoint(tmp_path / "in.safetensors", num_heads=3)
    name = str(dtype).removeprefix("torch.")
    assert {p.dtype for p in read.model.parameters()} == {torch.float32}
    assert f"{name} numbers are converted to float32, exactly" in read.report.notes
    report = export_model(read, "timm", tmp_path / "out.safetensors", dtype=dtype)
    assert report.dtype == report.to_dict()["dtype"] == name
    assert str(report).partition("\n")[0].endswith(f"(timm, {name})")
    assert_same_tensors(load_file(tmp_path / "out.safetensors"), before)
    assert export_model(read, "timm", tmp_path / "float32.safetensors").dtype == "float32"
    written = load_file(tmp_path / "float32.safetensors")
    assert_same_tensors(written, {key: tensor.float() for key, tensor in before.items()})


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_ours_is_float32_or_the_given_dtype(dtype, tmp_path):
    before = half_file(tmp_path, torch.float16)
    read = load_checkpoint(tmp_path / "in.safetensors", num_heads=3)
    export_model(read, OURS, tmp_path / "ours", dtype=dtype)
    expected = dtype or torch.float32
    assert {t.dtype for t in load_file(tmp_path / "ours/model.safetensors").values()} == {expected}
    export_model(load_checkpoint(tmp_path / "ours"), "timm", tmp_path / "again.safetensors", dtype=torch.float16)
    assert_same_tensors(load_file(tmp_path / "again.safetensors"), before)


def test_mixed_dtypes_and_float64_become_float32_and_both_reports_say_so(tmp_path):
    halves = half_file(tmp_path, torch.float16)
    key = "blocks.0.attn.proj.weight"
    save_file(halves | {key: torch.rand(48, 48, dtype=torch.float64)}, tmp_path / "in.safetensors")
    read = load_checkpoint(tmp_path / "in.safetensors", num_heads=3)
    assert "float16 numbers are converted to float32, exactly" in read.report.notes
    assert "float64 numbers are rounded to float32" in read.report.notes
    assert export_model(read, "timm", tmp_path / "out.safetensors").dtype == "float32"
    report = export_model(read, "timm", tmp_path / "half.safetensors", dtype=torch.bfloat16)
    assert "the numbers are rounded to bfloat16" in report.notes


def test_npz_has_no_bfloat16_and_the_report_says_so(tmp_path):
    model = small_model("the paper's").bfloat16().float()
    report = export_model(stored(model), "google", tmp_path / "m.npz", dtype=torch.bfloat16)
    assert report.dtype == "float32"
    assert "npz has no bfloat16: its numbers are written as float32, exactly" in report.notes
    with read_tensors(tmp_path / "m.npz") as tensors:
        assert {t.dtype for t in tensors.values()} == {torch.float32}


@pytest.mark.parametrize("to", ["timm", OURS])
def test_tensors_that_a_dtype_cannot_hold_are_named(to, tmp_path):
    model = small_model("exact GELU")
    with torch.no_grad():
        model.encoder.blocks[1].mlp.fc1.weight[0, 0] = 70_000
    with pytest.raises(InputError, match=r"float16 numbers end at 65,504; .*1\.mlp\.fc1\.weight; write float32"):
        export_model(stored(model), to, tmp_path / "new", dtype=torch.float16)
    with torch.no_grad():
        model.encoder.blocks[1].mlp.fc1.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"weights are not finite: .*blocks\.1\.mlp\.fc1\.weight"):
        export_model(stored(model), to, tmp_path / "new")
    for dtype in (torch.int8, torch.complex64, torch.float8_e4m3fn):
        with pytest.raises(InputError, match=r"weights cannot be written as .*; choose from float32, float16"):
            export_model(stored(small_model("exact GELU")), to, tmp_path / "new", dtype=dtype)
    assert not list(tmp_path.iterdir())


# ---- folders


@pytest.mark.parametrize("to", ["timm", OURS])
def test_a_name_without_a_weights_suffix_is_a_folder(to, tmp_path):
    out = tmp_path / "vit_tiny_patch16_224.mine"
    report = export_model(stored(small_model("exact GELU")), to, out)
    assert report.files[0] == str(out / "model.safetensors")
    assert load_checkpoint(out).model.config.depth == small_model("exact GELU").config.depth


@pytest.mark.parametrize("to", ["timm", "dino"])  # a bare DINO file is read as timm's
def test_another_models_config_next_to_a_file_is_refused(to, tmp_path):
    headless = {"num_classes": 0}
    export_model(stored(small_model("exact GELU", num_heads=6, **headless)), "timm", tmp_path / "hub")
    before = {path.name: path.read_bytes() for path in (tmp_path / "hub").iterdir()}
    with pytest.raises(InputError, match=r"config\.json in .*hub' would be read as the config of mine\.pth"):
        export_model(stored(small_model("exact GELU", **headless)), to, tmp_path / "hub" / "mine.pth")
    assert {path.name: path.read_bytes() for path in (tmp_path / "hub").iterdir()} == before


def test_an_unrelated_config_next_to_a_file_is_ignored(tmp_path):
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


# ---- what a bare file does not record

TABLELESS = {"position_embedding": "none"}
POOLED = {"class_token": False, "pooling": "attention"}
OPEN = {  # choices that no key of timm's shows, and the fields that must be set to keep them
    "EVA-02's positions": ({"rotary": "eva02", "rotary_grid": (3, 5)}, {"rotary", "rotary_grid"}),
    "axial": ({"rotary": "axial"}, {"rotary"}),
    "axial on a grid, alone": (TABLELESS | {"rotary": "axial", "rotary_grid": (2, 2)}, {"rotary", "rotary_grid"}),
    "mixed, alone": (TABLELESS | {"rotary": "mixed"}, set()),
    "DINOv3's, alone": (TABLELESS | {"rotary": "dinov3"}, {"rotary"}),
    "DINOv3's and a table": ({"rotary": "dinov3", "layer_scale": 0.1}, {"rotary"}),
    "Perception Encoder's": ({"rotary": "perception", "rotary_grid": (5, 5)}, {"rotary", "rotary_grid"}),
    "Perception Encoder's pooling": (
        POOLED | {"rotary": "perception", "rotary_grid": (4, 4), "pre_norm": True, "patch_bias": False},
        {"rotary", "pooling_heads"},
    ),
    "the pooling's own heads": (
        POOLED | {"rotary": "perception_giant", "rotary_grid": (4, 4), "pooling_heads": 4},
        {"rotary", "pooling_heads"},
    ),
    "attention pooling beside SwiGLU": (POOLED | {"mlp": "swiglu"}, {"pooling_heads"}),
    "attention pooling beside norms of q and k": (POOLED | {"query_key_norm": "head"}, set()),
    "no positions": (TABLELESS, {"position_embedding"}),
    "norms after the branches": ({"norm_site": "after"}, {"norm_site"}),
    "rotary, norms after the branches": (
        {"rotary": "eva02", "norm_site": "after", "qkv_bias": "no_key", "mlp": "swiglu", "mlp_inner_norm": True},
        {"norm_site", "rotary_grid"},
    ),
}


@pytest.mark.parametrize("case", OPEN)
def test_a_bare_file_with_what_the_report_asks_for_is_the_same_model(case, tmp_path):
    changes, asked = OPEN[case]
    sample = stored(small_model("exact GELU", depth=2, **changes))
    file = tmp_path / "m.safetensors"
    report = export_model(sample, "timm", file)
    shapes = {key: tensor.shape for key, tensor in load_file(file).items()}
    fields = unrecorded_fields(FAMILIES["timm"], sample.model.config, shapes, {})
    assert asked <= fields.keys()
    assert fields.keys() - asked <= {"num_heads", "norm_eps", "pooling", "image_size"}
    [note] = [note for note in report.notes if note.startswith("not recorded in the file, set it")]
    assert all(f"{name}={value}" in note for name, value in fields.items())
    read = load_checkpoint(file, family="timm", **fields)
    assert_same_function(sample.model, read.model, images_of(sample.model.config))
    assert not asked & {guess.field for guess in read.report.guesses}
    export_model(sample, "timm", tmp_path / "folder")
    assert unrecorded_fields(FAMILIES["timm"], sample.model.config, shapes, json.loads(
        (tmp_path / "folder/config.json").read_text())) == {}  # fmt: skip
    assert_same_function(sample.model, load_checkpoint(tmp_path / "folder").model, images_of(sample.model.config))


def test_choices_that_no_key_shows_are_among_the_guesses(tmp_path):
    for changes, expected in (
        ({}, {"rotary": "none", "norm_site": "before"}),
        ({"layer_scale": 0.1}, {}),
        ({"distillation_token": True}, {"norm_site": "before"}),
    ):
        export_model(stored(small_model("exact GELU", **changes)), "timm", tmp_path / "m.safetensors", overwrite=True)
        guesses = load_checkpoint(tmp_path / "m.safetensors", num_heads=3, family="timm").report.guesses
        assert {g.field: g.value for g in guesses if g.field in ("rotary", "norm_site")} == expected
    given = {"rotary": "none", "norm_site": "before"}
    read = load_checkpoint(tmp_path / "m.safetensors", num_heads=3, family="timm", **given)
    assert not given.keys() & {guess.field for guess in read.report.guesses}
