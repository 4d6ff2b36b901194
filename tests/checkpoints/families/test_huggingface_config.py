"""transformers' JSON files: config.json and preprocessor_config.json, read and written."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tests.checkpoints.families.test_huggingface import saved, tower
from tests.checkpoints.families.test_huggingface_kinds import packed
from tests.checkpoints.peers import EQUAL, is_varied
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.families.huggingface.family import HuggingFace
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError


@pytest.fixture(autouse=True)
def quiet():
    """Without transformers' progress bars and warnings on stderr."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def test_missing_config_fields_mean_the_defaults():
    """As in google/siglip-base-patch16-224, which records the model types only."""
    config = {"model_type": "siglip", "vision_config": {"model_type": "siglip_vision_model"}}
    fields = {"gelu": "tanh", "norm_eps": 1e-6, "num_heads": 12, "image_size": (224, 224)}
    assert HuggingFace().fields_from(config) == fields
    older = {"model_type": "clip", "vision_config": {}, "vision_config_dict": {"num_attention_heads": 16}}
    assert HuggingFace().fields_from(older) == fields | {"gelu": "quick", "norm_eps": 1e-5, "num_heads": 16}
    assert HuggingFace().fields_from({"hidden_act": "gelu"}) == {"gelu": "exact"}
    for model in ("ViT", "DeiT", "CLIPVision", "SiglipVision"):
        config = getattr(transformers, f"{model}Config")()
        defaults = HuggingFace().fields_from({"model_type": config.model_type})
        assert defaults == HuggingFace().fields_from(config.to_dict())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu'; supported are gelu,"),
        ({"hidden_act": ["gelu"]}, r"hidden_act \['gelu'\]"),
        ({"pooler_act": "gelu"}, "pooler_act 'gelu'"),
        ({"model_type": "vit_hybrid"}, "model_type 'vit_hybrid'"),
    ],
)
def test_unsupported_config_fields_are_named(changes, named):
    with pytest.raises(InputError, match=named):
        HuggingFace().fields_from({"model_type": "vit"} | changes)


@pytest.mark.parametrize("changes", [{"image_size": "wide"}, {"num_attention_heads": 5}, {"layer_norm_eps": "small"}])
def test_an_impossible_config_is_refused(changes, tmp_path):
    saved("ViT", tmp_path)
    path = tmp_path / "theirs" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=r"do not make a ViT|image_size is 'wide'"):
        load_checkpoint(tmp_path / "theirs")


def test_the_auto_classes_find_model_processor_and_names(tmp_path):
    ours = small_model("exact GELU")
    names = tuple("abcdefg")
    export_model(StoredModel(ours, Preprocessing((32, 32)), names), "huggingface", tmp_path / "folder")
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "folder").eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "folder")
    photos = [photo(40, 51), photo(33, 90), photo(70, 20)]
    with torch.no_grad():
        expected = ours(Preprocessing((32, 32))(photos))
        found = model(**processor(images=photos, return_tensors="pt")).logits
    assert is_varied(expected)
    assert (found - expected).abs().max() < 0.02  # theirs resizes tensors, which rounds differently from Pillow
    assert model.config.id2label == dict(enumerate(names))


def test_a_folder_records_the_size_before_pixels_are_cut_off(tmp_path):
    tower(kind="Siglip", image_size=34, patch_size=8).save_pretrained(tmp_path / "theirs")
    transformers.SiglipImageProcessor(size={"height": 34, "width": 34}).save_pretrained(tmp_path / "theirs")
    read = load_checkpoint(tmp_path / "theirs")
    export_model(read, "huggingface", tmp_path / "ours")
    again = load_checkpoint(tmp_path / "ours")
    assert (again.model.config, again.preprocessing) == (read.model.config, read.preprocessing)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["image_size"] == 34


def test_class_names_are_in_the_order_of_their_ids():
    names = HuggingFace().class_names_from
    assert names({"id2label": {"10": "k", **{str(i): "abcdefghij"[i] for i in range(10)}}}) == tuple("abcdefghijk")
    assert names({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}) is None
    assert names({"id2label": {"0": "a", "2": "c"}}) is None
    assert names({}) is None


