"""transformers' folders and files: equal to transformers itself, exported unchanged, and what it cannot hold."""

import json
import re

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.checkpoints.peers import assert_same_function, assert_same_tensors, filled, images_of
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model
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


@pytest.mark.parametrize(
    ("switch", "changes", "named"),
    [
        ("SwiGLU and LayerScale", {}, "a classifier of the class token alone"),
        ("registers", {}, "4 registers"),
        ("distillation", {"registers": 1}, "registers with a distillation token"),
        ("hidden layer", {}, "a tanh hidden layer before a classifier"),
        ("mean pooling", {"class_token": True}, "a class token"),
        ("mean pooling", {"norm_after_pooling": True}, "the final norm after mean pooling"),
        ("attention pooling", {"num_classes": 0, "image_size": (32, 48)}, "images of 32×48 in patches of 8×8"),
        ("attention pooling", {}, "a classifier after attention pooling"),
        ("attention pooling", {"class_token": True, "num_classes": 0}, "a class token"),
        ("the paper's", {"pre_norm": True, "patch_bias": False}, "a bias of the classifier"),
        ("the paper's", {"pre_norm": True, "classifier_bias": False}, "a bias of the patch projection"),
        ("hybrid", {}, "a ResNet stem"),
        ("relative", {}, "cannot hold relative positions; "),
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
    unqueried = {key: t for key, t in tensors.items() if not key.endswith("query.bias")}
    save_file(unqueried, tmp_path / "unqueried.safetensors")
    with pytest.raises(InputError, match="the file has no query bias but others"):
        load_checkpoint(tmp_path / "unqueried.safetensors", num_heads=4)


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
