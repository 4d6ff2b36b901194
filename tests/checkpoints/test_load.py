"""`vitreous.load`: from a name, a folder or a file to a classifier, with a hub on loopback."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from tests.checkpoints.peers import EQUAL, filled, is_varied
from tests.classifiers import CLASSES, changed, small_classifier
from tests.hub_server import hub_of_client, use_addresses_of
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.sources import download
from vitreous.checkpoints.store import StoredModel
from vitreous.classifier import load
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError

NAMES = {0: "cat", 1: "L'été", 2: "猫"}
IN_ORDER = tuple(NAMES.values())
PREPROCESSING = Preprocessing((32, 32), "squash", 1.0, "bicubic", True, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The hub that huggingface_hub talks to, with an empty cache."""
    with hub_of_client(monkeypatch, tmp_path / "client") as running:
        yield running


@pytest.fixture(autouse=True)
def quiet():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def from_transformers(folder: Path, **options):
    """A random transformers ViT, as save_pretrained writes it with its image processor."""
    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        image_size=32, patch_size=8, id2label=NAMES, label2id={name: i for i, name in NAMES.items()},
    )  # fmt: skip
    model = filled(transformers.ViTForImageClassification(config))
    model.save_pretrained(folder, **options)
    processor = transformers.ViTImageProcessor(
        size={"height": 32, "width": 32},
        resample=3,
        image_mean=list(PREPROCESSING.mean),
        image_std=list(PREPROCESSING.std),
    )
    processor.save_pretrained(folder)
    return model


def from_timm(folder: Path, names=IN_ORDER, heads=4):
    """A random timm ViT, as timm pushes it to the hub."""
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": heads, "num_classes": 3}
    model = filled(timm.create_model("vit_base_patch16_224", **arguments))
    preprocessing = {"input_size": (3, 32, 32), "crop_mode": "squash", "crop_pct": 1.0, "interpolation": "bicubic"}
    model.pretrained_cfg.update(preprocessing | {"mean": PREPROCESSING.mean, "std": PREPROCESSING.std})
    save_for_hf(model, str(folder), {"label_names": names}, arguments, safe_serialization=True)
    return model


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_is(classifier, theirs, guesses=()) -> None:
    """The logits of a peer, with the class names and preprocessing of its files."""
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = theirs(images)
        expected = getattr(expected, "logits", expected)
        assert is_varied(expected)
        assert (classifier.model(images) - expected).abs().max() < EQUAL
    assert classifier.class_names == IN_ORDER
    assert classifier.preprocessing == PREPROCESSING
    assert tuple(guess.field for guess in classifier.report.guesses) == guesses


# ---- folders


def test_a_folder_of_transformers(tmp_path):
    theirs = from_transformers(tmp_path)
    assert_is(load(tmp_path, "cpu"), theirs)


def test_a_folder_of_transformers_in_shards(tmp_path):
    theirs = from_transformers(tmp_path, max_shard_size="100KB")
    assert len([*tmp_path.glob("model-*.safetensors")]) > 1
    assert_is(load(tmp_path, "cpu"), theirs)
    assert_is(load(tmp_path / "model.safetensors.index.json", "cpu"), theirs)
    next(tmp_path.glob("model-00001-*.safetensors")).unlink()
    with pytest.raises(InputError, match="model-00001-of"):
        load(tmp_path)


def test_a_folder_of_timm(tmp_path):
    theirs = from_timm(tmp_path)
    assert_is(load(tmp_path, "cpu"), theirs)
    assert_is(load(tmp_path / "model.safetensors", "cpu"), theirs)
    theirs = from_timm(tmp_path, NAMES)
    assert_is(load(tmp_path, "cpu"), theirs)
    from_timm(tmp_path, {0: "cat", 2: "fox"})
    assert load(tmp_path, "cpu").class_names is None


def test_the_callers_image_size_overrides_the_files_next_to_the_weights(tmp_path):
    """64 positions may be those of a square image or of any other that has as many patches."""
    model = small_model(gelu="exact", image_size=(64, 64), patch_size=8)
    export_model(StoredModel(model, Preprocessing((64, 64)), None, {}), "timm", tmp_path / "theirs")
    classifier = load(tmp_path / "theirs", device="cpu", image_size=(128, 32))
    assert classifier.model.config.image_size == classifier.preprocessing.image_size == (128, 32)