HALF = [0.5, 0.5, 0.5]


PROCESSORS = {
    "ViT, first": {"feature_extractor_type": "ViTFeatureExtractor", "size": 64, "image_mean": HALF, "image_std": HALF},
    "ViT, rectangle": {"image_processor_type": "ViTImageProcessor", "size": {"height": 64, "width": 48}, "resample": 3},
    "ViT, not normalized": {"image_processor_type": "ViTImageProcessorFast", "size": 64, "do_normalize": False},
    "ViT, not rescaled": {
        "image_processor_type": "ViTImageProcessor",
        **{"size": 64, "do_rescale": False, "image_mean": [100.0, 110.0, 120.0], "image_std": [50.0, 60.0, 70.0]},
    },
    "ViT, another scale": {
        "image_processor_type": "ViTImageProcessor",
        **{"size": 64, "rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]},
    },
    "DeiT": {"image_processor_type": "DeiTImageProcessor"},
    "DeiT, first": {"feature_extractor_type": "DeiTFeatureExtractor", "size": 73, "crop_size": 64, "resample": 3},
    "CLIP": {"image_processor_type": "CLIPImageProcessor"},
    "CLIP, first": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 72, "crop_size": 64},
    "SigLIP": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 64, "width": 64}},
    "BEiT": {"image_processor_type": "BeitImageProcessor", "size": {"height": 64, "width": 64}},
    "BEiT, first": {
        "feature_extractor_type": "BeitFeatureExtractor",
        "size": 64,
        "resample": 2,
        "do_center_crop": False,
    },
    "DINOv2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 72}, "crop_size": 64},
    "InternVL": {"image_processor_type": "GotOcr2ImageProcessorFast", "size": {"height": 64, "width": 64}},
}


SHAPES = [(101, 74), (64, 65), (40, 59), (203, 141), (65, 97)]


def photo(height, width):
    """Soft shapes and noise."""
    draw = np.random.default_rng(height * 1000 + width)
    soft = Image.fromarray(draw.integers(0, 256, (6, 5, 3), dtype=np.uint8)).resize((width, height))
    return Image.fromarray(
        np.clip(np.asarray(soft) + draw.integers(-20, 20, (height, width, 3)), 0, 255).astype(np.uint8)
    )


@pytest.mark.parametrize("case", PROCESSORS)
def test_preprocessing_is_the_image_processors(case, tmp_path):
    processor_json = PROCESSORS[case]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor_json))
    ours = HuggingFace().preprocessing_from({}, processor_json)
    assert ours is not None
    pillow = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    default = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    for shape in SHAPES:
        found = ours([photo(*shape)])
        for processor, levels in ((pillow, 0), (default, 4)):
            expected = torch.as_tensor(processor(images=photo(*shape), return_tensors="pt").pixel_values)
            assert expected.shape == found.shape
            apart = ((found - expected) * torch.tensor(ours.std).view(-1, 1, 1)).abs().max().item() * 255
            assert apart < levels + 0.01, (shape, levels)


def test_dinov3s_processor_is_the_same_to_rounding(tmp_path):
    """It resizes before it rounds to bytes, so that half a level may differ, and tensors instead of Pillow's images."""
    processor_json = {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 64, "width": 64}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor_json))
    ours = HuggingFace().preprocessing_from({"model_type": "dinov3_vit"}, processor_json)
    assert ours is not None
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    for shape in SHAPES:
        expected = torch.as_tensor(processor(images=photo(*shape), return_tensors="pt").pixel_values)
        apart = ((ours([photo(*shape)]) - expected) * torch.tensor(ours.std).view(-1, 1, 1)).abs().max().item() * 255
        assert apart < 1.5, shape


