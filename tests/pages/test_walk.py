# ruff: noqa: RUF001 (the symbols are the paper's)
import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from tests.model.models import SWITCHES, small_model
from vitreous.checkpoints.store import save_model
from vitreous.cli.app import run
from vitreous.data.preprocessing import Preprocessing
from vitreous.inspection.trace import inspect, named
from vitreous.model.vit import VisionTransformer
from vitreous.pages.walk import walk_page
from vitreous.pages.walk.numbers import Resolution, average, block_numbers, coarse, resolution
from vitreous.pages.walk.recording import probabilities, probe_attention, record
from vitreous.pages.walk.source import excerpt, source_of

ROOT = Path(__file__).parents[2]
PHOTOS = [switch for switch in SWITCHES if switch != "five channels"]  # a photo has one or three
EMPTY_TAGS = ("meta", "img", "br")


@pytest.fixture(scope="module")
def flower() -> Image.Image:
    return Image.fromarray(load_sample_image("flower.jpg"))


def preprocessing_of(model: VisionTransformer) -> Preprocessing:
    gray = (0.5,) * model.config.channels
    return Preprocessing(model.config.image_size, mean=gray, std=gray, channels=model.config.channels)


def page_of(model: VisionTransformer, image: Image.Image, **options: object) -> str:
    return walk_page(model, image, preprocessing_of(model), **options)


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def unpacked(text: str) -> np.ndarray:
    kind, _, content = text.partition(":")
    return np.frombuffer(zlib.decompress(base64.b64decode(content)), f"<{kind}")