def test_a_folder_with_a_pickle(tmp_path):
    theirs = from_transformers(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert_is(load(tmp_path, "cpu"), theirs)


def test_a_runs_folder_is_ours_whatever_is_next_to_it(tmp_path):
    small_classifier().save(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "resnet50"}')
    found = load(tmp_path, "cpu")
    assert (found.class_names, found.report) == (CLASSES, None)


def test_a_folder_with_one_file_of_any_name(tmp_path):
    stored = StoredModel(small_model("the paper's"), Preprocessing((32, 32)))
    export_model(stored, "google", tmp_path / "B_16.npz")
    (tmp_path / "notes.txt").write_text("mine")
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load(tmp_path, "cpu").model(images), stored.model(images))
    shutil.copy(tmp_path / "B_16.npz", tmp_path / "A_16.npz")
    with pytest.raises(InputError, match=r"has 2 weights files: A_16.npz, B_16.npz; name one of them"):
        load(tmp_path)
    assert load(tmp_path / "A_16.npz", "cpu").report is not None


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "is not a JSON object"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a": "' + b" " * 2**24 + b'"}', "is not a JSON object of at most 16,777,216 bytes"),
    ],
    ids=["list", "cut", "bytes", "deep", "long"],
)
def test_broken_json_is_named(name, content, message, tmp_path):
    from_transformers(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path)
    assert name in caught.value.cause
    assert caught.value.hint == "fix it, or download it again"


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff"])
def test_json_next_to_files_that_do_not_use_it_is_ignored(name, content, tmp_path):
    mine = small_classifier(gelu="tanh", width=64, image_size=32, num_heads=1)
    mine.save(tmp_path / "model.safetensors")
    mine.export(tmp_path / "x.npz", "google")
    small_classifier(gelu="exact", width=64, num_heads=1).export(tmp_path / "x.pth", "torchvision")
    (tmp_path / name).write_bytes(content)
    for file, family in (("model.safetensors", None), ("x.npz", "google"), ("x.pth", "torchvision")):
        found = load(tmp_path / file, "cpu")
        assert found.metadata.get("family") == family


def test_a_local_source_is_recorded_by_its_name_without_the_path(tmp_path, monkeypatch):
    folder = tmp_path / "hub"
    folder.mkdir()
    from_timm(folder)
    monkeypatch.chdir(folder)
    for source, name in ((folder, "hub"), (folder / "model.safetensors", "model.safetensors"), (".", "hub")):
        found = load(source, "cpu")
        assert (found.metadata["source"], found.report.source) == (name, name)


# ---- family and fields of the caller


def test_family_and_fields_override_files_of_other_families(tmp_path):
    folder, mine = tmp_path / "theirs", tmp_path / "mine.safetensors"
    folder.mkdir()
    from_timm(folder)
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(folder / "model.safetensors"), bare)
    assert load(bare, "cpu", num_heads=2).model.config.num_heads == 2
    assert load(bare, "cpu").model.config.num_heads == 1
    assert load(folder, "cpu", num_heads=2).model.config.num_heads == 2, "the caller overrides the config"
    assert load(bare, "cpu", family="deit").metadata["family"] == "deit"
    with pytest.raises(InputError, match="is not a checkpoint of Google"):
        load(bare, family="google")
    with pytest.raises(InputError, match="no ViTConfig field 'num_head'; did you mean 'num_heads'"):
        load(bare, num_head=2)
    small_classifier().save(mine)
    for wrong in ({"num_heads": 3}, {"family": "timm"}):
        with pytest.raises(InputError, match="is a vitreous file, which already stores its config; leave out"):
            load(mine, **wrong)


# ---- hubs


@pytest.mark.parametrize("form", ["safetensors", "shards", "pickle"])
def test_a_repository_of_transformers(form, server, tmp_path, monkeypatch, capsys):
    (tmp_path / "made").mkdir()
    theirs = from_transformers(tmp_path / "made", **({"max_shard_size": "100KB"} if form == "shards" else {}))
    files = files_in(tmp_path / "made")
    if form == "pickle":
        torch.save(theirs.state_dict(), tmp_path / "weights")
        files["pytorch_model.bin"] = (tmp_path / "weights").read_bytes()
        del files["model.safetensors"]
    commit = server.add("me/vit", files).refs["main"]
    found = load("hf:me/vit", "cpu")
    assert_is(found, theirs)
    assert found.metadata["license"] == "apache-2.0"
    assert found.metadata["source"] == f"hf:me/vit@{commit}"
    assert capsys.readouterr().err.startswith("hf:me/vit: ")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    assert_is(load("hf:me/vit", "cpu"), theirs)
    assert server.requests == []
    assert capsys.readouterr().err == ""


