"""From every family to every other through ours: the same function, or an error that names what is unsupported."""

from collections.abc import Iterator

import pytest
import torch

from tests.checkpoints.peers import EQUAL, images_of, is_varied
from tests.model.models import SWITCHES, small_model
from vitreous.checkpoints.export import SUFFIXES, export_model
from vitreous.checkpoints.families.recognize import FAMILIES, OURS
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
    {"gelu": "exact", "norm_eps": 1e-5, "num_classes": 0, "layer_scale": 0.1},
)
MOST = 8  # models of each family, of different switches


def stored(model) -> StoredModel:
    channels = model.config.channels if model.config.channels in (1, 3) else 3
    half = (0.5,) * channels
    return StoredModel(model, Preprocessing(model.config.image_size, mean=half, std=half, channels=channels))


def samples(family) -> Iterator[StoredModel]:
    """Models that the family holds, one per switch, each in the first flavor that it holds."""
    count = 0
    for switch in SWITCHES:
        for flavor in FLAVORS:
            model = small_model(switch, **{**flavor, **SWITCHES[switch]} if "gelu" in SWITCHES[switch] else flavor)
            if not family.unsupported(model.config):
                yield stored(model)
                count += 1
                break
        if count == MOST:
            return


def round_trip(model: StoredModel, name: str, folder) -> StoredModel:
    """Writes a model as a file of a family and reads it back, given what no file of that family records."""
    c = model.model.config
    path = folder / f"{name}{SUFFIXES[FAMILIES[name].kinds[0]]}"
    export_model(model, name, path, overwrite=True)
    fields = {"num_heads": c.num_heads, "norm_eps": c.norm_eps, "pooling": c.pooling, "image_size": c.image_size}
    if c.mlp == "mlp":
        fields["gelu"] = c.gelu
    return load_checkpoint(path, family=name, **fields)


@pytest.mark.parametrize("source", FAMILIES)
def test_every_family_converts_to_every_other_or_names_what_is_unsupported(source, tmp_path):
    held = dict.fromkeys(FAMILIES, 0)
    for sample in samples(FAMILIES[source]):
        model = round_trip(sample, source, tmp_path)
        images = images_of(model.model.config)
        with torch.no_grad():
            expected = sample.model(images)
            assert is_varied(expected)
            assert (model.model(images) - expected).abs().max() < EQUAL
        for target, family in FAMILIES.items():
            if unsupported := family.unsupported(model.model.config):
                with pytest.raises(InputError) as caught:
                    export_model(model, target, tmp_path / "refused")
                assert all(part in str(caught.value) for part in unsupported)
                assert not (tmp_path / "refused").exists()
                continue
            held[target] += 1
            with torch.no_grad():
                outputs = round_trip(model, target, tmp_path).model(images)
            assert (outputs - expected).abs().max() < EQUAL, (source, target, model.model.config)
    assert held[source] > 0
    assert sum(count > 0 for count in held.values()) > 1, "it converts to no other family at all"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_is_the_same_after_a_detour_through_ours(name, tmp_path):
    model = round_trip(next(samples(FAMILIES[name])), name, tmp_path)
    [path] = tmp_path.iterdir()
    export_model(model, OURS, tmp_path / "ours.safetensors")
    kept = load_checkpoint(tmp_path / "ours.safetensors")
    assert kept.metadata["family"] == name
    export_model(kept, name, tmp_path / f"out{path.suffix}")
    assert (tmp_path / f"out{path.suffix}").read_bytes() == path.read_bytes()
