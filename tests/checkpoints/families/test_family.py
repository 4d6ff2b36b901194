"""What all families share: sizes, bounds, and the spelling that a header remembers."""

import json

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.checkpoints.peers import assert_same_function, filled
from tests.model.models import small_model
from vitreous.checkpoints.convert import Beside, read_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.families.family import Dialect, whole_patches
from vitreous.checkpoints.families.jax import JaxDialect
from vitreous.checkpoints.families.timm_table import TimmDialect
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import HEADER, StoredModel, save_model
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError


@pytest.mark.parametrize("kind", ["transformers", "timm"])
def test_pixels_that_make_no_whole_patch_are_left_out_as_the_peers_do(kind, tmp_path):
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
        told = {"architecture": "vit_base_patch16_224", "model_args": arguments, "global_pool": "token"}
        told["pretrained_cfg"] = {"input_size": [3, 30, 30], "crop_pct": 0.9, "interpolation": "bicubic"}
        (tmp_path / "folder" / "config.json").write_text(json.dumps(told))
    read = load_checkpoint(tmp_path / "folder")
    assert read.model.config.image_size == read.preprocessing.image_size == (28, 28)
    assert read.preprocessing.trim == (2, 2)
    assert "30×30 are not made of whole patches of 14×14: the model reads their upper left 28×28" in str(read.report)
    images = torch.randn(4, 3, 30, 30)
    assert_same_function(compute, lambda x: read.model(x[:, :, :28, :28]), images)


def test_whole_patches_are_at_least_one():
    assert whole_patches((384, 20), (14, 16)) == (378, 16)
    assert whole_patches((5, 5), (14, 14)) == (14, 14)


def gray(folder):
    theirs = filled(timm.create_model("vit_base_patch16_224", img_size=32, patch_size=8, embed_dim=64, depth=2,
                                      num_heads=4, num_classes=5, in_chans=1))  # fmt: skip
    save_file(theirs.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"


def test_gray_weights_without_a_config_are_fed_gray_images(tmp_path):
    read = read_model(gray(tmp_path), Beside(fields={"num_heads": 4}))
    assert (read.preprocessing.channels, len(read.preprocessing.mean)) == (1, 1)
    save_model(tmp_path / "again.safetensors", read.model, read.preprocessing)


def test_weights_of_other_channels_say_that_photos_do_not_fit(tmp_path):
    model = small_model("five channels", gelu="exact")
    export_model(StoredModel(model, Preprocessing((32, 32))), "timm", tmp_path / "m.safetensors")
    read = read_model(tmp_path / "m.safetensors", Beside(fields={"num_heads": 3}))
    assert "photos have 3 channels or 1, this model takes 5" in str(read.report)


@pytest.mark.parametrize(
    ("fields", "told"),
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
def test_fields_of_nonsense_are_refused_before_anything_is_built(fields, told, tmp_path):
    with pytest.raises(InputError) as caught:
        read_model(gray(tmp_path), Beside(fields={"num_heads": 4} | fields))
    assert told in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [("image_size", [2**40, 2**40]), ("width", 10**12), ("depth", 10**9)])
def test_a_header_that_asks_for_a_giant_is_refused(field, value, tmp_path):
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


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Dialect, {"prefix": "x"}),
        (JaxDialect, {"numbering": [0, 1]}),
        (JaxDialect, {"numbering": ["a", "b", "c", "d"]}),
        (JaxDialect, {"class_row": 1}),
        (TimmDialect, {"scales": ["gamma_1"]}),
        (TimmDialect, {"rows": [1]}),
        (TimmDialect, {"chunk": True}),
    ],
)
def test_a_spelling_that_is_none_is_refused(kind, values):
    plain = kind().to_dict()
    assert kind.from_dict(plain) == kind()
    with pytest.raises(InputError, match="--plain"):
        kind.from_dict(plain | values)


@pytest.mark.parametrize("spelling", [{"numbering": [0, 0, 0, 0]}, {"position_key": "cls"}])
def test_a_spelling_that_gives_a_key_twice_is_refused(spelling, tmp_path):
    stored = StoredModel(
        small_model(), Preprocessing((32, 32)), None, {"family": "google", "dialect": JaxDialect().to_dict() | spelling}
    )
    with pytest.raises(InputError, match="twice"):
        export_model(stored, "google", tmp_path / "m.npz")
    assert not list(tmp_path.iterdir())