def test_siglip_2s_processor_is_the_same_for_square_photos(tmp_path):
    processor_json = {"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 16, "patch_size": 16}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor_json))
    ours = HuggingFace().preprocessing_from({"model_type": "siglip2"}, processor_json)
    assert ours is not None
    assert ours.image_size == (64, 64)
    [note] = HuggingFace().notes(small_model("the paper's").config, {"model_type": "siglip2"})
    assert "aspect ratio" in note
    processor = transformers.Siglip2ImageProcessor.from_pretrained(tmp_path)
    expected = torch.as_tensor(processor(images=photo(90, 90), return_tensors="pt").pixel_values)
    found = packed(ours([photo(90, 90)]), patch=16)["pixel_values"]
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 4 / 127.5


def test_a_processor_of_another_kind_is_named():
    with pytest.raises(InputError, match="is of a ConvNextImageProcessor") as caught:
        HuggingFace().preprocessing_from({}, {"image_processor_type": "ConvNextImageProcessor"})
    assert caught.value.hint


@pytest.mark.parametrize(
    "ours",
    [
        Preprocessing((64, 48), interpolation="bicubic"),
        Preprocessing((64, 48), "squash", 0.5, "lanczos"),
        Preprocessing((32, 32), "squash", 0.875, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
        Preprocessing((32, 32), "crop", 0.8, "bicubic", crop_rounding="down"),
        Preprocessing((32, 32), "crop", crop_rounding="down"),
    ],
)
def test_our_preprocessing_is_written_as_an_image_processor(ours, tmp_path):
    export_model(StoredModel(small_model(image_size=(32, 32)), ours), "huggingface", tmp_path / "folder")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "folder", backend="pil")
    again = load_checkpoint(tmp_path / "folder").preprocessing
    for shape in [(100, 100), (100, 41), (40, 103), (32, 35), (35, 32)]:
        expected = ours([photo(*shape)])
        assert torch.equal(again([photo(*shape)]), expected)
        found = torch.as_tensor(processor(images=photo(*shape), return_tensors="pt").pixel_values)
        assert (found - expected).abs().max() < EQUAL


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"size": {"shortest_edge": 64}, "do_center_crop": False}, "without cropping a square"),
        ({"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 32}}, "without cropping a square"),
        ({"size": {"shortest_edge": 64, "longest_edge": 90}, "crop_size": 64}, "a longest edge of 90"),
        ({"size": {"shortest_edge": 64}, "crop_size": 80}, "crop of 80 is larger than its size of 64"),
        ({"size": {"height": 64, "width": 64}, "crop_size": {"height": 64, "width": 32}}, "has another shape than"),
        ({"do_resize": False}, "crops images without resizing"),
        ({"crop_pct": 0.9}, "crop_pct is not supported"),
        ({"size": "large"}, "'large' is not a size"),
        ({"image_mean": None, "image_std": "gray"}, "not supported"),
        ({"resample": 17}, "17"),
        ({"rescale_factor": 0}, "division by zero"),
        ({"do_flip_channel_order": True}, "it turns RGB into BGR"),
        ({"image_processor_type": "GotOcr2ImageProcessor", "crop_to_patches": True}, "cuts an image into several"),
        ({"image_processor_type": "DINOv3ViTImageProcessorFast", "resample": 3}, "resizes unrounded values"),
    ],
)
def test_unsupported_processors_are_named(changes, named):
    with pytest.raises(InputError, match=named) as caught:
        HuggingFace().preprocessing_from({}, {"image_processor_type": "CLIPImageProcessor"} | changes)
    assert "preprocessor_config.json has a preprocessing that is not supported" in str(caught.value)


@pytest.mark.parametrize(
    ("preprocessing", "named"),
    [
        (Preprocessing((32, 48), "crop", 0.9), "a crop of 32×48 that keeps the aspect ratio"),
        (Preprocessing((32, 32), antialias=False), "bilinear interpolation without antialias"),
    ],
)
def test_preprocessing_that_no_processor_can_do_is_named(preprocessing, named):
    with pytest.raises(InputError, match=named):
        HuggingFace().config_files(small_model().config, preprocessing, None)
