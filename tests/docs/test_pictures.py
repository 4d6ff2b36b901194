"""The pictures of the documents are what their programs draw, and say what the model does."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from docs import draw_architecture
from vitreous.model.config import ViTConfig
from vitreous.model.cost import on_meta
from vitreous.model.variants import variant

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "pictures" / "architecture.svg"
SVG = "{http://www.w3.org/2000/svg}"


def labels(svg: str) -> list[str]:
    """The text of a picture, label by label."""
    return ["".join(text.itertext()).replace("\u200b", "") for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def shapes(config: ViTConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors themselves, of one image."""
    model = on_meta(config)
    images = torch.empty(1, config.channels, *config.image_size, device="meta")
    tokens = model.embed(images)
    attention = model.encoder.blocks[0].attention
    return {
        "x_p": tuple(model.patch_embedding.patches(images).shape[1:]),
        "x_p E": tuple(model.patch_embedding(images).shape[1:]),
        "z_0": tuple(tokens.shape[1:]),
        "q": tuple(attention.project(tokens)[0].shape[1:]),
        "A": tuple(attention.weights(tokens).shape[1:]),
        "y": tuple(model.representation(images).shape[1:]),
        "classes": tuple(model(images).shape[1:]),
    }


def test_the_committed_picture_is_what_the_program_draws():
    drawn = draw_architecture.draw(variant("B/16")).encode()
    assert drawn == ARCHITECTURE.read_bytes(), "run `python -m docs.draw_architecture`, and look at the picture"


def test_the_picture_is_small_and_described():
    root = ElementTree.parse(ARCHITECTURE).getroot()
    assert root.tag == f"{SVG}svg"
    assert root.findtext(f"{SVG}title")
    assert len(root.findtext(f"{SVG}desc", "")) > 100
    assert ARCHITECTURE.stat().st_size < 60_000


def test_the_picture_needs_nothing_from_elsewhere():
    text = ARCHITECTURE.read_text(encoding="utf-8")
    assert re.findall(r"""(?:href|src)="(?!#)|@import|@font-face|url\((?!#)|<script""", text) == []


@pytest.mark.parametrize("name", ["B/16", "S/32"])
def test_the_shapes_are_those_of_the_tensors(name: str):
    found = labels(draw_architecture.draw(variant(name)))
    for what, sizes in shapes(variant(name)).items():
        assert " × ".join(map(str, sizes)) in found, f"{what} is {sizes}"


@pytest.mark.parametrize("number", range(1, 9))
def test_every_equation_is_in_the_picture(number: int):
    assert any(f"({number})" in label for label in labels(ARCHITECTURE.read_text(encoding="utf-8")))


def test_the_files_in_the_picture_exist():
    files = {label for label in labels(ARCHITECTURE.read_text(encoding="utf-8")) if label.endswith(".py")}
    assert {"patch_embedding.py", "encoder.py", "attention.py", "mlp.py", "head.py"} <= files
    assert [file for file in files if not (ROOT / "vitreous" / "model" / file).is_file()] == []
