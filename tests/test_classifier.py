"""Classifier: preprocessing, model and class names in one call."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.classifiers import CLASSES, small_classifier
from vitreous.classifier import TOP, Classifier, load
from vitreous.data.images import BadImage
from vitreous.support.errors import InputError


@pytest.fixture
def photos(tmp_path) -> list[str]:
    """Five different photos of different sizes."""
    noise = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        Image.fromarray(noise.integers(0, 256, (20 + i, 30 - i, 3), dtype=np.uint8)).save(path)
    return [str(path) for path in paths]


def test_it_says_what_the_model_says(photos):
    classifier = small_classifier()
    predictions = classifier(photos)
    pixels = classifier.preprocessing([Image.open(path) for path in photos])
    expected = classifier.model(pixels).softmax(1)
    assert [prediction.image for prediction in predictions] == photos
    for prediction, row in zip(predictions, expected, strict=True):
        assert [name for name, _ in prediction.top] == [CLASSES[i] for i in row.argsort(descending=True)]
        assert [p for _, p in prediction.top] == pytest.approx(row.sort(descending=True).values.tolist(), abs=1e-5)
        assert (prediction.class_name, prediction.probability) == prediction.top[0]
    assert len({prediction.top for prediction in predictions}) == 5, "it looks at the images"


def test_paths_bytes_and_pictures_are_the_same(photos, tmp_path):
    classifier = small_classifier()
    [by_path] = classifier(photos[0])
    [by_bytes] = classifier((tmp_path / "0.png").read_bytes())
    [by_pathlib, picture] = classifier([tmp_path / "0.png", Image.open(photos[0])])
    assert by_path.top == by_bytes.top
    assert by_pathlib.top == picture.top
    assert by_pathlib.probability == pytest.approx(by_path.probability, abs=1e-6)
    assert [by_bytes.image, by_pathlib.image, picture.image] == ["image 0", photos[0], "image 1"]


def test_a_batch_does_not_matter(photos):
    classifier = small_classifier()
    one_by_one = [p.probability for p in classifier.each(photos, batch_size=1)]
    assert one_by_one == pytest.approx([p.probability for p in classifier.each(photos, batch_size=3)], abs=1e-6)


def test_a_broken_image_is_an_error_of_its_own(photos, tmp_path):
    (tmp_path / "2.png").write_bytes(b"no image")
    classifier = small_classifier()
    results = list(classifier.each(photos, batch_size=2))
    assert [isinstance(result, BadImage) for result in results] == [False, False, True, False, False]
    assert [result.image for result in results if not isinstance(result, BadImage)] == photos[:2] + photos[3:]
    with pytest.raises(BadImage, match=r"2\.png"):
        classifier(photos)
    with pytest.raises(BadImage, match=r"2\.png"):
        classifier.features(photos)


def test_a_batch_of_broken_images_alone(tmp_path):
    results = list(small_classifier().each([b"x", b"y", str(tmp_path / "missing.png")], batch_size=2))
    assert all(isinstance(result, BadImage) for result in results)
    assert len(results) == 3


def test_at_most_five_classes_are_listed(photos):
    names = [f"breed {i}" for i in range(8)]
    [prediction] = small_classifier(names)(photos[0])
    assert len(prediction.top) == TOP
    assert prediction.to_dict()["top"][0] == {
        "class_name": prediction.class_name, "probability": prediction.probability,
    }  # fmt: skip


def test_classes_without_names_have_numbers(photos):
    classifier = small_classifier()
    classifier.class_names = None
    assert classifier(photos[0])[0].class_name in {"class 0", "class 1", "class 2"}


def test_features_are_the_representation(photos):
    classifier = small_classifier()
    expected = classifier.model.representation(classifier.preprocessing([Image.open(path) for path in photos]))
    assert torch.allclose(classifier.features(photos), expected, atol=1e-5)
    assert classifier.features([]).shape == (0, 24)


def test_without_a_head_there_are_features_and_no_classes(photos):
    classifier = small_classifier(None)
    assert classifier.features(photos[0]).shape == (1, 24)
    with pytest.raises(InputError, match=r"no head.*vitreous train"):
        classifier(photos)


@pytest.mark.parametrize("place", ["cat.safetensors", "run/model.safetensors"])
def test_saved_and_loaded_it_is_the_same(place, photos, tmp_path):
    classifier = small_classifier()
    (tmp_path / place).parent.mkdir(exist_ok=True)
    classifier.save(tmp_path / place)
    loaded = load(tmp_path / place.split("/")[0], device="cpu")
    assert loaded(photos) == classifier(photos)
    assert (loaded.class_names, loaded.preprocessing, loaded.metadata) == (
        CLASSES, classifier.preprocessing, {"source": "at random"},
    )  # fmt: skip
    assert loaded.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("B/16", "is the name of a shape, not of weights; train it first"),
        ("nowhere", "there is no model at nowhere"),
        ("empty", "has no model.safetensors; give the folder of a run"),
        ("notes.txt", "is no model file"),
        ("fake.safetensors", "cannot be read"),
    ],
)
def test_what_is_no_model_is_told(source, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("my notes")
    (tmp_path / "fake.safetensors").write_text("my notes")
    with pytest.raises(InputError, match=told):
        load(source)


def test_it_shows_itself_in_a_notebook(photos):
    classifier = small_classifier(("cat", "<script>alert(1)</script>"))
    assert repr(classifier) == "Classifier(2 blocks of width 24, 16×16 pixels, 2 classes)"
    assert "no head" in repr(small_classifier(None))
    for shown in (classifier, classifier(photos[0])[0]):
        assert "<script>" not in shown._repr_html_()
        assert "&lt;script&gt;" in shown._repr_html_()


def test_a_model_in_training_is_put_to_use(photos):
    classifier = small_classifier(dropout=0.5)
    assert not classifier.model.training
    assert classifier(photos) == classifier(photos)


def test_a_picture_is_turned_as_its_file_is(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    classifier = small_classifier()
    with Image.open(tmp_path / "turned.png") as opened:
        [of_file], [of_picture] = classifier(tmp_path / "turned.png"), classifier(opened)
        assert of_file.top == of_picture.top
        assert opened.size == (40, 24), "it stays as it is"
    [upright] = classifier(image)
    assert upright.top != of_file.top


def test_a_truncated_picture_is_a_bad_image(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:1500])
    with Image.open(tmp_path / "cut.jpg") as opened:
        [result] = small_classifier().each([opened])
    assert isinstance(result, BadImage)


def test_there_is_one_name_for_each_class():
    classifier = small_classifier()
    with pytest.raises(InputError, match="there are 1 class names for"):
        Classifier(classifier.model, classifier.preprocessing, ["one"])
