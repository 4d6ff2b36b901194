"""Data sets of the hub are read by the real library from a hub on loopback."""

import io
import pickle

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.hub_server import hub_of_client
from vitreous.checkpoints.sources.hub import fetch
from vitreous.data.decoding.images import BadImage
from vitreous.data.sources.open import open_data
from vitreous.support.errors import InputError

LEVELS = (40, 110, 180)
CLASSES = ["zebra", "ant", "bee"]


def png(level):
    file = io.BytesIO()
    Image.new("RGB", (12, 10), (level,) * 3).save(file, "PNG")
    return file.getvalue()


def parquet(labels, *, feature=None, column="label", **columns):
    """The bytes of a Parquet file as `datasets` writes it."""
    table = datasets.Dataset.from_dict(
        {
            "image": [
                {"bytes": png(LEVELS[max(int(str(label or 0).strip("c")), 0)]), "path": None} for label in labels
            ],
            column: list(labels),
            **columns,
        },
        features=datasets.Features(
            {
                "image": datasets.Image(),
                column: feature or datasets.ClassLabel(names=CLASSES),
                **dict.fromkeys(columns, datasets.ClassLabel(names=["some", "other"])),
            }
        ),
    )
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with hub_of_client(monkeypatch, tmp_path) as server:
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.address)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
        monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
        yield server


def add(hub, name="me/photos", **files):
    files = files or {
        "data/train-00000-of-00001.parquet": parquet([0, 1, 2] * 4),
        "data/test-00000-of-00001.parquet": parquet([0, 1, 2] * 2),
    }
    return hub.add(f"datasets/{name}", {"README.md": b"# photos\n"} | files)


def check(data, levels):
    """Every image has the level of its class."""
    for split in data.splits:
        load = pickle.loads(pickle.dumps(split.load))
        for place, label in enumerate(split.labels.tolist()):
            assert np.asarray(load(place)).mean() == levels[data.class_names[label]]
            assert load.size(place) == (10, 12)
            assert load.content(place) == png(levels[data.class_names[label]])


def line(source):
    with pytest.raises(InputError) as error:
        open_data(source)
    assert str(error.value).isprintable()
    return str(error.value)


def test_splits_classes_and_images_are_the_publishers(hub):
    commit = add(hub).refs["main"]
    data = open_data("hf:me/photos")
    assert data.class_names == tuple(CLASSES), "in the order of the publisher"
    check(data, dict(zip(CLASSES, LEVELS, strict=True)))
    assert {split.name: len(split) for split in data.splits} == {"train": 9, "validation": 3, "test": 6}
    assert f"me/photos at commit {commit}" in data.notes
    assert open_data(f"hf:datasets/me/photos@{commit}").train.names == data.train.names


def test_nothing_is_printed_and_nothing_is_downloaded_twice(hub, capfd):
    add(hub)
    open_data("hf:me/photos")
    files = [name for name in hub.fetched() if name.endswith(".parquet")]
    capfd.readouterr()
    open_data("hf:me/photos")
    assert [name for name in hub.fetched() if name.endswith(".parquet")] == files
    assert capfd.readouterr() == ("", "")


def test_images_stay_in_files(hub):
    add(hub)
    loader = open_data("hf:me/photos").train.load
    assert loader.table.cache_files, "mapped into memory"
    assert loader.table.column_names == ["image"]
    assert isinstance(loader.table.features["image"], datasets.Image)
    assert not loader.table.features["image"].decode


def test_without_a_network_the_cached_copy_is_used(hub, monkeypatch):
    commit = add(hub).refs["main"]
    before = open_data("hf:me/photos")
    hub.repositories["datasets/me/photos"].commit({"more.txt": b""})
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
    after = open_data("hf:me/photos")
    assert after.train.names == before.train.names
    assert f"me/photos at commit {commit}" in after.notes
    assert open_data(f"hf:me/photos@{commit}").notes == after.notes
    assert f"not at {'0' * 40}; connect" in line(f"hf:me/photos@{'0' * 40}")
    assert "cannot reach http://127.0.0.1:9 for hf:me/other" in line("hf:me/other")


def test_a_revision_and_a_configuration_can_be_chosen(hub):
    card = b"""---
configs:
- config_name: small
  data_files: small/*.parquet
- config_name: large
  data_files: large/*.parquet
---
"""
    files = {
        "README.md": card,
        "small/train.parquet": parquet([0, 1] * 4),
        "large/train.parquet": parquet([0, 1, 2] * 4),
    }
    old = add(hub, **files).refs["main"]
    hub.repositories["datasets/me/photos"].commit({"small/train.parquet": parquet([1, 2] * 5)})
    assert "from: small, large" in line("hf:me/photos")
    assert "has no configuration 'huge'" in line("hf:me/photos:huge")
    assert open_data("hf:me/photos:large").class_names == tuple(CLASSES)
    assert open_data("hf:me/photos:small").class_names == ("ant", "bee")
    assert open_data(f"hf:me/photos@{old}:small").class_names == ("zebra", "ant")
    assert "no such revision" in line("hf:me/photos@v9:small")