class Reader(HTMLParser):
    """Text, ids and links of a page; fails if tags are not nested."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [value for name in ("src", "href") if (value := attributes.get(name))]
        if tag not in EMPTY_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


@pytest.mark.parametrize("switch", PHOTOS)
def test_every_model_has_a_page(switch, flower):
    model = small_model(switch)
    image = preprocessing_of(model)([flower])
    before = model(image)
    reader = Reader(page_of(model, flower, name="the <small> one"))
    assert torch.equal(model(image), before)
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == 0
    assert all(p.grad is None for p in model.parameters())
    c = model.config
    blocks = [f"block-{i}" for i in range(c.depth)]
    expected = {"image", "patches", "projection", "positions", "encoder", "head", *blocks}
    assert expected <= set(reader.ids)
    assert ("stem" in reader.ids) == (c.stem_blocks is not None)
    assert ("prefix" in reader.ids) == (c.prefix_tokens > 0)
    assert ("norm" in reader.ids) == (c.final_norm and not c.norm_after_pooling)
    assert len(reader.ids) == len(set(reader.ids))
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)
    assert "the <small> one" in reader.text  # escaped


@pytest.mark.parametrize("switch", ["the paper's", "SwiGLU and LayerScale", "relative", "distillation"])
def test_the_page_shows_the_facts_of_the_trace(switch, flower):
    model = small_model(switch)
    text = Reader(page_of(model, flower)).text
    trace = inspect(model, preprocessing_of(model)([flower])).at_level(4)
    assert f"{trace.total_parameters:,}" in text
    for stage in trace.stages:
        if stage.path.startswith("encoder.blocks") and stage.parameters:
            assert f"{stage.parameters:,}" in text
        assert re.sub(r"[_^()₀₁⁰ℓ₋−\s01]", "", stage.equation) in re.sub(r"[_^()₀₁⁰ℓ₋−\s01]", "", text)


def test_the_page_makes_no_requests_and_runs_only_its_own_script(flower):
    page = page_of(small_model(), flower)
    assert [link for link in Reader(page).links if not link.startswith(("#", "data:"))] == []
    assert "http" not in page.replace("http-equiv", "")
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert re.findall(r'\son\w+="', page) == []


def test_the_page_counts_the_learned_tokens(flower):
    one, two = (Reader(page_of(small_model(switch), flower)).text for switch in ("the paper's", "distillation"))
    assert "A learned token goes before the patches, the class token." in one
    assert "Learned tokens go before the patches: class token, distillation token." in two


def test_names_are_escaped(flower):
    evil = "</script><script>alert(1)</script>"
    page = page_of(small_model(num_classes=2), flower, class_names=[evil, "b"], name=evil)
    assert evil not in page
    assert "alert(1)" in Reader(page).text


def test_characters_that_do_not_print_are_visible_escapes(flower):
    page = page_of(small_model(num_classes=2), flower, class_names=["a\x1b[31m", "b\u202e"], name="x\u202ey")
    text = Reader(page).text
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert all(escape in text for escape in (r"a\x1b[31m", r"b\u202e", r"x\u202ey"))


@pytest.mark.parametrize("switch", ["the paper's", "registers", "mean pooling", "relative", "learned at every layer"])
def test_packed_maps_are_the_models_attention(switch, flower):
    model = small_model(switch)
    image = preprocessing_of(model)([flower])
    data = data_of(page_of(model, flower))
    prefix, tokens = model.config.prefix_tokens, 16 + model.config.prefix_tokens
    assert len(data["prefix"]) == prefix
    with torch.no_grad():
        expected = model.attention_weights(image)
    for i, block in enumerate(data["blocks"]):
        weights = expected[i][0].numpy()
        assert weights.std() > 0.01
        steps = unpacked(block["maps"]).reshape(-1, tokens, 16)
        peaks = unpacked(block["peaks"]).reshape(-1, tokens)
        np.testing.assert_allclose(peaks, weights[..., prefix:].max(axis=-1), rtol=1e-4)
        np.testing.assert_allclose(steps / 15, (weights[..., prefix:] / peaks[..., None]) ** 0.5, atol=0.51 / 15)
        prefix_share = unpacked(block["prefix"]).reshape(-1, tokens)
        np.testing.assert_allclose(prefix_share, weights[..., :prefix].sum(axis=-1), atol=1e-5)


def test_the_numbers_of_a_block_are_those_of_the_pass(flower):
    model = small_model()
    image = preprocessing_of(model)([flower])
    with torch.no_grad():
        walk = record(model, image)
        after = model.tokens(image, blocks=[0, 1, 2])
        before = [model.embed(image), *after[:-1]]
        torch.testing.assert_close(walk.trace.output, model(image))
        torch.testing.assert_close(probabilities(walk), model(image)[0].softmax(dim=-1))
        for i in range(3):
            values = block_numbers(walk, i, Resolution(1, 1))
            computed = 1 if i == 2 else 17  # the head reads the class token alone
            assert len(values["norms"]) == computed
            torch.testing.assert_close(values["norms"][:, 0], before[i][0, :computed].norm(dim=-1))
            torch.testing.assert_close(values["norms"][:, 4], after[i][0, :computed].norm(dim=-1))
            block = model.encoder.blocks[i]
            between = before[i] + block.attention(block.attention_norm(before[i]))
            hidden = block.mlp.activation(block.mlp.fc1(block.mlp_norm(between)))[0, :computed]
            torch.testing.assert_close(values["norms"][:, 2], between[0, :computed].norm(dim=-1))
            torch.testing.assert_close(values["active"], (hidden > 0).float().mean(dim=-1))
            assert 0.1 < float(values["active"].mean()) < 0.9
            torch.testing.assert_close(values["heights"][:, 0], hidden.max(dim=-1).values)
            torch.testing.assert_close(values["units"][:, 0], hidden.argmax(dim=-1))


def test_the_maps_of_the_probe_are_its_attention(flower):
    model = small_model("attention pooling")
    image = preprocessing_of(model)([flower])
    with torch.no_grad():
        weights = probe_attention(record(model, image))
        pooling = model.head.pooling.attention
        x = model.encode(image)
        _, _, v = pooling.project(x, model.head.pooling.probe)
        heads = weights[:, None] @ v[0]
        expected = pooling.out(heads.transpose(0, 1).flatten(1))
        torch.testing.assert_close(expected, pooling(x, model.head.pooling.probe)[0])
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3))
    assert float(weights.std()) > 0.001


@pytest.mark.parametrize(("fraction", "keys", "queries"), [(1.0, 1, 1), (0.99, 2, 1), (0.125, 2, 2)])
def test_a_page_that_would_be_too_large_averages_patches(fraction, keys, queries, flower, monkeypatch):
    model = small_model(image_size=48)  # 6×6 patches
    image = preprocessing_of(model)([flower])
    monkeypatch.setattr("vitreous.pages.walk.numbers.MAP_NUMBERS", int(fraction * 3 * 3 * 37 * 36))
    with torch.no_grad():
        walk = record(model, image)
        sides = resolution(walk)
        weights = model.attention_weights(image)[1][0]
        peaks = block_numbers(walk, 1, sides)["peaks"]
    assert (sides.keys, sides.queries) == (keys, queries)
    few = weights[:, :, 1:].unflatten(-1, (6, 6)).unfold(2, keys, keys).unfold(3, keys, keys).mean(dim=(-1, -2))
    places = few[:, 1:].unflatten(1, (6, 6)).unfold(1, queries, queries).unfold(2, queries, queries).mean(dim=(-1, -2))
    expected = torch.cat([few[:, :1], places.flatten(1, 2)], dim=1).flatten(2).amax(dim=-1)
    np.testing.assert_allclose(peaks, expected, rtol=1e-4)
    page = page_of(model, flower)
    assert ("To keep this page small" in Reader(page).text) == (keys > 1)
    assert data_of(page)["queries"] == {"side": queries, "grid": list(coarse((6, 6), queries))}


def test_cells_at_the_edge_average_fewer_patches():
    maps = torch.arange(15.0).reshape(1, 1, 3, 5)
    assert average(maps, 2).tolist() == [[[[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]]]
    assert coarse((3, 5), 2) == (2, 3)


@pytest.mark.parametrize("switch", ["the paper's", "SwiGLU and LayerScale", "relative", "distillation", "hybrid"])
def test_the_code_on_the_page_is_the_code_of_the_model(switch):
    model = small_model(switch)
    parts = source_of(model, preprocessing_of(model))
    assert bool(parts["stem"]) == (switch == "hybrid")
    assert bool(parts["scale"]) == (switch == "SwiGLU and LayerScale")
    excerpts = [excerpt for part in parts.values() for excerpt in part]
    assert len(excerpts) >= 14
    for file, line, code in excerpts:
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        shown = code.splitlines()
        assert shown[0].startswith("def ")
        assert lines[line - 1].strip() == shown[0]
        assert {one.strip() for one in shown} <= {one.strip() for one in lines[line - 1 : line + 40]}
        assert not any('"""' in one for one in shown)
    assert [one for one in parts["mlp"] if ("F.silu" in one.code) == (switch == "SwiGLU and LayerScale")]


