"""The vitreous format: everything comes back, and nothing is loaded in part."""

import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.model.models import SWITCHES, images_for, small_model
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import HEADER, StoredModel, load_model, save_model
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError

NAMES = [f"class {i}" for i in range(7)]
PREPROCESSING = Preprocessing((32, 32), mean=(0.1, 0.2, 0.3))


@pytest.mark.parametrize("switch", SWITCHES)
def test_everything_comes_back(switch, tmp_path):
    model = small_model(switch)
    names = NAMES if model.config.num_classes else None
    preprocessing = PREPROCESSING.adapted((32, 32), model.config.channels)
    save_model(tmp_path / "m.safetensors", model, preprocessing, names, {"license": "Apache-2.0"})
    stored = load_model(tmp_path / "m.safetensors")
    assert stored.model.config == model.config
    assert stored.preprocessing == preprocessing
    assert stored.class_names == (tuple(NAMES) if names else None)
    assert stored.metadata == {"license": "Apache-2.0"}
    assert not stored.model.training
    assert all(p.requires_grad for p in stored.model.parameters())
    images = images_for(model.config)
    assert torch.equal(stored.model(images), model(images))


def test_other_tools_can_read_the_file(tmp_path):
    model = small_model()
    save_model(tmp_path / "m.safetensors", model, PREPROCESSING, NAMES)
    assert load_file(tmp_path / "m.safetensors").keys() == model.state_dict().keys()
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()[HEADER])["class_names"] == NAMES


def test_the_file_is_flushed_and_readable_as_any_new_file(tmp_path, monkeypatch):
    flushed = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (flushed.append(os.fstat(fd).st_ino), fsync(fd))[1])
    save_model(tmp_path / "m.safetensors", small_model(), PREPROCESSING, NAMES)
    (tmp_path / "any").touch()
    found = (tmp_path / "m.safetensors").stat()
    assert found.st_mode == (tmp_path / "any").stat().st_mode
    assert found.st_ino in flushed  # the writer puts a file of its own in place of the one it was given


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(path, small_model(), PREPROCESSING, NAMES)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        save_model(path, small_model(), PREPROCESSING, NAMES, {"accuracy": float("nan")})
    with pytest.raises(InputError, match="there are 2 class names for 7 classes"):
        save_model(path, small_model(), PREPROCESSING, ["a", "b"])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def edited(path, change_tensors=lambda t: t, change_header=lambda h: h):
    """Writes the file again, changed."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
    metadata = change_header(header)
    save_file(change_tensors(load_file(path)), path, None if metadata is None else {HEADER: json.dumps(metadata)})


GRAY = {"channels": 1, "mean": [0.5], "std": [0.5]}


def without(key):
    return lambda tensors: {k: v for k, v in tensors.items() if k != key}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"change_tensors": without("class_token")}, "class_token is missing"),
        ({"change_tensors": lambda t: t | {"extra": torch.zeros(1)}}, "extra is unexpected"),
        (
            {"change_tensors": lambda t: t | {"class_token": torch.zeros(2)}},
            r"class_token has shape \(2,\), expected \(1, 1, 48\)",
        ),
        ({"change_header": lambda h: None}, "has weights but no config"),
        ({"change_header": lambda h: {}}, "header of .* is damaged"),
        ({"change_header": lambda h: h | {"config": h["config"] | {"depht": 3}}}, "did you mean 'depth'"),
        ({"change_header": lambda h: h | {"config": h["config"] | {"depth": 4}}}, "blocks.3.* is missing"),
        ({"change_header": lambda h: h | {"class_names": ["a"]}}, "1 class names for 7"),
        ({"change_header": lambda h: h | {"class_names": "abcdefg"}}, "must be a list of strings"),
        ({"change_header": lambda h: h | {"class_names": [1, ["q"]]}}, "must be a list of strings"),
        ({"change_header": lambda h: h | {"format": 99}}, "has format 99, but this version reads 1; update"),
        ({"change_header": lambda h: h | {"metadata": 3}}, "header of .* is damaged"),
        ({"change_header": lambda h: h | {"config": h["config"] | {"depth": 10**6}}}, "more blocks than the file"),
        ({"change_header": lambda h: h | {"config": 3}}, "header of .* is damaged"),
        ({"change_header": lambda h: h | {"preprocessing": h["preprocessing"] | {"image_size": [33, 33]}}}, "33×33"),
        (
            {"change_header": lambda h: h | {"preprocessing": h["preprocessing"] | GRAY}},
            "gives 1 channels, but the model takes 3",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_does_not_fit_is_refused(change, reason, tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(path, small_model(), PREPROCESSING, NAMES)
    edited(path, **change)
    with pytest.raises(ValueError, match=reason):
        load_model(path)


def test_the_license_of_a_file_with_the_old_key_is_kept(tmp_path):
    save_model(tmp_path / "old.safetensors", small_model(), Preprocessing((32, 32)), None, {"licence": "cc-by-nc-4.0"})
    assert load_model(tmp_path / "old.safetensors").metadata == {"license": "cc-by-nc-4.0"}


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(path, small_model(), PREPROCESSING, NAMES)
    content = path.read_bytes()
    for length in (0, 7, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="cannot be read"):
            load_model(path)


def test_half_precision_files_become_float32(tmp_path):
    model = small_model()
    save_model(tmp_path / "m.safetensors", model.half(), PREPROCESSING, NAMES)
    stored = load_model(tmp_path / "m.safetensors")
    assert {p.dtype for p in stored.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_weights_are_saved_in_dtypes_of_weights_only(dtype, tmp_path):
    with pytest.raises(InputError, match=r"weights cannot be written as .*; choose from float32"):
        save_model(tmp_path / "m.safetensors", small_model(), PREPROCESSING, NAMES, dtype=dtype)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing", "there is no model at .*nothing"),
        ("S/16", "S/16 is a model variant, not weights; train it first"),
        ("empty", "has no model.safetensors"),
        ("notes.txt", "is not a model file"),
    ],
)
def test_what_is_not_a_model_is_refused(name, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=reason):
        load_checkpoint(name)


def test_a_run_folder_holds_its_model(tmp_path):
    save_model(tmp_path / "model.safetensors", small_model(), PREPROCESSING, NAMES)
    assert load_checkpoint(tmp_path).class_names == tuple(NAMES)


def test_a_stored_model_has_one_name_for_each_class():
    with pytest.raises(InputError, match="there are 1 class names for 7 classes"):
        StoredModel(small_model(), PREPROCESSING, ("one",))
