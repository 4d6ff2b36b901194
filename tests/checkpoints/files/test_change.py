"""What is loaded does not depend on its file, even while another process writes to it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as serialize

from tests.checkpoints.peers import is_varied
from tests.classifiers import small_classifier
from vitreous.checkpoints.files.tensors import read_tensors, write_tensors
from vitreous.classifier import load
from vitreous.support.errors import InputError

# Loads a model, has other processes cut its files, write zeros over them and delete them, and compares its logits.
SCRIPT = """
import subprocess, sys, torch
from vitreous.checkpoints.load import load_checkpoint
source, *files = sys.argv[1:]
model = load_checkpoint(source).model
images = torch.randn(3, 3, *model.config.image_size)
with torch.no_grad():
    expected = model(images).clone()
    for damage in ("open(f, 'r+b').truncate(8)", "open(f, 'wb').write(bytes(2**20))", "__import__('os').remove(f)"):
        code = f"import sys\\nfor f in sys.argv[1:]: {damage}"
        subprocess.run([sys.executable, "-c", code, *files], check=True)
        assert torch.equal(model(images), expected), damage
print("the same", expected.std(dim=0).mean().item() > 0.02)
"""
FORMS = {
    "timm.safetensors": "timm",
    "google.npz": "google",
    "torchvision.pth": "torchvision",
    "old.pth": "torchvision",
    "ours.safetensors": None,
    "shards": "timm",
}


def written(form: str, folder: Path) -> tuple[Path, list[Path]]:
    """A model in a file of this form: what to load, and all files with its weights."""
    gelu = "tanh" if form == "google.npz" else "exact"
    mine = small_classifier(gelu=gelu, width=64, image_size=32, num_heads=1)
    path = folder / form
    if form == "ours.safetensors":
        mine.save(path)
    elif form == "shards":
        mine.export(folder / "whole.safetensors", "timm")
        tensors = dict(read_tensors(folder / "whole.safetensors"))
        (folder / "whole.safetensors").unlink()
        path = shard(tensors, folder)
    else:
        mine.export(path, FORMS[form] or "")
    if form == "old.pth":
        torch.save(dict(read_tensors(path)), path, _use_new_zipfile_serialization=False)
    return path, [file for file in folder.iterdir() if file.suffix != ".json"]


def shard(tensors: dict[str, torch.Tensor], folder: Path) -> Path:
    """Writes tensors as two shards; returns the index."""

    names = sorted(tensors)
    places = {name: f"m-{i % 2}.safetensors" for i, name in enumerate(names)}
    for place in set(places.values()):
        write_tensors(folder / place, {name: tensors[name] for name in names if places[name] == place})
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": places}))
    return path


@pytest.mark.parametrize("form", FORMS)
def test_a_loaded_model_outlives_its_file(form, tmp_path):
    source, files = written(form, tmp_path)
    command = [sys.executable, "-c", SCRIPT, str(source), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert (done.returncode, done.stdout) == (0, "the same True\n"), done.stderr


@pytest.mark.parametrize("form", ["timm.safetensors", "torchvision.pth"])
def test_saving_over_the_own_file_keeps_the_weights(form, tmp_path):
    """As a script does that loads, changes and saves in place, which empties the file first."""
    source, _ = written(form, tmp_path)
    mine = load(source, "cpu").model
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    with source.open("wb") as file:
        if source.suffix == ".pth":
            torch.save(mine.state_dict(), file)
        else:
            file.write(serialize(mine.state_dict()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in mine.state_dict().items())
    with read_tensors(source) as saved:
        assert all(torch.equal(saved[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("form", ["timm.safetensors", "torchvision.pth"])
def test_mapped_weights_are_those_of_the_file(form, tmp_path):
    source, _ = written(form, tmp_path)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected, found = (load(source, "cpu", mapped=mapped).model(images) for mapped in (False, True))
    assert is_varied(expected)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_that_changes_while_it_is_read_is_an_error(suffix, tmp_path):
    path = tmp_path / f"m{suffix}"
    tensors = {"a": torch.randn(5), "b": torch.randn(5000)}
    for damage in (lambda: os.truncate(path, 20), lambda: path.write_bytes(bytes(path.stat().st_size))):
        write_tensors(path, tensors)
        with read_tensors(path) as file:
            assert torch.equal(file["a"], tensors["a"])
            os.utime(path, (0, 0))  # the clock of a file system may be coarse
            damage()
            with pytest.raises(InputError, match="changed while it was read"):
                file["b"]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_that_is_replaced_or_deleted_while_it_is_read_is_read_on(suffix, tmp_path):
    path = tmp_path / f"m{suffix}"
    tensors = {"a": torch.randn(5), "b": torch.randn(5000)}
    for change in (lambda: write_tensors(path, {"c": torch.ones(1)}), path.unlink):
        write_tensors(path, tensors)
        with read_tensors(path) as file:
            change()
            assert torch.equal(file["b"], tensors["b"])
