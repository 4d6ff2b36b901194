"""Classifier: preprocessing, model and class names in one call."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.classifiers import CLASSES, changed, small_classifier, write_photos
from vitreous.classifier import TOP, load
from vitreous.data.decoding.images import BadImage
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError


@pytest.fixture
def photos(tmp_path) -> list[str]:
    return write_photos(tmp_path)


def test_predictions_are_the_models(photos):
    classifier = small_classifier()
    predictions = classifier(photos)
    pixels = classifier.preprocessing([Image.open(path) for path in photos])
    expected = classifier.model(pixels).softmax(1)
    assert [prediction.image for prediction in predictions] == photos
    for prediction, row in zip(predictions, expected, strict=True):
        assert [name for name, _ in prediction.top] == [CLASSES[i] for i in row.argsort(descending=True)]
        assert [p for _, p in prediction.top] == pytest.approx(row.sort(descending=True).values.tolist(), abs=1e-5)
        assert (prediction.class_name, prediction.probability) == prediction.top[0]
    assert len({prediction.top for prediction in predictions}) == 5, "they depend on the images"


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
    classifier = changed(small_classifier(), class_names=None)
    assert classifier(photos[0])[0].class_name in {"class 0", "class 1", "class 2"}


def test_features_are_the_representation(photos):
    classifier = small_classifier()
    expected = classifier.model.representation(classifier.preprocessing([Image.open(path) for path in photos]))
    assert torch.allclose(classifier.features(photos), expected, atol=1e-5)
    assert classifier.features([]).shape == (0, 24)


def test_without_a_head_there_are_features_and_no_classes(photos):
    classifier = small_classifier(None)
    assert classifier.features(photos[0]).shape == (1, 24)
    for use in (classifier, classifier.each):
        with pytest.raises(InputError, match=r"no head.*vitreous train"):
            use(photos)


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
    ("source", "message"),
    [
        ("B/16", "is a model variant, not weights; train it first"),
        ("nowhere", "there is no model at nowhere"),
        ("empty", "has no model.safetensors; give the folder of a run"),
        ("notes.txt", "is not a model file"),
        ("fake.safetensors", "cannot be read"),
    ],
)
def test_what_is_not_a_model_is_refused(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("my notes")
    (tmp_path / "fake.safetensors").write_text("my notes")
    with pytest.raises(InputError, match=message):
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


# ---- adapted to other images and classes


def test_adapted_it_lists_the_changes_and_keeps_the_rest(photos):
    classifier = small_classifier()
    larger = classifier.adapt(image_size=(24, 32))
    assert larger.changes == [
        "image size changed from 16×16 to 24×32",
        "positions resampled from 4×4 to 6×8 (bilinear_aligned)",
    ]
    assert larger.preprocessing == Preprocessing((24, 32))
    assert (larger.class_names, larger.metadata) == (CLASSES, classifier.metadata)
    assert classifier.changes == []
    assert classifier.preprocessing.image_size == (16, 16)
    expected = classifier.model(larger.preprocessing([Image.open(path) for path in photos])).softmax(1)
    assert [p.probability for p in larger(photos)] == pytest.approx(expected.amax(1).tolist(), abs=1e-5)
    assert len({p.top for p in larger(photos)}) == 5
    again = larger.adapt(num_classes=2)
    assert again.changes == [*larger.changes, "new classifier for 2 classes, all zero"]
    assert again.class_names is None
    assert torch.equal(again.features(photos), larger.features(photos))


def test_adapted_to_nothing_it_is_the_same(photos):
    classifier = small_classifier()
    same = classifier.adapt()
    assert same.changes == []
    assert same(photos) == classifier(photos)


def test_adapted_to_named_classes():
    named = small_classifier().adapt(class_names=("hot dog", "not hot dog"))
    assert named.model.config.num_classes == 2
    assert named.class_names == ("hot dog", "not hot dog")
    assert small_classifier().adapt(num_classes=0).class_names is None
    with pytest.raises(InputError, match="there are 1 class names for 2 classes"):
        small_classifier().adapt(num_classes=2, class_names=("one",))


def test_adapted_to_other_channels_its_images_follow(photos):
    preprocessing = Preprocessing((16, 16), mean=(0.1, 0.2, 0.3), std=(0.2, 0.4, 0.6))
    color = changed(small_classifier(), preprocessing=preprocessing)
    gray = color.adapt(channels=1)
    assert gray.preprocessing.channels == 1
    assert gray.preprocessing.mean == pytest.approx((0.2,))
    assert gray.preprocessing.std == pytest.approx((0.4,))
    assert len({p.top for p in gray(photos)}) == 5
    back = gray.adapt(channels=3)
    assert back.preprocessing.mean == pytest.approx((0.2, 0.2, 0.2))
    assert len({p.top for p in back(photos)}) == 5
    five = color.adapt(channels=5)
    assert five.preprocessing.mean == pytest.approx((0.2,) * 5)
    with pytest.raises(BadImage, match="has 3 channels, not 5"):
        five(photos)


def test_adapted_to_other_channels_by_repetition(photos):
    color = small_classifier()
    six = color.adapt(channels=6, channel_method="repeat")
    assert six.changes == ["patch projection repeated from 3 channels to 6, scaled by 3/6"]
    images = color.preprocessing([Image.open(path) for path in photos])
    expected = color.model(images)
    assert expected.std(dim=0).mean() > 0.02
    assert torch.allclose(six.model(images.repeat(1, 2, 1, 1)), expected, atol=1e-5)
    assert not torch.allclose(color.adapt(channels=6).model(images.repeat(1, 2, 1, 1)), expected, atol=1e-2)


@pytest.mark.parametrize("value", [0, -1, True, 2**40, 10**30])
@pytest.mark.parametrize("field", ["image_size", "patch_size", "num_classes", "channels"])
def test_impossible_adaptations_are_refused(field, value):
    if (field, value) != ("num_classes", 0):
        with pytest.raises(InputError):
            small_classifier().adapt(**{field: value})


def test_adapted_with_a_distillation_token(photos):
    distilled = small_classifier(distillation_token=True)
    new = distilled.adapt(num_classes=2, image_size=32)
    assert new.changes[-1] == "new classifier and distillation classifier for 2 classes, all zero"
    assert [round(p.probability, 6) for p in new(photos)] == [0.5] * 5
    larger = distilled.adapt(image_size=32)
    assert torch.equal(new.features(photos), larger.features(photos))
    assert len({p.top for p in larger(photos)}) == 5


def test_images_larger_than_the_positions_stay_so():
    classifier = changed(small_classifier(), preprocessing=Preprocessing((32, 24)))
    assert classifier.adapt(num_classes=2).preprocessing.image_size == (32, 24)
    assert classifier.adapt(image_size=16).preprocessing.image_size == (16, 16)
    with pytest.raises(
        InputError, match=r"after the preprocessing, a 32×24 image does not divide into 16×16 patches; the nearest"
    ):
        classifier.adapt(patch_size=16)


# ---- to other formats


def test_exported_it_comes_back_with_a_report(photos, tmp_path):
    classifier = small_classifier(gelu="exact")
    report = classifier.export(tmp_path / "out", "timm")
    assert report.files == (f"{tmp_path}/out/model.safetensors", f"{tmp_path}/out/config.json")
    back = load(tmp_path / "out", "cpu")
    assert back(photos) == classifier(photos)
    assert back.report is not None
    assert (back.report.family, back.report.tensors) == ("timm", report.tensors)
    assert back.adapt(image_size=32).report is back.report, "what was read stays known"
    with pytest.raises(InputError, match="already exists"):
        classifier.export(tmp_path / "out", "timm")
    classifier.export(tmp_path / "out", "timm", overwrite=True, dtype=torch.float16)
    assert {t.dtype for t in load_file(tmp_path / "out/model.safetensors").values()} == {torch.float16}
