"""Names to local files, with a hub on loopback."""

import hashlib
import json
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, constants
from PIL import Image
from safetensors.torch import save
from torchvision.models import ViT_B_16_Weights, ViT_L_16_Weights

from tests.hub_server import TOKEN, hub_of_client, use_addresses_of
from vitreous.checkpoints.files.layout import read_json
from vitreous.checkpoints.sources import download, hub
from vitreous.checkpoints.sources.hub import fetch, is_remote, push
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError
from vitreous.support.files import cache_folder

WEIGHTS = save({"a": torch.arange(2000, dtype=torch.float32)})
CONFIG = {"architecture": "vit_tiny_patch16_224", "num_classes": 3}


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The hub that huggingface_hub talks to, with an empty cache."""
    with hub_of_client(monkeypatch, tmp_path) as running:
        yield running


def weights_of(fetched: hub.Located) -> bytes:
    return fetched.path.read_bytes()


def test_remote_names():
    for name in ("hf:a/b", "timm:a.b", "torchvision:vit_b_16", "google:a", "meta:a", "https://a/b.npz", "http://a/b"):
        assert is_remote(name), name
    for name in ("runs/photos", "B/16", "model.npz", "https:a", "ftp://a/b", "hf", r"C:\model.npz", ""):
        assert not is_remote(name), name
    with pytest.raises(InputError, match="is not a remote name"):
        fetch("ftp://host/file.npz")


def test_a_repository_is_fetched_with_its_configs(server, capsys):
    preprocessor = {"size": 224}
    files = {"model.safetensors": WEIGHTS, "config.json": json.dumps(CONFIG).encode(), "other.bin": b"x"}
    made = server.add("me/vit", files | {"preprocessor_config.json": json.dumps(preprocessor).encode()})
    fetched = fetch("hf:me/vit")
    assert weights_of(fetched) == WEIGHTS
    assert fetched.source == f"hf:me/vit@{made.refs['main']}"
    assert fetched.json_files() == (CONFIG, preprocessor)
    assert fetched.license == "apache-2.0"
    assert (fetched.family, fetched.fields) == (None, {})
    assert capsys.readouterr().err == "hf:me/vit: 8.07 kB, license apache-2.0\n"
    assert "other.bin" not in server.fetched()


def test_cached_weights_are_not_downloaded_again_and_work_offline(server, monkeypatch, capsys):
    server.add("me/vit", {"model.safetensors": WEIGHTS, "config.json": b'{"a": 1}'})
    first = fetch("hf:me/vit")
    server.requests.clear()
    capsys.readouterr()
    assert fetch("hf:me/vit") == first
    assert server.fetched() == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    offline = fetch("hf:me/vit")
    assert (offline.path, offline.source) == (first.path, first.source)
    assert offline.json_files() == ({"a": 1}, {})
    assert fetch(first.source).path == first.path
    assert server.requests == []
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match=r"hf:me/other is not in .*hub, and HF_HUB_OFFLINE is set; .*path of a copy"):
        fetch("hf:me/other")


def test_without_a_network_the_cache_is_used(server, monkeypatch):
    server.add("me/vit", {"model.safetensors": WEIGHTS})
    first = fetch("hf:me/vit")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert fetch("hf:me/vit").path == first.path
    with pytest.raises(
        InputError, match=r"^cannot reach http://127.0.0.1:9 for hf:me/other \(ConnectError\); give the"
    ):
        fetch("hf:me/other")


def test_a_revision_is_a_branch_a_commit_or_a_pull_request(server):
    made = server.add("me/vit", {"model.safetensors": WEIGHTS})
    newer = save({"a": torch.ones(3)})
    old = made.refs["main"]
    made.refs["refs/pr/1"] = made.commit({"model.safetensors": newer})
    assert weights_of(fetch("hf:me/vit")) == newer
    assert weights_of(fetch(f"hf:me/vit@{old}")) == WEIGHTS
    assert weights_of(fetch("hf:me/vit@refs/pr/1")) == newer
    with pytest.raises(InputError, match="hf:me/vit@v2 has no such revision"):
        fetch("hf:me/vit@v2")


def test_sharded_weights_are_downloaded_completely(server, monkeypatch, capsys):
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    shards = {name: save({key: torch.ones(100)}) for key, name in weight_map.items()}
    index = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    made = server.add("me/large", shards | {"model.safetensors.index.json": index, "model.bin": b"old"})
    fetched = fetch("hf:me/large")
    assert fetched.path.name == "model.safetensors.index.json"
    assert {name: (fetched.path.parent / name).read_bytes() for name in shards} == shards
    assert capsys.readouterr().err.startswith(f"hf:me/large: {sum(map(len, shards.values()))} bytes")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("hf:me/large").path == fetched.path
    (fetched.path.parent / weight_map["b"]).unlink()
    with pytest.raises(InputError, match=r"hf:me/large lacks model-00002-of-00002.safetensors"):
        fetch("hf:me/large")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for hostile in ("../../model-00001.safetensors", "sub/a.safetensors", "a\\b.safetensors", 3, "config.json"):
        made.commit({"model.safetensors.index.json": json.dumps({"weight_map": {"a": hostile}}).encode()})
        with pytest.raises(InputError, match="names shards that are not weights in its own folder"):
            fetch("hf:me/large")
    made.commit({"model.safetensors.index.json": b'{"weight_map": {"a": "b.safetensors"}}'})
    with pytest.raises(InputError, match=r"lacks b.safetensors, listed in model.safetensors.index.json"):
        fetch("hf:me/large")


def test_the_weights_file_is_chosen_by_name_or_if_it_is_the_only_one():
    for files, chosen in (
        (["pytorch_model.bin", "model.safetensors", "x.npz"], "model.safetensors"),
        (["training_args.bin", "pytorch_model.bin.index.json"], "pytorch_model.bin.index.json"),
        (["README.md", "B_16.npz"], "B_16.npz"),
    ):
        assert hub.choose(files, "hf:a/b", "a/b") == chosen
    with pytest.raises(InputError, match=r"hf:a/b has no weights file \(\.safetensors"):
        hub.choose(["README.md"], "hf:a/b", "a/b")
    with pytest.raises(InputError, match=r"2 weights files .*; choose from hf:a/b/sub/x.npz@v1, hf:a/b/y.npz@v1"):
        hub.choose(["y.npz", "sub/x.npz"], "hf:a/b@v1", "a/b")


def test_the_hint_for_a_timm_repository_can_be_fetched(server):
    server.add("timm/two", {"a.safetensors": WEIGHTS, "b.safetensors": save({"b": torch.ones(2)})})
    with pytest.raises(InputError) as caught:
        fetch("timm:two@main")
    first, _ = caught.value.hint.removeprefix("choose from ").split(", ")
    assert first == "hf:timm/two/a.safetensors@main"
    assert weights_of(fetch(first)) == WEIGHTS


def test_a_config_is_that_of_the_files_own_folder(server):
    root = {"model.safetensors": WEIGHTS, "config.json": b'{"a": 1}', "preprocessor_config.json": b"{}"}
    server.add("me/many", root | {"sub/x.safetensors": WEIGHTS, "sub/config.json": b'{"a": 2}', "bare/x.npz": WEIGHTS})
    deep, bare = fetch("hf:me/many/sub/x.safetensors"), fetch("hf:me/many/bare/x.npz")
    assert deep.json_files() == ({"a": 2}, {})
    assert bare.json_files() == ({}, {})
    assert fetch("hf:me/many/model.safetensors").json_files() == ({"a": 1}, {})


def test_one_file_of_many_is_named(server):
    made = server.add("me/many", {"a.npz": b"first", "sub/b.npz": b"second"})
    fetched = fetch("hf:me/many/sub/b.npz@main")
    assert weights_of(fetched) == b"second"
    assert fetched.source == f"hf:me/many/sub/b.npz@{made.refs['main']}"
    with pytest.raises(InputError, match=r"there is no file in hf:me/many 'c.npz'"):
        fetch("hf:me/many/c.npz")


def test_a_private_repository_needs_its_token(server, monkeypatch):
    server.add("me/secret", {"model.safetensors": WEIGHTS}, private=True)
    with pytest.raises(InputError, match=r"has no me/secret: it does not exist or is private; .*HF_TOKEN"):
        fetch("hf:me/secret")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert weights_of(fetch("hf:me/secret")) == WEIGHTS


def test_the_hint_for_a_gated_repository_is_the_url_of_its_terms(server):
    server.add("me/gated", {"model.safetensors": WEIGHTS}, gated=True)
    with pytest.raises(InputError, match=r"accept its terms at http://127.0.0.1:\d+/me/gated, then log in"):
        fetch("hf:me/gated")


@pytest.mark.parametrize("name", ["hf:vit", "hf:", "hf:/b", "hf:a/b c", "hf:../..", "timm:a/b", "timm:"])
def test_an_invalid_repository_name_is_refused(server, name):
    with pytest.raises(InputError, match=r"is not a repository|is not a timm model|is not a valid repository name"):
        fetch(name)
    assert server.requests == []


def test_broken_configs_are_refused(tmp_path):
    for content in (b"[]", b"{", b"[" * 100_000, b"\xff"):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(InputError, match=r"config.json' is not (a )?JSON"):
            read_json(tmp_path / "config.json")


def test_an_interrupted_download_leaves_no_file_and_can_be_repeated(server, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # huggingface_hub waits between its attempts
    server.add("me/vit", {"model.safetensors": WEIGHTS})
    server.cut = 0
    with pytest.raises(InputError, match=r"cannot reach http.* for hf:me/vit"):
        fetch("hf:me/vit")
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.safetensors"))
    server.cut = None
    assert weights_of(fetch("hf:me/vit")) == WEIGHTS


def test_a_timm_name_is_a_repository_of_timm(server, capsys):
    name = "timm:vit_base_patch16_224.augreg2_in21k_ft_in1k"
    made = server.add("timm/vit_base_patch16_224.augreg2_in21k_ft_in1k", {"model.safetensors": WEIGHTS}, card={})
    fetched = fetch(name)
    assert weights_of(fetched) == WEIGHTS
    assert fetched.source == f"{name}@{made.refs['main']}"
    assert (fetched.family, fetched.license) == ("timm", "Apache-2.0")  # the card has none, our table does
    assert fetched.fields == {"num_heads": 12, "image_size": (224, 224)}
    assert capsys.readouterr().err == f"{name}: 8.07 kB, license Apache-2.0\n"
    with pytest.raises(InputError, match=f"did you mean '{name}'"):
        fetch("timm:vit_base_patch16_224.augreg2_in21k_ft_in1")


def test_google_and_meta_names_come_from_the_table(server, monkeypatch, tmp_path, capsys):
    use_addresses_of(server, monkeypatch)
    server.pages["/storage.googleapis.com/vit_models/imagenet21k+imagenet2012/ViT-B_16.npz"] = b"google's"
    server.pages["/dl.fbaipublicfiles.com/dinov2/dinov2_vitg14/dinov2_vitg14_reg4_pretrain.pth"] = b"meta's"
    google = fetch("google:imagenet21k+imagenet2012/ViT-B_16")
    assert (weights_of(google), google.family, google.license) == (b"google's", "google", "Apache-2.0")
    assert google.path == tmp_path / "cache/vitreous/google/imagenet21k+imagenet2012/ViT-B_16.npz"
    meta = fetch("meta:dinov2_vitg14_reg")
    assert (weights_of(meta), meta.family, meta.source) == (b"meta's", "dinov2", "meta:dinov2_vitg14_reg")
    assert meta.fields == {"num_heads": 24, "image_size": (518, 518)}
    assert capsys.readouterr().err.splitlines()[1] == "meta:dinov2_vitg14_reg: 6 bytes, license Apache-2.0"
    server.requests.clear()
    assert fetch("google:imagenet21k+imagenet2012/ViT-B_16") == google
    assert server.requests == []


def test_published_checksums_are_checked(server, monkeypatch):
    use_addresses_of(server, monkeypatch)
    server.pages["/dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth"] = b"not the right one"
    with pytest.raises(InputError, match=r"mae_pretrain_vit_base.pth does not match its checksum: md5 .* 8cad7c"):
        fetch("meta:mae_pretrain_vit_base")
    assert not list(cache_folder().rglob("*.*"))


def test_a_misspelt_name_suggests_the_nearest(server):
    with pytest.raises(InputError, match=r"there are no weights 'google:ViT-B16'; did you mean 'google:ViT-B_16'\?"):
        fetch("google:ViT-B16")
    with pytest.raises(InputError, match=r"did you mean 'meta:dinov2_vitb14'\?"):
        fetch("meta:dinov2_vitb_14")
    with pytest.raises(InputError, match=r"`vitreous list models` shows the names"):
        fetch("meta:qqqqqq")
    with pytest.raises(InputError, match=r"there is no torchvision ViT 'vit_b_61'; did you mean 'vit_b_16'\?"):
        fetch("torchvision:vit_b_61")
    with pytest.raises(InputError, match=r"no weights of torchvision:vit_b_16 'IMAGENET'; .*IMAGENET1K_SWAG_E2E_V1"):
        fetch("torchvision:vit_b_16.IMAGENET")


def test_torchvisions_weights_come_with_classes_and_preprocessing(server, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    use_addresses_of(server, monkeypatch)
    monkeypatch.setattr(download, "has_checksum", lambda path, checksum: True)
    path = tmp_path / "torch/hub/checkpoints/vit_h_14_swag-80465313.pth"
    server.pages["/download.pytorch.org/models/vit_h_14_swag-80465313.pth"] = WEIGHTS
    with pytest.raises(InputError, match="does not match its checksum: sha256 must begin with 80465313"):
        fetch("torchvision:vit_h_14")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(WEIGHTS)
    fetched = fetch("torchvision:vit_h_14")
    assert (fetched.path, fetched.source) == (path, "torchvision:vit_h_14.IMAGENET1K_SWAG_E2E_V1")
    assert (fetched.family, fetched.license) == ("torchvision", "CC-BY-NC-4.0")
    assert fetched.fields == {"num_heads": 16, "image_size": (518, 518)}
    assert fetched.class_names is not None
    assert (len(fetched.class_names), fetched.class_names[0]) == (1000, "tench")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert fetched.preprocessing == Preprocessing((518, 518), "crop", 1.0, "bicubic", True, mean, std)


def test_torchvisions_transforms_are_ours(server, tmp_path, monkeypatch):
    pixels = torch.randint(0, 256, (200, 333, 3), dtype=torch.uint8).numpy()
    image = Image.fromarray(pixels)
    for weights in (*ViT_B_16_Weights, *ViT_L_16_Weights):
        theirs = weights.transforms()
        difference = (hub._transforms(theirs)([image])[0] - theirs(image)).abs().max()
        assert difference < 1e-5, weights


def test_an_address_needs_its_checksum(server, tmp_path):
    server.pages["/a/B_16.npz"] = WEIGHTS
    digits = hashlib.sha256(WEIGHTS).hexdigest()
    fetched = fetch(f"{server.address}/a/B_16.npz#sha256={digits.upper()}")
    assert fetched.path == tmp_path / f"cache/vitreous/sha256/{digits}.npz"
    assert (weights_of(fetched), fetched.source) == (WEIGHTS, f"{server.address}/a/B_16.npz#sha256={digits}")
    signed = fetch(f"{server.address}/a/B_16.npz?signature=mine#sha256={digits}")
    assert (signed.path, signed.source) == (fetched.path, fetched.source), "the published source has no signature"
    for fragment in ("", "#", "#sha256=abc", f"#md5={digits}"):
        with pytest.raises(InputError, match=r"has no checksum; append #sha256= and the 64 hex"):
            fetch(f"{server.address}/a/B_16.npz{fragment}")
    with pytest.raises(InputError, match="is not encrypted; give an https address"):
        fetch(f"http://example.org/B_16.npz#sha256={digits}")


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's call of its own client
def test_a_pushed_folder_can_be_fetched(server, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (folder / "sub/note.txt").write_text("deep")
    with pytest.raises(InputError, match=r"answered 401 for hf:me/new; log in with `hf auth login` or set HF_TOKEN"):
        push(folder, "me/new", message="first")
    assert server.repositories == {}
    url = push(folder, "me/new", private=True, token=TOKEN, message="first")
    assert url == f"{server.address}/me/new"
    made = server.repositories["me/new"]
    assert (made.private, made.messages) == (True, ["", "first"])  # the hub's own, then one for all files
    assert made.commits[made.refs["main"]]["sub/note.txt"] == b"deep"
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetched = fetch("hf:me/new")
    assert (weights_of(fetched), fetched.json_files()) == (WEIGHTS, ({"a": 1}, {}))
    (folder / "config.json").write_text('{"a": 2}')
    assert push(folder, "me/new", message="second") == url
    assert fetch("hf:me/new").json_files() == ({"a": 2}, {})
    with pytest.raises(InputError, match="there are no files in"):
        push(tmp_path / "nothing", "me/new", message="third")
    with pytest.raises(InputError, match="is not a valid repository name"):
        push(folder, "a/b/c", message="third")


def test_a_broken_upload_is_one_line(server, tmp_path, monkeypatch):
    def breaks(*arguments, **options):
        raise RuntimeError("Error while uploading 'model.safetensors' to the Hub.")

    monkeypatch.setattr(HfApi, "create_commit", breaks)
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    with pytest.raises(InputError, match=r"^hf:me/new: Error while uploading 'model.safetensors' .*; try again"):
        push(tmp_path, "me/new", token=TOKEN, message="first")


def test_the_environment_of_the_hubs_client_is_honored(server, tmp_path, fresh_process):
    server.add("me/secret", {"model.safetensors": WEIGHTS}, private=True)
    code = "from vitreous.checkpoints.sources.hub import fetch; print(fetch('hf:me/secret').path)"
    environment = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    result = fresh_process(code, environment=environment | {"HF_TOKEN": TOKEN})
    assert result.stderr == "hf:me/secret: 8.07 kB, license apache-2.0\n"  # and no bar, without a terminal
    assert Path(result.stdout.strip()).read_bytes() == WEIGHTS
    assert (tmp_path / "home") in Path(result.stdout.strip()).parents
