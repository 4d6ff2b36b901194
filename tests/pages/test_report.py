"""The report of a run."""

import dataclasses
import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from tests.classifiers import small_classifier
from vitreous.classifier import Classifier
from vitreous.data.loading.batches import batches
from vitreous.data.sources.open import open_data
from vitreous.data.sources.splits import ImageData, Split
from vitreous.data.sources.trees.folders import FileLoader
from vitreous.evaluation.metrics import Outcome
from vitreous.pages.pictures import as_image, attention_picture, photo
from vitreous.pages.report import write_report
from vitreous.pages.report.charts import Curve, axis, line_chart, segments
from vitreous.pages.report.view import cell, choose_examples
from vitreous.pages.templates import TEMPLATES
from vitreous.support.errors import InputError
from vitreous.training.recipe.recipe import Recipe

EVIL = "<script>alert(1)</script>"
CLASSES = (EVIL, "class10", 'x" onload="y')


class Page(HTMLParser):
    """The elements and the text of a page; fails if an element is not closed."""

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
    """Photos of three classes; two of the names would run as code, or break an attribute, if not escaped."""
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


def make_run(folder, epochs: int = 4, settings: dict | None = None):
    """A run's folder without its model."""
    folder.mkdir()
    rows = [
        {"epoch": i, "train_loss": 2.0 / i, "train_accuracy": i / 5, "val_loss": None if i == 2 else 1.5 / i,
         "val_accuracy": i / 6, "seconds": 40.0 * i}
        for i in range(1, epochs + 1)
    ]  # fmt: skip
    rows.append({"epoch": 3, "test_accuracy": 0.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe().with_settings({"batch_size": 8, "flip": True, **(settings or {})})
    (folder / "recipe.toml").write_text(recipe.to_toml() + f"# {EVIL}\n")
    (folder / "environment.json").write_text(json.dumps({"vitreous": "1.2", "device": "cpu", "host": {"cpu": EVIL}}))
    return folder


def classifier(**overrides) -> Classifier:
    made = small_classifier(CLASSES, **overrides)
    made.metadata["epoch"] = 3
    return made


def report(folder, model: Classifier, source: ImageData):
    """Writes the report of a run with this model."""
    return write_report(folder, model, source, outcome_of(model, source.test or source.validation))


def outcome_of(model: Classifier, split: Split) -> Outcome:
    """The model's outcome on a split."""
    [batch] = batches(split, model.preprocessing, batch_size=len(split), shuffle=False)
    with torch.inference_mode():
        top = model.model(model.preprocessing.normalize(batch.images)).softmax(1).topk(3)
    return Outcome(batch.indices.numpy(), batch.labels.numpy(), top.indices.numpy(), top.values.numpy(), 1.0)


def outcome_by_hand(labels, classes, probabilities) -> Outcome:
    return Outcome(np.arange(len(labels)), labels, classes[:, None], probabilities[:, None], 1.0)


def lopsided(tmp_path, settings: dict | None = None) -> str:
    """The text of a report on a model that always answers the class with 12 of 15 test images."""
    data = make_source(tmp_path)
    labels = np.repeat([0, 1], [12, 3])
    test = dataclasses.replace(data.test, labels=labels, names=data.test.names[:15])
    outcome = outcome_by_hand(labels, np.zeros(15, np.int64), np.ones(15, np.float32))
    folder = make_run(tmp_path / "run", settings=settings)
    page = write_report(folder, classifier(), dataclasses.replace(data, test=test), outcome)
    return " ".join(Page(page.read_text()).text.split())


def test_lopsided_classes_are_scored_alike_and_a_majority_model_is_named(tmp_path):
    text = lopsided(tmp_path)
    assert "Balanced accuracy, the mean over classes of the share that is right: 50.0%." in text
    assert f"Warning: this model answers '{EVIL[:23]}…' for every test image: set balanced_sampling=true" in text
    assert "best on validation" in text
    assert "best on validation by" not in text


@pytest.mark.parametrize("settings", [{"balanced_sampling": True}, {"class_weights": "balanced"}], ids=str)
def test_a_run_that_weighed_its_classes_gets_another_hint(tmp_path, settings):
    text = lopsided(tmp_path, settings | {"keep_by": "macro_f1"})
    assert "for every test image: train longer, or set another lr." in text
    assert "best on validation by macro F1" in text


def test_images_that_are_gone_are_not_shown(source, tmp_path):
    model, folder = classifier(), make_run(tmp_path / "run")
    outcome = outcome_of(model, source.test)
    first = source.test.names[outcome.places[choose_examples(outcome)[0]]]
    for cards, gone in ((11, first), (0, "test")):
        path = tmp_path / "photos" / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        page = Page(write_report(folder, model, source, outcome).read_text())
        assert len(page.all("li", "card")) == cards
        assert f"{outcome.correct} of 15 held-out images classified correctly" in page.text


def test_the_report_shows_the_result_and_how_it_was_reached(source, tmp_path):
    model = classifier()
    path = report(make_run(tmp_path / "run"), model, source)
    assert path == tmp_path / "run/report.html"
    page = Page(path.read_text(encoding="utf-8"))
    split = source.test
    predictions = [model([split.load(i)])[0] for i in range(len(split))]
    right = sum(p.class_name == CLASSES[label] for p, label in zip(predictions, split.labels, strict=True))
    assert f"{100 * right / 15:.1f}%" in page.text
    assert f"{right} of 15 held-out images classified correctly; 95% interval" in page.text
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
    verdicts = [text for text in ("✗ wrong", "✓ correct") if text in page.text]
    assert page.text.index(verdicts[0]) < page.text.index(verdicts[-1]) or len(verdicts) == 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"init": "random"}, "photos: a Vision Transformer trained from scratch"),
        ({"weights": "timm:vit_small"}, "photos: a Vision Transformer fine-tuned from at random"),
        ({"weights": "timm:vit_small", "frozen": ["backbone"]}, "photos: a linear probe on at random"),
    ],
)
def test_the_title_names_what_the_training_started_from(settings, expected, source, tmp_path):
    folder = make_run(tmp_path / "run", settings=settings)
    html = report(folder, classifier(), source).read_text(encoding="utf-8")
    assert f"<title>{expected}</title>" in html
    assert f"<h1>{expected}</h1>" in html


