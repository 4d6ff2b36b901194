"""The picture of the first batch shows the model's own pixels, under the right names."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from vitreous.data.mixing import Mixing
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.config import ViTConfig
from vitreous.training.objectives.classification import Classification, CrossEntropy, caption
from vitreous.training.objectives.masked_patch import MaskedPatches, MaskedPatchPrediction
from vitreous.training.objectives.objective import MOST_VIEWS, Setup, View
from vitreous.training.objectives.section import ObjectiveSection
from vitreous.training.records.pictures import picture, save
from vitreous.training.records.results import matrix_picture

RGB = Preprocessing((8, 12), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
GRAY = Preprocessing((8, 12), channels=1, mean=(0.5,), std=(0.3,))
NAMES = ("pizza", "steak", "sushi")
CONFIG = ViTConfig(
    width=8, depth=1, mlp_dim=8, num_heads=1, image_size=(8, 12), patch_size=(4, 3), num_classes=0, mask_token=True
)


def setup(preprocessing, names=NAMES) -> Setup:
    labels = np.zeros(1, dtype=np.int64)
    return Setup(ObjectiveSection(), CONFIG, preprocessing, Mixing(), names, labels, 0, torch.device("cpu"))


def labeled(images, targets, names, preprocessing) -> list[View]:
    return Classification(CrossEntropy()).views(images, targets, setup(preprocessing, names))


def masked(images, hidden, preprocessing) -> list[View]:
    objective = MaskedPatchPrediction(CONFIG.replace(channels=preprocessing.channels), "mean_color", 0.5)
    order = torch.arange(8).expand(len(images), -1)
    return objective.views(images, MaskedPatches(hidden, hidden, order, order), setup(preprocessing))


def pixels(count, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 8, 12), dtype=torch.uint8, generator=generator)


def drawn(figure):
    """The views of a figure, "height width" or "height width channels" in [0, 1], and their texts."""
    cells = [axes for axes in figure.axes if axes.images]
    return [np.asarray(axes.images[0].get_array()) for axes in cells], [axes.get_title() for axes in cells]


@pytest.mark.parametrize("preprocessing", [RGB, GRAY], ids=["rgb", "gray"])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 16, 20])
def test_views_are_the_pixels_before_they_were_normalized(preprocessing, count):
    bytes_ = pixels(count, preprocessing.channels)
    labels = torch.arange(count) % 3
    views, texts = drawn(picture(labeled(preprocessing.normalize(bytes_), labels, NAMES, preprocessing)))
    assert texts == [NAMES[number % 3] for number in range(min(count, MOST_VIEWS))]
    for view, original in zip(views, bytes_, strict=False):
        theirs = original.permute(1, 2, 0).squeeze(2).numpy() / 255
        assert np.abs(view - theirs).max() < 1e-6
    assert len({view.tobytes() for view in views}) == len(views)


def test_mixed_images_are_shown_mixed_with_both_labels():
    bytes_, labels = pixels(6), torch.arange(6) % 3
    mixing = Mixing(cutmix=1.0, per_sample=True)
    images, shares = mixing(RGB.normalize(bytes_), F.one_hot(labels, 3).float(), np.random.default_rng(0))
    views, texts = drawn(picture(labeled(images, shares, NAMES, RGB)))
    assert sum(" + " in text for text in texts) >= 2
    for view, image, text, share in zip(views, images, texts, shares, strict=True):
        mean, std = torch.tensor(RGB.mean), torch.tensor(RGB.std)
        assert np.abs(view - (image.permute(1, 2, 0) * std + mean).numpy()).max() < 1e-6
        assert text.startswith(NAMES[share.argmax()])


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ((0.7, 0.3, 0.0), "pizza 70 % + steak 30 %"),
        ((0.25, 0.0, 0.75), "sushi 75 % + pizza 25 %"),
        ((0.0, 1.0, 0.0), "steak"),
        ((0.001, 0.999, 0.0), "steak"),
        ((0.01, 0.99, 0.0), "steak 99 % + pizza 1 %"),
    ],
)
def test_a_mixed_label(shares, text):
    assert caption(torch.tensor(shares), NAMES) == text


def test_labels_of_one_class_and_of_many():
    assert caption(torch.tensor(2), NAMES) == "sushi"
    assert caption(torch.tensor([1.0]), ("only",)) == "only"
    shares = torch.zeros(1000)
    shares[7], shares[993] = 0.4, 0.6
    assert caption(shares, tuple(map(str, range(1000)))) == "993 60 % + 7 40 %"


def test_long_names_are_shortened_and_broken():
    long = ("a" * 100, "b" * 20)
    assert caption(torch.tensor(0), long) == "a" * 23 + "…"
    assert caption(torch.tensor([0.5, 0.5]), long).splitlines() == ["a" * 23 + "… 50 %", "+ " + "b" * 20 + " 50 %"]


def test_no_view_is_brighter_than_white_where_rounding_leaves_the_range():
    images = RGB.normalize(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 8, 12))
    (black, white), _ = drawn(picture(labeled(images * 1.01, torch.tensor([0, 1]), NAMES, RGB)))
    assert black.min() >= 0
    assert white.max() <= 1


@pytest.mark.parametrize("preprocessing", [RGB, GRAY], ids=["rgb", "gray"])
def test_hidden_patches_are_gray_and_the_others_as_they_are(preprocessing):
    bytes_ = pixels(10, preprocessing.channels)
    hidden = torch.rand(10, 2 * 4) < 0.5
    hidden[0] = torch.tensor([1, 0, 0, 0, 0, 0, 1, 0]).bool()
    views, texts = drawn(picture(masked(preprocessing.normalize(bytes_), hidden, preprocessing)))
    assert len(views) == MOST_VIEWS
    assert texts[1] == "25 % hidden"
    for number in range(8):
        view, covered = views[2 * number : 2 * number + 2]
        assert np.abs(view - bytes_[number].permute(1, 2, 0).squeeze(2).numpy() / 255).max() < 1e-6
        for patch in range(8):
            row, column = divmod(patch, 4)
            place = (slice(4 * row, 4 * row + 4), slice(3 * column, 3 * column + 3))
            if hidden[number, patch]:
                assert len(np.unique(covered[place])) == 1
            else:
                assert np.array_equal(covered[place], view[place])


def test_files_are_written_and_images_are_left_alone(tmp_path):
    images, labels = RGB.normalize(pixels(5)), torch.arange(5) % 3
    before = images.clone()
    save(picture(labeled(images, labels, NAMES, RGB)), tmp_path / "batch.png")
    save(picture(masked(images, torch.rand(5, 8) < 0.5, RGB)), tmp_path / "masked.png")
    assert torch.equal(images, before)
    assert {path.name for path in tmp_path.iterdir()} == {"batch.png", "masked.png"}
    for name in ("batch", "masked"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.format == "PNG"
            assert len(set(np.asarray(image.convert("L")).flat)) > 50


@pytest.mark.parametrize("name", ["$\\frac{1", "<script>", "new\nline", "猫", "\x1b[31mred", "x" * 200])
def test_any_class_name_can_be_drawn(tmp_path, name):
    images = RGB.normalize(pixels(2))
    save(picture(labeled(images, torch.tensor([[0.6, 0.4], [1, 0]]), (name, "dog"), RGB)), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize("size", [(400, 1), (1, 400)])
def test_strips_make_a_picture_of_bounded_size(tmp_path, size):
    strip = Preprocessing(size)
    images = strip.normalize(torch.zeros(16, 3, *size, dtype=torch.uint8))
    save(picture(labeled(images, torch.zeros(16, dtype=torch.int64), NAMES, strip)), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert max(image.size) < 2500
        assert min(image.size) > 50


def test_names_that_no_font_has_are_numbered(monkeypatch):
    monkeypatch.setattr("vitreous.support.fonts._installed", lambda count: [])
    monkeypatch.setattr("vitreous.support.fonts._families", {})
    names = ("dog", "\u732b")
    assert caption(torch.tensor(1), names) == "class 1"
    assert caption(torch.tensor([0.3, 0.7]), names) == "class 1 70 % + dog 30 %"
    figure = matrix_picture(np.eye(2, dtype=int), names, "title")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["dog", "class 1"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["dog", "class 1"]
