"""torchvision's files: equal to torchvision itself, exported unchanged, and what it cannot hold."""

import pytest
import torch
from torchvision.models import VisionTransformer
from torchvision.transforms import v2

from tests.checkpoints.peers import TI, TINY, assert_same_function, assert_same_tensors, filled, images_of
from tests.data.test_preprocessing import noise
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.families.torchvision import Torchvision
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError


def peer(size=TINY, **changes):
    """A model of torchvision's, every parameter at random."""
    arguments = {"image_size": 32, "patch_size": 8, "num_layers": size["depth"], "num_heads": size["num_heads"]}
    arguments |= {"hidden_dim": size["width"], "mlp_dim": size["mlp_dim"], "num_classes": 7}
    return filled(VisionTransformer(**(arguments | changes)))


def read_from(tensors, tmp_path, **fields):
    torch.save(tensors, tmp_path / "theirs.pth")
    return load_checkpoint(tmp_path / "theirs.pth", **fields)


def old_names(tensors):
    """As torchvision named the MLP before its version 0.13, and as its published files still do."""
    numbers = {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}
    return {
        next((key.replace(new, old) for new, old in numbers.items() if new in key), key): tensor
        for key, tensor in tensors.items()
    }


CASES = {"tiny": {}, "tanh layer": {"representation_size": 20}, "Ti": {"size": TI}}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_torchvision_model_is_equal_and_exports_to_the_same_tensors(case, old, tmp_path):
    theirs = peer(**CASES[case])
    tensors = old_names(theirs.state_dict()) if old else dict(theirs.state_dict())
    assert any("linear_1" in key for key in tensors) == old
    read = read_from(tensors, tmp_path, **({} if case == "Ti" else {"num_heads": 4}))
    assert read.metadata["family"] == "torchvision"
    assert read.report.dropped == {}
    assert read.model.config.position_resampling == "bicubic_aligned"
    assert_same_function(theirs, read.model, images_of(read.model.config))
    export_model(read, "torchvision", tmp_path / "out.pth")
    assert_same_tensors(torch.load(tmp_path / "out.pth", weights_only=True), theirs.state_dict())


HELD = {
    "exact GELU": {},
    "hidden layer": {},
    "learned without class slot": {},
    "class token, norm after": {},
    "no positions": {},
    "2-D": {},
    "MAE's sincos with a class token": {},
    "no biases": {"patch_bias": False, "classifier_bias": False},
}


@pytest.mark.parametrize("switch", HELD)
def test_torchvision_computes_what_ours_computes(switch, tmp_path):
    named = "exact GELU" if switch == "no biases" else switch
    ours = small_model(named, **({"gelu": "exact"} | HELD[switch]))
    c = ours.config
    export_model(StoredModel(ours, Preprocessing(c.image_size)), "torchvision", tmp_path / "folder")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["model.pth"]
    theirs = VisionTransformer(
        *(c.image_size[0], c.patch_size[0], c.depth, c.num_heads, c.width, c.mlp_dim),
        num_classes=c.num_classes,
        representation_size=c.hidden_dim,
    )
    theirs.load_state_dict(torch.load(tmp_path / "folder" / "model.pth", weights_only=True))
    assert_same_function(theirs.eval(), ours, images_of(c))
    again = load_checkpoint(tmp_path / "folder" / "model.pth", num_heads=3)
    assert_same_function(again.model, ours, images_of(c))


@pytest.mark.parametrize(
    ("switch", "changes", "named"),
    [
        ("the paper's", {}, "tanh GELU"),
        ("exact GELU", {"norm_eps": 1e-5}, "eps 1e-05"),
        ("exact GELU", {"num_classes": 0}, "no classifier"),
        ("exact GELU", {"pre_norm": True}, "a norm before the encoder"),
        ("mean pooling", {"gelu": "exact"}, "no class token, mean pooling"),
        ("attention pooling", {"gelu": "exact"}, "attention pooling"),
        ("distillation", {"gelu": "exact"}, "a distillation token"),
        ("registers", {"gelu": "exact"}, "registers"),
        ("SwiGLU and LayerScale", {}, "SwiGLU, LayerScale"),
        ("rectangles", {"gelu": "exact"}, "images of 32×48 in patches of 8×4"),
        ("one channel", {"gelu": "exact"}, "1 channels"),
        ("hybrid", {"gelu": "exact"}, "a ResNet stem"),
        ("relative", {"gelu": "exact"}, "relative positions"),
    ],
)
def test_unsupported_parts_are_named(switch, changes, named, tmp_path):
    ours = small_model(switch, **changes)
    with pytest.raises(InputError, match="torchvision cannot hold") as caught:
        export_model(StoredModel(ours, Preprocessing(ours.config.image_size)), "torchvision", tmp_path / "folder")
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_all_differences_are_listed_and_nothing_is_loaded(tmp_path):
    tensors = dict(peer().state_dict())
    del tensors["encoder.layers.encoder_layer_1.ln_2.bias"]
    tensors |= {"encoder.layers.encoder_layer_2.mlp.3.weight": torch.zeros(2, 2), "decoder.weight": torch.ones(3)}
    with pytest.raises(InputError) as caught:
        read_from(tensors, tmp_path, num_heads=4)
    message = str(caught.value)
    assert "encoder.layers.encoder_layer_1.ln_2.bias is missing" in message
    assert "decoder.weight is unexpected" in message
    assert "encoder.blocks.2.mlp.fc2.weight has shape (2, 2), expected (64, 256)" in message


def test_a_file_without_a_head_gives_representations(tmp_path):
    theirs = peer()
    theirs.heads = torch.nn.Identity()
    read = read_from(dict(theirs.state_dict()), tmp_path, num_heads=4)
    assert_same_function(theirs, read.model, images_of(read.model.config))


def test_guesses_are_reported(tmp_path):
    report = str(read_from(dict(peer(size=TI).state_dict()), tmp_path).report)
    for guess in ("num_heads = 3 (as published for Ti)", "gelu = exact", "norm_eps = 1e-06", "image_size = (32, 32)"):
        assert guess in report


def test_preprocessing_is_that_of_torchvisions_weights():
    """As `ViT_B_16_Weights.IMAGENET1K_V1.transforms()` does it on images."""
    ours = Torchvision().preprocessing(small_model(image_size=(224, 224), patch_size=16).config)
    for shape in [(300, 401), (231, 224), (97, 150)]:
        image = noise(*shape)
        expected = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])(image)
        assert torch.equal(ours.pixels(image), expected)
        normal = v2.functional.normalize(expected / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        torch.testing.assert_close(ours([image])[0], normal, rtol=0, atol=1e-5)