def test_one_of_several_label_columns_is_used_and_named(hub):
    content = parquet([0, 1, 2] * 4, column="fine_label", coarse=[0, 1, 0] * 4)
    add(hub, **{"train.parquet": content})
    data = open_data("hf:me/photos")
    assert data.class_names == tuple(CLASSES)
    assert "the column 'fine_label' is used, and not 'coarse'" in data.notes


@pytest.mark.parametrize("kind", ["string", "int64"])
def test_labels_may_be_texts_or_numbers(hub, kind):
    labels = ["c2", "c0", "c1"] * 4 if kind == "string" else [2, 0, 1] * 4
    add(hub, **{"train.parquet": parquet(labels, feature=datasets.Value(kind))})
    data = open_data("hf:me/photos")
    names = ("c0", "c1", "c2") if kind == "string" else ("0", "1", "2")
    assert data.class_names == names
    check(data, dict(zip(names, LEVELS, strict=True)))


def test_unlabeled_rows_and_other_splits_are_named(hub):
    add(
        hub,
        **{
            "data/train-00000-of-00001.parquet": parquet([0, 1, 2, -1, None] * 4),
            "data/test-00000-of-00001.parquet": parquet([-1] * 5),
            "data/extra-00000-of-00001.parquet": parquet([0, 1]),
        },
    )
    data = open_data("hf:me/photos")
    assert data.test is None
    assert len(data.train) + len(data.validation) == 12
    assert "8 of 20 images of train have no label and are not used" in data.notes
    assert "5 of 5 images of test have no label and are not used" in data.notes
    assert "the split 'extra' with 2 rows is not used" in data.notes


def test_a_repository_of_image_files_is_read_too(hub):
    files = {f"{split}/{name}/{n}.png": png(LEVELS[c]) for c, name in enumerate(sorted(CLASSES)) for n in range(4)
             for split in ("train", "test")}  # fmt: skip
    add(hub, **files)
    data = open_data("hf:me/photos")
    assert data.class_names == ("ant", "bee", "zebra")
    check(data, dict(zip(data.class_names, LEVELS, strict=True)))


def test_a_path_in_a_table_opens_no_file_of_this_machine(hub, tmp_path):
    (tmp_path / "mine.png").write_bytes(png(40))
    table = pq.read_table(io.BytesIO(parquet([0, 1] * 4)))
    images = table.column("image").to_pylist()
    images[0] = {"bytes": None, "path": str(tmp_path / "mine.png")}
    table = table.set_column(0, table.schema.field("image"), pa.array(images, table.schema.field("image").type))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    add(hub, **{"train.parquet": buffer.getvalue()})
    data = open_data("hf:me/photos")
    paths = [
        (split, place) for split in data.splits for place, name in enumerate(split.names) if name == "train/0000000"
    ]
    assert len(paths) == 1
    split, place = paths[0]
    with pytest.raises(BadImage, match="is not in the data set"):
        split.load(place)


def test_what_cannot_be_opened_is_one_line(hub):
    hub.add("me/weights", {"model.safetensors": b""})
    assert "that is weights: give images as DATA" in line("hf:me/weights")
    assert "does not exist or is private; check the name" in line("hf:me/none")
    add(hub, "me/texts", **{"data.csv": b"a,b\n1,2\n"})
    assert "has no column of images, but a (Value), b (Value)" in line("hf:me/texts")
    add(hub, "me/plain", **{"train/0.png": png(9)})
    assert "has no column of class labels, but image (Image)" in line("hf:me/plain")
    add(hub, "me/code", **{"code.py": b"raise SystemExit"})
    assert "refs/convert/parquet" in line("hf:me/code")
    add(hub, "me/gated").gated = True
    hub.repositories["datasets/me/gated"].private = True
    assert "log in with `hf auth login`" in line("hf:me/gated")
    for wrong in ("hf:name", "hf:a/b/c", "hf:a/b@c@d", "hf:"):
        assert "is not a data set of the hub" in line(wrong)


def test_the_library_is_an_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    assert "pip install '.[data]' in a clone of vitreous" in line("hf:me/photos")


def test_a_data_set_is_not_a_model(hub):
    add(hub)
    with pytest.raises(InputError, match="that is a data set: vitreous train hf:me/photos"):
        fetch("hf:me/photos")
    with pytest.raises(InputError, match="is a data set, not weights; give it as DATA"):
        fetch("hf:datasets/me/photos")
