"""Classifier on the Hugging Face hub: pushed, loaded, and its model card."""

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.classifiers import CLASSES, changed, small_classifier, write_photos
from tests.hub_server import TOKEN, hub_of_client
from vitreous.classifier import Classifier
from vitreous.support.errors import InputError


@pytest.fixture
def photos(tmp_path) -> list[str]:
    return write_photos(tmp_path)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The hub that huggingface_hub talks to, with an empty cache."""
    with hub_of_client(monkeypatch, tmp_path / "client") as running:
        yield running


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's call of its own client
def test_pushed_it_comes_back_bit_for_bit(server, photos, tmp_path, monkeypatch):
    classifier = changed(small_classifier(), metadata={"source": "at random", "license": "Apache-2.0"})
    assert classifier.push_to_hub("me/animals", private=True, token=TOKEN) == f"{server.address}/me/animals"
    made = server.repositories["me/animals"]
    files = made.commits[made.refs["main"]]
    assert files.keys() == {".gitattributes", "model.safetensors", "README.md"}
    card = files["README.md"].decode()
    assert front_of(card)["license"] == "apache-2.0"
    assert 'clf = vt.load("hf:me/animals")' in card
    assert made.private
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    back = Classifier.from_pretrained("me/animals", device="cpu")
    assert (back.class_names, back.preprocessing, back.metadata) == (
        CLASSES, classifier.preprocessing, classifier.metadata,
    )  # fmt: skip
    for name, tensor in classifier.model.state_dict().items():
        assert torch.equal(back.model.state_dict()[name], tensor), name
    assert back(photos) == classifier(photos)
    first = made.refs["main"]
    classifier.adapt(num_classes=0).push_to_hub("me/animals")
    assert Classifier.from_pretrained("me/animals").class_names is None
    assert Classifier.from_pretrained("me/animals", first).class_names == CLASSES


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's call of its own client
@pytest.mark.parametrize(
    ("source", "published"),
    [
        ("/photos/of/someone/model.safetensors", "model.safetensors"),
        ("secret/model.safetensors.index.json", "model.safetensors.index.json"),
        ("C:\\me\\secret\\x.npz", "x.npz"),
        ("/photos/secret/hub", "hub"),
        ("https://host/x.npz?sig=secret#sha256=12", "https://host/x.npz#sha256=12"),
        ("hf:me/vit/sub/x.npz@0123", "hf:me/vit/sub/x.npz@0123"),
        ("google:ViT-B_16", "google:ViT-B_16"),
        ("trained on cats/dogs", "trained on cats/dogs"),
        (None, None),
    ],
)
def test_neither_a_folder_nor_a_signature_is_published(source, published, server, monkeypatch):
    classifier = changed(small_classifier(), metadata={"source": source, "license": "MIT"})
    classifier.push_to_hub("me/animals", token=TOKEN)
    made = server.repositories["me/animals"]
    assert not any(b"secret" in content for content in made.commits[made.refs["main"]].values())
    assert (f"- source: {published}\n" in classifier.card()) == (published is not None)
    assert Classifier.from_pretrained("me/animals", device="cpu").metadata == {"source": published, "license": "MIT"}
    assert classifier.metadata["source"] == source


def test_a_local_folder_is_not_a_repository(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_classifier().save("model.safetensors")
    (tmp_path / "run").mkdir()
    small_classifier().save("run/model.safetensors")
    for name in ("./run", "run", "run/model.safetensors", str(tmp_path / "run")):
        with pytest.raises(InputError, match=r"or load the local files with vitreous\.load\('"):
            Classifier.from_pretrained(name)
    with pytest.raises(InputError, match=r"is not a valid repository name; write owner/name$"):
        Classifier.from_pretrained("./walk")


@pytest.mark.parametrize("change", ["missing", "more", "shape", "nan"])
def test_a_pushed_file_that_does_not_fit_is_refused(change, server, tmp_path):
    small_classifier().save(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        header = file.metadata()
    tensors = load_file(tmp_path / "m.safetensors")
    key = "encoder.blocks.1.mlp.fc1.bias"
    values = {
        "more": {"one.more": torch.ones(1)},
        "shape": {key: tensors[key][1:]},
        "nan": {key: tensors[key] * np.nan},
    }
    tensors |= values.get(change, {})
    if change == "missing":
        del tensors[key]
    save_file(tensors, tmp_path / "m.safetensors", header)
    server.add("me/broken", {"model.safetensors": (tmp_path / "m.safetensors").read_bytes()})
    with pytest.raises(InputError, match=r"one\.more" if change == "more" else key.replace(".", r"\.")):
        Classifier.from_pretrained("me/broken")


def front_of(card: str) -> dict:
    """The YAML front matter of a card."""
    start, front, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front)


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        ("MIT", {"license": "mit"}),
        ("CC-BY-NC-4.0", {"license": "cc-by-nc-4.0"}),
        ("see torchvision", {"license": "other", "license_name": "see torchvision"}),
        ('a: "b"\n---\n- 🐈 #\x85\u2028', {"license": "other", "license_name": 'a: "b"\\n---\\n- 🐈 #\\x85\\u2028'}),
        (None, {}),
        (3, {}),
    ],
)
def test_a_card_is_valid_whatever_the_license(license, expected):
    metadata = {"source": "here\n---\n", "deep": {"a": 1}, "accuracy": 0.5, "license": license}
    classifier = small_classifier(("a", "b\n---\nlicense: mit", "<script>", "🐈: -", "'\"`#"))
    classifier = changed(classifier, metadata=metadata)
    card = classifier.card()
    front = front_of(card)
    assert front == expected | {
        "library_name": "vitreous", "pipeline_tag": "image-classification", "tags": ["vision-transformer", "vit"],
    }  # fmt: skip
    assert card.count("\n---\n") == 1, "no metadata ends the YAML, or starts another"
    assert "<script>" not in card
    assert "- accuracy: 0.5" in card
    assert classifier.preprocessing.summary() in card


def test_a_card_of_a_model_without_a_head():
    card = small_classifier(None).card("me/features")
    assert front_of(card)["pipeline_tag"] == "image-feature-extraction"
    assert 'clf = vt.load("hf:me/features")\nclf.features("photo.jpg")' in card
