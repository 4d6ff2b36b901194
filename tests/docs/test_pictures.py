"""The pictures in the documents: small, self-contained, described, and true to the model."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from vitreous.model.cost import on_meta
from vitreous.model.variants import variant

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
MODEL_PICTURES = ROOT / "docs" / "pictures"
PAPER_PICTURES = ROOT / "docs" / "paper" / "pictures"
ARCHITECTURE = MODEL_PICTURES / "architecture.svg"
DRAWINGS = sorted([*MODEL_PICTURES.glob("*.svg"), *PAPER_PICTURES.glob("*.svg")])
PHOTOS = sorted(PAPER_PICTURES.glob("*.png"))
LINK = re.compile(r"!\[(.*?)\]\((?!https?:)(.*?)\)", re.DOTALL)
SVG = "{http://www.w3.org/2000/svg}"
B16 = variant("B/16")


def path_name(path: Path) -> str:
    return path.name


def labels(path: Path) -> list[str]:
    """The text of a drawing, label by label."""
    texts = ElementTree.parse(path).getroot().iter(f"{SVG}text")
    return ["".join(text.itertext()).replace("\u200b", "") for text in texts]


def size(shape: torch.Size) -> str:
    return " × ".join(map(str, shape))


# ---- in the documents


def test_every_picture_is_shown_in_a_document():
    shown = {
        (document.parent / target).resolve()
        for document in DOCUMENTS
        for _, target in LINK.findall(document.read_text(encoding="utf-8"))
    }
    assert [path.name for path in (*DRAWINGS, *PHOTOS) if path not in shown] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=path_name)
def test_pictures_exist_and_have_a_text_alternative(document: Path):
    for alternative, target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).is_file(), target
        assert len(alternative) > 20, target


# ---- drawings


@pytest.mark.parametrize("path", DRAWINGS, ids=path_name)
def test_a_drawing_is_small_described_and_in_both_color_schemes(path: Path):
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root.findtext(f"{SVG}title")
    assert len(root.findtext(f"{SVG}desc", "")) > 100
    assert "prefers-color-scheme:dark" in text
    assert len(text) < 60_000


@pytest.mark.parametrize("path", DRAWINGS, ids=path_name)
def test_a_drawing_loads_nothing(path: Path):
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"""(?:href|src)="(?!#)|@import|@font-face|url\((?!#)|<script""", text) == []


@pytest.mark.parametrize("path", DRAWINGS, ids=path_name)
def test_labels_stay_inside_the_drawing(path: Path):
    root = ElementTree.parse(path).getroot()
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for text in root.iter(f"{SVG}text"):
        assert 0 < float(text.attrib["x"]) < width
        assert 0 < float(text.attrib["y"]) < height


@pytest.mark.parametrize("path", PHOTOS, ids=path_name)
def test_a_photo_is_small_and_sharp_at_twice_the_width(path: Path):
    with Image.open(path) as image:
        assert image.width == 1600
    assert path.stat().st_size < 120_000


# ---- the model in them


def test_the_architecture_shows_the_shapes_of_the_tensors():
    model = on_meta(B16)
    images = torch.empty(1, 3, *B16.image_size, device="meta")
    tokens = model.embed(images)
    attention = model.encoder.blocks[0].attention
    tensors = {
        "x_p": model.patch_embedding.patches(images),
        "x_p E": model.patch_embedding(images),
        "z_0": tokens,
        "q": attention.project(tokens)[0],
        "A": attention.weights(tokens),
        "y": model.representation(images),
        "logits": model(images),
    }
    drawn = labels(ARCHITECTURE)
    assert {
        name: size(tensor.shape[1:]) for name, tensor in tensors.items() if size(tensor.shape[1:]) not in drawn
    } == {}


@pytest.mark.parametrize("number", range(1, 9))
def test_the_architecture_has_every_equation(number: int):
    assert any(f"({number})" in label for label in labels(ARCHITECTURE))


def test_the_architecture_names_files_that_exist():
    files = {label for label in labels(ARCHITECTURE) if label.endswith(".py")}
    assert {"patch_embedding.py", "encoder.py", "attention.py", "mlp.py", "head.py"} <= files
    assert [file for file in files if not (ROOT / "vitreous" / "model" / file).is_file()] == []


def test_the_attention_drawing_shows_the_shapes_of_the_tensors():
    model = on_meta(B16)
    tokens = model.embed(torch.empty(1, 3, *B16.image_size, device="meta"))
    attention = model.encoder.blocks[0].attention
    shapes = (tokens.shape[1:], attention.project(tokens)[0].shape[2:], attention.weights(tokens).shape[2:])
    drawn = labels(PAPER_PICTURES / "attention.svg")
    assert [size(shape) for shape in shapes if size(shape) not in drawn] == []


def test_the_block_drawing_shows_the_parameters_of_its_parts():
    drawn = labels(PAPER_PICTURES / "encoder_block.svg")
    block = on_meta(B16).encoder.blocks[0]
    for part in (block.attention_norm, block.attention, block.mlp_norm, block.mlp):
        assert f"{sum(p.numel() for p in part.parameters()):,}" in drawn


def test_the_norm_drawing_ends_at_mean_0_and_deviation_1():
    moments = [label for label in labels(PAPER_PICTURES / "layer_norm.svg") if label.startswith("mean")]
    assert moments[1::2] == ["mean 0.00, deviation 1.00"] * 3
    assert len(set(moments[::2])) == 3