def test_a_repository_of_timm(server, tmp_path):
    (tmp_path / "made").mkdir()
    theirs = from_timm(tmp_path / "made")
    server.add("timm/vit_small.mine", files_in(tmp_path / "made"))
    server.add("me/of-timm", files_in(tmp_path / "made"), card={"license": "other", "license_name": "my own"})
    assert_is(load("timm:vit_small.mine", "cpu"), theirs)
    found = load("hf:me/of-timm", "cpu")
    assert_is(found, theirs)
    assert (found.metadata["family"], found.metadata["license"]) == ("timm", "my own")


def test_the_caller_overrides_the_family_of_a_name(server, tmp_path):
    published("google", tmp_path / "x.npz", image_size=32, patch_size=8)
    server.add("timm/other", {"x.npz": (tmp_path / "x.npz").read_bytes()})
    with pytest.raises(InputError, match=r"timm:other@\w+ is not a checkpoint of timm: .* missing") as caught:
        load("timm:other")
    assert caught.value.hint == "choose another name (vitreous list models), or set the family"
    assert load("timm:other", "cpu", family="google").metadata["family"] == "google"
    small_classifier().save(tmp_path / "model.safetensors")
    server.add("timm/ours", {"model.safetensors": (tmp_path / "model.safetensors").read_bytes()})
    assert load("timm:ours", "cpu").class_names == CLASSES


@pytest.mark.parametrize("place", ["sub", "bare"])
def test_a_file_in_a_folder_of_a_repository_has_that_folders_config(place, server, tmp_path):
    for folder, heads in (("root", 1), ("sub", 2)):
        (tmp_path / folder).mkdir()
        theirs = from_timm(tmp_path / folder, heads=heads)
    files = files_in(tmp_path / "root") | {f"sub/{name}": data for name, data in files_in(tmp_path / "sub").items()}
    files["bare/model.safetensors"] = files["sub/model.safetensors"]
    server.add("me/many", files)
    if place == "bare":
        bare = load("hf:me/many/bare/model.safetensors", "cpu")
        assert "num_heads" in [guess.field for guess in bare.report.guesses]
        assert bare.class_names is None
    else:
        assert_is(load("hf:me/many/sub/model.safetensors", "cpu"), theirs)


def test_a_repository_of_ours(server, tmp_path):
    mine = small_classifier()
    mine.save(tmp_path / "model.safetensors")
    server.add("me/ours", {"model.safetensors": (tmp_path / "model.safetensors").read_bytes()}, card={"license": "mit"})
    found = load("hf:me/ours", "cpu")
    assert (found.class_names, found.preprocessing) == (CLASSES, mine.preprocessing)
    assert found.metadata == {"source": "at random", "license": "mit"}
    assert all(torch.equal(a, b) for a, b in zip(found.model.parameters(), mine.model.parameters(), strict=True))
    mine = changed(mine, metadata={"source": "at random", "license": "Apache-2.0"})
    mine.save(tmp_path / "model.safetensors")
    server.repositories["me/ours"].commit({"model.safetensors": (tmp_path / "model.safetensors").read_bytes()})
    assert load("hf:me/ours", "cpu").metadata["license"] == "Apache-2.0", "the file's own license comes first"
    with pytest.raises(InputError, match="already stores its config"):
        load("hf:me/ours", num_heads=3)


def test_one_file_of_a_repository(server, tmp_path):
    stored = StoredModel(small_model("the paper's"), Preprocessing((32, 32)))
    export_model(stored, "google", tmp_path / "x.npz")
    server.add("me/many", {"a/x.npz": (tmp_path / "x.npz").read_bytes(), "y.npz": b"no weights"})
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load("hf:me/many/a/x.npz", "cpu").model(images), stored.model(images))
    with pytest.raises(InputError, match=r"hf:me/many has 2 weights files .*; choose from hf:me/many/a/x.npz"):
        load("hf:me/many")
    with pytest.raises(InputError, match="cannot be read"):
        load("hf:me/many/y.npz")


