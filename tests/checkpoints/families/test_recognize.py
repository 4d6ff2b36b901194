"""Which family a file belongs to."""

import pytest
import timm
import torch

from tests.checkpoints.test_conversion import samples
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.families.recognize import FAMILIES, recognize
from vitreous.checkpoints.load import load_checkpoint
from vitreous.support.errors import InputError

# timm's keys are those of some of Meta's files; big_vision's of some of Google's and SigLIP's.
ALIKE = {
    "deit": {"deit", "mae"},
    "dino": {"dino", "timm"},
    "mae": {"mae", "deit"},
    "big_vision": {"big_vision", "siglip"},
    "google": {"google", "big_vision"},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_recognizes_its_own_files(name, tmp_path):
    for sample in samples(FAMILIES[name]):
        report = export_model(sample, name, tmp_path / "folder", overwrite=True)
        stored = load_checkpoint(report.files[0], num_heads=sample.model.config.num_heads)
        assert stored.metadata["family"] in ALIKE.get(name, {name}), sample.model.config


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "m.pth has no tensors"),
        ({"to_patch_embedding.1.weight": (8,), "cls_token": (1, 1, 8)}, "is a vit-pytorch checkpoint"),
        ({"layer1.0.conv1.weight": (8,)}, "matches no known family"),
    ],
)
def test_a_file_of_no_family_is_refused(keys, message):
    with pytest.raises(InputError) as caught:
        recognize(keys, "m.pth")
    assert message in caught.value.cause
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "what"),
    [
        ("vit_dwee_patch16_reg1_gap_256", "differential attention"),
        ("vit_dpwee_patch16_reg1_gap_256", "differential attention"),
        ("vit_pwee_patch16_reg1_gap_256", "attention and MLP are parallel"),
        ("vit_small_patch16_18x2_224", "parallel attentions and MLPs"),
        ("samvit_base_patch16", "attention is in windows"),
        ("vit_relpos_small_patch16_224", "made by an MLP"),
        ("vit_srelpos_small_patch16_224", "made by an MLP"),
        ("naflexvit_base_patch16_gap", "NaFlexVit"),
        ("naflexvit_base_patch16_parfac_gap", "NaFlexVit"),
        ("vit_base_mci_224", "convolutions are not the paper's ResNet"),
        ("vit_small_resnet26d_224", "convolutions are not the paper's ResNet"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "model/", "module."])
def test_an_architecture_that_no_family_holds_is_named(architecture, what, prefix):
    with torch.device("meta"):
        keys = timm.create_model(architecture, depth=1).state_dict()
    with pytest.raises(InputError, match=f"m.pth is .*{what}"):
        recognize({prefix + key: tensor.shape for key, tensor in keys.items()}, "m.pth")


def test_the_nearest_family_is_named_with_its_missing_keys():
    keys = {"conv_proj.weight": (8, 3, 4, 4), "class_token": (1, 1, 8), "encoder.pos_embedding": (1, 5, 8), "x": (1,)}
    with pytest.raises(InputError, match=r"tried .*timm.*the nearest is torchvision, which needs encoder.layers"):
        recognize(keys, "m.pth")
