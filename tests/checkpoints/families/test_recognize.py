"""Which family a file belongs to."""

import pytest

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


def test_the_nearest_family_is_named_with_its_missing_keys():
    keys = {"conv_proj.weight": (8, 3, 4, 4), "class_token": (1, 1, 8), "encoder.pos_embedding": (1, 5, 8), "x": (1,)}
    with pytest.raises(InputError, match=r"tried .*timm.*the nearest is torchvision, which needs encoder.layers"):
        recognize(keys, "m.pth")
