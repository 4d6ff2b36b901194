"""The preprocessing and the notes of timm's files without config.json: those published for the kind of model."""

import pytest
import timm
import torch
from timm.models import get_pretrained_cfg

from tests.checkpoints.families.test_timm import peer
from tests.checkpoints.peers import through_a_file
from vitreous.checkpoints.families.shared.reading import Reading
from vitreous.checkpoints.families.timm.family import TimmModules

PUBLISHED = (
    "vit_small_patch16_dinov3.lvd1689m",
    "vit_base_patch16_dinov3_qkvb.lvd1689m",
    "eva02_tiny_patch14_224.mim_in22k",
    "eva02_small_patch14_336.mim_in22k_ft_in1k",
    "eva02_base_patch14_448.mim_in22k_ft_in1k",
    "eva02_base_patch16_clip_224.merged2b",
    "eva_giant_patch14_clip_224.laion400m",
    "eva_giant_patch14_336.clip_ft_in1k",
    "vit_pe_core_base_patch16_224.fb",
    "vit_pe_lang_large_patch14_448.fb",
    "vit_pe_spatial_gigantic_patch14_448.fb",
    "vit_base_patch16_rope_224.naver_in1k",
    "vit_base_patch16_rope_mixed_224.naver_in1k",
    "vit_mediumd_patch16_rope_reg1_gap_256.sbb_in1k",
    "aimv2_large_patch14_224.apple_pt",
    "aimv2_huge_patch14_448.apple_pt",
    "beit_base_patch16_224.in22k_ft_in22k_in1k",
    "beit_base_patch16_384.in22k_ft_in22k_in1k",
    "beit3_base_patch16_224.in22k_ft_in1k",
)
NOTE = "DeiT and DINO files may have the same keys"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_default_preprocessing_is_that_of_the_published_model(name):
    with torch.device("meta"):
        theirs = timm.create_model(name.split(".")[0], depth=1)
    shapes = {key: tuple(tensor.shape) for key, tensor in theirs.state_dict().items()}
    family = TimmModules()
    reading = Reading(family.fields_from({"architecture": name.split(".")[0]}))
    family.read(shapes, reading)
    found = family.preprocessing(reading.config())
    expected = get_pretrained_cfg(name)
    assert found.image_size == expected.input_size[1:]
    assert (found.crop_fraction, found.interpolation) == (expected.crop_pct, expected.interpolation)
    assert found.resize == expected.crop_mode.replace("center", "crop")
    assert (found.mean, found.std) == (expected.mean, expected.std)


@pytest.mark.parametrize(
    ("arguments", "noted"),
    [
        ({}, True),
        ({"architecture": "vit_small_patch16_dinov3"}, False),
        ({"architecture": "eva02_tiny_patch14_224"}, False),
        ({"architecture": "aimv2_large_patch14_224"}, False),
        ({"architecture": "beit_base_patch16_224"}, False),
    ],
)
def test_only_plain_keys_with_a_table_may_be_deits_or_dinos(arguments, noted, tmp_path):
    read = through_a_file(peer(**arguments).state_dict(), tmp_path, num_heads=4)
    assert any(NOTE in note for note in read.report.notes) == noted
