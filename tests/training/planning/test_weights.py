"""The weights that a run starts from: which are chosen, and what is kept of them."""

import socket
import time

import pytest
import torch
from huggingface_hub import constants, file_download

from tests.checkpoints.peers import images_of, is_varied
from tests.checkpoints.test_conversion import FLAVORS, round_trip, stored
from tests.hub_server import hub_of_client
from tests.model.models import SWITCHES, small_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.families.recognize import FAMILIES
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.sources import repository
from vitreous.checkpoints.store import save_model
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.variants import variant
from vitreous.support.errors import InputError
from vitreous.training.planning.weights import DEFAULT, best_weights, choose_weights, load_start
from vitreous.training.recipe.sections import ModelSection

OLD = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")
PLAIN = ModelSection()
PREPROCESSING = Preprocessing((32, 32), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
RATES = {"dropout": 0.1, "stochastic_depth": 0.2, "patch_dropout": 0.3}


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The hub that huggingface_hub talks to, with an empty cache."""
    with hub_of_client(monkeypatch, tmp_path / "client") as running:
        yield running


@pytest.fixture
def lines():
    """The lines of automatic choices."""
    return []


@pytest.fixture
def weights(tmp_path):
    """Writes a small model as a vitreous file, and returns its folder."""

    def write(switch="the paper's", names=OLD, dtype=None, preprocessing=PREPROCESSING, **fields):
        path = tmp_path / "runs" / "mine" / "model.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"license": "MIT", "val_accuracy": 0.9}
        save_model(path, small_model(switch, **fields), preprocessing, names, metadata, dtype)
        return str(path.parent)

    return write


def both(weights: str, start) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of the weights as they are, and of the model that starts from them; they vary."""
    old, new = load_checkpoint(weights).model, start.stored.model
    images = images_of(new.config)
    with torch.no_grad():
        expected = old(images)
        assert is_varied(expected)
        return expected, new(images)


def publish(server, tmp_path):
    """A small file of timm's under the name of the default weights, in the way that the hub has it."""
    config = {"image_size": 224, "patch_size": 16, "num_heads": 6, "depth": 1, "gelu": "exact", "num_classes": 3}
    model = stored(small_model(**config))
    export_model(model, "timm", tmp_path / "made")
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    server.add(DEFAULT.replace(":", "/"), files)
    return model.model


def test_named_weights_are_used(lines):
    assert choose_weights(ModelSection(weights="runs/x"), lines.append) == "runs/x"
    assert choose_weights(ModelSection(weights="runs/x", init="pretrained", variant="S/16"), lines.append) == "runs/x"
    assert choose_weights(ModelSection(init="random"), lines.append) is None
    assert choose_weights(ModelSection(variant="S/16"), lines.append) is None
    assert choose_weights(ModelSection(pooling="mean"), lines.append) is None
    assert choose_weights(ModelSection(init="pretrained"), lines.append) == DEFAULT
    assert lines == []
    with pytest.raises(InputError, match="init is 'random', but weights are given, 'runs/x'"):
        choose_weights(ModelSection(init="random", weights="runs/x"), lines.append)


def test_the_best_known_weights_of_a_variant(lines):
    assert choose_weights(ModelSection(init="pretrained", variant="B/8"), lines.append) == (
        "timm:vit_base_patch8_224.augreg2_in21k_ft_in1k"
    )
    assert best_weights("S/32").startswith("google:S_32-i21k-300ep-")
    assert best_weights("S/32").endswith("-res_224")
    for name in ("M/16", "S/15", "nothing"):
        with pytest.raises(InputError, match=f"'{name}' are known; choose one of Ti/16, S/32, S/16, .*; or weights"):
            best_weights(name)


def test_the_default_weights_are_downloaded_and_then_cached(server, tmp_path, monkeypatch, lines, capsys):
    theirs = publish(server, tmp_path)
    assert choose_weights(PLAIN, lines.append) == DEFAULT
    assert lines == [f"fine-tuning {DEFAULT}, license Apache-2.0; --model S/16 trains from scratch"]
    text = capsys.readouterr().err
    assert text.startswith(f"{DEFAULT}: ")
    assert text.endswith(", license apache-2.0\n")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    assert choose_weights(ModelSection(image_size=32, patch_size=8, **RATES), lines.append) == DEFAULT
    start = load_start(DEFAULT, PLAIN, ("a", "b"), 3)
    assert server.requests == []
    assert capsys.readouterr().err == ""
    assert start.source.startswith(f"{DEFAULT}@")
    assert start.stored.metadata["source"] == start.source
    assert start.stored.metadata["license"] == "Apache-2.0"
    images = images_of(theirs.config)
    with torch.no_grad():
        expected = theirs.representation(images)
        assert is_varied(expected)
        torch.testing.assert_close(start.stored.model.representation(images), expected, rtol=0, atol=1e-5)


def show_a_page(server, monkeypatch):
    server.pages[f"/api/models/{DEFAULT.replace(':', '/')}"] = b"<html>log in"
    monkeypatch.setattr("tests.hub_server.ROUTES", [])


def send_no_weights(server, monkeypatch):
    """The hub shows the files, and gives the small ones; of the large one nothing comes."""
    real = file_download.http_get

    def http_get(url, *arguments, **options):
        if url.endswith(".safetensors"):
            raise ConnectionError("reset")
        return real(url, *arguments, **options)

    monkeypatch.setattr(file_download, "http_get", http_get)


@pytest.mark.parametrize(
    ("trouble", "text"),
    [
        (
            lambda _, patch: patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9"),
            "cannot reach http://127.0.0.1:9",
        ),
        (lambda _, patch: patch.setattr(constants, "HF_HUB_OFFLINE", True), "and HF_HUB_OFFLINE is set"),
        (show_a_page, "(JSONDecodeError)"),
        (send_no_weights, "cannot reach http"),
        (lambda server, _: server.repositories.clear(), "it does not exist or is private"),
    ],
    ids=["refused", "offline", "a page", "no weights", "not there"],
)
def test_an_unavailable_default_is_reported_in_one_line(trouble, text, server, tmp_path, monkeypatch, lines, capfd):
    publish(server, tmp_path)
    trouble(server, monkeypatch)
    assert choose_weights(PLAIN, lines.append) is None
    [line] = lines
    assert line.startswith("training from scratch: ")
    assert text in line
    assert "77.91 % on ImageNet alone, 83.97 % after ImageNet-21k (Table 5); choose weights with --model" in line
    assert "\n" not in line
    announced = 1 if trouble is send_no_weights else 0
    assert len(capfd.readouterr().err.splitlines()) == announced
    with pytest.raises(InputError):
        load_start(DEFAULT, PLAIN, ("a", "b"), 3)


def test_a_hub_that_does_not_answer_is_not_waited_for(server, tmp_path, monkeypatch, lines):
    publish(server, tmp_path)
    monkeypatch.setattr(repository, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        real = constants.ENDPOINT
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.perf_counter()
        assert choose_weights(PLAIN, lines.append) is None
        assert "(TimeoutError)" in lines[0]
        monkeypatch.setattr(constants, "ENDPOINT", real)
        assert choose_weights(PLAIN, lines.append) == DEFAULT
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert choose_weights(PLAIN, lines.append) == DEFAULT
        assert load_start(DEFAULT, PLAIN, ("a", "b"), 3).stored.class_names == ("a", "b")
        assert time.perf_counter() - begun < 8  # the client itself waits for 10 seconds


def model_for(family):
    """A model that the family holds, with as many heads as are guessed."""
    choices = ({"width": 64, "num_heads": 1} | flavor for flavor in FLAVORS)
    switches = ("the paper's", "mean pooling", "attention pooling", "registers", "SwiGLU and LayerScale")
    models = (small_model(switch, **choice) for choice in choices for switch in (*switches, *SWITCHES))
    return next(model for model in models if not family.unsupported(model.config))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_of_each_family_begins_with_its_representation_and_a_head_of_zeros(name, tmp_path):
    round_trip(stored(model_for(FAMILIES[name])), name, tmp_path)
    path = next(path for path in tmp_path.iterdir() if path.stem == name)
    content = path.read_bytes()
    theirs = load_checkpoint(path)
    c, size = theirs.model.config, theirs.preprocessing.image_size
    start = load_start(str(path), PLAIN, ("a", "b"), c.channels)
    new = start.stored.model
    assert (start.source, start.stored.class_names) == (path.name, ("a", "b"))
    assert new.config.image_size == start.stored.preprocessing.image_size == size
    images = torch.randn(4, c.channels, *size)
    with torch.no_grad():
        expected = theirs.model.representation(images)
        assert is_varied(expected)
        torch.testing.assert_close(new.representation(images), expected, rtol=0, atol=1e-5)
        assert torch.equal(new(images), torch.zeros(4, 2))
    assert "new classifier" in start.notes[-1]
    train_a_step(new, images)
    assert path.read_bytes() == content
    with torch.no_grad():
        assert torch.equal(load_checkpoint(path).model.representation(images), expected)


def train_a_step(model, images):
    """One step that changes every parameter that has a gradient, and most have one."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (model(images).sum() + model.representation(images).square().sum()).backward()
    before = [p.clone() for p in model.parameters()]
    optimizer.step()
    changed = sum(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert changed > len(before) / 2


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("switch", ["the paper's", "distillation", "hidden layer", "attention pooling"])
def test_training_changes_nothing_but_the_copy(switch, dtype, weights, monkeypatch):
    path = weights(switch, dtype=dtype)
    read = load_checkpoint(path)
    file = read.model
    monkeypatch.setattr("vitreous.training.planning.weights.load_checkpoint", lambda source: read)
    before = {name: tensor.clone() for name, tensor in file.state_dict().items()}
    one, two = (load_start(path, PLAIN, OLD, 3).stored for _ in range(2))
    parameters = [*one.model.parameters()]
    assert all(p.dtype == torch.float32 and p.requires_grad and p.is_leaf and p.is_contiguous() for p in parameters)
    everywhere = [*parameters, *two.model.parameters(), *file.parameters()]
    assert len({p.untyped_storage().data_ptr() for p in everywhere}) == len(everywhere)
    train_a_step(one.model, torch.randn(3, 3, 32, 32))
    for untouched in (file, two.model, load_checkpoint(path).model):
        assert all(torch.equal(tensor, before[name]) for name, tensor in untouched.state_dict().items())


@pytest.mark.parametrize("switch", ["the paper's", "distillation", "hidden layer"])
def test_the_same_classes_keep_their_logits_bit_for_bit(switch, weights):
    path = weights(switch)
    start = load_start(path, ModelSection(**RATES), OLD, 3)
    expected, found = both(path, start)
    assert torch.equal(found, expected)
    assert start.notes == []
    assert start.stored.class_names == OLD
    assert start.stored.preprocessing == PREPROCESSING
    assert start.stored.metadata == {"source": "mine", "license": "MIT"}
    assert {name: getattr(start.stored.model.config, name) for name in RATES} == RATES


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ((*OLD, "hen"), ["new classes: hen"]),
        (OLD[:2] + OLD[3:], ["dropped classes: cat"]),
        (OLD[::-1], []),
        (("Ant", "cow", "bee"), ["new classes: Ant, cow", "dropped classes: ant, cat, dog, eel, fox … and 1 more"]),
    ],
    ids=["added", "dropped", "reordered", "one in common"],
)
@pytest.mark.parametrize("switch", ["the paper's", "distillation", "hidden layer"])
def test_classes_of_the_same_name_keep_their_rows(switch, names, text, weights):
    path = weights(switch)
    start = load_start(path, PLAIN, names, 3)
    expected, found = both(path, start)
    for place, name in enumerate(names):
        old = expected[:, OLD.index(name)] if name in OLD else torch.zeros(len(expected))
        torch.testing.assert_close(found[:, place], old, rtol=0, atol=1e-5)
    kept = sum(name in OLD for name in names)
    assert f"{kept} row{'s' * (kept > 1)} kept" in start.notes[0]
    assert start.notes[1:] == text


def test_a_name_of_two_old_classes_matches_neither(weights):
    names = (*OLD[:5], "crane", "crane")
    path = weights(names=names)
    start = load_start(path, PLAIN, ("ant", "crane"), 3)
    expected, found = both(path, start)
    torch.testing.assert_close(found[:, 0], expected[:, 0], rtol=0, atol=1e-5)
    assert not found[:, 1].any()
    assert torch.equal(both(path, load_start(path, PLAIN, names, 3))[1], expected)


@pytest.mark.parametrize("switch", ["the paper's", "hidden layer"])
def test_without_a_shared_class_the_head_is_new_and_zero(switch, weights):
    start = load_start(weights(switch), PLAIN, ("x", "y"), 3)
    config = start.stored.model.config
    assert (config.num_classes, config.hidden_dim) == (2, None)
    assert not any(parameter.any() for parameter in start.stored.model.head.parameters())
    assert start.notes[-1] == "new classifier for 2 classes, all zero"


def test_another_image_size_patch_and_channels(weights):
    path = weights()
    section = ModelSection(image_size=(48, 64), position_resampling="bicubic_antialias")
    start = load_start(path, section, OLD, 1)
    assert start.stored.preprocessing.image_size == start.stored.model.config.image_size == (48, 64)
    assert (start.stored.preprocessing.channels, start.stored.model.config.channels) == (1, 1)
    assert start.stored.preprocessing.mean == pytest.approx((0.2,))
    assert len(start.notes) == 4
    gray = torch.randn(4, 1, 48, 64)
    old = small_model(position_resampling="bicubic_antialias")
    with torch.no_grad():
        expected = old(gray.expand(-1, 3, -1, -1))
        assert is_varied(expected)
        torch.testing.assert_close(start.stored.model(gray), expected, rtol=0, atol=1e-4)

    patched = load_start(path, ModelSection(patch_size=4), OLD, 3).stored.model.config
    assert (patched.patch_size, patched.image_size) == ((4, 4), (32, 32))
    with pytest.raises(InputError, match="the nearest sizes that do: 32×32 and 40×40"):
        load_start(path, ModelSection(image_size=36), OLD, 3)


def test_the_image_size_is_that_of_the_preprocessing(weights):
    path = weights(preprocessing=Preprocessing((48, 48)))
    start = load_start(path, PLAIN, OLD, 3)
    assert start.stored.model.config.image_size == start.stored.preprocessing.image_size == (48, 48)
    torch.testing.assert_close(*both(path, start), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 64}, {"depth": 2}, {"mlp_dim": 128}, {"num_heads": 2}, {"stem_blocks": (1,)}, {"stem_width": 32},
        {"mlp": "swiglu"}, {"gelu": "exact"}, {"norm_eps": 1e-5}, {"layer_scale": 0.1}, {"pre_norm": True},
        {"patch_bias": False}, {"class_token": False}, {"distillation_token": True}, {"registers": 4},
        {"position_embedding": "none"}, {"position_site": "shared"}, {"position_class_slot": False},
        {"sincos_exponent": "mae"}, {"pooling": "mean"}, {"norm_after_pooling": True}, {"hidden_dim": 8},
        {"classifier_bias": False},
    ],
    ids=str,
)  # fmt: skip
def test_fields_that_the_weights_fix_cannot_be_changed(wrong, weights):
    path = weights()
    [(name, value)] = wrong.items()
    with pytest.raises(InputError, match=f"^{name} is ") as caught:
        load_start(path, ModelSection(**wrong), OLD, 3)
    assert f"leave {name} out: the shape comes from the weights" in caught.value.hint
    assert "\n" not in str(caught.value)
    same = getattr(small_model().config, name)
    assert same != value
    assert load_start(path, ModelSection(**{name: same}), OLD, 3).notes == []


def test_a_variant_must_be_that_of_the_weights(weights):
    config = variant("mu/8", image_size=32, num_classes=7).to_dict()
    path = weights(**config)
    for section in ({"variant": "mu/8"}, {"variant": "mu/16", "patch_size": 8}, {"variant": "mu/8", "patch_size": 4}):
        assert load_start(path, ModelSection(**section), OLD, 3).stored.model.config.width == 32
    for name, text in (("mu/16", r"patch_size \(8, 8\) and not \(16, 16\)"), ("S/8", "width 32 and not 384")):
        with pytest.raises(InputError, match=f"are not of the variant '{name}': they have {text}; leave the variant"):
            load_start(path, ModelSection(variant=name), OLD, 3)
    with pytest.raises(InputError, match="there is no variant 'mu8'"):
        load_start(path, ModelSection(variant="mu8"), OLD, 3)


def test_rates_that_do_not_fit_are_rejected(weights):
    path = weights("learned at every layer")
    assert load_start(path, ModelSection(dropout=0.1), OLD, 3).stored.model.config.dropout == 0.1
    with pytest.raises(InputError, match="patch dropout needs positions given at the stem; position_site must be"):
        load_start(path, ModelSection(patch_dropout=0.1), OLD, 3)


@pytest.mark.parametrize("has", [True, False])
def test_a_mask_token_is_dropped_unless_it_is_needed(has, weights):
    path = weights(mask_token=has)
    old = load_checkpoint(path).model
    assert load_start(path, PLAIN, OLD, 3).stored.model.mask_token is None

    start = load_start(path, PLAIN, (), 3, mask_token=True)
    new = start.stored.model
    assert (new.config.num_classes, new.head.classifier, start.stored.class_names) == (0, None, None)
    assert new.mask_token.requires_grad
    assert torch.equal(new.mask_token, old.mask_token if has else torch.zeros(1, 1, 48))
    assert new.mask_token.any() == has
    hidden = torch.rand(3, 16) < 0.5
    new.embed(torch.randn(3, 3, 32, 32), hidden).sum().backward()
    assert new.mask_token.grad.any()


def test_missing_weights_are_an_error(tmp_path):
    with pytest.raises(InputError, match="there is no model at"):
        load_start(str(tmp_path / "none"), PLAIN, OLD, 3)
    with pytest.raises(InputError, match="is a model variant, not weights"):
        load_start("S/16", PLAIN, OLD, 3)