def test_a_method_without_a_docstring_is_shown_whole():
    assert excerpt(type(small_model("hybrid").stem).__init__).code.startswith("def __init__(self, blocks")


def test_a_model_with_nan_has_a_page(flower):
    model = small_model()
    with torch.no_grad():
        model.encoder.blocks[1].mlp.fc1.weight[3] = torch.nan
    page = page_of(model, flower)
    assert "NaN or ∞" in Reader(page).text
    json.dumps(data_of(page), allow_nan=False)


@pytest.mark.parametrize("name", ["B/16"])
def test_a_page_of_a_real_size_is_small(name, flower):
    model = named(name, on_meta=False)
    page = walk_page(model, flower, Preprocessing(model.config.image_size), None, name, fresh=True)
    assert 1e6 < len(page.encode()) < 3e6
    assert "fresh and random" in page
    assert len(data_of(page)["blocks"]) == 12


# --- the command


@pytest.fixture
def photo(tmp_path, flower):
    path = tmp_path / "photo.jpg"
    flower.save(path)
    return str(path)


def test_the_command_writes_the_page_and_prints_its_path_last(tmp_path, photo, capsys):
    out = tmp_path / "walk.html"
    assert run(["inspect", "mu/16", "--image", photo, "--html", str(out), "--level", "1"]) == 0
    shown = capsys.readouterr().out
    assert "patch embedding" in shown
    assert shown.splitlines()[-1] == f"the walk is in {out}"
    text = Reader(out.read_text(encoding="utf-8")).text
    assert "A photo’s path through mu/16" in text
    assert "fresh and random" in text


def test_json_stays_json(tmp_path, photo, capsys):
    assert run(["inspect", "mu/16", "--image", photo, "--html", str(tmp_path / "walk.html"), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["name"] == "mu/16"
    assert "the walk is in" in printed.err


def test_a_saved_model_has_its_classes_on_the_page(tmp_path, photo, capsys):
    model = small_model()
    names = ("ant", "bee", "cow", "doe", "eel", "fly", "gnu")
    save_model(tmp_path / "model.safetensors", model, preprocessing_of(model), names)
    out = tmp_path / "walk.html"
    assert run(["inspect", str(tmp_path / "model.safetensors"), "--image", photo, "--html", str(out)]) == 0
    text = Reader(out.read_text(encoding="utf-8")).text
    assert "fresh and random" not in text
    assert "The model’s answer: " in text
    assert sum(name in text for name in names) >= 5
    assert str(tmp_path) not in text


def test_the_bar_of_a_class_is_as_long_as_its_probability(flower):
    model = small_model(num_classes=2)
    page = page_of(model, flower, class_names=("ant", "bee"))
    widths = dict(re.findall(r'<li><b>(ant|bee)</b><span class="bar"><i style="width:([0-9.]+)%"></i>', page))
    pixels = preprocessing_of(model)([flower])
    expected = model(pixels)[0].softmax(0).detach()
    assert float(expected.max()) < 0.95, "or it would be a whole bar anyway"
    assert [float(widths[name]) for name in ("ant", "bee")] == pytest.approx((100 * expected).tolist(), abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--html", "walk.html"], "add --image photo.jpg"),
        (["--image", "PHOTO", "--html", "FOLDER"], "it is not a file"),
        (["--image", "PHOTO", "--html", "FOLDER/none/walk.html"], "there is no folder"),
        (["--image", "no-such.jpg", "--html", "FOLDER/walk.html"], "no-such.jpg"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(arguments, words, tmp_path, photo, capsys):
    filled = [one.replace("PHOTO", photo).replace("FOLDER", str(tmp_path)) for one in arguments]
    assert run(["inspect", "mu/16", *filled]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert len(printed.err.strip().splitlines()) <= 2
    assert printed.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
