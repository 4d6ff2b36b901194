"""OpenAI's CLIP files: equal to timm and transformers, exported unchanged, and what CLIP cannot hold."""

import pytest
import timm
import torch
import transformers

from tests.checkpoints.peers import TI, TINY, assert_same_function, assert_same_tensors, filled, images_of
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError

# transformers' names, and OpenAI's.
NAMES = {
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.patch_embedding": "conv1",
    "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.pre_layrnorm": "ln_pre",
    "vision_model.post_layernorm": "ln_post",
    "vision_model.encoder.layers": "transformer.resblocks",
    "layer_norm": "ln_",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
TEXT = {  # part of the text tower, whose names are those of the image tower
    "transformer.resblocks.0.ln_1.weight": torch.ones(32),
    "transformer.resblocks.0.attn.in_proj_weight": torch.ones(96, 32),
    "token_embedding.weight": torch.ones(50, 32),
    "positional_embedding": torch.ones(77, 32),
    "ln_final.weight": torch.ones(32),
    "text_projection": torch.ones(32, 24),
    "logit_scale": torch.tensor(4.6),
}


def peer(size=TINY):
    """A CLIPVisionModelWithProjection with random parameters."""
    config = transformers.CLIPVisionConfig(
        hidden_size=size["width"],
        num_hidden_layers=size["depth"],
        num_attention_heads=size["num_heads"],
        intermediate_size=size["mlp_dim"],
        image_size=32,
        patch_size=8,
        projection_dim=24,
    )
    return filled(transformers.CLIPVisionModelWithProjection(config))


def as_openai(model, prefix="visual."):
    """The model's tensors in OpenAI's layout."""
    tensors, state = {}, dict(model.state_dict())
    tensors[f"{prefix}proj"] = state.pop("visual_projection.weight").T.contiguous()
    for key in [key for key in state if ".q_proj." in key]:
        parts = [state.pop(key.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
        layer, name = key.split("self_attn.q_proj.")
        state[f"{layer}attn.in_proj_{name}"] = torch.cat(parts)
    for key, tensor in state.items():
        named = key
        for theirs, openai in NAMES.items():
            named = named.replace(theirs, openai)
        tensors[prefix + named] = tensor
    return tensors


def read_from(tensors, tmp_path, **fields):
    torch.save(tensors, tmp_path / "theirs.pt")
    return load_checkpoint(tmp_path / "theirs.pt", **fields)


@pytest.mark.parametrize("size", [TINY, TI])
@pytest.mark.parametrize("prefix", ["visual.", "", "module.visual."])
def test_clip_is_equal_and_exports_to_the_same_tensors(prefix, size, tmp_path):
    theirs = peer(size)
    tensors = as_openai(theirs, prefix)
    read = read_from(tensors, tmp_path, **({} if size is TI else {"num_heads": 4}))
    assert read.metadata["family"] == "clip"
    assert read.report.dropped == {}
    assert_same_function(lambda images: theirs(images).image_embeds, read.model, images_of(read.model.config))
    export_model(read, "clip", tmp_path / "out.pt")
    assert_same_tensors(torch.load(tmp_path / "out.pt", weights_only=True), as_openai(theirs))


@pytest.mark.parametrize("root", ["", "module."])
def test_the_text_tower_is_left_out_by_name(root, tmp_path):
    theirs = peer()
    tensors = as_openai(theirs, f"{root}visual.")
    texts = {root + key: tensor for key, tensor in TEXT.items()}
    read = read_from(tensors | texts, tmp_path, num_heads=4)
    assert read.report.dropped == dict.fromkeys(texts, "the text tower")
    assert_same_function(lambda images: theirs(images).image_embeds, read.model, images_of(read.model.config))
    export_model(read, "clip", tmp_path / "out.pt")
    assert_same_tensors(torch.load(tmp_path / "out.pt", weights_only=True), as_openai(theirs))


HELD = {
    "learned": {},
    "learned without class slot": {"position_class_slot": False},
    "no positions": {"position_embedding": "none"},
    "sincos": {"position_embedding": "sincos_2d"},
    "norm after": {"norm_after_pooling": True},
}


def clip_model(**changes):
    return small_model("quick GELU, pre-norm, no patch bias, no classifier bias", **({"norm_eps": 1e-5} | changes))


@pytest.mark.parametrize("switch", HELD)
def test_timm_reads_our_clip_and_computes_the_same(switch, tmp_path):
    ours = clip_model(**HELD[switch])
    c = ours.config
    export_model(StoredModel(ours, Preprocessing(c.image_size)), "clip", tmp_path / "model.pt")
    theirs = timm.create_model(
        "vit_base_patch16_clip_quickgelu_224",
        **{"img_size": 32, "patch_size": 8, "embed_dim": c.width, "depth": c.depth, "num_heads": c.num_heads},
        **{"mlp_ratio": c.mlp_dim / c.width, "num_classes": c.num_classes},
    )
    tensors = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(key.startswith("visual.") for key in tensors)
    theirs.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(tensors, theirs))
    assert_same_function(theirs.eval(), ours, images_of(c))
    again = load_checkpoint(tmp_path / "model.pt", num_heads=3)
    assert_same_function(again.model, ours, images_of(c))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"gelu": "exact"}, "exact GELU"),
        ({"norm_eps": 1e-6}, "eps 1e-06"),
        ({"pre_norm": False}, "no norm before the encoder"),
        ({"patch_bias": True}, "a bias of the patch projection"),
        ({"classifier_bias": True}, "a bias of the classifier"),
        ({"num_classes": 0}, "no classifier"),
        ({"class_token": False, "pooling": "mean"}, "no class token, mean pooling"),
        ({"registers": 2}, "registers"),
        ({"layer_scale": 0.1}, "LayerScale"),
        ({"hidden_dim": 20}, "a tanh hidden layer in the head"),
        ({"image_size": (32, 48)}, "images of 32×48"),
        ({"channels": 1}, "1 channels"),
    ],
)
def test_unsupported_parts_are_named(changes, named, tmp_path):
    ours = clip_model(**changes)
    with pytest.raises(InputError, match="CLIP cannot hold") as caught:
        export_model(StoredModel(ours, Preprocessing(ours.config.image_size)), "clip", tmp_path / "folder")
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_all_differences_are_listed_and_nothing_is_loaded(tmp_path):
    tensors = as_openai(peer())
    del tensors["visual.transformer.resblocks.1.ln_2.bias"]
    tensors |= {"visual.transformer.resblocks.2.mlp.c_proj.weight": torch.zeros(2, 2), "speech.weight": torch.ones(3)}
    tensors["visual.transformer.resblocks.0.ls_1.gamma"] = torch.ones(64)
    with pytest.raises(InputError) as caught:
        read_from(tensors, tmp_path, num_heads=4)
    message = str(caught.value)
    assert "visual.transformer.resblocks.1.ln_2.bias is missing" in message
    assert "speech.weight is unexpected" in message
    assert "visual.transformer.resblocks.0.ls_1.gamma is unexpected" in message
    assert "encoder.blocks.2.mlp.fc2.weight has shape (2, 2), expected (64, 256)" in message


def test_guesses_are_reported_and_can_be_overridden(tmp_path):
    tensors = as_openai(peer(TI))
    report = str(read_from(tensors, tmp_path).report)
    for guess in ("num_heads = 3", "gelu = quick (OpenAI's code; some OpenCLIP models", "norm_eps = 1e-05"):
        assert guess in report
    exact = read_from(tensors, tmp_path, gelu="exact")
    assert exact.model.config.gelu == "exact"
    assert "gelu" not in str(exact.report)
