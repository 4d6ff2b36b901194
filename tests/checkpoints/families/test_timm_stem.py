"""The paper's hybrids in timm's files: equal to timm, exported unchanged, and built by timm from our folder."""

import json

import pytest
import timm
from safetensors.torch import load_file, save_file

from tests.checkpoints.peers import assert_same_function, assert_same_tensors, filled, images_of
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.families.timm.stem import HYBRIDS
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing

SMALL = {"img_size": 64, "embed_dim": 64, "depth": 2, "num_heads": 4, "num_classes": 7}


@pytest.mark.parametrize("blocks", HYBRIDS)
def test_a_hybrid_is_equal_and_exports_unchanged(blocks, tmp_path):
    name = HYBRIDS[blocks]
    theirs = filled(timm.create_model(name, **SMALL))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name, "model_args": {"num_heads": 4}}))
    read = load_checkpoint(tmp_path)
    assert (read.model.config.stem_blocks, read.model.config.stem_eps) == (blocks, "timm")
    assert read.model.config.image_size == (64, 64)
    export_model(read, "timm", tmp_path / "out")
    assert_same_tensors(load_file(tmp_path / "out" / "model.safetensors"), theirs.state_dict())
    again = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    assert load_checkpoint(tmp_path / "out").model.config == read.model.config
    images = images_of(read.model.config, batch=2).double()  # convolutions round float32 in another order
    ours = read.model.double()
    for model in (theirs, again):
        assert_same_function(model.double(), ours, images)


@pytest.mark.parametrize("channels", [1, 3])
def test_timm_computes_what_ours_computes(channels, tmp_path):
    stem = {"stem_blocks": (), "stem_eps": "timm", "patch_size": 8, "image_size": (64, 96), "channels": channels}
    ours = small_model("exact GELU", **stem)
    half = (0.5,) * channels
    preprocessing = Preprocessing(ours.config.image_size, mean=half, std=half, channels=channels)
    export_model(StoredModel(ours, preprocessing), "timm", tmp_path / "folder")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    assert_same_function(theirs, ours, images_of(ours.config))
