"""The pictures of docs/paper: what their programs draw, small, described, and true to the model."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from docs import draw_paper, draw_paper_photos
from docs.draw_parts import B16, PICTURES
from tests.docs.test_pictures import SVG, labels
from vitreous.model.cost import on_meta
from vitreous.model.patch_embedding import PatchEmbedding

PHOTOS = ("patches.png", "attention_digit.png")
AGAIN = "run `make pictures`, and look at the picture"


@pytest.mark.parametrize("name", draw_paper.SVGS)
def test_the_committed_picture_is_what_the_program_draws(name: str):
    assert draw_paper.SVGS[name]().encode() == (PICTURES / name).read_bytes(), AGAIN


def test_the_committed_patches_are_what_the_program_draws(tmp_path):
    """Pixel by pixel but for a few: letters and photos may be rounded otherwise by another version."""
    path = tmp_path / "patches.png"
    path.write_bytes(draw_paper_photos.file_of(draw_paper_photos.patches()))
    drawn, there = (np.asarray(Image.open(p).convert("RGB")).astype(int) for p in (path, PICTURES / path.name))
    assert drawn.shape == there.shape, AGAIN
    assert (abs(drawn - there).max(axis=2) > 40).mean() < 0.01, AGAIN


def test_there_are_no_other_pictures():
    assert {path.name for path in PICTURES.iterdir()} == {*draw_paper.SVGS, *PHOTOS}


@pytest.mark.parametrize("name", draw_paper.SVGS)
def test_a_drawing_is_small_described_in_both_schemes_and_by_itself(name: str):
    text = (PICTURES / name).read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.findtext(f"{SVG}title")
    assert len(root.findtext(f"{SVG}desc", "")) > 100
    assert "prefers-color-scheme:dark" in text
    assert re.findall(r"""(?:href|src)="(?!#)|@import|@font-face|url\((?!#)|<script""", text) == []
    assert len(text) < 60_000


@pytest.mark.parametrize("name", PHOTOS)
def test_a_photo_is_small_and_twice_as_fine_as_it_is_shown(name: str):
    path = PICTURES / name
    with Image.open(path) as image:
        assert image.width == 200 * draw_paper_photos.WIDTH
    assert path.stat().st_size < 120_000


@pytest.mark.parametrize("name", draw_paper.SVGS)
def test_labels_stay_in_the_picture(name: str):
    root = ElementTree.parse(PICTURES / name).getroot()
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for text in root.iter(f"{SVG}text"):
        assert 0 < float(text.attrib["x"]) < width
        assert 0 < float(text.attrib["y"]) < height


# ---- what they say


def test_the_shapes_are_those_of_the_tensors():
    model = on_meta(B16)
    tokens = model.embed(torch.empty(1, 3, *B16.image_size, device="meta"))
    attention = model.encoder.blocks[0].attention
    shapes = (tokens.shape[1:], attention.project(tokens)[0].shape[2:], attention.weights(tokens).shape[2:])
    found = labels(draw_paper.attention())
    assert [sizes for sizes in shapes if " × ".join(map(str, sizes)) not in found] == []


def test_the_blocks_parameters_are_those_of_inspect():
    found = labels(draw_paper.encoder_block())
    block = on_meta(B16).encoder.blocks[0]
    for part in (block.attention_norm, block.attention, block.mlp_norm, block.mlp):
        assert f"{sum(p.numel() for p in part.parameters()):,}" in found


def test_after_the_norm_each_token_has_mean_0_and_deviation_1():
    found = [label for label in labels(draw_paper.layer_norm()) if label.startswith("mean")]
    assert found[1::2] == ["mean 0.00, deviation 1.00"] * 3
    assert len(set(found[::2])) == 3


def test_the_curves_differ_by_as_much_as_the_axis_says():
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    difference = nn.GELU(approximate="tanh")(x) - nn.GELU()(x)
    assert 0.0004 < difference.abs().max() < 0.0005


def test_the_enlarged_patch_is_the_one_of_the_patch_embedding():
    row, column = draw_paper_photos.PATCH
    pixels = draw_paper_photos.flower(224)
    images = torch.tensor(pixels).permute(2, 0, 1)[None].float()
    number = row * B16.grid[1] + column
    patch = PatchEmbedding(16, 8).patches(images)[0, number].unflatten(0, (3, 16, 16)).permute(1, 2, 0)
    assert np.array_equal(pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16], patch.numpy())
