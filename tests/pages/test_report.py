"""The page that a run leaves."""

import dataclasses
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from tests.classifiers import small_classifier
from vitreous.classifier import Classifier
from vitreous.data.loader import batches
from vitreous.data.sources.open import ImageData, Split, open_data
from vitreous.evaluation.metrics import Outcome
from vitreous.pages.report import choose, write_report
from vitreous.pages.report.charts import Line, axis, line_chart, runs
from vitreous.pages.report.page import cell
from vitreous.pages.report.pictures import heat, photo
from vitreous.support.errors import InputError
from vitreous.training.recipe.recipe import Recipe

EVIL = "<script>alert(1)</script>"
CLASSES = (EVIL, "class10", 'x" onload="y')


class Page(HTMLParser):
    """What a browser finds in a page: its elements, its text, and whether all is closed."""

    VOID = ("meta", "img", "path", "circle")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str, style: str = "") -> list[dict]:
        return [a for name, a in self.elements if name == tag and (not style or style in a.get("class", "").split())]


@pytest.fixture
def source(tmp_path) -> ImageData:
    """Photos of three classes, whose names a browser would run or a page would break on."""
    return make_source(tmp_path)


def make_source(tmp_path, splits=("train", "test")) -> ImageData:
    noise = np.random.default_rng(0)
    for split in splits:
        for number, name in enumerate(("a", "b", "c")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(5):
                pixels = noise.normal((number + 1) * 60, 20, (12, 10, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    data = open_data(tmp_path / "photos" / ("" if "test" in splits else splits[0]))
    fields = {name: getattr(data, name) for name in ImageData.__dataclass_fields__}
    return ImageData(**fields | {"class_names": CLASSES})  # names that no file system would hold


def make_run(folder, epochs: int = 4):
    """What a run leaves, apart from its model."""
    folder.mkdir()
    rows = [
        {"epoch": i, "train_loss": 2.0 / i, "train_accuracy": i / 5, "val_loss": None if i == 2 else 1.5 / i,
         "val_accuracy": i / 6, "seconds": 40.0 * i}
        for i in range(1, epochs + 1)
    ]  # fmt: skip
    rows.append({"epoch": 3, "test_accuracy": 0.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe().with_settings({"batch_size": 8, "flip": True})
    (folder / "recipe.toml").write_text(recipe.to_toml() + f"# {EVIL}\n")
    (folder / "environment.json").write_text(json.dumps({"vitreous": "1.2", "device": "cpu", "host": {"cpu": EVIL}}))
    return folder


def classifier(**overrides) -> Classifier:
    made = small_classifier(CLASSES, **overrides)
    made.metadata["epoch"] = 3
    return made


def report(folder, model: Classifier, source: ImageData):
    """The report of a run with that model."""
    return write_report(folder, model, source, outcome_of(model, source.test or source.validation))


def outcome_of(model: Classifier, split: Split) -> Outcome:
    """What the model makes of a split."""
    [batch] = batches(split, model.preprocessing, batch_size=len(split), shuffle=False)
    with torch.inference_mode():
        top = model.model(model.preprocessing.normalize(batch.images)).softmax(1).topk(3)
    return Outcome(batch.indices.numpy(), batch.labels.numpy(), top.indices.numpy(), top.values.numpy(), 1.0)


def outcome_by_hand(labels, classes, probabilities) -> Outcome:
    return Outcome(np.arange(len(labels)), labels, classes[:, None], probabilities[:, None], 1.0)


def test_the_page_tells_the_result_and_how_it_came(source, tmp_path):
    model = classifier()
    path = report(make_run(tmp_path / "run"), model, source)
    assert path == tmp_path / "run/report.html"
    page = Page(path.read_text(encoding="utf-8"))
    split = source.test
    said = [model([split.load(i)])[0] for i in range(len(split))]
    right = sum(s.class_name == CLASSES[label] for s, label in zip(said, split.labels, strict=True))
    assert f"{100 * right / 15:.1f} %" in page.text
    assert f"{right} of 15 held-out images are named right; 95 % interval" in page.text
    assert "photos: a Vision Transformer trained from scratch" in page.text
    assert "epoch 3, best on validation" in page.text
    assert "2 min 40 s" in page.text
    assert f"{sum(p.numel() for p in model.model.parameters()):,}" in page.text
    assert "16 + 1 (class token)" in page.text
    assert "batch_size = 8" in page.text
    assert "flips" in page.text

    cells = [a for tag, a in page.elements if tag == "td" and "style" in a]
    assert sum("hit" in a["class"] for a in cells) <= 3
    assert len(page.all("li", "card")) == 12
    first = [text for text in ("✗ wrong", "✓ right") if text in page.text]
    assert page.text.index(first[0]) < page.text.index(first[-1]) or len(first) == 1


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("runs/d 3", "--recipe 'runs/d 3/recipe.toml' --out 'runs/d 3-again'"),
        (".", "--recipe recipe.toml --out ../{here}-again"),
    ],
)
def test_the_same_again_can_be_typed(folder, expected, source, tmp_path, monkeypatch):
    make_run(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here/runs").mkdir()
    if folder != ".":
        make_run(tmp_path / "here" / folder)
    text = Page(report(folder, classifier(), source).read_text(encoding="utf-8")).text
    assert f"vitreous train {source.name} {expected.format(here='here')}" in text


def test_only_what_is_shown_is_loaded(source, tmp_path):
    model, loaded = classifier(), []
    outcome = outcome_of(model, source.test)
    split = dataclasses.replace(source.test, load=lambda i: loaded.append(i) or source.test.load(i))
    write_report(make_run(tmp_path / "run"), model, dataclasses.replace(source, test=split), outcome)
    assert len(loaded) == len({*loaded}) == 12


def test_it_is_one_small_file_that_asks_for_nothing(source, tmp_path):
    path = report(make_run(tmp_path / "run"), classifier(), source)
    assert path.stat().st_size < 200_000
    page = Page(path.read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert all(a["src"].startswith("data:image/") for a in page.all("img"))
    addresses = [a for _, attributes in page.elements for a in attributes if a in ("href", "onload", "action")]
    assert addresses == []
    assert "http" not in path.read_text(encoding="utf-8").replace("http-equiv", "")
    assert not [file for file in (tmp_path / "run").iterdir() if file.name.startswith(".")]


def test_names_do_nothing_in_it(source, tmp_path):
    html = report(make_run(tmp_path / "run"), classifier(), source).read_text(encoding="utf-8")
    assert "<script" not in html
    assert 'onload="y' not in html
    assert Page(html).text.count(EVIL) >= 6, "as text it is there: in both tables, the cards, the recipe, the machine"


def test_it_can_be_heard_and_reached_by_keyboard(source, tmp_path):
    page = Page(report(make_run(tmp_path / "run"), classifier(), source).read_text(encoding="utf-8"))
    assert all(a["alt"] for a in page.all("img"))
    assert all(a["aria-label"] for tag, a in page.elements if a.get("role") == "img")
    assert len(page.all("caption")) == len(page.all("table")) == 2
    assert {a["scope"] for a in page.all("th")} == {"col", "row"}
    assert all(a["tabindex"] == "0" for a in page.all("div", "scroll"))
    assert [tag for tag, _ in page.elements if tag in ("h1", "h2", "main", "header", "footer")][:4] == [
        "header", "h1", "main", "h2",
    ]  # fmt: skip
    [svg, _] = page.all("svg")
    assert svg["aria-label"] == "Loss: training from 2 to 0.5, validation from 1.5 to 0.375"


@pytest.mark.parametrize(
    "overrides",
    [
        {"class_token": False, "pooling": "mean"},
        {"class_token": False, "pooling": "attention", "image_size": (16, 24)},
        {"registers": 2, "depth": 1},
        {"channels": 1},
        {"position_embedding": "relative", "position_site": "every_layer"},
        {"image_size": 80, "patch_size": 16},
    ],
    ids=str,
)
def test_it_works_for_every_model(overrides, source, tmp_path):
    html = report(make_run(tmp_path / "run", epochs=1), classifier(**overrides), source).read_text("utf-8")
    page = Page(html)
    heads = 12 * 3
    assert len(page.all("img")) == 12 + heads
    assert ("all patches, on average," in page.text) == (overrides.get("class_token") is False)
    assert ("data:image/jpeg" in html) == (overrides.get("image_size") == 80)


def test_without_a_test_split_the_doubt_is_told(tmp_path):
    source = make_source(tmp_path, splits=("train",))
    page = Page(report(make_run(tmp_path / "run"), classifier(), source).read_text(encoding="utf-8"))
    assert f"of {len(source.validation)} held-out" in page.text
    assert "There is no test split" in page.text


def test_broken_images_are_left_out(source, tmp_path):
    (tmp_path / "photos/test/a/0.png").write_bytes(b"no image")
    page = Page(report(make_run(tmp_path / "run"), classifier(), source).read_text(encoding="utf-8"))
    assert "of 14 held-out images" in page.text


def test_many_classes_have_no_matrix(tmp_path):
    data = open_data("digits")
    names = tuple(f"class {i}" for i in range(120))
    fields = {name: getattr(data, name) for name in ImageData.__dataclass_fields__}
    data = ImageData(**fields | {"class_names": names})
    path = report(make_run(tmp_path / "run"), small_classifier(names, channels=1), data)
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.all("table")) == 1
    assert len(page.all("tr")) == 1 + 100
    assert "The 100 classes with the lowest F1" in page.text
    assert path.stat().st_size < 1_000_000


def test_what_is_no_run_is_told_and_nothing_is_written(source, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="give the folder of a finished run"):
        report(tmp_path / "empty", classifier(), source)
    assert [*(tmp_path / "empty").iterdir()] == []
    with pytest.raises(InputError, match="the model has other classes"):
        report(make_run(tmp_path / "run"), small_classifier(), source)


# ---- its parts


def test_wrong_ones_come_first_the_surest_at_the_top():
    labels = np.repeat([0, 1], 20)
    classes = labels.copy()
    classes[[3, 8, 25]] = 1 - classes[[3, 8, 25]]
    probabilities = np.full(40, 0.5, np.float32)
    probabilities[25], probabilities[3] = 0.9, 0.7
    chosen = choose(outcome_by_hand(labels, classes, probabilities))
    assert chosen[:3] == [25, 3, 8]
    assert len(chosen) == len({*chosen}) == 12
    assert sum(labels[chosen[3:]]) in (4, 5), "right ones of all classes"


@pytest.mark.parametrize(("right", "wrong", "shown"), [(40, 40, 6), (2, 40, 10), (0, 3, 3), (40, 0, 0)])
def test_a_dozen_is_shown_as_far_as_there_are(right, wrong, shown):
    labels = np.zeros(right + wrong, np.int64)
    classes = np.repeat([0, 1], [right, wrong])
    chosen = choose(outcome_by_hand(labels, classes, np.ones(len(labels), np.float32)))
    assert len(chosen) == min(12, right + wrong)
    assert sum(classes[chosen]) == shown


def test_heat_is_strongest_where_attention_is():
    pixels = opened(heat(np.array([[0.0, 0.1], [0.2, 0.4]])))
    assert pixels.shape == (2, 2, 4)
    assert pixels[..., 3].tolist() == [[0, 52], [105, 209]]
    assert opened(heat(np.zeros((2, 2))))[..., 3].max() == 0


def test_small_images_keep_every_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 6), dtype=np.uint8)
    assert (opened(photo(pixels)) == pixels.transpose(1, 2, 0)).all()
    assert (opened(photo(pixels[:1])) == pixels[0]).all()
    assert max(opened(photo(np.zeros((3, 300, 600), np.uint8))).shape) == 224


def opened(uri: str) -> np.ndarray:
    from base64 import b64decode
    from io import BytesIO

    return np.asarray(Image.open(BytesIO(b64decode(uri.partition(",")[2]))))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.12, 2.31, [0, 0.5, 1, 1.5, 2, 2.5]),
        (0.91, 1.0, [0.9, 0.92, 0.94, 0.96, 0.98, 1.0]),
        (1.0, 40.0, [0, 10, 20, 30, 40]),
        (3.0, 3.0, [3.0, 4.0]),
        (0.0, 0.0, [0.0, 0.2]),
    ],
)
def test_an_axis_has_round_numbers(low, high, expected):
    assert axis(low, high) == pytest.approx(expected)


def test_a_line_breaks_where_a_value_is_missing():
    assert runs([1.0, 2.0, 3.0, 4.0], [1.0, None, 3.0, float("nan")]) == [[(1, 1.0)] * 2, [(3, 3.0)] * 2]
    drawn = line_chart("Loss", [1.0, 2.0, 3.0], [Line("t", [None] * 3, "train")], "{:g}".format)
    assert 'class="line' not in drawn


def test_a_chart_of_one_epoch():
    drawn = line_chart("Loss", [1.0], [Line("training", [0.5], "train")], "{:g}".format, None, (1.0, 0.5))
    assert Page(drawn).all("circle", "kept")


def test_cells_are_shaded_by_their_share():
    assert cell(9, [9, 1], True) == '<td class="hit full" style="--share:0.900">9</td>'
    assert cell(1, [9, 1], False) == '<td class="miss" style="--share:0.100">1</td>'
    assert cell(0, [0, 0], True) == "<td>0</td>"