def test_without_a_source_the_title_names_the_weights_of_the_recipe(source, tmp_path):
    model = classifier()
    del model.metadata["source"]
    folder = make_run(tmp_path / "run", settings={"weights": "timm:vit_small"})
    assert "fine-tuned from timm:vit_small" in report(folder, model, source).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("runs/d 3", "--recipe 'runs/d 3/recipe.toml' --out 'runs/d 3-again'"),
        (".", "--recipe recipe.toml --out ../{here}-again"),
    ],
)
def test_the_command_that_repeats_the_run(folder, expected, source, tmp_path, monkeypatch):
    make_run(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here/runs").mkdir()
    if folder != ".":
        make_run(tmp_path / "here" / folder)
    text = Page(report(folder, classifier(), source).read_text(encoding="utf-8")).text
    assert f"vitreous train {source.name} {expected.format(here='here')}" in text


def test_only_the_images_shown_are_loaded(source, tmp_path, monkeypatch):
    model, loaded = classifier(), []
    outcome, split, load = outcome_of(model, source.test), source.test, FileLoader.__call__
    monkeypatch.setattr(FileLoader, "__call__", lambda self, index: loaded.append(index) or load(self, index))
    write_report(make_run(tmp_path / "run"), model, dataclasses.replace(source, test=split), outcome)
    assert len(loaded) == len({*loaded}) == 12


def test_it_is_one_small_file_without_requests(source, tmp_path):
    path = report(make_run(tmp_path / "run"), classifier(), source)
    assert path.stat().st_size < 200_000
    page = Page(path.read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert all(a["src"].startswith("data:image/") for a in page.all("img"))
    addresses = [a for _, attributes in page.elements for a in attributes if a in ("href", "onload", "action")]
    assert addresses == []
    assert "http" not in path.read_text(encoding="utf-8").replace("http-equiv", "")
    assert not [file for file in (tmp_path / "run").iterdir() if file.name.startswith(".")]


def test_names_are_escaped(source, tmp_path):
    html = report(make_run(tmp_path / "run"), classifier(), source).read_text(encoding="utf-8")
    assert "<script" not in html
    assert 'onload="y' not in html
    assert Page(html).text.count(EVIL) >= 6, "as text: in both tables, the cards, the recipe, the environment"


def test_it_works_with_a_screen_reader_and_by_keyboard(source, tmp_path):
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
    assert ("the patches look, on average," in page.text) == (overrides.get("class_token") is False)
    assert ("data:image/jpeg" in html) == (overrides.get("image_size") == 80)


def test_without_a_test_split_the_page_warns(tmp_path):
    source = make_source(tmp_path, splits=("train",))
    page = Page(report(make_run(tmp_path / "run"), classifier(), source).read_text(encoding="utf-8"))
    assert f"of {len(source.validation)} held-out" in page.text
    assert "There is no test split" in page.text


def test_broken_images_are_left_out(source, tmp_path):
    (tmp_path / "photos/test/a/0.png").write_bytes(b"not an image")
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


def test_a_folder_without_a_run_or_with_other_classes_is_an_error(source, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="give the folder of a finished run"):
        report(tmp_path / "empty", classifier(), source)
    assert [*(tmp_path / "empty").iterdir()] == []
    with pytest.raises(InputError, match="the classes of the model and of"):
        report(make_run(tmp_path / "run"), small_classifier(), source)


# ---- its parts


def test_mistakes_come_first_the_most_confident_on_top():
    labels = np.repeat([0, 1], 20)
    classes = labels.copy()
    classes[[3, 8, 25]] = 1 - classes[[3, 8, 25]]
    probabilities = np.full(40, 0.5, np.float32)
    probabilities[25], probabilities[3] = 0.9, 0.7
    chosen = choose_examples(outcome_by_hand(labels, classes, probabilities))
    assert chosen[:3] == [25, 3, 8]
    assert len(chosen) == len({*chosen}) == 12
    assert sum(labels[chosen[3:]]) in (4, 5), "correct ones of all classes"


@pytest.mark.parametrize(("right", "wrong", "shown"), [(40, 40, 6), (2, 40, 10), (0, 3, 3), (40, 0, 0)])
def test_at_most_a_dozen_is_shown(right, wrong, shown):
    labels = np.zeros(right + wrong, np.int64)
    classes = np.repeat([0, 1], [right, wrong])
    chosen = choose_examples(outcome_by_hand(labels, classes, np.ones(len(labels), np.float32)))
    assert len(chosen) == min(12, right + wrong)
    assert sum(classes[chosen]) == shown


def test_attention_is_most_opaque_at_its_maximum():
    pixels = opened(attention_picture(np.array([[0.0, 0.25], [0.5, 1.0]])))
    assert pixels.shape == (2, 2, 4)
    assert pixels[..., 3].tolist() == [[0, 52], [105, 209]]
    assert opened(attention_picture(np.full((2, 2), np.nan)))[..., 3].max() == 0


def test_small_images_keep_every_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 6), dtype=np.uint8)
    assert (opened(photo(as_image(pixels), 224)) == pixels.transpose(1, 2, 0)).all()
    assert (opened(photo(as_image(pixels[:1]), 224)) == pixels[0]).all()
    assert max(opened(photo(as_image(np.zeros((3, 300, 600), np.uint8)), 224)).shape) == 224


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


def test_a_line_is_split_where_a_value_is_missing():
    assert segments([1.0, 2.0, 3.0, 4.0], [1.0, None, 3.0, float("nan")]) == [[(1, 1.0)] * 2, [(3, 3.0)] * 2]
    assert line_chart("Loss", [1.0, 2.0, 3.0], [Curve("t", [None] * 3, "train")], "{:g}".format).lines == []


def test_a_chart_of_one_epoch():
    chart = line_chart("Loss", [1.0], [Curve("training", [0.5], "train")], "{:g}".format, None, (1.0, 0.5))
    drawn = Page(TEMPLATES.get_template("report/chart.html").module.line_chart(chart))
    assert len(drawn.all("circle", "kept")) == len(drawn.all("path", "train")) == 1


def test_cells_are_shaded_by_their_share():
    assert cell(9, 10, True) == {"text": "9", "style": "hit full", "share": "0.900"}
    assert cell(1, 10, False) == {"text": "1", "style": "miss", "share": "0.100"}
    assert cell(0, 0, True) == {"text": "0", "style": ""}
    assert cell(0, 10, False) == {"text": "·", "style": ""}
