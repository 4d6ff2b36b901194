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
from vitreous.pages.walk.packing import average, coarse, pack_maps
from vitreous.pages.walk.parts import equation_html
from vitreous.pages.walk.source import PLACES, excerpts
from vitreous.pages.walk.values import block_values, probabilities, probe_attention, record

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


def nibbles(text: str) -> np.ndarray:
    kind, content = text[:3], zlib.decompress(base64.b64decode(text[3:]))
    assert kind == "u4:"
    packed = np.frombuffer(content, np.uint8)
    return np.stack([packed >> 4, packed & 15], axis=-1).reshape(-1)


def floats(text: str) -> np.ndarray:
    assert text[:3] == "f4:"
    return np.frombuffer(zlib.decompress(base64.b64decode(text[3:])), "<f4")


class Reader(HTMLParser):
    """Text, ids and links of a page; fails where tags are not nested."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [value for name in ("src", "href") if (value := found.get(name))]
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
    assert ("norm" in reader.ids) == (not c.norm_after_pooling)
    assert len(reader.ids) == len(set(reader.ids))
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)
    assert "the <small> one" in reader.text  # escaped


@pytest.mark.parametrize("switch", ["the paper's", "SwiGLU and LayerScale", "relative", "distillation"])
def test_the_page_tells_what_the_trace_tells(switch, flower):
    model = small_model(switch)
    told = Reader(page_of(model, flower)).text
    trace = inspect(model, preprocessing_of(model)([flower])).at_level(4)
    assert f"{trace.total_parameters:,}" in told
    for stage in trace.stages:
        if stage.path.startswith("encoder.blocks") and stage.parameters:
            assert f"{stage.parameters:,}" in told
        assert re.sub(r"[_^()₀₁⁰ℓ₋−\s01]", "", stage.equation) in re.sub(r"[_^()₀₁⁰ℓ₋−\s01]", "", told)


def test_the_page_needs_nothing_from_elsewhere_and_runs_only_its_own_script(flower):
    page = page_of(small_model(), flower)
    assert [link for link in Reader(page).links if not link.startswith(("#", "data:"))] == []
    assert "http" not in page.replace("http-equiv", "")
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert re.findall(r'\son\w+="', page) == []


def test_texts_from_elsewhere_are_inert(flower):
    evil = "</script><script>alert(1)</script>"
    page = page_of(small_model(num_classes=2), flower, class_names=[evil, "b"], name=evil)
    assert evil not in page
    assert "alert(1)" in Reader(page).text


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
        steps = nibbles(block["maps"])[: weights.shape[0] * tokens * 16].reshape(-1, tokens, 16)
        peaks = floats(block["peaks"]).reshape(-1, tokens)
        np.testing.assert_allclose(peaks, weights[..., prefix:].max(axis=-1), rtol=1e-4)
        np.testing.assert_allclose(steps / 15, (weights[..., prefix:] / peaks[..., None]) ** 0.5, atol=0.51 / 15)
        given = floats(block["prefix"]).reshape(-1, tokens)
        np.testing.assert_allclose(given, weights[..., :prefix].sum(axis=-1), atol=1e-5)


def test_the_numbers_of_a_block_are_those_of_the_pass(flower):
    model = small_model()
    image = preprocessing_of(model)([flower])
    with torch.no_grad():
        walk = record(model, image)
        after = model.tokens(image, blocks=[0, 1, 2])
        before = [model.embed(image), *after[:-1]]
        torch.testing.assert_close(walk.logits, model(image))
        torch.testing.assert_close(probabilities(walk), model(image)[0].softmax(dim=-1))
        for i in range(3):
            values = block_values(walk, i)
            computed = 1 if i == 2 else 17  # the head reads the class token alone
            assert len(values.norms) == computed
            torch.testing.assert_close(values.norms[:, 0], before[i][0, :computed].norm(dim=-1))
            torch.testing.assert_close(values.norms[:, 4], after[i][0, :computed].norm(dim=-1))
            block = model.encoder.blocks[i]
            between = before[i] + block.attention(block.attention_norm(before[i]))
            hidden = block.mlp.activation(block.mlp.fc1(block.mlp_norm(between)))[0, :computed]
            torch.testing.assert_close(values.norms[:, 2], between[0, :computed].norm(dim=-1))
            torch.testing.assert_close(values.active, (hidden > 0).float().mean(dim=-1))
            assert 0.1 < float(values.active.mean()) < 0.9
            torch.testing.assert_close(values.heights[:, 0], hidden.max(dim=-1).values)
            torch.testing.assert_close(values.units[:, 0], hidden.argmax(dim=-1))


def test_the_probe_looks_where_its_attention_says(flower):
    model = small_model("attention pooling")
    image = preprocessing_of(model)([flower])
    with torch.no_grad():
        found = probe_attention(record(model, image))
        pooling = model.head.pooling.attention
        x = model.encode(image)
        _, _, v = pooling.project(x, model.head.pooling.probe)
        heads = found[:, None] @ v[0]
        expected = pooling.out(heads.transpose(0, 1).flatten(1))
        torch.testing.assert_close(expected, pooling(x, model.head.pooling.probe)[0])
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(3))
    assert float(found.std()) > 0.001


def test_a_page_that_would_be_too_large_shows_patches_together(flower, monkeypatch):
    model = small_model(image_size=48)  # 6×6 patches
    image = preprocessing_of(model)([flower])
    with torch.no_grad():
        walk = record(model, image)
        weights = model.attention_weights(image)[1][0]
        full = pack_maps(walk)
        used = sum(len(text) for block in full.blocks for text in block.values())
        assert (full.keys, full.queries) == (1, 1)
        some = pack_maps(walk, most=used - 1)
        assert (some.keys, some.queries) == (2, 1)
        few = pack_maps(walk, most=used // 8)
    assert few.keys > 1
    assert few.queries > 1
    peaks = floats(some.blocks[1]["peaks"]).reshape(3, 37)
    means = weights[:, :, 1:].unflatten(-1, (6, 6)).unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-1, -2))
    np.testing.assert_allclose(peaks, means.flatten(2).amax(dim=-1), rtol=1e-4)
    monkeypatch.setattr("vitreous.pages.walk.pack_maps", lambda walk: pack_maps(walk, most=used // 8))
    page = page_of(model, flower)
    assert "To keep this page small" in Reader(page).text
    assert data_of(page)["queries"] == {"side": few.queries, "grid": list(coarse((6, 6), few.queries))}


def test_ragged_edges_are_means_of_what_is_there():
    maps = torch.arange(15.0).reshape(1, 1, 3, 5)
    assert average(maps, 2).tolist() == [[[[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]]]
    assert coarse((3, 5), 2) == (2, 3)


@pytest.mark.parametrize("stage", PLACES)
def test_code_on_the_page_is_the_code_of_the_model(stage):
    found = excerpts(stage)
    assert found
    for file, line, code in found:
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        shown = code.splitlines()
        assert lines[line - 1].strip() == shown[0].strip()
        assert {one.strip() for one in shown} <= {one.strip() for one in lines}


def test_code_that_is_gone_is_an_error():
    from vitreous.model import vit
    from vitreous.pages.walk.source import Place, excerpt

    with pytest.raises(LookupError, match=r"no statement with 'self\.never'"):
        excerpt(Place(vit, "VisionTransformer.embed", ("self.never",)))


@pytest.mark.parametrize(
    ("plain", "shown"),
    [
        ("x_p¹E", "x<sub>p</sub>¹E"),
        ("x_p ∈ ℝ^(N×(P²·C))", "x<sub>p</sub> ∈ ℝ<sup>N×(P²·C)</sup>"),
        ("z′ℓ = MSA(LN(zℓ₋₁)) + zℓ₋₁ (2)", "z′<sub>ℓ</sub> = MSA(LN(z<sub>ℓ−1</sub>)) + z<sub>ℓ−1</sub> (2)"),
        ("z_L¹ W + b < 1", "z<sub>L</sub>¹ W + b &lt; 1"),
    ],
)
def test_equations_are_set(plain, shown):
    assert equation_html(plain) == shown


def test_a_model_that_is_broken_has_a_page_too(flower):
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
    assert 1e6 < len(page.encode()) < 5e6
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
    told = Reader(out.read_text(encoding="utf-8")).text
    assert "A photo walked through mu/16" in told
    assert "fresh and random" in told


def test_json_stays_json(tmp_path, photo, capsys):
    assert run(["inspect", "mu/16", "--image", photo, "--html", str(tmp_path / "walk.html"), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["name"] == "mu/16"
    assert "the walk is in" in told.err


def test_a_saved_model_has_its_classes_on_the_page(tmp_path, photo, capsys):
    model = small_model()
    names = ("ant", "bee", "cow", "doe", "eel", "fly", "gnu")
    save_model(tmp_path / "model.safetensors", model, preprocessing_of(model), names)
    out = tmp_path / "walk.html"
    assert run(["inspect", str(tmp_path / "model.safetensors"), "--image", photo, "--html", str(out)]) == 0
    told = Reader(out.read_text(encoding="utf-8")).text
    assert "fresh and random" not in told
    assert "At the end stands its answer" in told
    assert sum(name in told for name in names) >= 5
    assert str(tmp_path) not in told


def test_the_bar_of_a_class_is_as_long_as_its_probability(flower):
    model = small_model(num_classes=2)
    page = page_of(model, flower, class_names=("ant", "bee"))
    found = dict(re.findall(r'<li><b>(ant|bee)</b><span class="bar"><i style="width:([0-9.]+)%"></i>', page))
    pixels = preprocessing_of(model)([flower])
    expected = model(pixels)[0].softmax(0).detach()
    assert float(expected.max()) < 0.95, "or it would be a whole bar anyway"
    assert [float(found[name]) for name in ("ant", "bee")] == pytest.approx((100 * expected).tolist(), abs=0.06)


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
    told = capsys.readouterr()
    assert words in told.err
    assert len(told.err.strip().splitlines()) <= 2
    assert told.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
