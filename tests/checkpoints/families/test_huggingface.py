"""transformers' folders and files: equal to transformers itself, exported unchanged, and what it cannot hold."""

import json
import re

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.checkpoints.peers import EQUAL, assert_same_function, assert_same_tensors, filled, images_of, is_varied
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.families.huggingface import HuggingFace
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError

TINY = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}
TINY |= {"image_size": 32, "patch_size": 8}
TI = TINY | {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
TEXT |= {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture(autouse=True)
def quiet():
    """Without transformers' progress bars and warnings on stderr."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def vit(name="ForImageClassification", size=TINY, *, kind="ViT", pooler=True, **changes):
    config = getattr(transformers, f"{kind}Config")(**(size | {"num_labels": 7} | changes))
    arguments = {} if name.startswith("For") or pooler else {"add_pooling_layer": False}
    return getattr(transformers, f"{kind}{name}")(config, **arguments)


def tower(name="VisionModel", *, kind="CLIP", **changes):
    return getattr(transformers, f"{kind}{name}")(getattr(transformers, f"{kind}VisionConfig")(**(TINY | changes)))


def both_towers(name="Model", *, kind="CLIP", **changes):
    config = getattr(transformers, f"{kind}Config")
    return getattr(transformers, f"{kind}{name}")(config(vision_config=TINY, text_config=TEXT, **changes))


# Each with the class that our config.json names.
PEERS = {
    "ViT": (vit, "ViTForImageClassification"),
    "ViT, Ti": (lambda: vit(size=TI), "ViTForImageClassification"),
    "ViT, rectangles": (lambda: vit(image_size=[32, 48], patch_size=[8, 16]), "ViTForImageClassification"),
    "ViT, one channel": (lambda: vit(num_channels=1), "ViTForImageClassification"),
    "ViT, tanh": (lambda: vit(hidden_act="gelu_new", layer_norm_eps=1e-3), "ViTForImageClassification"),
    "ViT, quick": (lambda: vit(hidden_act="quick_gelu"), "ViTForImageClassification"),
    "ViT, pooler": (lambda: vit("Model", pooler_output_size=20), "ViTModel"),
    "ViT, no pooler": (lambda: vit("Model", pooler=False), "ViTModel"),
    "ViT, masked": (lambda: vit("ForMaskedImageModeling", encoder_stride=8), "ViTModel"),
    "DeiT": (lambda: vit(kind="DeiT"), "DeiTForImageClassification"),
    "DeiT, teacher": (
        lambda: vit("ForImageClassificationWithTeacher", kind="DeiT"),
        "DeiTForImageClassificationWithTeacher",
    ),
    "DeiT, pooler": (lambda: vit("Model", kind="DeiT"), "DeiTModel"),
    "DeiT, no pooler": (lambda: vit("Model", kind="DeiT", pooler=False), "DeiTModel"),
    "CLIP": (tower, "CLIPVisionModel"),
    "CLIP, projection": (
        lambda: tower("VisionModelWithProjection", projection_dim=24),
        "CLIPVisionModelWithProjection",
    ),
    "CLIP, exact": (lambda: tower(hidden_act="gelu"), "CLIPVisionModel"),
    "CLIP, texts": (lambda: both_towers(projection_dim=24), "CLIPVisionModelWithProjection"),
    "SigLIP": (lambda: tower(kind="Siglip"), "SiglipVisionModel"),
    "SigLIP, texts": (lambda: both_towers(kind="Siglip"), "SiglipVisionModel"),
    "SigLIP, classes": (
        lambda: both_towers("ForImageClassification", kind="Siglip", num_labels=7),
        "SiglipForImageClassification",
    ),
}
FOLDED = ("DeiT", "DeiT, pooler")  # the position of a token that no classifier reads is added to it
DROPPED = {
    "ViT, masked": "masked pre-training",
    "CLIP, texts": "the text tower",
    "SigLIP, texts": "the text tower",
    "SigLIP, classes": "a pooling layer that the classifier does not use",
}


def outputs(model):
    """A transformers model's logits, embeddings, or representations of images."""
    named = type(model).__name__

    def answer(images):
        if named in ("CLIPModel", "SiglipModel"):
            return model.get_image_features(images).pooler_output
        if named == "ViTForMaskedImageModeling":
            return model.vit(images).last_hidden_state[:, 0]
        output = model(pixel_values=images)
        names = [name for name in ("logits", "image_embeds", "pooler_output") if output.get(name) is not None]
        return output[names[0]] if names else output.last_hidden_state[:, 0]

    return answer


def saved(case, tmp_path):
    model = filled(PEERS[case][0]())
    model.save_pretrained(tmp_path / "theirs")
    return model, load_file(tmp_path / "theirs" / "model.safetensors")


def usual(case, tensors):
    """The tensors in the layout that export writes: a tower has a prefix, a ViT without classifier has none."""
    if case in ("CLIP", "CLIP, exact", "SigLIP"):
        return {f"vision_model.{key}": tensor for key, tensor in tensors.items()}
    if case == "ViT, masked":
        return {key.removeprefix("vit."): tensor for key, tensor in tensors.items()}
    return tensors


def loaded(folder, name=None):
    """The model of our folder as transformers loads it; every key must be used, and none missing."""
    name = name or json.loads((folder / "config.json").read_text())["architectures"][0]
    kind = getattr(transformers, name)
    pooled = any(key.startswith("pooler.") for key in load_file(folder / "model.safetensors"))
    arguments = {"add_pooling_layer": False} if name in ("ViTModel", "DeiTModel") and not pooled else {}
    model, info = kind.from_pretrained(folder, output_loading_info=True, **arguments)
    assert not any(info.values()), info
    return model.eval()


@pytest.mark.parametrize("case", PEERS)
def test_a_transformers_folder_is_equal_and_exports_to_the_same_tensors(case, tmp_path):
    theirs, tensors = saved(case, tmp_path)
    read = load_checkpoint(tmp_path / "theirs")
    assert read.metadata["family"] == "huggingface"
    assert [guess.field for guess in read.report.guesses if guess.field != "preprocessing"] == []
    assert set(read.report.dropped.values()) == {DROPPED[case]} if case in DROPPED else read.report.dropped == {}
    images = images_of(read.model.config)
    assert_same_function(outputs(theirs), read.model, images)
    export_model(read, "huggingface", tmp_path / "ours")
    written = load_file(tmp_path / "ours" / "model.safetensors")
    kept = usual(case, {key: tensor for key, tensor in tensors.items() if key not in read.report.dropped})
    if case in FOLDED:
        assert written.keys() == kept.keys()
        again = load_checkpoint(tmp_path / "ours" / "model.safetensors", num_heads=4)
        assert_same_tensors(again.model.state_dict(), read.model.state_dict())
    else:
        assert_same_tensors(written, kept)


@pytest.mark.parametrize("case", PEERS)
def test_transformers_builds_our_folder_by_its_config(case, tmp_path):
    theirs, _ = saved(case, tmp_path)
    read = load_checkpoint(tmp_path / "theirs")
    export_model(read, "huggingface", tmp_path / "ours")
    again = loaded(tmp_path / "ours")
    assert type(again).__name__ == PEERS[case][1]
    assert_same_function(outputs(again), outputs(theirs), images_of(read.model.config))
    assert load_checkpoint(tmp_path / "ours").model.config == read.model.config


@pytest.mark.parametrize("case", [case for case in PEERS if case.startswith(("ViT", "DeiT"))])
def test_names_in_memory_are_read(case, tmp_path):
    theirs, tensors = saved(case, tmp_path)
    memory = theirs.state_dict()
    assert memory.keys() != tensors.keys()
    on_disk = load_checkpoint(tmp_path / "theirs")
    save_file(memory, tmp_path / "theirs" / "model.safetensors")
    in_memory = load_checkpoint(tmp_path / "theirs")
    assert in_memory.model.config == on_disk.model.config
    assert_same_tensors(in_memory.model.state_dict(), on_disk.model.state_dict())


@pytest.mark.parametrize("case", ["CLIP", "SigLIP"])
def test_older_files_have_a_prefix_and_buffers(case, tmp_path):
    """As on the hub: a prefix `vision_model.`, and position indices."""
    theirs, tensors = saved(case, tmp_path)
    older = {f"vision_model.{key}": tensor for key, tensor in tensors.items()}
    number = "vision_model.embeddings.position_ids"
    save_file(older | {number: torch.arange(17)[None]}, tmp_path / "older.safetensors")
    read = load_checkpoint(tmp_path / "older.safetensors", num_heads=4)
    assert read.report.dropped == {number: "position indices"}
    assert_same_function(outputs(theirs), read.model, images_of(read.model.config))
    export_model(read, "huggingface", tmp_path / "again.safetensors")
    assert_same_tensors(load_file(tmp_path / "again.safetensors"), older)
    export_model(read, "huggingface", tmp_path / "folder")
    assert_same_function(outputs(loaded(tmp_path / "folder")), outputs(theirs), images_of(read.model.config))


def test_without_a_config_defaults_are_guessed(tmp_path):
    for case, gelu, eps in (("ViT, Ti", "exact", 1e-12), ("CLIP", "quick", 1e-5), ("SigLIP", "tanh", 1e-6)):
        theirs, tensors = saved(case, tmp_path / case)
        save_file(tensors, tmp_path / "alone.safetensors")
        read = load_checkpoint(tmp_path / "alone.safetensors", **{} if "Ti" in case else {"num_heads": 4})
        assert (read.model.config.gelu, read.model.config.norm_eps) == (gelu, eps)
        guesses = {guess.field: guess.value for guess in read.report.guesses}
        heads = {"num_heads": 3} if "Ti" in case else {}
        assert guesses.items() >= ({"gelu": gelu, "norm_eps": eps, "image_size": (32, 32)} | heads).items()
        assert_same_function(outputs(theirs), read.model, images_of(read.model.config))


def test_missing_config_fields_mean_the_defaults():
    """As in google/siglip-base-patch16-224, which records the model types only."""
    config = {"model_type": "siglip", "vision_config": {"model_type": "siglip_vision_model"}}
    fields = {"gelu": "tanh", "norm_eps": 1e-6, "num_heads": 12, "image_size": (224, 224)}
    assert HuggingFace().fields_from(config) == fields
    older = {"model_type": "clip", "vision_config": {}, "vision_config_dict": {"num_attention_heads": 16}}
    assert HuggingFace().fields_from(older) == fields | {"gelu": "quick", "norm_eps": 1e-5, "num_heads": 16}
    assert HuggingFace().fields_from({"model_type": "other", "hidden_act": "gelu"}) == {"gelu": "exact"}
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
        ({"qkv_bias": False}, "qkv_bias false"),
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


def test_headless_siglip_uses_mean_pooling_and_reports_it(tmp_path):
    theirs = filled(tower(kind="Siglip", vision_use_head=False))
    theirs.save_pretrained(tmp_path / "theirs")
    read = load_checkpoint(tmp_path / "theirs")
    assert "pooling = mean" in str(read.report)
    assert_same_function(
        lambda images: theirs(images).last_hidden_state.mean(dim=1), read.model, images_of(read.model.config)
    )


HELD = {
    "the paper's": {},
    "exact GELU": {},
    "quick GELU": {"gelu": "quick", "norm_eps": 0.01},
    "quick GELU, pre-norm, no patch bias, no classifier bias": {},
    "distillation": {},
    "one register": {"registers": 1},
    "mean pooling": {},
    "attention pooling": {"num_classes": 0},
    "learned without class slot": {},
    "class token, norm after": {},
    "no positions": {},
    "2-D": {},
    "sincos": {},
    "MAE's sincos with a class token": {},
    "rectangles": {},
    "one channel": {},
    "no classes": {},
    "hidden layer": {"num_classes": 0},
    "no biases": {"patch_bias": False, "classifier_bias": False},
    "a mask token": {"mask_token": True},
}


@pytest.mark.parametrize("switch", HELD)
def test_transformers_computes_what_ours_computes(switch, tmp_path):
    named = {"quick GELU": "the paper's", "one register": "the paper's", "no biases": "the paper's"}
    ours = small_model(named.get(switch, "the paper's" if switch == "a mask token" else switch), **HELD[switch])
    channels = ours.config.channels
    preprocessing = Preprocessing(
        ours.config.image_size, mean=(0.5,) * channels, std=(0.5,) * channels, channels=channels
    )
    names = tuple(f"class {i}" for i in range(ours.config.num_classes)) or None
    report = export_model(StoredModel(ours, preprocessing, names), "huggingface", tmp_path / "folder")
    assert list(report.dropped) == (["mask_token"] if ours.config.mask_token else [])
    images = images_of(ours.config)
    assert_same_function(outputs(loaded(tmp_path / "folder")), ours, images)
    again = load_checkpoint(tmp_path / "folder")
    assert_same_function(again.model, ours, images)
    assert again.preprocessing == preprocessing
    if not ours.config.pre_norm:  # CLIP's projection has no names
        assert again.class_names == names


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


@pytest.mark.parametrize(
    ("switch", "changes", "named"),
    [
        ("SwiGLU and LayerScale", {}, "SwiGLU, LayerScale"),
        ("registers", {}, "4 registers"),
        ("distillation", {"registers": 1}, "registers with a distillation token"),
        ("hidden layer", {}, "a tanh hidden layer before a classifier"),
        ("mean pooling", {"class_token": True}, "mean pooling"),
        ("mean pooling", {"num_classes": 0}, "mean pooling without a classifier"),
        ("mean pooling", {"norm_after_pooling": True}, "the final norm after mean pooling"),
        ("mean pooling", {"image_size": (32, 48)}, "images of 32×48 in patches of 8×8"),
        ("attention pooling", {}, "a classifier after attention pooling"),
        ("attention pooling", {"class_token": True, "num_classes": 0}, "a class token"),
        ("the paper's", {"pre_norm": True, "patch_bias": False}, "a bias of the classifier"),
        ("the paper's", {"pre_norm": True, "classifier_bias": False}, "a bias of the patch projection"),
        ("hybrid", {}, "a ResNet stem"),
        ("relative", {}, "relative positions, positions inside the encoder"),
        ("learned at every layer", {}, "positions inside the encoder"),
    ],
)
def test_unsupported_parts_are_named(switch, changes, named, tmp_path):
    ours = small_model(switch, **changes)
    with pytest.raises(InputError, match="transformers cannot hold") as caught:
        export_model(StoredModel(ours, Preprocessing(ours.config.image_size)), "huggingface", tmp_path / "folder")
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_all_differences_are_listed_and_nothing_is_loaded(tmp_path):
    _, tensors = saved("ViT", tmp_path)
    del tensors["vit.encoder.layer.1.layernorm_after.bias"]
    tensors |= {"vit.encoder.layer.2.output.dense.weight": torch.zeros(2, 2), "vit.encoder.lambda": torch.ones(3)}
    save_file(tensors, tmp_path / "broken.safetensors")
    with pytest.raises(InputError) as caught:
        load_checkpoint(tmp_path / "broken.safetensors", num_heads=4)
    message = str(caught.value)
    assert "vit.encoder.layer.1.layernorm_after.bias is missing" in message
    assert "vit.encoder.lambda is unexpected" in message
    assert "encoder.blocks.2.mlp.fc2.weight has shape (2, 2), expected (64, 256)" in message


def test_similar_models_are_refused(tmp_path):
    _, tensors = saved("ViT", tmp_path)
    biasless = {key: t for key, t in tensors.items() if not re.search(r"(query|key|value)\.bias", key)}
    save_file(biasless, tmp_path / "biasless.safetensors")
    with pytest.raises(InputError, match="no query, key and value biases"):
        load_checkpoint(tmp_path / "biasless.safetensors")
    filled(both_towers("ForImageClassification")).save_pretrained(tmp_path / "mean")
    with pytest.raises(InputError, match="CLIPForImageClassification pools patches without a norm"):
        load_checkpoint(tmp_path / "mean")
    dinov2 = transformers.Dinov2Model(transformers.Dinov2Config(**{k: v for k, v in TINY.items() if "inter" not in k}))
    dinov2.save_pretrained(tmp_path / "dinov2")
    with pytest.raises(InputError, match=r"matches no known family .*nearest is huggingface"):
        load_checkpoint(tmp_path / "dinov2")


def test_mae_of_transformers_is_read_without_its_decoder(tmp_path):
    """It masks random patches and shuffles them; with none masked, the class token sees the same."""
    small = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    config = transformers.ViTMAEConfig(**TINY, **small, decoder_intermediate_size=32, mask_ratio=0.0)
    theirs = filled(transformers.ViTMAEForPreTraining(config))
    theirs.save_pretrained(tmp_path / "theirs")
    read = load_checkpoint(tmp_path / "theirs")
    assert set(read.report.dropped.values()) == {"MAE's decoder"}
    assert all(key.startswith("decoder.") for key in read.report.dropped)
    assert_same_function(lambda x: theirs.vit(x).last_hidden_state[:, 0], read.model, images_of(read.model.config))


@pytest.mark.parametrize("key", ["decoder.layers.0.weight", "decoder.weight", "decoder.0.conv.weight"])
def test_an_unknown_decoder_is_refused(key, tmp_path):
    _, tensors = saved("ViT", tmp_path)
    save_file(tensors | {key: torch.ones(3, 64)}, tmp_path / "more.safetensors")
    with pytest.raises(InputError, match=f"{re.escape(key)} is unexpected"):
        load_checkpoint(tmp_path / "more.safetensors", num_heads=4)


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


# --- preprocessing

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