def published(family: str, path: Path, **changes) -> StoredModel:
    """A narrow model with the heads and the image size of a published one, in a file of its family."""
    fields = {"width": 48, "depth": 1, "mlp_dim": 96, "num_heads": 12, "image_size": 224, "patch_size": 16}
    model = small_model(**(fields | changes))
    export_model(StoredModel(model, Preprocessing(model.config.image_size)), family, path)
    return StoredModel(model, Preprocessing(model.config.image_size))


def assert_same_logits(classifier, stored) -> None:
    images = torch.randn(2, 3, *stored.model.config.image_size)
    with torch.no_grad():
        expected = stored.model(images)
        assert is_varied(expected)
        assert (classifier.model(images) - expected).abs().max() < EQUAL


def test_names_of_google_and_meta_and_an_address(server, tmp_path, monkeypatch, capsys):
    use_addresses_of(server, monkeypatch)
    google = published("google", tmp_path / "g.npz", image_size=384)
    content = (tmp_path / "g.npz").read_bytes()
    server.pages["/storage.googleapis.com/vit_models/imagenet21k+imagenet2012/ViT-B_16.npz"] = content
    found = load("google:imagenet21k+imagenet2012/ViT-B_16", "cpu")
    assert_same_logits(found, google)
    assert found.metadata["license"] == "Apache-2.0"

    server.pages["/a/x.npz"] = content
    digits = hashlib.sha256(content).hexdigest()
    assert_same_logits(load(f"{server.address}/a/x.npz#sha256={digits}", "cpu"), google)

    dinov2 = published(
        "dinov2", tmp_path / "d.pth", num_classes=0, num_heads=6, image_size=518, patch_size=14,
        gelu="exact", layer_scale=0.1, mask_token=True,
    )  # fmt: skip
    server.pages["/dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"] = (
        tmp_path / "d.pth"
    ).read_bytes()
    bare = load("meta:dinov2_vits14", "cpu")
    assert_same_logits(bare, dinov2)
    assert bare.model.config.num_heads == 6
    assert bare.preprocessing.image_size == (518, 518)


def test_a_name_of_torchvision(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(download, "has_checksum", lambda path, checksum: True)
    theirs = filled(torchvision.models.VisionTransformer(224, 16, 1, 12, 48, 96, num_classes=1000))
    path = tmp_path / "torch/hub/checkpoints/vit_b_16-c867db91.pth"
    path.parent.mkdir(parents=True)
    torch.save(theirs.state_dict(), path)
    found = load("torchvision:vit_b_16", "cpu")
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert (found.model(images) - theirs(images)).abs().max() < EQUAL
    assert found.class_names is not None
    assert (len(found.class_names), found.class_names[1]) == (1000, "goldfish")
    transforms = torchvision.models.ViT_B_16_Weights.DEFAULT.transforms()
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8))
    assert (found.preprocessing([photo])[0] - transforms(photo)).abs().max() < 1e-5


def test_the_command_line_predicts_with_a_repository(server, tmp_path, vitreous_process):
    """In a process of its own with the settings of the hub's client, and again offline."""
    (tmp_path / "made").mkdir()
    from_transformers(tmp_path / "made")
    server.add("me/vit", files_in(tmp_path / "made"))
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)).save(photo)
    environment = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    done = vitreous_process("predict", "hf:me/vit", str(photo), "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    size = len(server.repositories["me/vit"].commits[server.repositories["me/vit"].refs["main"]]["model.safetensors"])
    assert done.stderr == f"hf:me/vit: {download.bytes_text(size)}, license apache-2.0\n"
    [row] = json.loads(done.stdout)
    [expected] = load(tmp_path / "made", "cpu")(str(photo))
    assert row["class_name"] == expected.class_name
    assert [entry["class_name"] for entry in row["top"]] == [name for name, _ in expected.top]
    assert [entry["probability"] for entry in row["top"]] == pytest.approx([p for _, p in expected.top], abs=1e-5)
    again = vitreous_process(
        "predict", "hf:me/vit", str(photo), "--json", environment=environment | {"HF_HUB_OFFLINE": "1"}
    )
    assert (again.returncode, again.stdout, again.stderr) == (0, done.stdout, "")
