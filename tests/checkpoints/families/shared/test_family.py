"""What all families share: image sizes, channels and bounds."""

import json

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.checkpoints.peers import assert_same_function, filled
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.families.shared.reading import whole_patches
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import HEADER, StoredModel, save_model
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError


@pytest.mark.parametrize("kind", ["transformers", "timm"])
def test_pixels_outside_whole_patches_are_cut_off_as_in_the_peers(kind, tmp_path):
    """SigLIP's So400m/14 at 384 pixels is such a model: 27 patches of 14 are 378."""
    if kind == "transformers":
        sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3}
        config = transformers.SiglipVisionConfig(image_size=30, patch_size=14, **sizes)
        theirs = filled(transformers.SiglipVisionModel(config))
        theirs.save_pretrained(tmp_path / "folder")
        transformers.SiglipImageProcessor(size={"height": 30, "width": 30}).save_pretrained(tmp_path / "folder")

        def compute(x):
            return theirs(pixel_values=x).pooler_output
    else:
        arguments = {"img_size": 30, "patch_size": 14, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 5}
        theirs = compute = filled(timm.create_model("vit_base_patch16_224", **arguments))
        (tmp_path / "folder").mkdir()
        save_file(theirs.state_dict(), tmp_path / "folder" / "model.safetensors")
        config = {"architecture": "vit_base_patch16_224", "model_args": arguments, "global_pool": "token"}
        config["pretrained_cfg"] = {"input_size": [3, 30, 30], "crop_pct": 0.9, "interpolation": "bicubic"}
        (tmp_path / "folder" / "config.json").write_text(json.dumps(config))
    read = load_checkpoint(tmp_path / "folder")
    assert read.model.config.image_size == read.preprocessing.image_size == (28, 28)
    assert read.preprocessing.trim == (2, 2)
    note = "30×30 pixels are not a whole number of 14×14 patches: the model reads the upper left 28×28"
    assert note in read.report.notes
    images = torch.randn(4, 3, 30, 30)
    assert_same_function(compute, lambda x: read.model(x[:, :, :28, :28]), images)


def test_whole_patches_are_at_least_one():
    assert whole_patches((384, 20), (14, 16)) == (378, 16)
    assert whole_patches((5, 5), (14, 14)) == (14, 14)


def gray_file(folder):
    theirs = filled(timm.create_model("vit_base_patch16_224", img_size=32, patch_size=8, embed_dim=64, depth=2,
                                      num_heads=4, num_classes=5, in_chans=1))  # fmt: skip
    save_file(theirs.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"


def test_gray_weights_without_a_config_are_fed_gray_images(tmp_path):
    read = load_checkpoint(gray_file(tmp_path), num_heads=4)
    assert (read.preprocessing.channels, len(read.preprocessing.mean)) == (1, 1)
    save_model(tmp_path / "again.safetensors", read.model, read.preprocessing)


def test_weights_of_five_channels_report_that_photos_do_not_fit(tmp_path):
    model = small_model("five channels", gelu="exact")
    export_model(StoredModel(model, Preprocessing((32, 32))), "timm", tmp_path / "m.safetensors")
    read = load_checkpoint(tmp_path / "m.safetensors", num_heads=3)
    assert "this model takes images of 5 channels, such as TIFF files" in str(read.report)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 8_000_000_000}, "image_size"),
        ({"depth": 10**9}, "more blocks than the file has tensors"),
        ({"width": 10**12}, "width 1,000,000,000,000"),
        ({"num_classes": 10**9}, "num_classes 1,000,000,000"),
        ({"image_size": 5.5}, "image_size is 5.5"),
        ({"image_size": True}, "image_size is True"),
        ({"image_size": ["a", "b"]}, "image_size is"),
        ({"image_size": [32]}, "image_size is"),
        ({"image_size": "abc"}, "image_size is 'abc'"),
        ({"patch_size": 0}, "patch_size is 0"),
    ],
)
def test_impossible_fields_are_refused_before_the_model_is_built(fields, message, tmp_path):
    with pytest.raises(InputError) as caught:
        load_checkpoint(gray_file(tmp_path), **({"num_heads": 4} | fields))
    assert message in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [("image_size", [2**40, 2**40]), ("width", 10**12), ("depth", 10**9)])
def test_a_header_with_a_giant_model_is_refused(field, value, tmp_path):
    model = small_model()
    path = tmp_path / "m.safetensors"
    save_model(path, model, Preprocessing((32, 32)))
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
    header["config"][field] = value
    save_file(load_file(path), path, {HEADER: json.dumps(header)})
    with pytest.raises((InputError, ValueError), match=f"{field}|more blocks"):
        load_checkpoint(path)
