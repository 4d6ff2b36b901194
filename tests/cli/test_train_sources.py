"""`vitreous train` on published sets, in processes of its own, with a process that loads the images."""

import json

import pytest

from tests.data.sources.published.making_sets import MAKERS
from tests.data.sources.published.test_hub_sets import parquet
from tests.data.sources.published.test_shards import folder_of
from tests.hub_server import hub_server

SETTINGS = ["epochs=1", "warmup_epochs=0", "image_size=16", "patch_size=8", "batch_size=4", "workers=1"]


def train(vitreous_process, source, folder, **environment):
    """Trains for an epoch; returns what the run recorded of its data."""
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    environment |= {"XDG_CACHE_HOME": str(folder / "cache"), "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1"}
    arguments = ["train", source, "--model", "Ti/16", "--init", "random", *words, "--out", "run"]
    result = vitreous_process(*arguments, folder=folder, environment=environment)
    assert result.returncode == 0, result.stderr
    assert (folder / "run" / "model.safetensors").is_file()
    return json.loads((folder / "run" / "environment.json").read_text())


@pytest.mark.parametrize("name", ["mnist", "dtd"])
def test_a_named_set_trains(name, vitreous_process, tmp_path):
    MAKERS[name](tmp_path / "cache" / "vitreous" / "data" / name)
    facts = train(vitreous_process, name, tmp_path)
    assert (facts["data"], len(facts["classes"])) == (name, 3)
    expected = (
        {"train": 9, "validation": 3, "test": 6} if name == "mnist" else {"train": 12, "validation": 6, "test": 6}
    )
    assert facts["images"] == expected


def test_shards_train(vitreous_process, tmp_path):
    folder_of(tmp_path / "shards", "train-000.tar", "train-001.tar", "val-000.tar")
    facts = train(vitreous_process, "shards/{train-{000..001},val-000}.tar", tmp_path)
    assert facts["images"] == {"train": 24, "validation": 12}


def test_a_set_of_the_hub_trains(vitreous_process, tmp_path):
    with hub_server() as hub:
        hub.add("datasets/me/photos", {"train.parquet": parquet([0, 1, 2] * 4), "test.parquet": parquet([0, 1, 2])})
        facts = train(vitreous_process, "hf:me/photos", tmp_path, HF_ENDPOINT=hub.address)
    assert facts["classes"] == ["zebra", "ant", "bee"]
    assert facts["images"] == {"train": 9, "validation": 3, "test": 3}
