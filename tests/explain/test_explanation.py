"""`Classifier.explain`: where it looked in one photo, as numbers and as a picture."""

import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.classifiers import CLASSES, small_classifier
from vitreous.classifier import Classifier
from vitreous.data.decoding.images import BadImage
from vitreous.explain.explanation import Explanation
from vitreous.explain.relevance import relevance
from vitreous.explain.rollout import attention_rollout
from vitreous.support.errors import InputError


@pytest.fixture
def photos() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(3)]


def one(classifier: Classifier, photo: Image.Image | str, class_name: str | None = None) -> Explanation:
    explanation = classifier.explain(photo, class_name)
    assert isinstance(explanation, Explanation)
    return explanation


def test_each_photo_is_explained_by_its_likeliest_class(photos, monkeypatch):
    monkeypatch.setattr("vitreous.classifier.BATCH_SIZE", 2)
    classifier = small_classifier().to("cpu")
    explanations = classifier.explain(photos)
    images = classifier.preprocessing(photos)
    expected = zip(
        classifier(photos),
        attention_rollout(classifier.model, images),
        relevance(classifier.model, images),
        strict=True,
    )
    assert len(explanations) == 3
    for i, (explanation, (prediction, rolled, relevant)) in enumerate(zip(explanations, expected, strict=True)):
        assert explanation.image == f"image {i}"
        assert explanation.class_name == prediction.class_name
        assert explanation.probability == pytest.approx(prediction.probability, abs=1e-5)
        assert explanation.rollout == pytest.approx(rolled.numpy(), rel=1e-4)
        assert explanation.relevance == pytest.approx(relevant.numpy(), rel=1e-4)
        assert np.ptp(explanation.relevance) > 0
        assert (explanation.photo == classifier.preprocessing.pixels(photos[i]).permute(1, 2, 0).numpy()).all()
    assert explanations[0].reads == "the class token"
    assert {parameter.grad for parameter in classifier.model.parameters()} == {None}


def test_one_for_one_and_a_list_for_a_list(photos, tmp_path):
    classifier = small_classifier()
    assert isinstance(classifier.explain(photos[:1]), list)
    assert classifier.explain([]) == []
    photos[0].save(tmp_path / "a.png")
    assert one(classifier, str(tmp_path / "a.png")).image == str(tmp_path / "a.png")


def test_another_class_has_another_relevance(photos):
    classifier = small_classifier()
    maps = {name: one(classifier, photos[0], name) for name in CLASSES}
    assert [explanation.class_name for explanation in maps.values()] == [*CLASSES]
    assert sum(explanation.probability for explanation in maps.values()) == pytest.approx(1)
    assert not np.allclose(maps["cat"].relevance, maps["dog"].relevance)
    assert (maps["cat"].rollout == maps["dog"].rollout).all()
    with torch.inference_mode():
        assert one(classifier, photos[0], "cat").relevance == pytest.approx(maps["cat"].relevance, rel=1e-4)


def test_unknown_classes_are_refused(photos):
    classifier = small_classifier()
    with pytest.raises(InputError, match="there is no class 'fix'; did you mean 'fox'"):
        classifier.explain(photos, "fix")
    with pytest.raises(BadImage, match="is not a JPEG"):
        classifier.explain([photos[0], b"my notes"])


def test_a_model_without_a_head_has_a_rollout(photos):
    explanation = one(small_classifier(None, class_token=False, pooling="mean"), photos[0])
    assert (explanation.class_name, explanation.probability, explanation.relevance) == (None, None, None)
    assert explanation.reads == "the mean of the patches"
    assert len(explanation.figure().axes) == 2
    assert explanation.caption() == "image 0"


def test_a_name_that_no_font_has_is_numbered_in_the_figure(photos, monkeypatch):
    monkeypatch.setattr("vitreous.support.fonts._installed", lambda count: [])
    monkeypatch.setattr("vitreous.support.fonts._families", {})
    explanation = one(small_classifier(("\u732b", "\u72ac", "dog")), photos[0], "\u72ac")
    texts = [text.get_text() for text in explanation.figure().texts]
    assert f"class 1 {explanation.probability:.1%}" in texts
    assert "relevance for class 1" in texts
    assert explanation.caption().startswith("\u72ac ")


def test_a_notebook_shows_the_photo_beside_its_maps(photos):
    html = one(small_classifier(("<b>", "&", '"')), photos[0])._repr_html_()
    [picture] = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    with Image.open(BytesIO(b64decode(picture))) as image:
        assert image.width > 2 * image.height
    assert "<b>" not in html
    assert re.search('alt="image 0: [^"]+, and where the model looked"', html)


def test_it_saves_its_picture(photos, tmp_path: Path):
    explanation = one(small_classifier(), photos[0])
    for name in ("a.png", "b.SVG"):
        explanation.save(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "b.SVG").read_text(encoding="utf-8")
    assert f"relevance for {explanation.class_name}" in svg
    assert "rollout to the class token" in svg
    with pytest.raises(InputError, match=r"end it in \.png or \.svg"):
        explanation.save(tmp_path / "c.jpg")
    with pytest.raises(InputError, match="cannot write"):
        explanation.save(tmp_path / "nowhere/c.png")
    assert len([*tmp_path.iterdir()]) == 2
