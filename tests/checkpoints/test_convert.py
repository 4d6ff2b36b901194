"""From every family to every other, by way of ours: the same function, or a refusal that names what is lacking."""

from collections.abc import Iterator

import pytest
import torch

from tests.checkpoints.peers import EQUAL, images_of, is_varied
from tests.model.models import SWITCHES, small_model
from vitreous.checkpoints.convert import FAMILIES, OURS, Beside, read_model, recognize
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.support.errors import InputError

# What the switches are combined with, so that every family holds some.
FLAVORS = (
    {"gelu": "tanh"},
    {"gelu": "tanh", "num_classes": 0},
    {"gelu": "exact"},
    {"gelu": "exact", "num_classes": 0},
    {"gelu": "exact", "norm_eps": 1e-12},
    {"gelu": "exact", "num_classes": 0, "layer_scale": 0.1},
    {"gelu": "quick", "norm_eps": 1e-5},
)
MOST = 8  # models of each family, of different switches


def stored(model) -> StoredModel:
    channels = model.config.channels if model.config.channels in (1, 3) else 3
    half = (0.5,) * channels
    return StoredModel(model, Preprocessing(model.config.image_size, mean=half, std=half, channels=channels))


def samples(family) -> Iterator[StoredModel]:
    """Models that the family holds, of as many switches as there are, each in the first flavor that it holds."""
    found = 0
    for switch in SWITCHES:
        for flavor in FLAVORS:
            model = small_model(switch, **{**flavor, **SWITCHES[switch]} if "gelu" in SWITCHES[switch] else flavor)
            if not family.lacking(model.config):
                yield stored(model)
                found += 1
                break
        if found == MOST:
            return


def again(read: StoredModel, name: str, folder) -> StoredModel:
    """Writes a model as a file of a family and reads it back, told what no file of that family says."""
    c = read.model.config
    kind = FAMILIES[name].kinds[0]
    path = folder / f"{name}{ {'safetensors': '.safetensors', 'npz': '.npz', 'pickle': '.pth'}[kind] }"
    export_model(read, name, path, overwrite=True)
    fields = {"num_heads": c.num_heads, "norm_eps": c.norm_eps, "pooling": c.pooling, "image_size": c.image_size}
    if c.mlp == "mlp":
        fields["gelu"] = c.gelu
    return read_model(path, Beside(family=name, fields=fields))


@pytest.mark.parametrize("source", FAMILIES)
def test_every_family_goes_to_every_other_or_says_what_is_lacking(source, tmp_path):
    held = dict.fromkeys(FAMILIES, 0)
    for sample in samples(FAMILIES[source]):
        read = again(sample, source, tmp_path)
        images = images_of(read.model.config)
        with torch.no_grad():
            expected = sample.model(images)
            assert is_varied(expected)
            assert (read.model(images) - expected).abs().max() < EQUAL
        for target, family in FAMILIES.items():
            lacking = family.lacking(read.model.config)
            if lacking:
                with pytest.raises(InputError) as caught:
                    export_model(read, target, tmp_path / "refused")
                assert all(words in str(caught.value) for words in lacking)
                assert not (tmp_path / "refused").exists()
                continue
            held[target] += 1
            with torch.no_grad():
                found = again(read, target, tmp_path).model(images)
            assert (found - expected).abs().max() < EQUAL, (source, target, read.model.config)
    assert held[source] > 0
    assert sum(count > 0 for count in held.values()) > 1, "it goes to no other family at all"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_recognises_its_own_files(name, tmp_path):
    for sample in samples(FAMILIES[name]):
        report = export_model(sample, name, tmp_path / "folder", overwrite=True)
        read = load_checkpoint(report.files[0], family=None, num_heads=sample.model.config.num_heads)
        # timm's keys are those of some of Meta's files; big_vision's of some of Google's and SigLIP's.
        assert read.metadata["family"] in ALIKE.get(name, {name}), sample.model.config


ALIKE = {
    "deit": {"deit", "mae"},
    "dino": {"dino", "timm"},
    "mae": {"mae", "deit"},
    "big_vision": {"big_vision", "siglip"},
    "dinov2": {"dinov2"},
    "google": {"google", "big_vision"},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_ours_keeps_the_spelling_of_the_file_it_came_from(name, tmp_path):
    """A foreign file, saved as ours, goes out again as it came."""
    sample = next(samples(FAMILIES[name]))
    read = again(sample, name, tmp_path)
    export_model(read, OURS, tmp_path / "ours.safetensors")
    kept = load_checkpoint(tmp_path / "ours.safetensors")
    assert kept.metadata["family"] == name
    suffix = next(path for path in tmp_path.iterdir() if path.stem == name).suffix
    export_model(kept, name, tmp_path / f"out{suffix}")
    assert (tmp_path / f"out{suffix}").read_bytes() == (tmp_path / f"{name}{suffix}").read_bytes()


@pytest.mark.parametrize(
    "dialect", [{}, 3, {"prefix": 3}, {"prefix": "", "scales": []}, {"prefix": "", "rows": [1]}, {"prefix": None}]
)
def test_a_header_with_a_broken_spelling_is_refused(dialect, tmp_path):
    sample = stored(small_model("exact GELU"))
    broken = StoredModel(sample.model, sample.preprocessing, None, {"family": "timm", "dialect": dialect})
    with pytest.raises(InputError, match="--plain"):
        export_model(broken, "timm", tmp_path / "m.safetensors")
    export_model(broken, "timm", tmp_path / "m.safetensors", plain=True)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, "holds no tensors"),
        ({"to_patch_embedding.1.weight": (8,), "cls_token": (1, 1, 8)}, "is of vit-pytorch, whose ViT has other norms"),
        ({"layer1.0.conv1.weight": (8,)}, "is of no family that is known"),
    ],
)
def test_what_is_of_no_family_is_refused(keys, told):
    with pytest.raises(InputError) as caught:
        recognize(keys, "m.pth")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_nearest_family_is_named_with_what_it_lacks():
    keys = {"conv_proj.weight": (8, 3, 4, 4), "class_token": (1, 1, 8), "encoder.pos_embedding": (1, 5, 8), "x": (1,)}
    with pytest.raises(InputError, match=r"tried .*timm.*nearest is torchvision, whose files have encoder.layers"):
        recognize(keys, "m.pth")
